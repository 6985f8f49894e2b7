"""Loss curves from a learning summary: held-out rows, the rows just consumed, and the rows about to be."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from pythia_tools.plots import style

NAMES = {"heldout": "held out", "before": "just consumed", "after": "about to be consumed"}


def learning(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean loss (nats per token) by step; colour is size, line style is the subset of rows.

    `table`: summary rows with metric `nll` and subsets `heldout`, `before` and `after` (the checkpoint).
    """
    rows = style.require(table, "nll")
    ax = style.axes(ax)
    colours = style.size_colours(rows)
    subsets = list(dict.fromkeys(rows["subset"]))
    for model in style.by_size(rows):
        for number, subset in enumerate(subsets):
            points = rows[(rows["model"] == model) & (rows["subset"] == subset)]
            label = None
            if number == 0:
                label = style.model_label(model, points["params"].iloc[0] if len(points) else None)
            style.curve(ax, points, label=label, colour=colours[model], style=style.LINE_STYLES[number % 4])
    for number, subset in enumerate(subsets):
        if len(subsets) > 1:
            ax.plot(
                [], [], color="0.35", linestyle=style.LINE_STYLES[number % 4], label=NAMES.get(str(subset), str(subset))
            )
    style.step_axis(ax, rows["step"])
    ax.set_ylabel("loss (nats per token)")
    style.legend(ax)
    return ax
