"""Figures of term frequency: the paper's panels of accuracy against exposures, correlations and gaps over training, one
term's trajectory.

All take tables: bins from `term_frequency.binned_accuracy`, accuracy per term from `term_frequency.by_term` or
`term_frequency.read_published`, or summary tables.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style


def accuracy_by_frequency(bins: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """The paper's figure 5: a panel per size, accuracy against exposures up to the checkpoint, a line per checkpoint
    (darker: later).

    bins: model, params, step, left, accuracy; several tasks are refused.
    """
    points = bins.sort_values("left").assign(x=lambda f: f["left"].where(f["left"] > 0, 0.5))
    figure = _by_checkpoint(points, "exposures up to the step", "mean accuracy", marker="o", markersize=3)
    for ax in figure.axes:
        ax.set_xscale("log")
        if chance is not None:
            ax.axhline(chance, color="0.5", linewidth=0.8, linestyle=(0, (3, 3)))
    return figure


def accuracy_by_operand(terms: pd.DataFrame, *, width: int = 5) -> Figure:
    """A panel per size: accuracy against the first operand (mean of `width` neighbours), a line per checkpoint (darker:
    later).

    terms: model, params, step, term (a whole number), accuracy; several tasks are refused. Needs no exposures.
    """
    operands = pd.to_numeric(terms["term"], errors="coerce")
    if operands.isna().any():
        raise RequestError(
            f"term {terms.loc[operands.isna(), 'term'].iloc[0]!r} is not a number; this figure is of operands"
        )
    middle = (operands // width * width + (width - 1) / 2).rename("x")
    means = _only_one(terms).groupby(["model", "params", "step", middle], dropna=False)["accuracy"].mean().reset_index()
    return _by_checkpoint(means, "first operand", f"accuracy (means of {width})")


def _by_checkpoint(points: pd.DataFrame, xlabel: str, ylabel: str, **look: Any) -> Figure:
    """A panel per size: accuracy against x, a line per checkpoint (darker: later)."""
    figure, panels = style.panels_by(_only_one(points), columns=4, size=(2.9, 2.8), sharey=True, sharex=True)
    colours = style.ramp(sorted(points["step"].unique()), "viridis", ends=(0.9, 0.05))
    for ax, here in panels:
        for step, line in here.groupby("step"):
            ax.plot(line["x"], line["accuracy"], color=colours[step], label=f"{step:,}", linewidth=1.4, **look)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel(xlabel)
    for ax in figure.axes[::4]:
        ax.set_ylabel(ylabel)
    _legend_beside(figure, "step")
    return figure


def accuracy_over_training(table: pd.DataFrame) -> Figure:
    """A panel per task: mean accuracy over terms by step, a line per size.

    table: model, params, step, task, accuracy, one row per term (as `by_term` and `read_published` give it).
    """
    figure, panels = style.panels_by(table, "task", columns=5, size=(2.9, 2.6), sharey=True)
    for ax, here in panels:
        for points, name, colour in style.each_size(here, table):
            mean = points.groupby("step")["accuracy"].mean()
            ax.plot(mean.index, mean, marker="o", color=colour, label=name, markersize=3)
        ax.title.set_fontsize(9)
        ax.set_ylim(-0.02, 1.02)
        _steps(ax, here["step"])
    figure.axes[0].set_ylabel("mean accuracy over terms")
    _legend_beside(figure, "size")
    return figure


def correlation_over_training(table: pd.DataFrame, metric: str = "spearman") -> Figure:
    """A panel per task: a correlation by step, a line per size, its interval as a ribbon, zero marked."""
    rows = style.require(table, metric)
    rows = rows[(rows["branch"] == "main") & (rows["subset"] == "all")]
    figure, panels = style.panels_by(rows, "task", size=(4.4, 3.4), sharey=True)
    for ax, here in panels:
        style.curves(ax, here, coloured_as=rows)
        ax.axhline(0, color="0.5", linewidth=0.8)
        style.step_axis(ax, here["step"])
    style.name_unit(figure, rows, "rank correlation with exposures")
    style.legend(figure.axes[-1])
    return figure


def gap_over_training(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The performance gap (most seen minus least seen terms) by step, a line per size with its interval; zero is no
    gap.
    """
    rows = _only_one(style.require(table, "gap"))
    rows = rows[rows["branch"] == "main"]
    ax = style.axes(ax)
    style.curves(ax, rows)
    ax.axhline(0, color="0.5", linewidth=0.8)
    _steps(ax, rows["step"])
    return style.finished(ax, "performance gap (percentage points)", rows)


def term_trajectory(table: pd.DataFrame) -> Figure:
    """One term over training: accuracy with its interval (left axis) and exposures (grey, right axis), a panel per
    size.

    table: summary rows of `term_frequency.trajectory`.
    """
    rows = _only_one(_only_one(style.require(table, ["term_accuracy", "term_exposures"])), "term", column="subset")
    colours = style.size_colours(rows)
    figure, panels = style.panels_by(rows, size=(3.6, 2.8))
    for place, (ax, here) in enumerate(panels, start=1):
        style.curve(ax, here[here["metric"] == "term_accuracy"], colour=colours[here["model"].iloc[0]])
        seen = here[here["metric"] == "term_exposures"].sort_values("step")
        right = ax.twinx()
        right.plot(seen["step"], seen["value"], color="0.6", linewidth=1.2, drawstyle="steps-post")
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
        right.tick_params(colors="0.45")
        right.yaxis.set_major_formatter(lambda v, _: style.human_count(v))
        if place % 3 == 0 or place == len(panels):
            right.set_ylabel("exposures so far", color="0.45")
        _steps(ax, here["step"])
        ax.set_ylim(-0.02, 1.02)
        ax.set_title(f"{ax.get_title()}, {rows['subset'].iloc[0]}", fontsize=10)
    style.name_unit(figure, rows, "accuracy")
    return figure


def _steps(ax: Axes, steps: pd.Series) -> None:
    """The house's logarithmic step axis, or a plain one when the steps span less than two powers of ten, as the stored
    results do.
    """
    first, last = int(steps.min()), int(steps.max())
    if first > 0 and last < 100 * first:
        style.plain_steps(ax)
        ax.set_xlim(0, last * 1.05)
    else:
        style.step_axis(ax, steps, short=True)


def _legend_beside(figure: Figure, title: str) -> None:
    named = figure.axes[0].get_legend_handles_labels()
    figure.legend(*named, title=title, loc="outside right upper", frameon=False, fontsize=9)


def _only_one(table: pd.DataFrame, what: str = "task", *, column: str = "task") -> pd.DataFrame:
    if table.empty:
        raise RequestError("there is nothing to draw: no term lies in any bin")
    names = list(table[column].unique()) if column in table else []
    if len(names) > 1:
        raise RequestError(f"one {what} is drawn at a time; this table has {', '.join(map(str, names[:6]))}")
    return table
