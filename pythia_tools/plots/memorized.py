"""Figures of memorization, from summary tables: shares, order, predictability, scaling."""

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
    kinds = rows["cohort"].astype("string").radd("cohort ").fillna(rows["subset"])
    style.curves_by_kind(ax, rows, kinds, {kind: kind for kind in kinds.unique()})
    if metric != "mean_matched":
        low, top = ax.get_ylim()
        ax.set_ylim(bottom=min(0.0, low))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 2))
    return style.finished(ax, NAMES.get(metric, metric), steps=rows["step"])


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
    ax.set(xlim=(-0.5, top), ylim=(-0.5, top), aspect="equal", xlabel="Poisson quantile (memorized rows per block)")
    return style.finished(ax, "observed quantile (memorized rows per block)")


def poisson_panels(points: pd.DataFrame) -> Figure:
    """A Q–Q plot per model: points as from `qq_points`, with the columns model and params."""
    figure, panels = style.panels_by(points)
    for ax, own in panels:
        poisson_qq(own, ax)
        ax.set(xlabel="Poisson quantile", ylabel="")
        ax.get_legend().remove()  # type: ignore[union-attr]
    figure.axes[0].set_ylabel("memorized rows per block")
    return figure


def order_effect(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Dispersion of block counts by step with its interval, and the band of permuted rows. From `summarize_order`."""
    rows = style.require(table, "dispersion")
    null = style.require(table, "dispersion_permuted")
    ax = style.axes(ax)
    for own, name, colour in style.each_size(rows):
        points = own.dropna(subset=["value"]).sort_values("step")
        band = null[null["model"] == own["model"].iloc[0]].sort_values("step")
        steps = band["step"].astype(float)
        ax.fill_between(steps, band["low"], band["high"], color=colour, alpha=0.12, linewidth=0)
        ax.errorbar(points["step"].astype(float), points["value"], yerr=style.error_bars(points), fmt="o", color=colour,
                    capsize=2, label=name)
    ax.axhline(1.0, color="0.5", linewidth=1, linestyle="--", label="Poisson; bands: rows permuted")
    return style.finished(ax, "variance / mean of memorized rows per block", steps=rows["step"])


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
    for own, name, colour in style.each_size(precision, table):
        up = own.sort_values("step")
        along = recall.loc[up.index]
        x, y = along["value"].to_numpy(), up["value"].to_numpy()
        ax.plot(x, y, "-o", markersize=4, label=name, color=colour)
        ax.errorbar(x, y, xerr=style.error_bars(along), yerr=style.error_bars(up), fmt="none", ecolor=colour, alpha=0.4,
                    linewidth=1)
        ax.plot(x[-1:], y[-1:], "o", markersize=9, color=colour)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="recall: memorized rows that were predicted")
    ax.set_title(f"predicting {', '.join(dict.fromkeys(precision['reference']))}")
    return style.finished(ax, "precision: predicted rows that were memorized")


def memorization_scaling(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share memorized against parameters, a line per step, on logarithmic axes; shares of zero are open points."""
    rows = _decided(table, "memorized_share").dropna(subset=["params"])
    rows = rows[rows["exposures_low"].isna() & rows["cohort"].isna() & (rows["branch"] == "main")]
    ax = style.axes(ax)
    shown = style.spread(sorted(rows["step"].unique()), 6)
    floor = rows.loc[rows["value"] > 0, "value"].min() / 2 if (rows["value"] > 0).any() else 1e-3
    for step, colour in style.ramp(shown, ends=(0.85, 0.1)).items():
        points = rows[rows["step"] == step].sort_values("params")
        some, none = points[points["value"] > 0], points[points["value"] == 0]
        ax.errorbar(some["params"].astype(float), some["value"], yerr=style.error_bars(some), fmt="-o", color=colour,
                    capsize=2, label=f"step {style.human_count(step)}")
        ax.plot(none["params"].astype(float), [floor] * len(none), "o", markerfacecolor="none", color=colour)
    ax.set(xscale="log", yscale="log", xlabel="parameters")
    return style.finished(ax, "share of rows memorized (open: none)")


def _decided(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric's rows that have a value. Raises RequestError when no row was decided anywhere."""
    rows = style.require(table, metric)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        raise RequestError(f"{metric} has no value: no row was decided")
    return rows
