"""Phases: where a curve changes its course in log step, as intervals between neighbouring checkpoints.

A curve is cut into pieces that are each a straight line in log step (or a constant), by least squares over all cuts
(dynamic programming, exact: Bellman 1961; Bai & Perron 2003). How many cuts: those that lower the cost by more than a
penalty each, (coefficients + 1) ln k, where cost is the squared residual over the squared standard error, or
k ln(residual) where errors are unknown (Yao 1988). The penalty path tells what other penalties would have said.
A cut lies between two checkpoints, never at a step. Its interval holds the cut in 95 % of resamples: the fitted curve
plus the errors of items drawn again, or normal ones, or the residuals' own; its stability is the share of them in which
a search of its own finds a cut in the same gap or a neighbouring one. Step 0 has no logarithm and is left out.
Cost: k² for each cut and resample, about 1 s for 27 checkpoints and 400 resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.statistics import percentiles
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Row, Sentence, percent, plural
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.series import Found, Series, SeriesOptions, curves

PIECES = {"linear": 2, "constant": 1}
"""Coefficients of a piece."""


@dataclass(frozen=True)
class PhasesOptions(SeriesOptions):
    """What a phase is, and how many there may be."""

    pieces: str = option("linear", "what a curve is within a phase, in log step", choices=tuple(PIECES))
    most: int = option(5, "changes at most", minimum=1)
    changes: int | None = option(None, "exactly so many changes, in place of a penalty", minimum=0)
    penalty: float | None = option(None, "cost of a change (default: (coefficients + 1) ln checkpoints)", minimum=0)
    resamples: int = option(400, "resamples for intervals and stability", minimum=20)
    seed: int = option(0, "of the resamples")


class Cuts(NamedTuple):
    """A curve cut into pieces. starts: number of the first point of each piece but the first; cost: of the fit."""

    starts: tuple[int, ...]
    cost: float


def segment(
    x: npt.ArrayLike, y: npt.ArrayLike, *, pieces: str = "linear", most: int = 5, weights: npt.ArrayLike | None = None
) -> list[Cuts]:
    """The best cuts into 1, 2, … most + 1 pieces of (k,) y over (k,) x; shorter where so many pieces cannot be had.

    A piece has one point more than coefficients, as fewer would always fit. weights: (k,) of the squared residuals.

    >>> [cuts.starts for cuts in segment(range(6), [0, 0, 0, 5, 5, 5], pieces="constant", most=1)]
    [(), (3,)]
    """
    data = np.asarray(y, dtype=np.float64)[None]
    weighed = np.ones(data.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    costs = _piece_costs(np.asarray(x, dtype=np.float64), data, weighed, PIECES[pieces])
    total, back = _best(costs, most, PIECES[pieces] + 1)
    return [Cuts(tuple(int(c) for c in _trace(back, count)[0]), float(total[count][0]))
            for count in range(len(total)) if np.isfinite(total[count][0])]


def penalty_path(costs: npt.ArrayLike) -> list[tuple[int, float, float]]:
    """Which numbers of changes are best for some penalty per change, and between which penalties: (count, from, to).

    costs: those of 0, 1, 2, … changes.

    >>> penalty_path([10, 4, 3.5, 1])
    [(0, 6.0, inf), (1, 1.5, 6.0), (3, 0.0, 1.5)]
    """
    cost = np.asarray(costs, dtype=np.float64)
    path, count, upper = [], 0, np.inf
    while True:
        later = np.arange(count + 1, len(cost))
        if not len(later):
            return [*path, (count, 0.0, float(upper))] if upper > 0 else path
        gains = (cost[count] - cost[later]) / (later - count)
        lower = max(0.0, float(gains.max()))
        path.append((count, lower, float(upper)))
        if lower <= 0:
            return path
        count, upper = int(later[len(gains) - 1 - gains[::-1].argmax()]), lower


def _piece_costs(x: np.ndarray, y: np.ndarray, weights: np.ndarray, coefficients: int) -> np.ndarray:
    """(curves, k, k + 1) weighted squared residuals of the piece of points [a, b); infinite for too short ones."""
    x = x - x.mean()
    y = y - y.mean(axis=1, keepdims=True)

    def sums(values: np.ndarray) -> np.ndarray:
        run = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
        return run[..., None, :] - run[..., :-1, None]

    total = sums(weights)[None]
    total = np.where(total > 0, total, np.nan)
    along, up = sums(weights * x)[None], sums(weights * y)
    cost = sums(weights * y * y) - up**2 / total
    if coefficients == 2:
        spread = sums(weights * x * x)[None] - along**2 / total
        with np.errstate(divide="ignore", invalid="ignore"):  # one point has no spread; it is no piece either
            cost = cost - (sums(weights * x * y) - along * up / total) ** 2 / spread
    length = np.arange(len(x) + 1)[None, :] - np.arange(len(x))[:, None]
    return np.where(length >= coefficients + 1, np.maximum(cost, 0), np.inf)


def _best(costs: np.ndarray, most: int, shortest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For 0, 1, … changes the (curves,) least cost of all points, and (curves, k + 1) where the last piece begins."""
    curves, k, _ = costs.shape
    reach = costs[:, 0, :]
    total, back = [reach[:, k]], [np.zeros((curves, k + 1), dtype=np.int64)]
    for _ in range(min(most, k // shortest - 1)):
        ways = reach[:, :k, None] + costs
        back.append(ways.argmin(axis=1))
        reach = ways.min(axis=1)
        total.append(reach[:, k])
    return total, back


def _trace(back: list[np.ndarray], count: int) -> np.ndarray:
    """(curves, count) first points of the pieces after the first."""
    curves = len(back[0])
    starts, end = np.empty((curves, count), dtype=np.int64), np.full(curves, back[0].shape[1] - 1)
    for place in range(count, 0, -1):
        end = back[place][np.arange(curves), end]
        starts[:, place - 1] = end
    return starts


def fitted(x: np.ndarray, y: np.ndarray, starts: tuple[int, ...], weights: np.ndarray, pieces: str) -> np.ndarray:
    """(k,) values of the pieces."""
    values = np.empty(len(x))
    for a, b in zip((0, *starts), (*starts, len(x)), strict=True):
        part = slice(a, b)
        line = np.polyfit(x[part], y[part], PIECES[pieces] - 1, w=np.sqrt(weights[part]))
        values[part] = np.polyval(line, x[part])
    return values
