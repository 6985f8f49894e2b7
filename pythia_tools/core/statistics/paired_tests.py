"""Is a paired difference more than noise, after how many looks, and what could have been seen at all?

Sources: Fisher 1935 (sign-flip randomisation); Holm 1979; Benjamini & Hochberg 1995; Liang & Zeger 1986 (variance with
clusters).
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import false_discovery_control, nct
from scipy.stats import t as student

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics.estimates import FEWEST, Estimate, _error, _rests, units

_BLOCK = 1 << 22


SHORTEST = 20
"""Values of a series without which its own correlation cannot be told from chance."""


def sign_flip_test(
    differences: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, resamples: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value of mean(differences) under random signs, one per unit; exact up to 13 units, else Monte Carlo.

    Never 0: the observed assignment counts as one of the draws.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0 or not np.isfinite(d).all():
        raise RequestError("the sign-flip test needs at least one difference, all finite")
    d = units(d.size, clusters).totals(d)
    seen = abs(d.sum()) * (1 - 1e-12)
    if d.size <= 13:
        signs = 1 - 2 * ((np.arange(1 << d.size)[:, None] >> np.arange(d.size)) & 1)
        return float((np.abs(signs @ d) >= seen).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    step = max(1, _BLOCK // d.size)
    for start in range(0, resamples, step):
        signs = rng.integers(0, 2, (min(step, resamples - start), d.size), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ d) >= seen).sum())
    return (hits + 1) / (resamples + 1)


def paired_test(differences: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, seed: int = 0) -> float:
    """Two-sided p-value of a mean paired difference: random signs; below 6 units, whose signs cannot be rare enough to
    tell anything, Student's t. NaN for fewer than two units.
    """
    d = np.asarray(differences, dtype=np.float64)
    who = units(d.size, clusters)
    if who.n < 2:
        return float("nan")
    if who.n >= FEWEST:
        return sign_flip_test(d, clusters=clusters, seed=seed)
    return _student_pvalue(d.mean(), _error(*_rests(d, who)), who.n - 1)


def series_mean(values: npt.ArrayLike, *, unit: str, level: float = 0.95) -> tuple[Estimate, float, float]:
    """Mean of (n,) values in the order of time, its two-sided p-value, and the smallest mean found with power .8.

    Neighbours of a series are alike (one run's checkpoints), so its n values are no n independent ones. The noise of
    the mean is read off the series' slowest swings, its first 2 (from 60 values on 3, from 150 on 4) cosine
    coefficients, and judged by Student's t of as many degrees of freedom; the estimate's n is one more. No correlation
    is estimated, and no answer depends on one: it holds for autoregressions up to .6 (from 60 values
    on .75, from 150 on .8).
    Below SHORTEST values, and where none differs, interval and p-value are refused (NaN).
    Source: Lazarus, Lewis, Stock & Watson 2018 (equal-weighted cosine estimate), with fewer coefficients.
    """
    x = np.asarray(values, dtype=np.float64)
    value, n = float(x.mean()) if x.size else float("nan"), x.size
    if n < SHORTEST or np.ptp(x) == 0:
        return Estimate(value, n=min(n, 1), unit=unit), float("nan"), float("nan")
    swings = 2 + (n >= 60) + (n >= 150)
    waves = np.cos(np.pi * np.outer(np.arange(1, swings + 1), (np.arange(n) + 0.5) / n))
    error = float(np.sqrt(2 * ((waves @ x) ** 2).mean())) / n
    reach = float(student.ppf(0.5 + level / 2, swings)) * error
    found = Estimate(value, value - reach, value + reach, swings + 1, unit, f"cosine t{round(100 * level)}")
    return found, _student_pvalue(value, error, swings), error * _power_reach(swings, level, 0.8)


def _student_pvalue(value: float, error: float, freedom: float) -> float:
    return float(2 * student.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)


def permutation_pvalue(draws: np.ndarray, seen: float) -> float:
    """Two-sided p-value of a statistic by its (R,) values under permutations: twice the smaller tail.

    Never 0, as what was seen counts as one of the draws; NaN when there is nothing to compare.
    """
    kept = draws[np.isfinite(draws)]
    if not len(kept) or not np.isfinite(seen):
        return float("nan")
    tail = min((kept >= seen).sum(), (kept <= seen).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(kept) + 1)))


def adjust_pvalues(pvalues: npt.ArrayLike, method: str = "holm") -> np.ndarray:
    """Adjusted p-values, same order; NaN stays NaN and is no look. `holm` controls any false claim, `bh` the share."""
    p = np.asarray(pvalues, dtype=np.float64)
    adjusted, known = np.full_like(p, np.nan), np.flatnonzero(np.isfinite(p))
    if method == "bh":
        adjusted[known] = false_discovery_control(p[known], method="bh") if known.size else p[known]
    elif method == "holm":
        order = known[np.argsort(p[known], kind="stable")]
        adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)))
    else:
        raise RequestError(f"unknown correction {method!r}; allowed: holm, bh")
    return adjusted


def minimal_detectable_effect(
    differences: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, level: float = 0.95, power: float = 0.8
) -> float:
    """Smallest mean paired difference found with `power` at two-sided `level`, given these units' spread.

    By Student's t, as a power analysis does; NaN for fewer than two units.
    """
    d = np.asarray(differences, dtype=np.float64)
    who = units(d.size, clusters)
    return _error(*_rests(d, who)) * _power_reach(who.n - 1, level, power) if who.n > 1 else float("nan")


@cache
def _power_reach(freedom: float, level: float, power: float) -> float:
    """Standard errors between 0 and a mean that a two-sided t test finds with `power`."""
    limit = student.ppf(0.5 + level / 2, freedom)
    return float(brentq(lambda true: nct.sf(limit, freedom, true) - power, 0, 10 * limit + 10))
