"""Bias figures from summary tables: control against intervention, model by model; a measure by category; agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

_CONTROL_COLOURS = ["#3b6ea8", "#7f8c99"]
_BRANCH_COLOURS = ["#c8553d", "#8a6bb1", "#3f8f5f", "#a8803b"]


def interventions(
    table: pd.DataFrame, metric: str, *, group: str = "all", label: str | None = None, reference: float | None = None,
    from_step: int | None = None, pairs: dict[str, str] | None = None,
) -> Figure:
    """A panel per base model: the metric by step for the control and each intervention, with intervals.

    table: summary rows. A branch model shares its control's panel when `pairs` (branch model → control) says so, or when
    it is called CONTROL-BRANCH; stored results have the same model name in every branch. reference: a line (0.5: no bias).
    from_step: leave earlier steps out, to look at the branch point.
    """
    rows = style.require(table, metric)
    rows = rows[rows["group"] == group]
    if from_step is not None:
        rows = rows[rows["step"] >= from_step]
    if rows.empty:
        raise RequestError(f"metric {metric!r} has no rows of group {group!r} from step {from_step or 0} on")
    rows = rows.assign(base=[_base(m, b, pairs or {}) for m, b in zip(rows["model"], rows["branch"], strict=True)])
    bases = style.by_size(rows.assign(model=rows["base"]))
    looks = _looks(sorted(rows["branch"].astype(str).unique()))
    figure, grid = style.panels(len(bases), columns=2 if len(bases) == 4 else 3, size=(3.7, 3.0), sharey=True)
    for ax, base in zip(grid, bases, strict=True):
        here = rows[rows["base"] == base]
        for branch, (colour, line) in looks.items():
            style.curve(ax, here[here["branch"] == branch], colour=colour, style=line)
        if reference is not None:
            ax.axhline(reference, color="0.4", linewidth=0.8)
        _axis(ax, here["step"], narrow=from_step is not None)
        ax.set_title(style.model_label(base, here["params"].iloc[0]))
    figure.supylabel(label or f"{metric} ({group})", fontsize=10)
    lines = [Line2D([], [], color=colour, linestyle=line, marker="o", markersize=3.5) for colour, line in looks.values()]
    figure.legend(lines, list(looks), loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _looks(branches: list[str]) -> dict[str, tuple[str, Any]]:
    """Branch → colour and line: controls blue and grey, interventions in warm colours."""
    controls = [b for b in branches if b.startswith("main")]
    others = [b for b in branches if b not in controls]
    looks: dict[str, tuple[str, Any]] = {b: (_CONTROL_COLOURS[k % 2], style.LINE_STYLES[k % 2]) for k, b in enumerate(controls)}
    looks |= {b: (_BRANCH_COLOURS[k % 4], style.LINE_STYLES[(k + 2) % 4]) for k, b in enumerate(others)}
    return looks


def by_group(table: pd.DataFrame, metric: str, *, reference: float | None = None, label: str | None = None, ax: Axes | None = None) -> Axes:
    """The metric of every group at each model's last step, as points with intervals; categories down the side."""
    rows = style.require(table, metric)
    last = rows[rows["step"] == rows.groupby("model")["step"].transform("max")]
    named = set(last["group"].astype(str))
    groups = sorted(named - {"all"}, reverse=True) + (["all"] if "all" in named else [])
    ax = style.axes(ax, size=(6.4, 0.9 + 0.34 * len(groups)))
    colours = style.size_colours(last)
    models = style.by_size(last)
    for number, model in enumerate(models):
        here = last[last["model"] == model].set_index("group")
        places = [k for k, g in enumerate(groups) if g in here.index]
        found = here.loc[[groups[k] for k in places]]
        shift = (number - (len(models) - 1) / 2) * 0.6 / max(1, len(models))
        errors = np.nan_to_num([found["value"] - found["low"], found["high"] - found["value"]])
        name = style.model_label(model, found["params"].iloc[0])
        look = {"fmt": "o", "capsize": 2, "color": colours[model], "label": name}
        ax.errorbar(found["value"], np.array(places) - shift, xerr=np.maximum(errors, 0), **look)
    if reference is not None:
        ax.axvline(reference, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(groups)), groups)
    ax.set_xlabel(label or metric)
    style.legend(ax)
    return ax


def agreement(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Rank correlations of pairs of measures over checkpoints (`bias.agreement`), with intervals; zero marked."""
    if table.empty or "first" not in table.columns:
        raise RequestError("nothing to draw: a table of bias.agreement has columns first, second, value, low, high")
    names = [f"{a}  ·  {b}" for a, b in zip(table["first"], table["second"], strict=True)]
    ax = style.axes(ax, size=(6.4, 0.9 + 0.34 * len(names)))
    errors = np.nan_to_num([table["value"] - table["low"], table["high"] - table["value"]])
    ax.errorbar(table["value"], range(len(names)), xerr=np.maximum(errors, 0), fmt="o", capsize=2)
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlim(-1.05, 1.05)
    ax.set_xlabel("rank correlation over checkpoints")
    return ax


def _base(model: str, branch: str, pairs: dict[str, str]) -> str:
    return pairs.get(model) or str(model).removesuffix(f"-{branch}")


def _axis(ax: Axes, steps: pd.Series, *, narrow: bool) -> None:
    if not narrow:
        style.step_axis(ax, steps)
        return
    ax.set_xlabel("training step")
    ax.xaxis.set_major_formatter(lambda v, _: style.human_count(v))
    ax.locator_params(axis="x", nbins=4)
