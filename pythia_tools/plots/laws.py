"""Figures of scaling laws: the law over compute, what it leaves over, and what it predicted of parts held out.

Each takes the summary and the items of a fit (`fitting.law_forms`): points with run, params, tokens, flops, loss,
fitted, residual, and the points held out with predicted, low and high.
"""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.plots import style


def law_by_compute(summary: pd.DataFrame, items: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Loss by training FLOPs: points as measured, a line through what the law says of each size; colour is size."""
    ax = style.axes(ax)
    points = items[items["held_out"].isna()]
    if "params" in points:  # to two digits: sizes that were read off a figure differ in the last ones
        points = points.assign(params=[float(f"{size:.2g}") for size in points["params"]])
    sizes = _sizes(points)
    colours = style.ramp(sizes, "viridis", ends=(0.82, 0.08))
    shown = set(style.spread(sizes, 8))
    for size in sizes:
        own = points if np.isnan(size) else points[points["params"] == size]
        own = own.sort_values("flops")
        label = None if np.isnan(size) or size not in shown else style.human_count(size)
        ax.scatter(own["flops"], own["loss"], s=14, color=colours[size], label=label)
        ax.plot(own["flops"], own["fitted"], color=colours[size], linewidth=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    style.plain_losses(ax)
    return style.finished(ax, _name(summary), xlabel="training FLOPs")


def law_residuals(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """Measured over fitted loss − 1 by each variable of the law, a panel each."""
    points = items[items["held_out"].isna()]
    names = [name for name in ("params", "tokens", "flops") if name in points]
    figure, panels = style.row_of_panels(len(names))
    for ax, name in zip(panels, names, strict=True):
        ax.axhline(0, color="0.4", linewidth=0.9)
        ax.scatter(points[name], 100 * np.expm1(points["residual"]), s=12)
        ax.set_xscale("log")
        ax.set_xlabel({"params": "parameters", "tokens": "training tokens", "flops": "training FLOPs"}[name])
    panels[0].set_ylabel("measured over the law (%)")
    return figure


def law_held_out(summary: pd.DataFrame, items: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Predicted by measured loss of points held out, with prediction intervals; the line is equality."""
    ax = style.axes(ax)
    held = items[items["held_out"].notna()]
    for part, own in held.groupby("held_out", sort=False):
        bars = style.error_bars(own.rename(columns={"predicted": "value"}))
        ax.errorbar(own["loss"], own["predicted"], yerr=bars, fmt="o", capsize=2, elinewidth=0.9, label=part)
    if len(held):
        ends = [held[["loss", "low"]].min().min(), held[["loss", "high"]].max().max()]
        ax.plot(ends, ends, color="0.4", linewidth=0.9)
    else:
        ax.text(0.5, 0.5, "too few budgets to hold some out", ha="center", transform=ax.transAxes, **style.NOTE)
    return style.finished(ax, f"predicted {_name(summary)}", xlabel=f"measured {_name(summary)}")


def _sizes(points: pd.DataFrame) -> list[float]:
    """The sizes there are, in order; one NaN where the table knows none."""
    return sorted(float(v) for v in points["params"].unique()) if "params" in points else [float("nan")]


def _name(summary: pd.DataFrame) -> str:
    """What was fitted."""
    return str(summary["task"].iloc[0])


def ladder_accuracy(summary: pd.DataFrame, items: pd.DataFrame) -> Figure:
    """A panel per task: accuracy by task loss of checkpoints, the sigmoid, and what was predicted and reached."""
    figure, panels = style.panels_by(items, "task")
    for ax, own in panels:
        curve = own.sort_values("loss")
        ax.scatter(own["loss"], own["accuracy"], s=4, color="0.6", label="fitted runs")
        ax.plot(curve["loss"], curve["fitted"], linewidth=1)
        rows = summary[summary["task"] == own["task"].iloc[0]].set_index(["subset", "metric"])
        runs = rows.index.unique("subset").drop("all")
        for colour, run in zip(cycle(("#c8553d", "#3b6ea8", "#3f8f5f")), runs, strict=False):
            told = rows.loc[run].to_dict("index")
            bars = style.error_bars(pd.DataFrame([told["predicted_accuracy"]]))
            ax.errorbar([told["predicted_loss"]["value"]], [told["predicted_accuracy"]["value"]], yerr=bars, fmt="o",
                        color=colour, markersize=4, capsize=2, label=f"{run}, predicted")
            ax.plot([told["loss"]["value"]], [told["accuracy"]["value"]], "x", color=colour, label=f"{run}, reached")
        ax.set_xlabel("task loss")
    figure.axes[0].set_ylabel("accuracy")
    style.legend(figure.axes[len(panels) - 1], outside=True)
    return figure
