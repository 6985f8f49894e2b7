"""Figures of curves' shapes: saturation, decisions, mirages, phases, states, seeds.

Each takes the summary and the items of a fit (`pythia_tools.fitting`).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.plots import style

MOST = 9
"""Panels of a figure at most; the first ones are drawn."""
_CURVE = ("suite", "model", "branch", "seed", "task", "subset", "metric")


def saturation(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per task and metric: every curve, grey; those that fall from their peak in colour, with the peak."""
    verdicts = summary[summary["metric"] == "saturates"]
    figure, panels = _panels(items, [c for c in ("task", "metric") if c in items])
    for ax, part in panels:
        curves = [(curve, bool((_same(verdicts, curve)["value"] > 0).any())) for _, curve in _curves(part)]
        names = _names([curve for curve, falls in curves if falls])
        colours = style.ramp(names, ends=(0.1, 0.75))
        for curve, falls in sorted(curves, key=lambda c: c[1]):
            label = names.pop(0) if falls else None
            colour = colours[label] if label is not None else "0.75"
            ax.plot(curve["step"], curve["value"], color=colour, label=label, linewidth=1.8 if falls else 0.9)
            if falls:
                top = curve[curve["value"] == curve["peak"]].iloc[0]
                ax.plot(top["step"], top["value"], marker="o", color=colour, markersize=7)
        style.step_axis(ax, part["step"], short=True)
        style.legend(ax, title="falls from its peak")
    return figure


def _names(curves: list[pd.DataFrame]) -> list[str]:
    """What tells these curves apart, and at least their models."""
    keys = pd.DataFrame([curve.iloc[0] for curve in curves]).reindex(columns=[*_CURVE]).astype("string").fillna("")
    told = [c for c in _CURVE if c == "model" or keys[c].nunique() > 1]
    return [" ".join(filter(None, row)) for row in keys[told].itertuples(index=False)]


