"""Bias figures from summary tables: control against intervention, model by model; a measure by subset; agreement."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import at_last_step
from pythia_tools.plots import style

_CONTROL_COLOURS = ["#3b6ea8", "#7f8c99"]
_BRANCH_COLOURS = ["#c8553d", "#8a6bb1", "#3f8f5f", "#a8803b"]
_CONTROLS = ("main", "main-rerun")


def interventions(
    table: pd.DataFrame, metric: str, *, subset: str = "all", label: str | None = None, reference: float | None = None,
    from_step: int | None = None,
) -> Figure:
    """A panel per base model: the metric by step for the control and each intervention, with intervals.

    table: summary rows. A branch model shares the panel of the model that its differences are taken against (column
    reference); published results have the same model name in every branch. reference: a line (0.5: no bias). from_step:
    leave earlier steps out, to look at the branch point.
    """
    rows = style.require(table, metric)
    rows = rows[rows["subset"] == subset]
    if from_step is not None:
        rows = rows[rows["step"] >= from_step]
    if rows.empty:
        raise RequestError(f"metric {metric!r} has no rows of subset {subset!r} from step {from_step or 0} on")
    of = table[table["reference"].isin(set(table["model"].dropna()))].drop_duplicates("model").set_index("model")
    rows = rows.assign(model=rows["model"].replace(of["reference"].to_dict()))
    looks = _looks(sorted(rows["branch"].unique()))
    columns = 2 if rows["model"].nunique() == 4 else 3
    figure, panels = style.panels_by(rows, columns=columns, size=(3.7, 3.0), sharey=True)
    for ax, here in panels:
        for branch, (colour, line) in looks.items():
            style.curve(ax, here[here["branch"] == branch], colour=colour, style=line)
        if reference is not None:
            ax.axhline(reference, color="0.4", linewidth=0.8)
        if from_step is None:
            style.step_axis(ax, here["step"])
        else:
            style.plain_steps(ax)
            ax.locator_params(axis="x", nbins=4)
    figure.supylabel(label or f"{metric} ({subset})", fontsize=10)
    lines = [Line2D([], [], color=c, linestyle=line, marker="o", markersize=3.5) for c, line in looks.values()]
    style.name_unit(figure, rows)
    figure.legend(lines, list(looks), loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _looks(branches: list[str]) -> dict[str, tuple[str, Any]]:
    """Branch → colour and line: controls blue and grey, interventions in warm colours."""
    controls = [b for b in branches if b in _CONTROLS]
    others = [b for b in branches if b not in controls]
    looks = {b: (_CONTROL_COLOURS[k % 2], style.LINE_STYLES[k % 2]) for k, b in enumerate(controls)}
    return looks | {b: (_BRANCH_COLOURS[k % 4], style.LINE_STYLES[(k + 2) % 4]) for k, b in enumerate(others)}


def by_subset(table: pd.DataFrame, metric: str, *, reference: float | None = None) -> Axes:
    """The metric of every subset at each model's last step, as points with intervals; subsets down the side."""
    last = at_last_step(style.require(table, metric))
    subsets = sorted(last["subset"].unique(), key=lambda s: (s != "all", s), reverse=True)
    defined = set(last.dropna(subset=["value"])["subset"])
    ax = _down_the_side([s if s in defined else f"{s} (undefined)" for s in subsets], metric, last)
    models = last["model"].nunique()
    for number, (found, name, colour) in enumerate(style.each_size(last)):
        shift = (number - (models - 1) / 2) * 0.6 / models
        places = [subsets.index(subset) - shift for subset in found["subset"]]
        ax.errorbar(found["value"], places, xerr=style.error_bars(found), fmt="o", capsize=2, color=colour, label=name)
    if reference is not None:
        ax.axvline(reference, color="0.4", linewidth=0.8)
    style.legend(ax)
    return ax


def agreement(table: pd.DataFrame) -> Axes:
    """Rank correlations of pairs of measures over checkpoints (metric `agreement`), with intervals; zero marked."""
    rows = style.require(table, "agreement")
    names = rows["task"] + "  ·  " + rows["reference"] + rows["value"].isna().map({True: " (undefined)", False: ""})
    ax = _down_the_side(list(names), "rank correlation over checkpoints", rows)
    ax.errorbar(rows["value"], range(len(rows)), xerr=style.error_bars(rows), fmt="o", capsize=2)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_xlim(-1.05, 1.05)
    return ax


def _down_the_side(names: list[str], label: str, rows: pd.DataFrame) -> Axes:
    """Axes as high as these names down their side need, with the unit of the rows' intervals."""
    ax = style.axes(size=(6.4, 0.9 + 0.34 * len(names)))
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel(label)
    ax.set_title(style.unit_of(rows), loc="right", **style.NOTE)
    return ax
