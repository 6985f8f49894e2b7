"""The paper's own summaries: 19 logarithmic bins of exposures, and the performance gap per model, shots and checkpoint.

Biderman et al. 2023, figure 5 and table 4: x is the count up to the checkpoint, y the mean accuracy of the operands in
a bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pythia_tools.analyses.term_frequency.gap import TOP, gap
from pythia_tools.analyses.term_frequency.statistics import by_term
from pythia_tools.core.tables import IDENTITY
from pythia_tools.tokens import Openable, open_tokenizer

PAPER_EDGES = tuple(float(e) for e in np.logspace(5, np.log10(2e8), 20))
QA_EDGES = tuple(10.0**k for k in range(7))
"""Question answering: 10⁰ … 10⁶; questions never seen go into the first bin, and points stand at edge·√10."""


def binned_accuracy(
    table: pd.DataFrame, exposures: pd.DataFrame, *, edges: Sequence[float] = PAPER_EDGES, zeros_in_first: bool = False,
) -> pd.DataFrame:
    """Per checkpoint, task and bin (left edge exclusive, right inclusive): left, right, accuracy (mean over terms), n
    (terms).

    Terms outside all bins are left out, as in the paper; `zeros_in_first` puts those below the first edge into the
    first bin instead.
    """
    terms = by_term(table, exposures)
    limits = np.asarray(edges, dtype=np.float64)
    place = np.searchsorted(limits, terms["exposures"].to_numpy(np.float64), side="left") - 1
    if zeros_in_first:
        place = np.maximum(place, 0)
    inside = (place >= 0) & (place < len(limits) - 1)
    kept = terms[inside].assign(left=limits[place[inside]], right=limits[place[inside] + 1])
    grouped = kept.groupby(
        [*IDENTITY, "task", "left", "right"], sort=False, dropna=False
    )["accuracy"].agg(["mean", "size"]).reset_index()
    return grouped.rename(columns={"mean": "accuracy", "size": "n"}).sort_values(
        ["params", "step", "task", "left"], ignore_index=True
    )


def gap_table(table: pd.DataFrame, exposures: pd.DataFrame, *, top: int = TOP) -> pd.DataFrame:
    """The paper's table 4 with intervals: per checkpoint and task, gap in percentage points (value, low, high, n)."""
    terms = by_term(table, exposures)
    rows = []
    for key, part in terms.groupby([*IDENTITY, "task"], sort=False, dropna=False):
        estimate = gap(part["exposures"], part["accuracy"], top=top)
        rows.append({**dict(zip([*IDENTITY, "task"], key, strict=True)), **estimate.columns()})
    return pd.DataFrame(rows)


def number_controls(terms: Sequence[str], tokenizer: Openable) -> dict[str, Mapping[str, float]]:
    """What goes with a number's frequency besides it: length in tokens (after a space) and magnitude, for `summarize`.
    """
    lengths = open_tokenizer(tokenizer).ids(f" {t}" for t in terms)
    return {
        "token length": {t: float(len(ids)) for t, ids in zip(terms, lengths, strict=True)},
        "magnitude": {t: float(int(t)) for t in terms},
    }