def decisions(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per task: decision accuracy by size, a line per metric, with its interval."""
    rows = summary[summary["metric"] == "decision_accuracy"]
    figure, panels = _panels(rows.assign(task=rows["task"].fillna("")), ["task"])
    for ax, part in panels:
        for metric, points in part.groupby("reference", sort=False):
            ax.errorbar(points["params"].astype(float), points["value"], yerr=style.error_bars(points), marker="o",
                        capsize=2, label=str(metric), linewidth=1.6)
        ax.axhline(0.5, color="0.5", linewidth=0.9, linestyle=":")
        ax.set_xscale("log")
        style.ticks_at(ax, sorted(part["params"].astype(float).unique()))
        ax.set_ylim(None, 1.02)
        ax.set_xlabel("parameters of the small runs")
        style.legend(ax, title="ranked by")
    style.name_unit(figure, rows, "pairs of corpora ranked\nas at the largest size")
    return figure


def mirage(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per accuracy curve: progress of accuracy (thick) and of the other metrics; the jump is shaded."""
    keys = [c for c in _CURVE if c in items and c != "metric"]
    figure, panels = _panels(items, keys)
    for ax, part in panels:
        ax.axvspan(float(part["jump_from"].iloc[0]), float(part["jump_until"].iloc[0]), color="0.9", zorder=0)
        for metric, curve in part.groupby("metric", sort=False):
            exact = bool(curve["exact"].iloc[0])
            ax.plot(curve["step"], curve["progress"], marker="o", markersize=3, label=str(metric),
                    linewidth=2.6 if exact else 1.3, color="black" if exact else None)
        ax.set_title(f"{ax.get_title()}: {part['verdict'].iloc[0]}", fontsize=9)
        ax.set_ylim(-0.1, 1.1)
        style.step_axis(ax, part["step"], short=True)
        style.legend(ax)
    figure.axes[0].set_ylabel("progress (share of the whole)")
    return figure


def phases(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per curve: values, the pieces' lines, and the interval of every change, shaded between checkpoints."""
    figure, panels = _panels(items, [c for c in _CURVE if c in items])
    changes = summary[summary["metric"] == "change_before"]
    for ax, part in panels:
        ax.plot(part["step"], part["value"], "o", markersize=3, color="0.35")
        for _, piece in part.groupby("phase"):
            ax.plot(piece["step"], piece["fitted"], linewidth=2)
        for _, change in _same(changes, part).iterrows():
            ax.axvspan(float(change["low"]), float(change["high"]), color="#a8803b", alpha=0.15, zorder=0)
            ax.axvspan(float(change["step"]), float(change["value"]), color="#a8803b", alpha=0.35, zorder=0)
        style.step_axis(ax, part["step"], short=True)
    return figure


def states(summary: pd.DataFrame, items: pd.DataFrame) -> Axes:
    """A map: a row per run, its state at every checkpoint by colour and number."""
    runs = items[[c for c in ("suite", "model", "branch", "seed") if c in items]].astype("string").fillna("")
    varying = [c for c in runs if runs[c].nunique() > 1] or list(runs)[:1]
    names = runs[varying].agg(" ".join, axis=1).str.strip() if varying else pd.Series("run", index=items.index)
    labelled = items.assign(run=[f"seed {n}" if varying == ["seed"] else n for n in names])
    grid = labelled.pivot_table(index="run", columns="step", values="state", sort=False).sort_index(axis=1)
    ax = style.axes(size=(0.28 * grid.shape[1] + 2.2, 0.3 * grid.shape[0] + 1.3))
    held = grid.to_numpy(float)
    ax.imshow(held, aspect="auto", cmap="viridis", interpolation="nearest", vmin=0.5, vmax=np.nanmax(held) + 0.5)
    for (row, column), state in np.ndenumerate(held):
        if np.isfinite(state):
            bright = state > 0.6 * np.nanmax(held)
            ax.text(column, row, f"{state:.0f}", ha="center", va="center", fontsize=7,
                    color="black" if bright else "white")
    ax.set_xticks(range(grid.shape[1]), [style.human_count(float(s)) for s in grid.columns], rotation=90, fontsize=7)
    ax.set_yticks(range(grid.shape[0]), list(grid.index), fontsize=8)
    ax.grid(visible=False)
    ax.set_xlabel("training step")
    return ax


def seeds(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per group of runs: median and quartiles over seeds; runs that stray, from the step at which they part."""
    figure, panels = _panels(items, [c for c in ("suite", "group", "task", "subset", "metric") if c in items])
    medians = summary[summary["metric"] == "median"]
    for ax, part in panels:
        ribbon = _same(medians, part.assign(model=part["group"]).drop(columns=["seed"], errors="ignore"))
        style.curve(ax, ribbon, label="median, quartiles", colour="#3b6ea8", ribbon=0.3)
        strays = part[part["outlier"].astype(bool)]
        for number, (_, run) in enumerate(_curves(strays)):
            seed = run["seed"].iloc[0] if "seed" in run else pd.NA
            name = run["model"].iloc[0] if pd.isna(seed) else f"seed {seed}"
            colour = ("#c8553d", "#8a6bb1", "#a8803b", "#3f8f5f")[number % 4]
            ax.plot(run["step"], run["value"], color=colour, linewidth=1.3, label=f"{name} strays")
            parts = run["parts_from"].iloc[0]
            if not pd.isna(parts):
                here = run[run["step"] == parts]
                ax.plot(here["step"], here["value"], marker="o", color=colour, markersize=7)
        style.step_axis(ax, part["step"], short=True)
        style.legend(ax)
    return figure


def _panels(table: pd.DataFrame, keys: list[str]) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """At most MOST panels, one for each combination of the keys, titled by those that differ (or say anything)."""
    cells = table[keys].astype("string").fillna("") if keys else pd.DataFrame(index=table.index)
    told = [c for c in keys if cells[c].nunique() > 1] or keys[-1:]
    titles = cells[told].agg(" ".join, axis=1).str.strip() if told else pd.Series("", index=table.index)
    if "seed" in told:
        titles = cells[told].assign(seed="seed " + cells["seed"]).agg(" ".join, axis=1).str.strip()
    shown = list(dict.fromkeys(titles))[:MOST]
    kept = table.assign(panel=titles)[titles.isin(shown)]
    figure, panels = style.panels_by(kept, "panel", size=(4.4, 3.2) if len(shown) > 1 else (6.4, 4.0))
    if "metric" in keys and "metric" not in told:
        figure.axes[0].set_ylabel(str(cells["metric"].iloc[0]))
    return figure, panels


def _curves(table: pd.DataFrame) -> Iterator[tuple[object, pd.DataFrame]]:
    """The curves of a table, each in order of steps."""
    keys = [c for c in _CURVE if c in table]
    groups = table.groupby(keys, dropna=False, sort=False) if keys else [("", table)]
    for name, part in groups:
        yield name, part.sort_values("step")


def _same(summary: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary that belong to the curve of these items; a fit's rows name the fitted metric as reference."""
    kept = np.ones(len(summary), dtype=bool)
    for column, place in {**{c: c for c in ("suite", "model", "branch", "seed", "task", "subset")},
                          "metric": "reference"}.items():
        if column in part.columns:
            empty = "all" if column == "subset" else ""
            want = _text(part[column].iloc[:1]).fillna("").iloc[0]
            kept &= (_text(summary[place]).fillna(empty) == (want or empty)).to_numpy(bool)
    return summary[kept]


def _text(values: pd.Series) -> pd.Series:
    """As text, whole numbers without a point: a seed is an integer in one table and a float in the other."""
    return values.astype("Int64" if pd.api.types.is_numeric_dtype(values) else "string").astype("string")
