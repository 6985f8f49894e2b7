"""Is a paired difference more than noise, after how many looks, and what could have been seen at all?

Sources: Fisher 1935 (sign-flip randomisation); Holm 1979; Benjamini & Hochberg 1995; Liang & Zeger 1986 (variance with
clusters).
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics.estimates import units

_BLOCK = 1 << 22


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

    By the normal approximation; NaN for fewer than two units.
    """
    d = np.asarray(differences, dtype=np.float64)
    who = units(d.size, clusters)
    if who.n < 2:
        return float("nan")
    z = NormalDist().inv_cdf(0.5 + level / 2) + NormalDist().inv_cdf(power)
    if who.place is None:
        return float(z * d.std(ddof=1) / np.sqrt(d.size))
    return float(z * np.sqrt(who.n / (who.n - 1) * (who.totals(d - d.mean()) ** 2).sum()) / d.size)
