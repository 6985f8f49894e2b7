"""Figures of benchmark tasks over training."""

import pandas as pd
from matplotlib.figure import Figure

from pythia_tools.plots import style


def tasks_over_training(summary: pd.DataFrame, metric: str) -> Figure:
    """A panel per task: one metric of its documents by step, a line per size with its interval. Where a task's answers
    are read by several filters, a panel for each.
    """
    rows = style.require(summary, metric)
    rows = rows[rows["reference"].isna()] if rows["reference"].isna().any() else rows
    named = rows["task"].astype(str) + ("\n" + rows["subset"].astype(str)).where(rows["subset"] != "all", "")
    figure, panels = style.panels_by(rows.assign(panel=named), "panel", columns=4, size=(3.1, 2.7))
    for ax, here in panels:
        style.curves(ax, here, coloured_as=rows)
        style.step_axis(ax, here["step"], short=True)
    figure.supylabel(metric.replace("_", " "), fontsize="medium")
    style.name_unit(figure, rows)
    lines = {label: line for ax in figure.axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    order = [label for _, label, _ in style.each_size(rows) if label in lines]
    figure.legend(handles=[lines[label] for label in order], labels=order, loc="outside right center", frameon=False)
    return figure
