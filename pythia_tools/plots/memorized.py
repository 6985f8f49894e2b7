"""Figures of memorization, from summary tables: shares, order, predictability, scaling, and what consuming a row did:
causal profiles with the parallel-trends check, forgetting, membership, kinds.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

SIGNAL_NAMES = {
    "loss": "loss", "zlib": "loss / zlib", "min_k": "min-k %", "min_k_plus": "min-k++ %",
    "reference": "against a reference",
}
MEASURE_NAMES = {"nll": "loss (nats per token)", "advantage": "loss below rows never consumed (nats per token)"}


def memorization(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of rows memorized by step, over all exposures; colour is size, line style the cohort or subset; a branch is
    dotted.

    `table`: from `memorization.summarize`.
    """
    rows = _decided(table)
    rows = rows[rows["exposures_low"].isna()]
    if rows["cohort"].notna().any():
        rows = rows[rows["cohort"].notna()]
    ax = style.axes(ax)
    kinds = rows["cohort"].astype("string").radd("cohort ").fillna(rows["subset"])
    style.curves_by_kind(ax, rows, kinds, {kind: kind for kind in kinds.unique()})
    low, top = ax.get_ylim()
    ax.set_ylim(bottom=min(0.0, low))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 2))
    return style.finished(ax, "rows memorized", rows, steps=True)


def poisson_qq(points: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Observed against Poisson quantiles of memorized rows per block; area: number of blocks. From `qq_points`."""
    missing = {"theoretical", "observed", "multiplicity"} - set(points.columns)
    if missing:
        said = "make them with memorization.qq_points"
        raise RequestError(f"these are not Q–Q points: columns {sorted(missing)} are missing; {said}")
    ax = style.axes(ax, size=(4.6, 4.4))
    top = float(max(points["theoretical"].max(), points["observed"].max())) + 0.5
    ax.plot([-0.5, top], [-0.5, top], color="0.5", linewidth=1, linestyle="--", label="Poisson with the same mean")
    size = 18 + 220 * points["multiplicity"] / points["multiplicity"].max()
    ax.scatter(points["theoretical"], points["observed"], s=size, color="#3b6ea8", alpha=0.75, zorder=3)
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
    return style.finished(ax, "variance / mean of memorized rows per block", rows, steps=True)


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
    return style.finished(ax, "precision: predicted rows that were memorized", precision)


def memorization_scaling(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share memorized against parameters, a line per step, on logarithmic axes; shares of zero are open points."""
    rows = _decided(table).dropna(subset=["params"])
    rows = rows[rows["exposures_low"].isna() & rows["cohort"].isna() & (rows["branch"] == "main")]
    if rows.empty:
        raise RequestError("no main model's size is known, so nothing can be drawn against it")
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
    return style.finished(ax, "share of rows memorized (open: none)", rows)


def _decided(table: pd.DataFrame) -> pd.DataFrame:
    """The shares memorized that have a value. Raises RequestError when no row was decided anywhere."""
    rows = style.require(table, "memorized_share").dropna(subset=["value"])
    if rows.empty:
        raise RequestError("memorized_share has no value: no row was decided")
    return rows


def memorization_profile(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Effect of consuming a row, cohort × checkpoint, as a heat map of one model (the largest).

    `table`: from `memorization.summarize_profiles`.
    """
    rows, name = style.one_model(style.require(table, "effect"))
    grid = rows.pivot(index="cohort", columns="step", values="value")
    ax = style.axes(ax, size=(6.6, 4.4))
    most = float(np.nanmax(np.abs(grid.to_numpy()))) or 1.0
    image = ax.imshow(grid.to_numpy(), origin="lower", aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
    for axis, values in ((ax.xaxis, grid.columns), (ax.yaxis, grid.index)):
        places = style.spread(range(len(values)), 8)
        axis.set_ticks(places, [style.human_count(int(values[p])) for p in places])
    ax.grid(False)
    ax.set(title=name, xlabel="checkpoint (training step)", ylabel="cohort: first checkpoint that holds the rows")
    ax.figure.colorbar(image, ax=ax, label="memorization (effect; above 0: known better)")
    return ax


def memorization_persistence(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean effect by steps since the cohort's first checkpoint: instantaneous at 0, then persistent.

    Points left of 0 are placebo effects, the parallel-trends check: as far as their intervals leave out 0, trends were
    not parallel.
    """
    rows = style.require(table, ("persistent_effect", "before_effect"))
    ax = style.axes(ax)
    style.curves(ax, rows, x="since")
    ax.axhline(0, color="0.5", linewidth=1)
    ax.axvline(0, color="0.5", linewidth=1, linestyle=":")
    gaps = np.diff(np.sort(rows["since"].unique().astype(int)))
    if len(gaps) and gaps.max() > 2 * gaps.min():  # bins that double
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    since = "steps since the first checkpoint that holds the rows (below 0: placebo)"
    return style.finished(ax, "memorization (effect)", rows, xlabel=since)


def forgetting(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The advantage, else the loss, by steps since the last exposure; colour is size, line style the number of
    exposures.

    `table`: from `memorization.forgetting_curve`.
    """
    measure = "advantage" if (table["metric"] == "advantage_after_exposure").any() else "nll"
    rows = style.require(table, f"{measure}_after_exposure")
    ax = style.axes(ax)
    seen = rows["exposures_low"].astype("string").fillna("any")
    shown = style.spread(list(dict.fromkeys(seen[rows["exposures_low"].sort_values().index])), 4)
    style.curves_by_kind(ax, rows, seen, {k: f"{k} exposure{'s' if k != '1' else ''}" for k in shown}, x="since")
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    if measure == "advantage":
        ax.axhline(0, color="0.5", linewidth=1)
    return style.finished(ax, MEASURE_NAMES[measure], rows, xlabel="steps since the last exposure")


def membership(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Membership-inference AUC by step, a line per signal of one model (the largest)."""
    rows, name = style.one_model(style.require(table, "auc"))
    ax = style.axes(ax)
    for signal in dict.fromkeys(rows["task"]):
        style.curve(ax, rows[rows["task"] == signal], label=SIGNAL_NAMES.get(str(signal), str(signal)))
    ax.axhline(0.5, color="0.5", linewidth=1, linestyle="--", label="chance")
    ax.set_title(name)
    return style.finished(ax, "AUC, members against non-members", rows, steps=True)


def memorization_kinds(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shares of kinds of memorized rows, stacked bars per model at its last step; where none was memorized they are
    undefined, and said to be.
    """
    rows = style.require(table, "kind_share")
    ax = style.axes(ax)
    models = style.by_size(rows)
    bottom = np.zeros(len(models))
    for kind, colour in (("recitation", "#3b6ea8"), ("reconstruction", "#a8803b"), ("recollection", "#3f8f5f")):
        own = rows[rows["subset"] == kind].sort_values("step")
        last = own.drop_duplicates("model", keep="last").set_index("model")["value"]
        height = last.reindex(models).fillna(0).to_numpy(float)
        ax.bar(models, height, bottom=bottom, color=colour, label=kind, width=0.65)
        bottom += height
    undefined = rows.groupby("model")["value"].count() == 0
    ax.set_xticks(range(len(models)), [f"{m}\n(undefined)" if undefined[m] else m for m in models])
    ax.set_ylim(0, 1.0)
    ax.set_title(style.unit_of(rows), loc="right", **style.NOTE)
    ax.set_ylabel("share of memorized rows")
    style.legend(ax, outside=True)
    return ax
