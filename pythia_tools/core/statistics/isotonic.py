"""How far a mean rises along the non-decreasing function of x that is nearest in squares, with an interval over units.

The fit pools adjacent violators until no level lies above the next one. Its first value is therefore the smallest mean
over a beginning of the levels, its last the largest mean over an end of them (the min-max formulas), so that the rise
needs no fit: cumulative sums do, for all resamples at once.
Source: Barlow, Bartholomew, Bremner & Brunk 1972, section 1.2. Cost: O(n R) for n items and R resamples.
"""

import numpy as np
import numpy.typing as npt

from pythia_tools.core.statistics.estimates import Estimate, from_draws
from pythia_tools.core.statistics.resampling import RESAMPLES, units


def isotonic_rise(
    x: npt.ArrayLike, y: npt.ArrayLike, *, unit: str, clusters: npt.ArrayLike | None = None, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Last minus first value of the isotonic fit of y (n,) by x (n,); items of equal x share a value. Never below 0.

    NaN when all x are equal. A fit can only rise, so chance alone gives more than 0: read it beside a rank correlation.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    who = units(len(a), clusters)
    if len(np.unique(a)) < 2:
        return from_draws(np.nan, [], n=who.n, unit=unit)
    draws = _rises(a, b, who.weights(resamples, seed))
    return from_draws(_rises(a, b, np.ones((1, len(a))))[0], draws, n=who.n, unit=unit)


def _rises(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) rise of the fit under each row of (r, n) weights."""
    order = np.argsort(x, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(x[order]) > 0, True))
    total = np.cumsum((weights * y)[:, order], axis=1)[:, ends]
    mass = np.cumsum(weights[:, order], axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where no item is: left out by fmin and fmax
        beginnings = total / mass
        endings = (total[:, -1:] - total) / (mass[:, -1:] - mass)
    return np.fmax(np.fmax.reduce(endings, axis=1), beginnings[:, -1]) - np.fmin.reduce(beginnings, axis=1)
