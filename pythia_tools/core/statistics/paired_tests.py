"""Is a paired difference more than noise, after how many looks, and what could have been seen at all?

Sources: Fisher 1935 (sign-flip randomisation); Holm 1979; Benjamini & Hochberg 1995.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from pythia_tools.core.errors import RequestError

_BLOCK = 1 << 22


def sign_flip_test(differences: Any, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of mean(differences) under random signs; exact enumeration up to 13 units, else Monte Carlo.

    Never 0: the observed assignment counts as one of the draws.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0 or not np.isfinite(d).all():
        raise RequestError("the sign-flip test needs at least one difference, all finite")
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


def adjust_pvalues(pvalues: Any, method: str = "holm") -> np.ndarray:
    """Adjusted p-values, same order. `holm` controls any false claim, `bh` the share of false claims."""
    p = np.asarray(pvalues, dtype=np.float64)
    if method == "bh":
        return false_discovery_control(p, method="bh")
    if method != "holm":
        raise RequestError(f"unknown correction {method!r}; allowed: holm, bh")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


def minimal_detectable_effect(differences: Any, *, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest mean paired difference found with `power` at two-sided `level`, given these units' spread (normal approximation)."""
    d = np.asarray(differences, dtype=np.float64)
    if d.size < 2:
        return float("nan")
    z = NormalDist().inv_cdf
    return float((z(0.5 + level / 2) + z(power)) * d.std(ddof=1) / np.sqrt(d.size))
