"""Figures of token curves: how much was acquired when, and how near the predictions are to those of n-grams."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.plots import style


def acquired(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of tokens acquired by each step; colour is size.

    `table`: summary rows with metric `acquired_share`.
    """
    rows = style.require(table, "acquired_share")
    ax = style.axes(ax)
    style.curves(ax, rows)
    ax.set_ylim(-0.02, 1.02)
    return style.finished(ax, "share of tokens acquired", rows, steps=True)


def surprisal_curves(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Surprisal of single tokens over training, with a mark where each was acquired.

    `table`: a row per token and step: label, step, bits, age (of the token, log10 steps; NaN for none).
    """
    ax = style.axes(ax)
    for label, points in table.groupby("label", sort=False):
        (line,) = ax.plot(points["step"], points["bits"], marker="o", markersize=3.5, label=str(label))
        if points["age"].notna().all():
            ax.axvline(10 ** points["age"].iloc[0], color=line.get_color(), linewidth=0.9, linestyle=":")
    style.step_axis(ax, table["step"])
    return style.finished(ax, "surprisal (bits)")


def ngram_divergence(table: pd.DataFrame) -> Figure:
    """KL divergence (bits) from n-gram predictions to the model's over training: a panel per model, a line per n.

    `table`: summary rows with metric `ngram_kl`, whose task is 1-gram, 2-gram, ….
    """
    rows = style.require(table, "ngram_kl").dropna(subset=["value"])
    ramp = style.ramp(sorted(rows["task"].unique()))
    figure, panels = style.panels_by(rows, sharey=True)
    for ax, here in panels:
        for name, colour in ramp.items():
            style.curve(ax, here[here["task"] == name], label=name, colour=colour, ribbon=0.1)
        style.step_axis(ax, here["step"], short=True)
    figure.axes[0].set_ylabel("KL from n-grams to the model (bits)")
    style.name_unit(figure, rows)
    style.legend(figure.axes[-1], outside=True)
    return figure
