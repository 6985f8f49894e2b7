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
