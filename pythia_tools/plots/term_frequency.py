"""Figures of term frequency: the paper's panels of accuracy against exposures, gaps over training, one term's
trajectory.

All take tables: bins from `term_frequency.binned_accuracy`, accuracy per term from `term_frequency.by_term` or
`term_frequency.read_published`, or summary tables.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style


def accuracy_by_frequency(
    bins: pd.DataFrame, *, chance: float | None = None, shift: float = 1.0, columns: int = 4
) -> Figure:
    """The paper's figure 5: a panel per size, accuracy against exposures up to the checkpoint, a line per checkpoint
    (darker: later).

    bins: model, params, step, left, accuracy; several tasks are refused. `shift`: points stand at left edge × shift
    (√10 for questions).
    """
    table = _one_task(bins)
    models = style.by_size(table)
    figure, grid = style.panels(len(models), columns=columns, size=(2.9, 2.8), sharey=True, sharex=True)
    steps = sorted(table["step"].unique())
    ramp = dict(zip(steps, mpl.colormaps["viridis"](np.linspace(0.9, 0.05, len(steps))), strict=True))
    for ax, model in zip(grid, models, strict=True):
        for step, points in table[table["model"] == model].groupby("step"):
            points = points.sort_values("left")
            x = np.where(points["left"] > 0, points["left"] * shift, 0.5)
            ax.plot(x, points["accuracy"], marker="o", color=ramp[step], label=f"{step:,}", markersize=3, linewidth=1.4)
        if chance is not None:
            ax.axhline(chance, color="0.5", linewidth=0.8, linestyle=(0, (3, 3)))
        ax.set_xscale("log")
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("exposures up to the step")
        ax.set_title(style.model_label(model, table.loc[table["model"] == model, "params"].iloc[0]))
    for ax in grid[::columns]:
        ax.set_ylabel("mean accuracy")
    _legend_beside(figure, grid[0], "step")
    return figure


def accuracy_by_operand(terms: pd.DataFrame, *, columns: int = 4, width: int = 5) -> Figure:
    """A panel per size: accuracy against the first operand (mean of `width` neighbours), a line per checkpoint (darker:
    later).

    terms: model, params, step, term (a whole number), accuracy; several tasks are refused. Needs no exposures.
    """
    table = _one_task(terms)
    table = table.assign(operand=pd.to_numeric(table["term"], errors="coerce"))
    if table["operand"].isna().any():
        raise RequestError(
            f"term {table.loc[table['operand'].isna(), 'term'].iloc[0]!r} is not a number; this figure is of operands"
        )
    models = style.by_size(table)
    figure, grid = style.panels(len(models), columns=columns, size=(2.9, 2.8), sharey=True, sharex=True)
    steps = sorted(table["step"].unique())
    ramp = dict(zip(steps, mpl.colormaps["viridis"](np.linspace(0.9, 0.05, len(steps))), strict=True))
    for ax, model in zip(grid, models, strict=True):
        for step, points in table[table["model"] == model].groupby("step"):
            smooth = points.groupby(points["operand"] // width * width)["accuracy"].mean()
            ax.plot(smooth.index + (width - 1) / 2, smooth, color=ramp[step], label=f"{step:,}", linewidth=1.4)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("first operand")
        ax.set_title(style.model_label(model, table.loc[table["model"] == model, "params"].iloc[0]))
    for ax in grid[::columns]:
        ax.set_ylabel(f"accuracy (means of {width})")
    _legend_beside(figure, grid[0], "step")
    return figure


def accuracy_over_training(table: pd.DataFrame) -> Figure:
    """A panel per task: mean accuracy over terms by step, a line per size.

    table: model, params, step, task, accuracy, one row per term (as `by_term` and `read_published` give it).
    """
    tasks = list(dict.fromkeys(table["task"].astype(str)))
    figure, grid = style.panels(len(tasks), columns=min(5, len(tasks)), size=(2.9, 2.6), sharey=True)
    colours = style.size_colours(table)
    for ax, task in zip(grid, tasks, strict=True):
        here = table[table["task"] == task]
        for model in style.by_size(here):
            points = here[here["model"] == model]
            mean = points.groupby("step")["accuracy"].mean()
            name = style.model_label(model, points["params"].iloc[0])
            ax.plot(mean.index, mean, marker="o", color=colours[model], label=name, markersize=3)
        ax.set_title(task, fontsize=9)
        ax.set_ylim(-0.02, 1.02)
        _steps(ax, here["step"])
    grid[0].set_ylabel("mean accuracy over terms")
    _legend_beside(figure, grid[0], "size")
    return figure


def gap_over_training(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The performance gap (most seen minus least seen terms) by step, a line per size with its interval; zero is no
    gap.
    """
    rows = _one_task(style.require(table, "gap"))
    rows = rows[rows["branch"] == "main"]
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    for model in style.by_size(rows):
        points = rows[rows["model"] == model]
        style.curve(ax, points, label=style.model_label(model, points["params"].iloc[0]), colour=colours[model])
    ax.axhline(0, color="0.5", linewidth=0.8)
    _steps(ax, rows["step"])
    ax.set_ylabel("performance gap (percentage points)")
    style.legend(ax)
    return ax


def term_trajectory(table: pd.DataFrame, *, columns: int = 3) -> Figure:
    """One term over training: accuracy with its interval (left axis) and exposures (grey, right axis), a panel per
    size.

    table: summary rows of `term_frequency.trajectory`.
    """
    rows = _one_task(style.require(table, ["term_accuracy", "term_exposures"]))
    terms = rows["subset"].unique()
    if len(terms) != 1:
        raise RequestError(f"one term is drawn at a time; this table has {', '.join(map(str, terms[:6]))}")
    models = style.by_size(rows)
    colours = style.size_colours(rows)
    figure, grid = style.panels(len(models), columns=columns, size=(3.6, 2.8))
    for place, (ax, model) in enumerate(zip(grid, models, strict=True)):
        here = rows[rows["model"] == model]
        style.curve(ax, here[here["metric"] == "term_accuracy"], colour=colours[model])
        seen = here[here["metric"] == "term_exposures"].sort_values("step")
        right = ax.twinx()
        right.plot(seen["step"], seen["value"], color="0.6", linewidth=1.2, drawstyle="steps-post")
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
        right.tick_params(colors="0.45")
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: style.human_count(v)))
        if (place + 1) % columns == 0 or place + 1 == len(models):
            right.set_ylabel("exposures so far", color="0.45")
        _steps(ax, here["step"])
        ax.set_ylim(-0.02, 1.02)
        ax.set_title(f"{style.model_label(model, here['params'].iloc[0])}, {terms[0]}", fontsize=10)
    grid[0].set_ylabel("accuracy")
    return figure


def _steps(ax: Axes, steps: pd.Series) -> None:
    """The house's logarithmic step axis, or a plain one when the steps span less than two powers of ten, as the stored
    results do.
    """
    known = sorted({int(s) for s in steps})
    if known[0] > 0 and known[-1] < 100 * known[0]:
        ax.set_xlabel("training step")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: style.human_count(v)))
        ax.set_xlim(0, known[-1] * 1.05)
    else:
        style.step_axis(ax, known, short=True)


def _legend_beside(figure: Figure, ax: Axes, title: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, title=title, loc="outside right upper", frameon=False, fontsize=9)


def _one_task(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        raise RequestError("there is nothing to draw: no term lies in any bin")
    if "task" in table and table["task"].nunique() > 1:
        raise RequestError(
            f"one task is drawn at a time; this table has {', '.join(map(str, table['task'].unique()[:6]))}"
        )
    return table
