"""Statistics of (exposures, accuracy) over terms, each with a percentile bootstrap over terms.

All take aligned columns of shape (n,), one entry per term, and treat equal exposures as equal: no answer depends on
the order in which tied terms happen to stand.

Sources: the performance gap, Biderman et al. 2023 (arXiv 2304.01373), table 4; Spearman 1904; isotonic regression,
Barlow et al. 1972, by scipy; partial rank correlation as the correlation of rank residuals, Conover 1999, section 5.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate

RESAMPLES = 2000
TOP = 10
_BLOCK = 1 << 20


def gap(exposures: Any, accuracy: Any, *, top: int = TOP, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """100 × (mean accuracy of the `top` most frequent terms − of the `top` least frequent), in percentage points.

    Of terms tied at the edge each counts in part. With fewer than 2·top terms, half of them on each side. NaN when all
    exposures are equal.
    """
    x, y = _columns(exposures, accuracy)
    k = min(top, len(x) // 2)
    if k == 0:
        return _nothing(len(x))

    def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(np.ptp(a, axis=1) > 0, 100 * (_mean_of_top(a, b, k) - _mean_of_top(-a, b, k)), np.nan)

    return _bootstrap(gaps, (x, y), resamples, seed)


def _mean_of_top(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """(r,) mean of y over the k largest x of each row of (r, n) arrays."""
    edge = -np.partition(-x, k - 1, axis=1)[:, k - 1:k]
    above, at = x > edge, x == edge
    missing = k - above.sum(axis=1)
    return ((y * above).sum(axis=1) + missing * (y * at).sum(axis=1) / at.sum(axis=1)) / k


def monotone_fit(exposures: Any, accuracy: Any) -> np.ndarray:
    """(n,) the non-decreasing function of exposures nearest to accuracy in squares, at each term; tied exposures share a value."""
    x, y = _columns(exposures, accuracy)
    levels, place, size = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, y) / size
    return np.asarray(isotonic_regression(means, weights=size).x)[place] if len(levels) else y


def monotone_rise(exposures: Any, accuracy: Any, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """How far accuracy rises from the fewest to the most exposures along the monotone fit, in percentage points.

    0 when it never does, NaN when all exposures are equal. A fit can only rise, so chance alone gives more than 0: read it
    beside Spearman's correlation.
    """
    x, y = _columns(exposures, accuracy)
    n = len(x)
    levels, place = np.unique(x, return_inverse=True)
    if len(levels) < 2:
        return _nothing(n)
    rng = np.random.default_rng(seed)
    copies = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)  # how often each term is drawn
    draws = 100 * weighted_rises(place.astype(np.int64), y, copies, len(levels))
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(100 * weighted_rises(place.astype(np.int64), y, np.ones((1, n)), len(levels))[0])
    return Estimate(value, float(low), float(high), n, "bootstrap95 over terms")


@njit(cache=True)
def weighted_rises(place, y, copies, levels):  # type: ignore[no-untyped-def]
    """(r,) last minus first value of the isotonic fit of y by level, terms weighted by each row of copies; pools adjacent violators."""
    rises = np.zeros(len(copies))
    value, weight = np.zeros(levels), np.zeros(levels)
    for r in range(len(copies)):
        total, mass = np.zeros(levels), np.zeros(levels)
        for k in range(len(y)):
            total[place[k]] += copies[r, k] * y[k]
            mass[place[k]] += copies[r, k]
        blocks = 0
        for level in range(levels):
            if mass[level] == 0:
                continue
            value[blocks], weight[blocks] = total[level] / mass[level], mass[level]
            blocks += 1
            while blocks > 1 and value[blocks - 2] >= value[blocks - 1]:
                both = weight[blocks - 2] + weight[blocks - 1]
                value[blocks - 2] = (value[blocks - 2] * weight[blocks - 2] + value[blocks - 1] * weight[blocks - 1]) / both
                weight[blocks - 2] = both
                blocks -= 1
        rises[r] = value[blocks - 1] - value[0]
    return rises


def partial_correlation(exposures: Any, accuracy: Any, *controls: Any, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Spearman's correlation of exposures and accuracy with the ranks of the controls taken out of both; NaN where nothing is left."""
    x, y = _columns(exposures, accuracy)
    extra = tuple(_columns(x, c)[1] for c in controls)
    if len(x) < len(extra) + 3:
        return _nothing(len(x))
    return _bootstrap(partial_correlations, (x, y, *extra), resamples, seed)


def partial_correlations(x: np.ndarray, y: np.ndarray, *controls: np.ndarray) -> np.ndarray:
    """(r,) partial rank correlations of each row of (r, n) arrays."""
    design = np.stack([np.ones_like(x, dtype=np.float64), *(_ranks(c) for c in controls)], axis=-1)
    left = np.stack([_ranks(x), _ranks(y)], axis=-1)
    residuals = left - design @ (np.linalg.pinv(design) @ left)
    scale = (left - left.mean(axis=1, keepdims=True)).std(axis=1)
    a, b = residuals[..., 0], residuals[..., 1]
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    known = (a.std(axis=1) > 1e-9 * scale[:, 0]) & (b.std(axis=1) > 1e-9 * scale[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, (a * b).sum(axis=1) / norm, np.nan)


def spearman_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(r,) Spearman's rho of each row of (r, n) arrays; NaN where a row is constant."""
    a, b = _ranks(x), _ranks(y)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, (a * b).sum(axis=1) / norm, np.nan)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.asarray(rankdata(values, axis=1), dtype=np.float64)


def _bootstrap(statistic: Any, columns: tuple[np.ndarray, ...], resamples: int, seed: int) -> Estimate:
    n = len(columns[0])
    value = float(statistic(*(c[None] for c in columns))[0])
    rng = np.random.default_rng(seed)
    draws = []
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        pick = rng.integers(0, n, (min(step, resamples - start), n))
        draws.append(statistic(*(c[pick] for c in columns)))
    kept = np.concatenate(draws)
    kept = kept[np.isfinite(kept)]
    low, high = np.quantile(kept, [0.025, 0.975]) if kept.size else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n, "bootstrap95 over terms")


def _columns(exposures: Any, accuracy: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(exposures, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise RequestError(f"columns must have one entry per term each; got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise RequestError("exposures, accuracy and controls must be finite; drop terms without an answer first")
    return x, y


def _nothing(n: int) -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), n, "bootstrap95 over terms")
