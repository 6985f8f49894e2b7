"""Phases: where a curve changes its course in log step, as intervals between neighbouring checkpoints.

A curve is cut into pieces that are each a straight line in log step (or a constant), by least squares over all cuts
(dynamic programming, exact: Bellman 1961; Bai & Perron 2003). How many cuts: those that lower the cost by more than a
penalty each: (coefficients + 2) ln k (for constants Zhang & Siegmund 2007), where cost is the squared residual over
the squared standard error; where errors are unknown, by the BIC of k ln(residual), corrected for few points (Yao 1988;
Hurvich & Tsai 1989). The penalty path tells what other penalties would have said.
A cut lies between two checkpoints, never at a step. Its interval holds the cut in 95 % of resamples: the fitted curve
plus the errors of items drawn again, or normal ones, or the residuals' own; its stability is the share of them in which
a search of its own finds a cut in the same gap or a neighbouring one. Step 0 has no logarithm and is left out.
Cost: k² for each cut and resample, about 0.5 s for 27 checkpoints and 1,000 resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.statistics import percentiles
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Row, Sentence, percent, plural
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.series import Found, Series, SeriesOptions, curves, summarized

PIECES = {"linear": 2, "constant": 1}
"""Coefficients of a piece."""


@dataclass(frozen=True)
class PhasesOptions(SeriesOptions):
    """What a phase is, and how many there may be."""

    pieces: str = option("linear", "what a curve is within a phase, in log step", choices=tuple(PIECES))
    most: int = option(5, "changes at most", minimum=1)
    changes: int | None = option(None, "exactly so many changes, in place of a penalty", minimum=0)
    penalty: float | None = option(None, "cost of a change (default: (coefficients + 2) ln k)", minimum=0)
    resamples: int = option(1000, "resamples for intervals and stability", minimum=20)
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
    path: list[tuple[int, float, float]] = []
    count, upper = 0, np.inf
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


@dataclass(frozen=True, eq=False)
class Phases:
    """A curve's phases. places: number of the first checkpoint (those after step 0) of each phase but the first; low,
    high: bounds of each; stability: share of resamples that find it again; up_to: the highest penalty that keeps a cut
    before each checkpoint, 0 for none; counts: what the resamples' own searches found; unknown errors leave cost in
    squared units of the curve, else in squared standard errors.
    """

    x: np.ndarray
    places: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    stability: tuple[float, ...]
    up_to: np.ndarray
    counts: np.ndarray
    fitted: np.ndarray


def phases(series: Series, options: PhasesOptions | None = None) -> Phases:
    """The phases of a curve, of its steps above 0.

    >>> steps, late = np.arange(1, 31), np.arange(1, 31) > 12
    >>> found = phases(Series({}, steps, late + 0.0, np.full(30, 0.1)), PhasesOptions(pieces="constant"))
    >>> found.places, found.stability
    ((12,), (1.0,))
    """
    asked = options or PhasesOptions()
    later = series.steps > 0
    x, y, errors = np.log10(series.steps[later]), series.values[later], series.errors[later]
    shortest = PIECES[asked.pieces] + 1
    if len(x) < 2 * shortest:
        raise RequestError(f"{series.label}: {len(x)} checkpoints after step 0; two {asked.pieces} pieces need "
                           f"{2 * shortest}")
    told = bool(np.isfinite(errors).all() and (errors > 0).any())
    floor = np.median(errors[errors > 0]) / 10 if told else 1.0  # a share of 0 or 1 has no error of its own
    weights = 1 / np.maximum(errors, floor) ** 2 if told else np.ones(len(x))
    search = _Search(x, weights, asked, told)
    cuts = segment(x, y, pieces=asked.pieces, most=asked.most, weights=weights)
    costs = np.array([c.cost for c in cuts])[:, None]
    scale = search.scale(costs)
    chosen = cuts[int(search.count(costs, scale)[0])]
    smooth = fitted(x, y, chosen.starts, weights, asked.pieces)
    rng = np.random.default_rng(asked.seed)
    noise = series.noise(asked.resamples, rng)
    if noise is None or not told:
        rest, used = y - smooth, (PIECES[asked.pieces] + 1) * (len(chosen.starts) + 1) - 1
        noise = rng.choice(rest, (asked.resamples, len(x))) * np.sqrt(len(x) / max(1, len(x) - used))
    else:
        noise = noise[:, later] * np.sqrt(scale[0])
    fixed, own, counts = search.resampled(smooth + noise, len(chosen.starts), scale[0])
    low, high, stability = [], [], []
    for number, place in enumerate(chosen.starts):
        ends = percentiles(fixed[:, number].astype(float))
        low.append(int(np.floor(ends[0])))
        high.append(int(np.ceil(ends[1])))
        stability.append(float(own[:, max(0, place - 1) : place + 2].any(axis=1).mean()))
    return Phases(x, chosen.starts, tuple(low), tuple(high), tuple(stability), _up_to(cuts, len(x)), counts, smooth)


@dataclass(frozen=True, eq=False)
class _Search:
    """How cuts of a curve are searched: (k,) x and weights; told: whether standard errors are known."""

    x: np.ndarray
    weights: np.ndarray
    options: PhasesOptions
    told: bool

    def scale(self, costs: np.ndarray) -> np.ndarray:
        """(curves,) how much larger than the standard errors say the noise around the finest cuts is that leave half of
        the points over; at least 1.
        """
        each = PIECES[self.options.pieces] + 1
        finest = min(len(costs) - 1, max(0, (len(self.x) // 2 + 1) // each - 1))
        free = len(self.x) - (each * (finest + 1) - 1)
        return np.maximum(1.0, costs[finest] / free) if self.told else np.ones(costs.shape[1])

    def count(self, costs: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """(curves,) how many changes, of (counts, curves) costs."""
        if self.options.changes is not None:
            return np.full(costs.shape[1], min(self.options.changes, len(costs) - 1))
        k, changes = len(self.x), np.arange(len(costs))[:, None]
        if self.options.penalty is not None:
            return (costs / scale + self.options.penalty * changes).argmin(axis=0)
        if self.told:
            return (costs / scale + (PIECES[self.options.pieces] + 2) * np.log(k) * changes).argmin(axis=0)
        used = (PIECES[self.options.pieces] + 1) * (changes + 1)
        free = k - used - 1
        price = np.where(free > 0, np.log(k) * used * k / np.maximum(free, 1), np.inf)
        return (k * np.log(np.maximum(costs, 1e-300)) + price).argmin(axis=0)

    def resampled(self, curves: np.ndarray, count: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For (r, k) curves: (r, count) cuts of so many, (r, k) bool cuts of a search of its own, (r,) its counts."""
        parts = [self._block(block, count, scale) for block in self._blocks(curves)]
        fixed, own, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        return fixed, own, counts

    def _blocks(self, curves: np.ndarray) -> Iterator[np.ndarray]:
        step = max(1, 1_000_000 // len(self.x) ** 2)
        for start in range(0, len(curves), step):
            yield curves[start : start + step]

    def _block(self, block: np.ndarray, count: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        coefficients = PIECES[self.options.pieces]
        total, back = _best(_piece_costs(self.x, block, self.weights, coefficients), self.options.most,
                            coefficients + 1)
        costs = np.stack(total)
        counts = self.count(costs, np.full(len(block), scale))
        own = np.zeros((len(block), len(self.x)), dtype=bool)
        for number in np.unique(counts):
            rows = np.flatnonzero(counts == number)
            own[rows[:, None], _trace(back, int(number))[rows]] = True
        return _trace(back, count), own, counts


def _up_to(cuts: list[Cuts], k: int) -> np.ndarray:
    """(k,) the highest penalty at which the curve is cut before each checkpoint; 0 where never."""
    highest = np.zeros(k)
    for count, _, upper in penalty_path([c.cost for c in cuts]):
        starts = list(cuts[count].starts)
        highest[starts] = np.maximum(highest[starts], upper)
    return highest


def fit(table: pd.DataFrame, options: PhasesOptions) -> Fit:
    """The phases of every curve of a table."""
    found = Found()
    for series in curves(table, options, fewest=2 * (PIECES[options.pieces] + 1)):
        _one(found, series, phases(series, options), options)
    summary = summarized(found.rows, "phases", METRICS)
    said = tuple(Sentence.of(text, summary.iloc[rows]) for text, rows in found.said)
    return Fit(pd.DataFrame(found.items), summary, said)


def _one(found: Found, series: Series, told: Phases, options: PhasesOptions) -> None:
    later = series.steps > 0
    steps, values = series.steps[later], series.values[later]
    rows, parts = [_counted(series, told)], []
    turns = _turns(told, values, options.pieces)
    for number, place in enumerate(told.places):
        before, after = int(steps[place - 1]), int(steps[place])
        low, high = int(steps[max(0, told.low[number] - 1)]), int(steps[told.high[number]])
        rows += [
            series.row("change_before", after, step=before, low=low, high=high, interval="bootstrap95"),
            series.row("stability", told.stability[number], step=before),
            series.row("penalty", float(told.up_to[place]), step=before),
            series.row("turn", turns[number], step=before),
        ]
        parts.append(f"between {before:,} and {after:,} (95 %: between {low:,} and {high:,}; found again in "
                     f"{percent(told.stability[number])} of resamples)")
    changes = "no change of course" if not parts else f"{plural(len(parts), 'change')} of course, {'; '.join(parts)}"
    found.add(rows, f"{series.label}: {changes}; resamples of it find "
                    f"{percent(float((told.counts == len(parts)).mean()))} of the time as many.")
    phase = np.searchsorted(told.places, np.arange(len(steps)), side="right") + 1
    found.items += [
        {**series.keys, "step": int(s), "value": v, "fitted": f, "phase": int(p), "penalty": c}
        for s, v, f, p, c in zip(steps, values, told.fitted, phase, told.up_to, strict=True)
    ]


def _counted(series: Series, told: Phases) -> Row:
    low, high = percentiles(told.counts.astype(float))
    return series.row("changes", float(len(told.places)), low=low, high=high, interval="bootstrap95")


def _turns(told: Phases, values: np.ndarray, pieces: str) -> list[float]:
    """How much the slope (or the level) of each piece differs from the one before."""
    ends = (0, *told.places, len(values))
    parts = [np.polyfit(told.x[a:b], values[a:b], PIECES[pieces] - 1)[0] for a, b in pairwise(ends)]
    return [float(b - a) for a, b in pairwise(parts)]


METRICS = {
    "changes": Metric("count", "changes of course; low and high of the resamples' own searches"),
    "change_before": Metric("step", "first checkpoint after a change that lies after `step`; low and high are the "
                                    "checkpoints it lies between in 95 % of resamples"),
    "stability": Metric("share", "resamples whose own search cuts there, or one checkpoint beside it"),
    "penalty": Metric("squared standard errors", "the highest penalty at which the cut is still made (squared units "
                                                 "of the metric where errors are unknown)"),
    "turn": Metric("that of the fitted metric", "slope per tenfold step (or level) after the change, less before"),
}
COLUMNS = {
    "fitted": Column("float64", "the piece's value at the step"),
    "phase": Column("Int64", "the phase the checkpoint is in, from 1"),
    "penalty": Column("float64", "the highest penalty at which a cut before this checkpoint is made; 0 for none"),
}
FORM = Form(
    says="between which checkpoints does a curve change its course?",
    fit=fit, options=PhasesOptions,
    columns={"step": "training step", "value": "the metric; with its standard error, an interval, or items if known"},
    metrics=METRICS, items=COLUMNS,
    figures={"phases": "The curve, its pieces, and the 95 % interval of each change, shaded between checkpoints."},
    methods="Curves were cut into {pieces} pieces in log step by exact dynamic programming; intervals hold a change in "
            "95 % of {resamples} resamples.",
)
