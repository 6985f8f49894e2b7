"""Figures of what consuming a row did to it: causal profiles, parallel-trends check, forgetting, membership, kinds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pythia_tools.plots import style

SIGNAL_NAMES = {
    "loss": "loss", "zlib": "loss / zlib", "min_k": "min-k %", "min_k_plus": "min-k++ %",
    "reference": "against a reference",
}
MEASURE_NAMES = {
    "nll": "loss (nats per token)", "advantage": "loss below rows never consumed (nats per token)",
    "top1": "ids predicted",
}


def memorization_profile(table: pd.DataFrame, ax: Axes | None = None, *, model: str | None = None) -> Axes:
    """Effect of consuming a row, cohort × checkpoint, as a heat map of one model (default: the largest).

    `table`: from `memorization.summarize_profiles`.
    """
    rows, name = style.one_model(style.require(table, "effect"), model)
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
    return style.finished(ax, "memorization (effect)", xlabel=since)


def forgetting(table: pd.DataFrame, ax: Axes | None = None, *, measure: str | None = None) -> Axes:
    """A measure by steps since the last exposure; colour is size, line style the number of exposures.

    `table`: from `memorization.forgetting_curve`; measure: its column (default: advantage, else nll).
    """
    measure = measure or ("advantage" if (table["metric"] == "advantage_after_exposure").any() else "nll")
    rows = style.require(table, f"{measure}_after_exposure")
    ax = style.axes(ax)
    seen = rows["exposures_low"].astype("string").fillna("any")
    shown = style.spread(list(dict.fromkeys(seen[rows["exposures_low"].sort_values().index])), 4)
    style.curves_by_kind(ax, rows, seen, {k: f"{k} exposure{'s' if k != '1' else ''}" for k in shown}, x="since")
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    if measure == "advantage":
        ax.axhline(0, color="0.5", linewidth=1)
    return style.finished(ax, MEASURE_NAMES.get(measure, measure), xlabel="steps since the last exposure")


def membership(table: pd.DataFrame, ax: Axes | None = None, *, metric: str = "auc", model: str | None = None) -> Axes:
    """Membership-inference AUC (or a true-positive rate) by step, a line per signal of one model (the largest)."""
    rows, name = style.one_model(style.require(table, metric), model)
    ax = style.axes(ax)
    for signal in dict.fromkeys(rows["task"]):
        style.curve(ax, rows[rows["task"] == signal], label=SIGNAL_NAMES.get(str(signal), str(signal)))
    chance = 0.5 if metric == "auc" else float(metric.removeprefix("tpr_at_fpr_"))
    ax.axhline(chance, color="0.5", linewidth=1, linestyle="--", label="chance")
    ax.set_title(name)
    rate = f"true-positive rate at {chance:.1%} false positives"
    return style.finished(ax, "AUC, members against non-members" if metric == "auc" else rate, steps=rows["step"])


def memorization_kinds(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shares of kinds of memorized rows, stacked bars per model at its last step."""
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
    ax.set_ylim(0, 1.0)
    ax.set_ylabel("share of memorized rows")
    style.legend(ax, outside=True)
    return ax
