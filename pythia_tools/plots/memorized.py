"""Figures of memorization, from summary tables: shares, exposures, order, foresight, scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

NAMES = {
    "memorized_share": "rows memorized", "mean_score": "mean memorization score",
    "mean_matched": "ids reproduced before the first miss",
}


def memorization(table: pd.DataFrame, ax: Axes | None = None, *, metric: str = "memorized_share") -> Axes:
    """Share of rows memorized by step; colour is size, line style the group; a branch is dotted. `table`: from `memorization.summarize`."""
    rows = _decided(table, metric)
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    groups = list(dict.fromkeys(rows["group"]))
    for model in style.by_size(rows):
        for number, group in enumerate(groups):
            points = rows[(rows["model"] == model) & (rows["group"] == group)]
            label = style.model_label(model, points["params"].iloc[0]) if number == 0 and len(points) else None
            dotted = len(points) > 0 and points["branch"].iloc[0] != "main"
            style.curve(ax, points, label=label, colour=colours[model], style=":" if dotted else style.LINE_STYLES[number % 4])
    if len(groups) > 1:
        for number, group in enumerate(groups):
            ax.plot([], [], color="0.35", linestyle=style.LINE_STYLES[number % 4], label=str(group))
    style.step_axis(ax, rows["step"])
    ax.set_ylabel(NAMES.get(metric, metric))
    if metric != "mean_matched":
        _percent(ax)
    style.legend(ax)
    return ax


def memorization_by_exposures(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share memorized against exposures so far, one line per model at its last step of the table. Groups are `exposures=N`."""
    rows = _decided(table, "memorized_share")
    number = rows["group"].str.extract(r"exposures=(\d+)", expand=False)
    rows = rows[number.notna()].assign(exposures=number.dropna().astype(int))
    if rows.empty:
        raise RequestError("this summary has no groups `exposures=N`; summarize with by='exposures'")
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    for model in style.by_size(rows):
        points = rows[rows["model"] == model]
        points = points[points["step"] == points["step"].max()]
        style.curve(ax, points, x="exposures", label=style.model_label(model, points["params"].iloc[0]), colour=colours[model])
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.6)
    ticks = sorted(set(rows["exposures"]))
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("exposures so far")
    ax.set_ylabel("rows memorized")
    _percent(ax)
    style.legend(ax)
    return ax


def poisson_qq(points: pd.DataFrame, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Observed against Poisson quantiles of memorized rows per block; area is the number of blocks. `points`: from `qq_points`."""
    missing = {"theoretical", "observed", "multiplicity"} - set(points.columns)
    if missing:
        raise RequestError(f"these are not Q–Q points: columns {sorted(missing)} are missing; make them with memorization.qq_points")
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


def order_effect(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Dispersion of block counts by step with its interval, and the band that permuted rows give. `table`: from `summarize_order`."""
    rows = style.require(table, "dispersion")
    null = style.require(table, "dispersion_permuted")
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    for model in style.by_size(rows):
        points = rows[rows["model"] == model].dropna(subset=["value"]).sort_values("step")
        band = null[null["model"] == model].sort_values("step")
        steps = band["step"].astype(float)
        ax.fill_between(steps, band["low"], band["high"], color=colours[model], alpha=0.12, linewidth=0)
        bars = np.abs(points[["low", "high"]].to_numpy(float).T - points["value"].to_numpy(float))
        name = style.model_label(model, points["params"].iloc[0]) if len(points) else model
        ax.errorbar(points["step"].astype(float), points["value"], yerr=bars, fmt="o", color=colours[model], capsize=2, label=name)
    ax.axhline(1.0, color="0.5", linewidth=1, linestyle="--", label="Poisson; bands: rows permuted")
    style.step_axis(ax, rows["step"])
    ax.set_ylabel("variance / mean of memorized rows per block")
    style.legend(ax)
    return ax


def foresight(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Precision against recall of every predictor, joined over steps per model, the last one large. From `memorization.foresight`."""
    rows = style.require(table, ("precision", "recall"))
    keys = ["model", "params", "step", "branch", "group"]
    wide = rows.pivot_table(index=keys, columns="metric", values=["value", "low", "high"], dropna=False, observed=True).dropna()
    ax = style.axes(ax, size=(5.4, 4.6))
    colours = style.size_colours(rows)
    flat = wide.reset_index()
    for model in style.by_size(rows):
        points = flat[flat["model"] == model].sort_values("step")
        if points.empty:
            continue
        x, y = points[("value", "recall")].to_numpy(), points[("value", "precision")].to_numpy()
        ax.plot(x, y, "-o", color=colours[model], markersize=4, label=style.model_label(model, points["params"].iloc[0]))
        for axis, metric in (("xerr", "recall"), ("yerr", "precision")):
            value = points[("value", metric)].to_numpy()
            error = np.abs(np.vstack([points[("low", metric)], points[("high", metric)]]) - value)
            options: dict[str, Any] = {axis: error}
            ax.errorbar(x, y, fmt="none", ecolor=colours[model], alpha=0.4, linewidth=1, **options)
        ax.plot(x[-1:], y[-1:], "o", color=colours[model], markersize=9)
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.04)
    ax.set_xlabel("recall: memorized rows that were foretold")
    ax.set_ylabel("precision: foretold rows that were memorized")
    ax.set_title(str(rows["group"].iloc[0]))
    style.legend(ax)
    return ax


def memorization_scaling(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share memorized against parameters, one line per step, on logarithmic axes; shares of zero stand at the bottom as open points."""
    rows = _decided(table, "memorized_share").dropna(subset=["params"])
    ax = style.axes(ax)
    steps = sorted(rows["step"].unique())
    shown = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).astype(int))]
    floor = rows.loc[rows["value"] > 0, "value"].min() / 2 if (rows["value"] > 0).any() else 1e-3
    ramp = style.mpl.colormaps["plasma"](np.linspace(0.85, 0.1, len(shown)))
    for step, colour in zip(shown, ramp, strict=True):
        points = rows[rows["step"] == step].sort_values("params")
        some = points[points["value"] > 0]
        bars = np.abs(some[["low", "high"]].to_numpy(float).T - some["value"].to_numpy(float))
        ax.errorbar(some["params"].astype(float), some["value"], yerr=bars, fmt="-o", color=colour, capsize=2, label=_step(step))
        none = points[points["value"] == 0]
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


def _step(step: int) -> str:
    return f"step {style.human_count(step)}"


def _percent(ax: Axes) -> None:
    top = ax.get_ylim()[1]
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 2))
