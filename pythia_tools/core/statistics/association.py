"""How one column goes with another: rank correlations, also with other columns taken out; the rise of an isotonic fit.

The isotonic fit pools adjacent violators until no level lies above the next one. Its first value is therefore the
smallest mean over a beginning of the levels, its last the largest mean over an end of them (the min-max formulas), so
that the rise needs no fit: cumulative sums do, for all permutations at once.
Sources: Spearman 1904; ties get mean ranks, as in scipy.stats.spearmanr. Partial: the correlation of rank residuals,
Conover 1999, section 5.4. Isotonic: Barlow, Bartholomew, Bremner & Brunk 1972, section 1.2. Intervals: percentile
bootstrap over units, the jackknife of Fisher's z over few clusters.
Cost: O(n R) for n items and R resamples, times log n for ranks, in blocks of bounded memory; where clusters repeat,
rank correlations go resample by resample.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics.estimates import FEWEST, RESAMPLES, Estimate, from_draws, statistic, units

FEW = 64
"""Distinct values up to which ranks are counted instead of sorted."""


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike, *, unit: str, **options: Any) -> Estimate:
    """Spearman's rho of two (n,) columns; NaN when one is constant. Bootstrap resamples that are constant are left out.

    options: clusters, level, resamples, seed, as for `statistic`. Raises RequestError for NaN values.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape:
        raise RequestError(f"columns differ in length: {a.size} and {b.size}; they must be aligned")
    if a.size < 3:
        return from_draws(np.nan, [], n=a.size, unit=unit, level=options.get("level", 0.95))
    return statistic(spearman, _codes(a), _codes(b), unit=unit, vectorized=True, jackknife="fisher", **options)


def partial_rank_correlation(
    x: npt.ArrayLike, y: npt.ArrayLike, controls: list[np.ndarray], *, unit: str, **options: Any
) -> Estimate:
    """Spearman's rho of x and y with the ranks of the (n,) controls taken out of both; NaN where nothing is left.

    No interval below FEWEST units and three more for each control, as too little of so few is left to vary.
    options: as for `rank_correlation`.
    """
    n = np.size(x)
    if n < len(controls) + 3:
        return from_draws(np.nan, [], n=n, unit=unit, level=options.get("level", 0.95))
    found = statistic(_partial, x, y, *controls, unit=unit, vectorized=True, jackknife="fisher", **options)
    return found if found.n >= FEWEST + 3 * len(controls) else Estimate(found.value, n=found.n, unit=unit)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(r,) Spearman's rho of each row of (r, n) arrays; NaN where a row is constant."""
    a, b = _ranks(x), _ranks(y)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, (a * b).sum(axis=1) / norm, np.nan)


def _partial(x: np.ndarray, y: np.ndarray, *controls: np.ndarray) -> np.ndarray:
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


def _codes(values: np.ndarray) -> np.ndarray:
    """Each value's place among the distinct ones, as ranks see no more than that; NaN is refused."""
    if np.isnan(values).any():
        bad = int(np.isnan(values).sum())
        raise RequestError(f"{bad} of {values.size} values are NaN; drop or flag those items first")
    return np.unique(values, return_inverse=True)[1]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks within each row: by counting where values are few codes (flags, small counts), else by sorting."""
    many = int(values.max()) + 1 if values.dtype.kind == "i" else FEW + 1
    if many > FEW or values.min() < 0:
        return np.asarray(rankdata(values, axis=1), dtype=np.float64)
    rows = len(values)
    counts = np.bincount((values + many * np.arange(rows)[:, None]).ravel(), minlength=many * rows).reshape(-1, many)
    return np.take_along_axis(np.cumsum(counts, axis=1) - (counts - 1) / 2, values, axis=1)


def isotonic_rise(
    x: npt.ArrayLike, y: npt.ArrayLike, *, clusters: npt.ArrayLike | None = None, permutations: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Last minus first value of the isotonic fit of y (n,) by x (n,), and its one-sided p-value; both NaN when all x
    are equal. Items of equal x share a value.

    A fit can only rise, so chance alone gives more than 0, in every resample too: no bootstrap interval holds, and the
    judge is how often y, permuted within clusters, rises as much.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(np.unique(a)) < 2:
        return np.nan, np.nan
    rise = _rises(a, b[None])[0]
    by_chance = _rises(a, permuted(b, permutations, clusters=clusters, seed=seed))
    return float(rise), float((1 + (by_chance >= rise * (1 - 1e-12)).sum()) / (1 + permutations))


def permuted(
    values: npt.ArrayLike, permutations: int, *, clusters: npt.ArrayLike | None = None, seed: int = 0
) -> np.ndarray:
    """(permutations, n) random orders of (n,) values, within each cluster where items share one."""
    data = np.asarray(values)
    place = units(len(data), clusters).place
    place = np.zeros(len(data), dtype=np.int64) if place is None else place
    keys = np.random.default_rng(seed).random((permutations, len(data)))
    made = np.empty((permutations, len(data)), dtype=data.dtype)
    made[:, np.argsort(place, kind="stable")] = data[np.argsort(place + keys, axis=1)]
    return made


def _rises(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(r,) rise of the fit of each row of y (r, n) by x (n,)."""
    order = np.argsort(x, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(x[order]) > 0, True))
    total, mass = np.cumsum(y[:, order], axis=1)[:, ends], ends + 1.0
    endings = (total[:, -1:] - total[:, :-1]) / (mass[-1] - mass[:-1])
    beginnings = total / mass
    return np.fmax(endings.max(axis=1), beginnings[:, -1]) - beginnings.min(axis=1)
