"""Rank correlation with an interval over units.

Source: Spearman 1904; ties get mean ranks, as in scipy.stats.spearmanr. Interval: percentile bootstrap over units.
Cost: resamples × n log n, vectorised in blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics.estimates import RESAMPLES, Estimate, _percentiles

_BLOCK = 1 << 20


def rank_correlation(x: Any, y: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0, over: str = "items") -> Estimate:
    """Spearman's rho of two (n,) columns; NaN when one is constant. Bootstrap resamples that are constant are left out."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape:
        raise RequestError(f"columns differ in length: {a.size} and {b.size}; they must be aligned")
    name = f"bootstrap{round(100 * level)} over {over}"
    n = a.size
    if n < 3:
        return Estimate(float("nan"), float("nan"), float("nan"), n, name)
    (a, many_a), (b, many_b) = _codes(a), _codes(b)
    value = float(_rho(a[None], b[None], many_a, many_b)[0])
    rng = np.random.default_rng(seed)
    draws = []
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        pick = rng.integers(0, n, (min(step, resamples - start), n))
        draws.append(_rho(a[pick], b[pick], many_a, many_b))
    kept = np.concatenate(draws)
    kept = kept[np.isfinite(kept)]
    low, high = _percentiles(kept, level) if kept.size else (float("nan"), float("nan"))
    return Estimate(value, low, high, n, name)


def _codes(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Each value's place among the distinct ones (ranks see no more than that), and how many there are; NaN is refused."""
    if np.isnan(values).any():
        raise RequestError(f"{int(np.isnan(values).sum())} of {values.size} values are NaN; drop or flag those items first")
    distinct, codes = np.unique(values, return_inverse=True)
    return codes, len(distinct)


def _rho(a: np.ndarray, b: np.ndarray, many_a: int, many_b: int) -> np.ndarray:
    """Spearman's rho of each pair of rows of (r, n) arrays of codes below many_a and many_b."""
    ra, rb = _ranks(a, many_a), _ranks(b, many_b)
    ra -= ra.mean(axis=1, keepdims=True)
    rb -= rb.mean(axis=1, keepdims=True)
    scale = np.sqrt((ra * ra).sum(axis=1) * (rb * rb).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (ra * rb).sum(axis=1) / scale, np.nan)


def _ranks(codes: np.ndarray, many: int) -> np.ndarray:
    """Mean ranks within each row: by counting where few distinct values repeat (flags, small counts), else by sorting."""
    if many > 64:
        return rankdata(codes, axis=1)
    counts = np.bincount((codes + many * np.arange(len(codes))[:, None]).ravel(), minlength=many * len(codes)).reshape(-1, many)
    return np.take_along_axis(np.cumsum(counts, axis=1) - (counts - 1) / 2, codes, axis=1)
