"""The paper's own summary, 19 logarithmic bins of exposures, and what else numbers differ in.

Biderman et al. 2023, figure 5: x is the count up to the checkpoint, y the mean accuracy of the operands in a bin. Its
table 4 is the metric `gap` of `summarize`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pythia_tools.analyses.term_frequency.statistics import by_term
from pythia_tools.core.tables import IDENTITY
from pythia_tools.tokens import Openable, open_tokenizer

PAPER_EDGES = tuple(float(e) for e in np.logspace(5, np.log10(2e8), 20))


def binned_accuracy(
    table: pd.DataFrame, exposures: pd.DataFrame | None = None, *, edges: Sequence[float] = PAPER_EDGES
) -> pd.DataFrame:
    """Per checkpoint, task and bin (left edge exclusive, right inclusive): left, right, accuracy (mean over terms), n
    (terms).

    Terms outside all bins are left out, as in the paper.
    """
    terms = by_term(table, exposures)
    limits = np.asarray(edges, dtype=np.float64)
    place = np.searchsorted(limits, terms["exposures"].to_numpy(np.float64), side="left") - 1
    inside = (place >= 0) & (place < len(limits) - 1)
    kept = terms[inside].assign(left=limits[place[inside]], right=limits[place[inside] + 1])
    bins = kept.groupby([*IDENTITY, "task", "left", "right"], sort=False, dropna=False)["accuracy"]
    found = bins.agg(accuracy="mean", n="size").reset_index()
    return found.sort_values(["params", "step", "task", "left"], ignore_index=True)


def number_controls(terms: Sequence[str], tokenizer: Openable) -> dict[str, Mapping[str, float]]:
    """What goes with a number's frequency besides it: length in tokens (after a space) and magnitude, for `summarize`.
    """
    lengths = open_tokenizer(tokenizer).ids(f" {t}" for t in terms)
    return {
        "token length": {t: float(len(ids)) for t, ids in zip(terms, lengths, strict=True)},
        "magnitude": {t: float(int(t)) for t in terms},
    }
