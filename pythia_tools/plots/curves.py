"""Curves from summary tables: losses, branches and paired differences over training, and anything by exposures.

The figures by exposures read the rows of a summary that have `exposures_low`; others are left alone.
"""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

SUBSET_NAMES = {"heldout": "held out", "before": "just consumed", "after": "about to be consumed",
                "training": "of all training"}


def losses(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean loss (nats per token) by step; colour is size, line style is the subset of rows.

    `table`: summary rows with metric `nll`; subsets `heldout`, `before` and `after` (the checkpoint), `training` or
    ones of one's own (what is told apart in `training` is left to the table).
    """
    rows = style.require(table, "nll")
    rows = rows[~rows["subset"].isin(("training_consumed", "training_ahead"))]
    ax = style.axes(ax)
    style.curves_by_kind(ax, rows, rows["subset"], {s: SUBSET_NAMES.get(s, s) for s in rows["subset"].unique()})
    return style.finished(ax, "loss (nats per token)", rows, steps=True)


def branches_over_training(table: pd.DataFrame, metric: str, *, label: str, ax: Axes | None = None) -> Axes:
    """One metric (of the subset `all`) by step for every model: colour is size, line style is the branch."""
    rows = style.require(table[table["subset"] == "all"], metric)
    ax = style.axes(ax)
    branches = sorted(rows["branch"].unique(), key=lambda b: (b != "main", str(b)))
    looks = dict(zip(branches, cycle(style.LINE_STYLES), strict=False))
    for points, name, colour in style.each_size(rows):
        branch = points["branch"].iloc[0]
        style.curve(ax, points, label=name if branch == "main" else None, colour=colour, style=looks[branch])
    for branch in branches[1:]:
        ax.plot([], [], color="0.35", linestyle=looks[branch], label=f"branch: {branch}")
    return style.finished(ax, label, rows, steps=True)


def paired_differences(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Branch minus control of the pronoun preference by step with intervals, a line per branch model; zero is no
    effect.
    """
    rows = style.require(table, "paired_difference")
    rows = rows[(rows["task"] == "pronoun_preference") & (rows["subset"] == "all") & rows["model"].notna()]
    ax = style.axes(ax)
    for own, name, colour in style.each_size(rows):
        points = own.sort_values("step")
        ax.errorbar(points["step"], points["value"], yerr=style.error_bars(points), marker="o", capsize=3, color=colour,
                    label=name)
    ax.axhline(0, color="0.4", linewidth=0.9)
    return style.finished(ax, "change in log-odds of she over he", rows, xlabel="training step")


def levels(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric's rows of main runs that are told apart by exposures. Raises RequestError when there are none."""
    rows = style.require(table, metric)
    found = rows[rows["exposures_low"].notna() & rows["value"].notna() & (rows["branch"] == "main")]
    if found.empty:
        raise RequestError(f"{metric} is not told apart by exposures in this summary; summarize by exposures first")
    return found


def by_exposures(
    table: pd.DataFrame, metric: str = "memorized_share", *, label: str = "share memorized", ax: Axes | None = None
) -> Axes:
    """`metric` against exposures at each main model's last step, a line per size with its interval."""
    rows = tables.at_last_step(levels(table, metric))
    ax = style.axes(ax)
    for number, (own, name, colour) in enumerate(style.each_size(rows)):
        points = own.sort_values("exposures_low")
        x = points["exposures_low"].to_numpy(float) * 2 ** (0.06 * (number - 1))  # side by side, not one over the other
        ax.errorbar(x, points["value"], yerr=style.error_bars(points), marker="o", capsize=2, color=colour, label=name,
                    linewidth=1.6, elinewidth=0.9)
    _exposure_axis(ax, rows["exposures_low"])
    return style.finished(ax, label, rows)


def panels_over_training(table: pd.DataFrame, metric: str, *, label: str) -> Figure:
    """A panel per main model: `metric` over training, a line per level of exposures so far (brighter: fewer)."""
    rows = levels(table, metric)
    ramp = style.ramp(sorted(int(v) for v in rows["exposures_low"].unique()))
    figure, panels = style.panels_by(rows, sharey=True)
    for ax, here in panels:
        for level, colour in ramp.items():
            points = here[here["exposures_low"] == level]
            style.curve(ax, points, label=f"{level:,}", colour=colour, ribbon=0.07)
        style.step_axis(ax, here["step"], short=True)
    style.name_unit(figure, rows, label)
    style.legend(figure.axes[-1], title="exposures\n(from)", outside=True)
    return figure


def _exposure_axis(ax: Axes, found: pd.Series) -> None:
    """0, then powers of two."""
    marks = sorted({float(v) for v in found})
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.8)
    style.ticks_at(ax, marks)
    ax.set_xlim(-0.2 if marks[0] == 0 else marks[0] * 0.8, marks[-1] * 1.3)
    ax.set_xlabel("exposures up to that step (bins from)")
