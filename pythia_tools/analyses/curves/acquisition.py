"""When was a token learned: ages of acquisition of surprisal curves, by a sigmoid, by a smooth curve, without a fit.

A token counts as acquired where its surprisal is half-way from chance down to the best it ever reaches. Chang & Bergen
(TACL 2024, arXiv:2308.15419; words: TACL 2022, arXiv:2110.02406) read the crossing off a fitted curve:
    sigmoid   −surprisal = start + (end − start) / (1 + exp((mid − x) / scale)), least squares from start, end and mid
              at the curve's lowest, its highest and the mean x, and scale 1; best: of the curve as measured
    gam       the penalized spline of `gam`, first of 1,000 points at or below the threshold; best: of the spline
A fitted age is put at the first or last checkpoint where the fit does not cross between them: `clipped` says so, as
such an age is a bound, not a measurement. `crossing` needs no fit: the first crossing of measured values, linear in log
step between neighbouring checkpoints; NaN for a curve that never crosses.

x is log10 of the step; step 0 is left out, as it has none. A curve with a value that is not finite has no age.

Cost per curve of 154 checkpoints: a sigmoid 0.7 ms, a spline 30 µs, a crossing 1 µs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import leastsq

from pythia_tools.analyses.curves.gam import smoother
from pythia_tools.core.errors import RequestError

TOLERANCE = 1e-8
LOOSEST = 1e-2
"""The last tolerance of a sigmoid's fit; beyond it a fit has failed."""
EVALUATIONS = 1_000_000
PARAMETERS = 4
"""Of a sigmoid: with fewer checkpoints there is nothing to fit."""


@dataclass(frozen=True)
class Ages:
    """Per curve: `age` in log10 steps (NaN: none), `clipped`: put at an end, `failed`: no fit at the first tolerance.

    threshold: bits at which the curve counts as acquired, NaN where it has no age.
    """

    age: np.ndarray
    clipped: np.ndarray
    failed: np.ndarray
    threshold: np.ndarray


def log_steps(steps: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x = log10(step) of the steps above 0, and which these are. Raises RequestError unless steps ascend."""
    array = np.asarray(steps, dtype=np.int64)
    if array.ndim != 1 or (np.diff(array) <= 0).any() or (array < 0).any():
        raise RequestError(f"steps must ascend, each once; got {array.tolist()[:20]}")
    used = array > 0
    return np.log10(array[used]), used


def by_sigmoid(curves: np.ndarray, steps: Sequence[int] | np.ndarray, chance: float) -> Ages:
    """Ages by the fitted sigmoid. curves (n, steps) bits; chance: bits of a guess (log2 of the vocabulary).

    >>> import numpy as np
    >>> steps = 2 ** np.arange(12)
    >>> curve = 10 - 8 / (1 + np.exp(-(np.log10(steps) - 1.5) / 0.2))
    >>> by_sigmoid(curve[None], steps, chance=10.0).age.round(2)
    array([1.5])
    """
    x, used = log_steps(steps)
    found = _nothing(len(curves))
    for number, curve in enumerate(np.asarray(curves, dtype=np.float64)[:, used]):
        fitted = _sigmoid(x, -curve)
        if fitted is None:
            continue
        parameters, found.failed[number] = fitted
        low, high = -chance, float(np.max(-curve))
        found.age[number], found.clipped[number] = _crossed(low, high, x, parameters)
        found.threshold[number] = -(low + high) / 2
    return found


def _sigmoid(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """start, end, mid and scale, and whether the tolerance had to be loosened; None where nothing can be fitted."""
    if len(x) < PARAMETERS or not np.isfinite(y).all():
        return None

    def misfit(p: np.ndarray) -> np.ndarray:
        return p[0] + (p[1] - p[0]) / (1.0 + np.exp((p[2] - x) / p[3])) - y

    first, tolerance = np.array([y.min(), y.max(), x.mean(), 1.0]), TOLERANCE
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        while tolerance <= LOOSEST:
            found, _, _, _, state = leastsq(misfit, first, full_output=True, maxfev=EVALUATIONS, ftol=tolerance)
            if state in (1, 2, 3, 4):
                return found, tolerance > TOLERANCE
            tolerance *= 10
    return None


def _crossed(low: float, high: float, x: np.ndarray, parameters: np.ndarray) -> tuple[float, bool]:
    """Where the sigmoid passes half-way from low to high, kept between the checkpoints, and whether it was put there.
    """
    start, end, mid, scale = parameters.tolist()
    level = (low + high) / 2
    falls = (end < start and scale > 0) or (end > start and scale < 0)
    if (level >= start and level >= end) or low >= high or falls:
        return float(x[-1]), True
    if level <= start and level <= end:
        return float(x[0]), True
    age = mid - scale * np.log((end - start) / (level - start) - 1.0)
    return float(np.clip(age, x[0], x[-1])), not x[0] <= age <= x[-1]


def by_gam(curves: np.ndarray, steps: Sequence[int] | np.ndarray, chance: float) -> Ages:
    """Ages by the penalized spline, as `by_sigmoid`; `clipped` where the best of the spline is no better than chance,
    or the first checkpoint is below the threshold already.
    """
    x, used = log_steps(steps)
    found = _nothing(len(curves))
    values = np.asarray(curves, dtype=np.float64)[:, used]
    good = np.isfinite(values).all(axis=1) & (len(x) >= PARAMETERS)
    if not good.any():
        return found
    made = smoother(tuple(x.tolist()))
    _, fine = made.smooth(values[good])
    level = (chance + fine.min(axis=1)) / 2
    first = np.argmax(fine <= level[:, None], axis=1)
    never = level >= chance
    found.age[good] = np.where(never, x[-1], made.grid[first])
    found.clipped[good] = never | (first == 0)
    found.failed[good], found.threshold[good] = False, level
    return found


def by_crossing(curves: np.ndarray, steps: Sequence[int] | np.ndarray, chance: float) -> Ages:
    """Ages without a fit, as `by_sigmoid`; `clipped` where the first checkpoint is below the threshold already."""
    x, used = log_steps(steps)
    found = _nothing(len(curves))
    values = np.asarray(curves, dtype=np.float64)[:, used]
    good = np.flatnonzero(np.isfinite(values).all(axis=1) & (len(x) > 0))
    found.failed[good] = False
    values = values[good]
    best = values.min(axis=1, initial=np.inf)
    level = (chance + best) / 2
    some = best < chance
    good, values, level = good[some], values[some], level[some]
    if not len(good):
        return found
    first = np.argmax(values <= level[:, None], axis=1)
    lines = np.arange(len(good))
    before = np.maximum(first - 1, 0)
    above, below = values[lines, before], values[lines, first]
    share = np.divide(above - level, above - below, out=np.ones(len(good)), where=above > below)
    found.age[good] = np.where(first == 0, x[0], x[before] + share * (x[first] - x[before]))
    found.clipped[good], found.threshold[good] = first == 0, level
    return found


METHODS = {"sigmoid": by_sigmoid, "gam": by_gam, "crossing": by_crossing}


def _nothing(n: int) -> Ages:
    """No curve with an age, all of them failed."""
    return Ages(np.full(n, np.nan), np.zeros(n, bool), np.ones(n, bool), np.full(n, np.nan))
