"""Figures of published numbers held against a run's."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

MARKS = {"equal": ("o", "#2a7f62"), "within noise": ("s", "#3b6fb6"), "outside": ("X", "#c0392b")}
FARTHEST = 5.0
"""Differences beyond so many times the noise are drawn at the edge."""


def verdicts(numbers: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Ours minus published in units of what is allowed for (noise and rounding), a row per task and metric; marker and
    colour are the verdict.

    `numbers`: the compared numbers of `verify`. Raises: RequestError when none was compared.
    """
    rows = numbers[numbers["verdict"].isin(MARKS)]
    if rows.empty:
        raise RequestError("no number was compared; there is nothing to draw")
    names = [f"{t} {m}" for t, m in zip(rows["task"], rows["metric"], strict=True)]
    places = {name: place for place, name in enumerate(sorted(set(names), reverse=True))}
    ax = style.axes(ax, size=(6.4, 1.4 + 0.28 * len(places)))
    off = rows["difference"].to_numpy(float)
    side = np.where(off > 0, rows["ours"] - rows["low"], rows["high"] - rows["ours"]).astype(float)
    scaled = np.clip(off / (side + rows["rounding"].to_numpy(float)), -FARTHEST, FARTHEST)
    for verdict, (marker, colour) in MARKS.items():
        chosen = (rows["verdict"] == verdict).to_numpy()
        if chosen.any():
            y = [places[name] for name, one in zip(names, chosen, strict=True) if one]
            ax.plot(scaled[chosen], y, marker, color=colour, label=f"{verdict} ({chosen.sum():,})", alpha=0.8)
    ax.axvspan(-1, 1, color="0.92", zorder=0)
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(list(places.values()), list(places))
    ax.set_xlim(-FARTHEST - 0.3, FARTHEST + 0.3)
    ax.set_xlabel("ours minus published, in units of the noise allowed for")
    style.legend(ax, outside=True)
    return ax
