"""Independent samples put together: a difference of two means, or of many groups' means from that of their controls.

Each sample is resampled by itself. Bounds are studentized and lie symmetrically, at least as far apart as Student's t
has them at Welch's degrees of freedom, so they hold where a small group is compared with a large one.
Sources: Welch 1947; Hall 1988 and Efron & Tibshirani 1993, ch. 12 (studentized bootstrap).
Cost: O(n R C) multiply-adds for n items, R resamples and C columns, in blocks of bounded memory.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pythia_tools.core.statistics.estimates import NAN, RESAMPLES, Estimate, Units, _finite, _name, _studentized, units


def difference_of_means(
    treated: npt.ArrayLike, control: npt.ArrayLike, *, unit: str, level: float = 0.95, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of one (n,) sample minus that of another, independent (m,) one; both are resampled.

    NaN when either is empty, no interval when either has one value.
    """
    samples = [_finite(treated)[:, None], -_finite(control)[:, None]]
    return sums_of_means(samples, unit=unit, level=level, resamples=resamples, seed=seed)[0]


def sums_of_means(
    samples: Sequence[np.ndarray], *, unit: str, clusters: Sequence[npt.ArrayLike | None] | None = None,
    level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0,
) -> list[Estimate]:
    """For each of C columns the sum of the means of independent (n_k, C) samples: a difference by a negated sample, a
    weighted mean by scaled ones. All columns see the same resamples.

    clusters: for each sample its (n_k,) labels of items that are not independent, or None.
    n counts the units of all samples. NaN when a sample is empty, no interval when one has a single unit.
    """
    who = [units(len(s), labels) for s, labels in zip(samples, clusters or [None] * len(samples), strict=True)]
    n, fewest = sum(one.n for one in who), min(one.n for one in who)
    if fewest < 1:
        return [Estimate(NAN, n=n, unit=unit)] * samples[0].shape[1]
    values = sum(sample.mean(axis=0) for sample in samples)
    if fewest < 2:
        return [Estimate(float(value), n=n, unit=unit) for value in values]
    rng, parts = np.random.default_rng(seed), list(zip(samples, who, strict=True))
    variances, shifts, squares = (np.array(x) for x in zip(*(_redrawn(*p, resamples, rng) for p in parts), strict=True))
    shares = variances / np.maximum(variances.sum(axis=0), 1e-300)
    freedom = 1 / np.maximum((shares**2 / np.array([[one.n - 1] for one in who])).sum(axis=0), 1 / n)
    found, name = [], _name("studentized bootstrap", level)
    for value, error, shift, own, free in zip(
        values, np.sqrt(variances.sum(axis=0)), shifts.sum(axis=0).T, np.sqrt(squares.sum(axis=0)).T, freedom,
        strict=True,
    ):
        reach = _studentized(float(error), shift, own, float(free), level)
        found.append(Estimate(float(value), value - reach, value + reach, n, unit, name))
    return found


def _redrawn(
    sample: np.ndarray, who: Units, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a sample's mean: (C,) variances, (resamples, C) shifts of the resampled means, (resamples, C) variances that
    each resample tells by itself.
    """
    rest = sample - sample.mean(axis=0)
    if who.place is not None:
        rest = np.stack([who.totals(column) for column in rest.T], axis=1)
    sizes = np.ones(who.n) if who.place is None else np.bincount(who.place).astype(np.float64)
    unbiased = who.n / (who.n - 1)
    shifts, squares = [], []
    for pick in who.picks(resamples, rng):
        flat = (pick + who.n * np.arange(len(pick))[:, None]).ravel()
        drawn = np.bincount(flat, minlength=pick.size).reshape(pick.shape).astype(np.float64)
        items = (drawn @ sizes)[:, None]
        shift = drawn @ rest / items
        both, sizes_squared = drawn @ (rest * sizes[:, None]), (drawn @ sizes**2)[:, None]
        spread = drawn @ rest**2 - 2 * shift * both + shift**2 * sizes_squared
        shifts.append(shift)
        squares.append(np.maximum(spread, 0) * unbiased / items**2)
    return (rest**2).sum(axis=0) * unbiased / len(sample) ** 2, np.concatenate(shifts), np.concatenate(squares)
