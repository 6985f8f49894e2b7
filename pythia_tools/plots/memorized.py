"""Figures of memorization, from summary tables: shares, order, predictability, scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

NAMES = {
    "memorized_share": "rows memorized", "mean_score": "mean memorization score",
    "mean_matched": "ids reproduced before the first miss",
}


def memorization(table: pd.DataFrame, ax: Axes | None = None, *, metric: str = "memorized_share") -> Axes:
    """Share of rows memorized by step, over all exposures; colour is size, line style the cohort or subset; a branch is
    dotted.

    `table`: from `memorization.summarize`.
    """
    rows = _decided(table, metric)
    rows = rows[rows["exposures_low"].isna()]
    if rows["cohort"].notna().any():
        rows = rows[rows["cohort"].notna()]
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    groups = rows["cohort"].astype("string").radd("cohort ").fillna(rows["subset"])
    names = list(dict.fromkeys(groups))
    for model in style.by_size(rows):
        for number, name in enumerate(names):
            points = rows[(rows["model"] == model) & (groups == name)]
            label = style.model_label(model, points["params"].iloc[0]) if number == 0 and len(points) else None
            dotted = len(points) > 0 and points["branch"].iloc[0] != "main"
            look = ":" if dotted else style.LINE_STYLES[number % 4]
            style.curve(ax, points, label=label, colour=colours[model], style=look)
    if len(names) > 1:
        for number, name in enumerate(names):
            ax.plot([], [], color="0.35", linestyle=style.LINE_STYLES[number % 4], label=str(name))
    style.step_axis(ax, rows["step"])
    ax.set_ylabel(NAMES.get(metric, metric))
    if metric != "mean_matched":
        _percent(ax)
    style.legend(ax)
    return ax


def poisson_qq(points: pd.DataFrame, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Observed against Poisson quantiles of memorized rows per block; area: number of blocks. From `qq_points`."""
    missing = {"theoretical", "observed", "multiplicity"} - set(points.columns)
    if missing:
        said = "make them with memorization.qq_points"
        raise RequestError(f"these are not Q–Q points: columns {sorted(missing)} are missing; {said}")
    ax = style.axes(ax, size=(4.6, 4.4))
    top = float(max(points["theoretical"].max(), points["observed"].max())) + 0.5
    ax.plot([-0.5, top], [-0.5, top], color="0.5", linewidth=1, linestyle="--", label="Poisson with the same mean")
    size = 18 + 220 * points["multiplicity"] / points["multiplicity"].max()
    ax.scatter(points["theoretical"], points["observed"], s=size, color="#3b6ea8", alpha=0.75, label=label, zorder=3)
    ax.set_xlim(-0.5, top)
    ax.set_ylim(-0.5, top)
    ax.set_aspect("equal")
    ax.set_xlabel("Poisson quantile (memorized rows per block)")
    ax.set_ylabel("observed quantile (memorized rows per block)")
    style.legend(ax)
    return ax


def poisson_panels(points: pd.DataFrame) -> Figure:
    """A Q–Q plot per model: points as from `qq_points`, with the columns model and params."""
    models = style.by_size(points)
    figure, grid = style.panels(len(models))
    for ax, model in zip(grid, models, strict=True):
        own = points[points["model"] == model]
        poisson_qq(own, ax)
        ax.set(title=style.model_label(model, own["params"].iloc[0]), xlabel="Poisson quantile", ylabel="")
        ax.get_legend().remove()  # type: ignore[union-attr]
    grid[0].set_ylabel("memorized rows per block")
    return figure


def order_effect(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Dispersion of block counts by step with its interval, and the band of permuted rows. From `summarize_order`."""
    rows = style.require(table, "dispersion")
    null = style.require(table, "dispersion_permuted")
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    for model in style.by_size(rows):
        points = rows[rows["model"] == model].dropna(subset=["value"]).sort_values("step")
        band = null[null["model"] == model].sort_values("step")
        steps = band["step"].astype(float)
        ax.fill_between(steps, band["low"], band["high"], color=colours[model], alpha=0.12, linewidth=0)
        name = style.model_label(model, points["params"].iloc[0]) if len(points) else model
        ax.errorbar(points["step"].astype(float), points["value"], yerr=style.error_bars(points), fmt="o",
                    color=colours[model], capsize=2, label=name)
    ax.axhline(1.0, color="0.5", linewidth=1, linestyle="--", label="Poisson; bands: rows permuted")
    style.step_axis(ax, rows["step"])
    ax.set_ylabel("variance / mean of memorized rows per block")
    style.legend(ax)
    return ax


def predictability(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Precision against recall of every predictor, joined over steps per model, the last one large.

    `table`: from `memorization.predictability`.
    """
    keys = ["model", "params", "step", "branch", "reference"]
    precision, recall = (style.require(table, metric).dropna(subset=["value"]).set_index(keys)
                         for metric in ("precision", "recall"))
    both = precision.index.intersection(recall.index)
    precision, recall = precision.loc[both].reset_index(), recall.loc[both].reset_index()
    ax = style.axes(ax, size=(5.4, 4.6))
    colours = style.size_colours(table)
    for model in style.by_size(precision):
        up = precision[precision["model"] == model].sort_values("step")
        along = recall.loc[up.index]
        x, y, look = along["value"].to_numpy(), up["value"].to_numpy(), dict[str, Any](color=colours[model])
        ax.plot(x, y, "-o", markersize=4, label=style.model_label(model, up["params"].iloc[0]), **look)
        ax.errorbar(x, y, xerr=style.error_bars(along), yerr=style.error_bars(up), fmt="none", ecolor=colours[model],
                    alpha=0.4, linewidth=1)
        ax.plot(x[-1:], y[-1:], "o", markersize=9, **look)
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.04)
    ax.set_xlabel("recall: memorized rows that were predicted")
    ax.set_ylabel("precision: predicted rows that were memorized")
    ax.set_title(f"predicting {', '.join(dict.fromkeys(precision['reference']))}")
    style.legend(ax)
    return ax


def memorization_scaling(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share memorized against parameters, a line per step, on logarithmic axes; shares of zero are open points."""
    rows = _decided(table, "memorized_share").dropna(subset=["params"])
    rows = rows[rows["exposures_low"].isna() & rows["cohort"].isna() & (rows["branch"] == "main")]
    ax = style.axes(ax)
    steps = sorted(rows["step"].unique())
    shown = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).astype(int))]
    floor = rows.loc[rows["value"] > 0, "value"].min() / 2 if (rows["value"] > 0).any() else 1e-3
    ramp = style.mpl.colormaps["plasma"](np.linspace(0.85, 0.1, len(shown)))
    for step, colour in zip(shown, ramp, strict=True):
        points = rows[rows["step"] == step].sort_values("params")
        some, none = points[points["value"] > 0], points[points["value"] == 0]
        ax.errorbar(some["params"].astype(float), some["value"], yerr=style.error_bars(some), fmt="-o", color=colour,
                    capsize=2, label=f"step {style.human_count(step)}")
        ax.plot(none["params"].astype(float), [floor] * len(none), "o", markerfacecolor="none", color=colour)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("parameters")
    ax.set_ylabel("share of rows memorized (open: none)")
    style.legend(ax)
    return ax


def _decided(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric's rows that have a value. Raises RequestError when no row was decided anywhere."""
    rows = style.require(table, metric)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        raise RequestError(f"{metric} has no value: no row was decided")
    return rows


def _percent(ax: Axes) -> None:
    top = ax.get_ylim()[1]
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 2))
