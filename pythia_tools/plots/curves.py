"""Curves over training from summary tables: correlations, branches beside their control, paired differences."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style


def correlation_over_training(table: pd.DataFrame, metric: str = "spearman") -> Figure:
    """A panel per task: a correlation by step, a line per size, its interval as a ribbon, zero marked."""
    rows = style.require(table, metric)
    rows = rows[(rows["branch"] == "main") & (rows["subset"] == "all")]
    figure, panels = style.panels_by(rows, "task", size=(4.4, 3.4), sharey=True)
    for ax, here in panels:
        style.curves(ax, here, coloured_as=rows)
        ax.axhline(0, color="0.5", linewidth=0.8)
        style.step_axis(ax, here["step"])
    figure.axes[0].set_ylabel("rank correlation with exposures")
    style.legend(figure.axes[-1])
    return figure


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
    colours = style.size_colours(rows)
    branches = sorted(rows["branch"].unique(), key=lambda b: (b != "main", str(b)))
    for model in style.by_size(rows):
        points = rows[rows["model"] == model]
        branch = points["branch"].iloc[0]
        name = style.model_label(model, points["params"].iloc[0]) if branch == "main" else None
        look = style.LINE_STYLES[branches.index(branch) % 4]
        style.curve(ax, points, label=name, colour=colours[model], style=look)
    for number, branch in enumerate(branches[1:], start=1):
        ax.plot([], [], color="0.35", linestyle=style.LINE_STYLES[number % 4], label=f"branch: {branch}")
    style.step_axis(ax, rows["step"])
    ax.set_ylabel(label)
    style.legend(ax)
    return ax


def paired_differences(
    table: pd.DataFrame, *, task: str = "pronoun_preference", subset: str = "all",
    label: str = "change in log-odds of she over he", ax: Axes | None = None,
) -> Axes:
    """Branch minus control by step with intervals, a line per branch model; zero is no effect."""
    rows = style.require(table, "paired_difference")
    rows = rows[(rows["task"] == task) & (rows["subset"] == subset) & rows["model"].notna()]
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    for model in style.by_size(rows):
        points = rows[rows["model"] == model].sort_values("step")
        name = style.model_label(model, points["params"].iloc[0])
        look = {"marker": "o", "capsize": 3, "color": colours[model], "label": name}
        ax.errorbar(points["step"], points["value"], yerr=style.error_bars(points), **look)
    ax.axhline(0, color="0.4", linewidth=0.9)
    ax.set_xlabel("training step")
    ax.set_ylabel(label)
    style.legend(ax)
    return ax
