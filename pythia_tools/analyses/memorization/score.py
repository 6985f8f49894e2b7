"""The original memorization score: the share of continuation positions that greedy decoding reproduces.

Unlike extractability it needs real decoding after the first miss, for almost every row. Decoding starts where the row
first departs from the truth (known from the one pass), in batches of equal length with a cache of keys and values,
so that nothing decoded agrees with the truth by construction and nothing is decoded twice.
Cost: one step per position after the first miss. Source: Biderman et al. 2023, arXiv:2304.11158.
"""

from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.memorization.extract import OK, Extraction, Window, extract, prepare
from pythia_tools.analyses.memorization.summary import exposure_bins
from pythia_tools.analyses.memorization.taxonomy import near_verbatim
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.models.score import automatic_batch_size

DECODED = 256
"""Rows decoded together at least: each step reads all weights once, whatever their number."""


def decoding_table(
    model: nn.Module, rows: Any, window: Window | None = None, *, found: Extraction | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Per row, what decoding says of near-verbatim recall: score (share of equal places; 1.0 means extractable),
    edit_distance (ids), span (longest common run of ids, wherever it starts). Missing where status is not ok.

    `found`: what `extract` said of the same rows with the same window, if known.
    """
    window = window or Window()
    found = found or extract(model, rows, window, batch_size=batch_size)
    windows, _, _ = prepare(model, rows, window)
    truth = windows[:, window.context :]
    decoded = truth.copy()  # right up to each row's first miss
    departs = np.flatnonzero((found.status == OK) & (found.matched < window.continuation))
    known = exposure_bins(found.matched[departs])  # few groups, so that batches stay full; ids below are decoded again
    size = batch_size or max(DECODED, automatic_batch_size(model, window.length))
    for start in np.unique(known):
        group, left = departs[known == start], window.continuation - int(start)
        prompts = windows[group, : window.context + start]
        made = greedy(model, prompts, left, vocabulary=window.vocabulary, batch_size=size)
        decoded[group, start:] = [row + [LOST] * (left - len(row)) for row in made]
    near = near_verbatim(decoded, truth).rename(columns={"agree": "score"})
    lost = found.status != OK
    return near.astype({"edit_distance": "Int32", "span": "Int32"}).apply(lambda column: column.mask(lost))
