"""The original memorization score: the share of continuation positions that greedy decoding reproduces.

Unlike extractability it needs real decoding after the first miss, for almost every row. Decoding starts where the row
first departs from the truth (known from the one pass), in batches of equal length with a cache of keys and values,
so that nothing decoded agrees with the truth by construction and nothing is decoded twice.
Cost: one step per position after the first miss. Source: Biderman et al. 2023, arXiv:2304.11158.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.memorization.extract import OK, Extraction, Window, extract, prepare
from pythia_tools.analyses.memorization.taxonomy import near_verbatim
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.models.score import automatic_batch_size

DECODED = 256
"""Rows decoded together at least: each step reads all weights once, whatever their number."""


def scores(
    model: nn.Module, rows: Any, window: Window | None = None, *, found: Extraction | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """(n,) float64 share of the continuation's ids that greedy decoding gives at the same position; NaN where not ok.

    `found`: what `extract` said of the same rows with the same window, if known. Exactly 1.0 means extractable.
    """
    return decoding_table(model, rows, window, found=found, batch_size=batch_size)["score"].to_numpy()


def decoding_table(
    model: nn.Module, rows: Any, window: Window | None = None, *, found: Extraction | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Per row, what decoding says of near-verbatim recall: score (share of equal places), edit_distance (ids), span
    (longest common run of ids, wherever it starts). Missing where status is not ok. Arguments as for `scores`.
    """
    window = window or Window()
    found = found or extract(model, rows, window, batch_size=batch_size)
    windows, _, _ = prepare(model, rows, window)
    near = near_verbatim(_decode(model, windows, window, found, batch_size), windows[:, window.context :])
    lost = found.status != OK
    score = near["agree"].mask(lost)
    distance, span = (near[c].astype("Int32").mask(lost) for c in ("edit_distance", "span"))
    return pd.DataFrame({"score": score, "edit_distance": distance, "span": span})


def continuations(
    model: nn.Module, rows: Any, window: Window | None = None, *, batch_size: int | None = None,
) -> np.ndarray:
    """(n, continuation) int64 ids that greedy decoding gives; −1 where a row's status is not ok."""
    window = window or Window()
    found = extract(model, rows, window, batch_size=batch_size)
    windows, _, _ = prepare(model, rows, window)
    decoded = _decode(model, windows, window, found, batch_size)
    decoded[found.status != OK] = LOST
    return decoded


def _decode(
    model: nn.Module, windows: np.ndarray, window: Window, found: Extraction, batch_size: int | None,
) -> np.ndarray:
    """Greedy continuations of every usable row; the part before a row's first miss is the truth itself."""
    decoded = windows[:, window.context :].copy()
    departs = np.flatnonzero((found.status == OK) & (found.matched < window.continuation))
    known = _floor_power(found.matched[departs])
    size = batch_size or max(DECODED, automatic_batch_size(model, window.length))
    for start in np.unique(known):
        group, left = departs[known == start], window.continuation - int(start)
        prompts = windows[group, : window.context + start]
        made = greedy(model, prompts, left, vocabulary=window.vocabulary, batch_size=size)
        decoded[group, start:] = [row + [LOST] * (left - len(row)) for row in made]
    return decoded


def _floor_power(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, 2, 4, 4, 4, 4, 8 …: few groups, so that batches stay full; the positions below are decoded again."""
    counts = counts.astype(np.int64)
    return np.where(counts > 0, 1 << np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
