"""Loss curves from a learning summary: held-out rows, the rows just consumed, and the rows about to be."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from pythia_tools.plots import style

NAMES = {"heldout": "held out", "before": "just consumed", "after": "about to be consumed"}


def learning(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean loss (nats per token) by step; colour is size, line style is the subset of rows.

    `table`: summary rows with metric `nll` and subsets `heldout`, `before` and `after` (the checkpoint).
    """
    rows = style.require(table, "nll")
    ax = style.axes(ax)
    style.curves_by_kind(ax, rows, rows["subset"], {s: NAMES.get(s, s) for s in rows["subset"].unique()})
    style.step_axis(ax, rows["step"])
    ax.set_ylabel("loss (nats per token)")
    style.legend(ax)
    return ax
