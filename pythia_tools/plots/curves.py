"""Curves over training from summary tables: losses, branches beside their control, paired differences."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

SUBSET_NAMES = {"heldout": "held out", "before": "just consumed", "after": "about to be consumed"}


def learning(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean loss (nats per token) by step; colour is size, line style is the subset of rows.

    `table`: summary rows with metric `nll` and subsets `heldout`, `before` and `after` (the checkpoint).
    """
    rows = style.require(table, "nll")
    ax = style.axes(ax)
    style.curves_by_kind(ax, rows, rows["subset"], {s: SUBSET_NAMES.get(s, s) for s in rows["subset"].unique()})
    return style.finished(ax, "loss (nats per token)", steps=rows["step"])


def branches_over_training(
    table: pd.DataFrame, metric: str, *, label: str, subset: str = "all", ax: Axes | None = None
) -> Axes:
    """One metric by step for every model: colour is size, line style is the branch."""
    rows = style.require(table, metric)
    rows = rows[rows["subset"] == subset]
    if rows.empty:
        has = ", ".join(map(str, table["subset"].unique()[:8]))
        raise RequestError(f"metric {metric!r} has no subset {subset!r}; it has: {has}")
    ax = style.axes(ax)
    branches = sorted(rows["branch"].unique(), key=lambda b: (b != "main", str(b)))
    looks = dict(zip(branches, cycle(style.LINE_STYLES), strict=False))
    for points, name, colour in style.each_size(rows):
        branch = points["branch"].iloc[0]
        style.curve(ax, points, label=name if branch == "main" else None, colour=colour, style=looks[branch])
    for branch in branches[1:]:
        ax.plot([], [], color="0.35", linestyle=looks[branch], label=f"branch: {branch}")
    return style.finished(ax, label, steps=rows["step"])


def paired_differences(
    table: pd.DataFrame, *, task: str = "pronoun_preference", subset: str = "all",
    label: str = "change in log-odds of she over he", ax: Axes | None = None,
) -> Axes:
    """Branch minus control by step with intervals, a line per branch model; zero is no effect."""
    rows = style.require(table, "paired_difference")
    rows = rows[(rows["task"] == task) & (rows["subset"] == subset) & rows["model"].notna()]
    ax = style.axes(ax)
    for own, name, colour in style.each_size(rows):
        points = own.sort_values("step")
        ax.errorbar(points["step"], points["value"], yerr=style.error_bars(points), marker="o", capsize=3, color=colour,
                    label=name)
    ax.axhline(0, color="0.4", linewidth=0.9)
    return style.finished(ax, label, xlabel="training step")
