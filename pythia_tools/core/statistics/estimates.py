"""A number with its interval. Units are resampled whole: canaries, terms, sentence pairs; never tokens.

Sources: Wilson 1927 (score interval); Efron & Tibshirani 1993, ch. 13 (percentile bootstrap).
Cost: a bootstrap of n units and R resamples takes O(n R) time, in blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError

RESAMPLES = 2000
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """value with bounds low and high; n independent units; `interval` names how the bounds came about."""

    value: float
    low: float
    high: float
    n: int
    interval: str

    def columns(self) -> dict[str, Any]:
        """As the last five columns of a summary table."""
        return asdict(self)


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval; n = 0 gives NaN and the bounds 0 and 1."""
    name = f"wilson{round(100 * level)}"
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0, name)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n, name)


def bootstrap_mean(values: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0, over: str = "items") -> Estimate:
    """Mean of (n,) values with an interval over units: a percentile bootstrap, or Wilson's when every value is 0 or 1.

    A bootstrap of ten successes out of ten would give the interval 1 to 1; Wilson's says what ten can say. One value has
    no interval (NaN bounds). Raises RequestError for NaN values.
    """
    data = _finite(values)
    if data.size and np.isin(data, (0.0, 1.0)).all():
        found = wilson(float(data.sum()), int(data.size), level)
        return Estimate(found.value, found.low, found.high, found.n, f"{found.interval} over {over}")
    return _bootstrap(data, level, resamples, seed, over)


def _bootstrap(data: np.ndarray, level: float, resamples: int, seed: int, over: str) -> Estimate:
    name = f"bootstrap{round(100 * level)} over {over}"
    if data.size < 2:
        return Estimate(float(data.mean()) if data.size else float("nan"), float("nan"), float("nan"), int(data.size), name)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // data.size)
    for start in range(0, resamples, step):
        stop = min(resamples, start + step)
        means[start:stop] = data[rng.integers(0, data.size, (stop - start, data.size))].mean(axis=1)
    low, high = _percentiles(means, level)
    return Estimate(float(data.mean()), low, high, int(data.size), name)


def bootstrap_statistic(
    statistic: Callable[..., float],
    *columns: Any,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    over: str = "items",
) -> Estimate:
    """Any statistic of aligned (n, …) columns, units resampled together; resamples where it is NaN are left out."""
    arrays = [np.asarray(c) for c in columns]
    n = len(arrays[0])
    if any(len(a) != n for a in arrays):
        raise RequestError(f"columns have different lengths: {[len(a) for a in arrays]}; they must be aligned")
    name = f"bootstrap{round(100 * level)} over {over}"
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, name)
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for r in range(resamples):
        pick = rng.integers(0, n, n)
        draws[r] = statistic(*(a[pick] for a in arrays))
    draws = draws[np.isfinite(draws)]
    low, high = _percentiles(draws, level) if draws.size else (float("nan"), float("nan"))
    return Estimate(float(statistic(*arrays)), low, high, n, name)


def paired_difference(
    treated: Any, control: Any, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0, over: str = "items"
) -> Estimate:
    """Mean of treated − control over aligned units, bootstrapped over units."""
    a, b = _finite(treated), _finite(control)
    if a.shape != b.shape:
        raise RequestError(f"paired columns differ in length: {a.size} and {b.size}; pair them by item first")
    return _bootstrap(a - b, level, resamples, seed, f"paired {over}")


def _finite(values: Any) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise RequestError(f"{bad} of {data.size} values are NaN or infinite; drop or flag those items first")
    return data


def _percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
