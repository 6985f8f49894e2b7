"""A number with its interval, and what was independent behind it: canaries, terms, sentence pairs; never tokens.

A resample holds independent units drawn with replacement, each with all its items. Draws depend on the number of units
and the seed alone: different statistics of the same units see the same resamples.

`clusters` are labels (n,) of items that are not independent: whole clusters are resampled and counted, and the estimate
stays that of the items.
Sources: Wilson 1927 (score interval); Agresti & Min 2005 (paired shares); Efron & Tibshirani 1993, ch. 8 and
13 (percentile bootstrap); for clusters, Davison & Hinkley 1997, section 3.8.
Cost: a bootstrap of n items and R resamples takes O(n R) time, in blocks of bounded memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core.errors import RequestError

MANY = 256
"""Distinct values up to which a mean can be resampled by their frequencies."""
NAN = float("nan")
RESAMPLES = 2000
_BLOCK = 1 << 20
"""Numbers of a resample held at a time."""


@dataclass(frozen=True)
class Units:
    """n independent units; `place` (items,) is the unit of each item, None when every item is a unit by itself."""

    n: int
    place: np.ndarray | None = None

    def totals(self, values: np.ndarray) -> np.ndarray:
        """(n,) sum of the items' values in each unit."""
        return values if self.place is None else np.bincount(self.place, weights=values, minlength=self.n)

    def picks(self, resamples: int, seed: int | np.random.Generator) -> Iterator[np.ndarray]:
        """(r, n) numbers of the units drawn, in blocks of bounded memory, `resamples` rows in all."""
        rng, step = np.random.default_rng(seed), max(1, _BLOCK // self.n)
        for start in range(0, resamples, step):
            yield rng.integers(0, self.n, (min(step, resamples - start), self.n))

    def items(self, resamples: int, seed: int | np.random.Generator) -> Iterator[np.ndarray]:
        """(r, m) numbers of the items drawn; r = 1 where units have several items, as m differs then."""
        if self.place is None:
            yield from self.picks(resamples, seed)
            return
        members = np.split(np.argsort(self.place, kind="stable"), np.cumsum(np.bincount(self.place))[:-1])
        for block in self.picks(resamples, seed):
            for pick in block:
                yield np.concatenate([members[unit] for unit in pick])[None]

    def weights(self, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
        """(resamples, items) how often each item is drawn."""
        drawn = np.random.default_rng(seed).multinomial(self.n, np.full(self.n, 1 / self.n), size=resamples)
        return drawn if self.place is None else drawn[:, self.place]


def frequencies(counts: npt.ArrayLike, resamples: int, seed: int) -> np.ndarray:
    """(resamples, k) counts of k kinds of items when all are drawn again: a multinomial draw, whatever their number."""
    held = np.asarray(counts)
    return np.random.default_rng(seed).multinomial(held.sum(), held / held.sum(), size=resamples)


def units(items: int, clusters: npt.ArrayLike | None = None) -> Units:
    """The units of `items` items, by their (items,) cluster labels. Raises RequestError when a label is missing."""
    if clusters is None:
        return Units(items)
    place, names = pd.factorize(np.asarray(clusters))
    if len(place) != items or (place < 0).any():
        raise RequestError(f"{items} items have {(place >= 0).sum()} cluster labels; give one for each")
    return Units(items) if len(names) == items else Units(len(names), place)


@dataclass(frozen=True)
class Estimate:
    """value with bounds low and high.

    n: independent units behind it; unit: what is independent, in the singular (`canary`, `sentence pair`);
    interval: how the bounds came about (`wilson95`, `bootstrap95`, `paired bootstrap95`, `none`).
    """

    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    unit: str = ""
    interval: str = "none"

    def columns(self) -> dict[str, Any]:
        """As the last six columns of a summary table."""
        return asdict(self)


def percentiles(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the middle `level` of resampled values; those that are not finite are left out, NaN when all are."""
    kept = draws[np.isfinite(draws)]
    if not kept.size:
        return NAN, NAN
    low, high = np.quantile(kept, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def from_draws(value: float, draws: npt.ArrayLike, *, n: int, unit: str, level: float = 0.95) -> Estimate:
    """An estimate whose bounds are the percentiles of its (R,) values in resamples of n units."""
    low, high = percentiles(np.asarray(draws), level)
    return Estimate(float(value), low, high, int(n), unit, f"bootstrap{round(100 * level)}")


def wilson(successes: float, n: int, *, unit: str, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval; n = 0 gives NaN and the bounds 0 and 1."""
    name = f"wilson{round(100 * level)}"
    if n == 0:
        return Estimate(NAN, 0.0, 1.0, 0, unit, name)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n, unit, name)


def paired_shares(gained: int, lost: int, n: int, *, unit: str, level: float = 0.95) -> Estimate:
    """(gained − lost) / n of n paired flags with Agresti and Min's interval: half a pair is added to each cell.

    It stays open when no pair differs: pairs that all agree are evidence of a small difference, not proof of none.
    """
    more, total = n + 2, gained + lost + 1
    centre = (gained - lost) / more
    half = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(total - (gained - lost) ** 2 / more) / more
    name = f"agresti-min{round(100 * level)}"
    return Estimate((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half), n, unit, name)


def normal_bounds(values: npt.ArrayLike, errors: npt.ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of values whose standard errors are known: ± z errors, elementwise; NaN where the error is."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * np.asarray(errors, dtype=np.float64)
    return np.asarray(values) - half, np.asarray(values) + half


def mean(
    values: npt.ArrayLike, *, unit: str, clusters: npt.ArrayLike | None = None, level: float = 0.95,
    resamples: int = RESAMPLES, seed: int = 0, by_frequency: bool = False,
) -> Estimate:
    """Mean of (n,) values with an interval: a percentile bootstrap, or Wilson's for independent values that are 0 or 1.

    A bootstrap of ten successes out of ten would give the interval 1 to 1; Wilson's says what ten can say. One unit has
    no interval (NaN bounds). Raises RequestError for NaN values.

    by_frequency: for values of which few differ (counts, scores) a resample is a multinomial draw of how often each
    occurs: the same bootstrap, also where all are 0 or 1, at a cost that does not grow with n.
    """
    data = _finite(values)
    who = units(data.size, clusters)
    if by_frequency and data.size and who.place is None:
        distinct, counts = np.unique(data, return_counts=True)
        if len(distinct) <= MANY:
            drawn = frequencies(counts, resamples, seed) @ distinct / data.size
            return from_draws(data.mean(), drawn, n=data.size, unit=unit, level=level)
    if data.size and who.place is None and np.isin(data, (0.0, 1.0)).all():
        return wilson(float(data.sum()), data.size, unit=unit, level=level)
    return _mean(data, who, unit, level, resamples, seed)


def difference(
    treated: npt.ArrayLike, control: npt.ArrayLike = 0.0, *, unit: str, clusters: npt.ArrayLike | None = None,
    level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0,
) -> Estimate:
    """Mean of treated − control over aligned (n,) items, bootstrapped over units. One column: differences."""
    a, b = _finite(treated), _finite(control)
    if b.ndim and a.shape != b.shape:
        raise RequestError(f"paired columns differ in length: {a.size} and {b.size}; pair them by item first")
    found = _mean(a - b, units(a.size, clusters), unit, level, resamples, seed)
    return replace(found, interval=f"paired {found.interval}")


def difference_of_means(
    treated: npt.ArrayLike, control: npt.ArrayLike, *, unit: str, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of one sample minus that of another, independent one; both are resampled. NaN when either is empty."""
    a, b = _finite(treated), _finite(control)
    if not a.size or not b.size:
        return from_draws(NAN, [], n=a.size + b.size, unit=unit)
    rng = np.random.default_rng(seed)
    means = [[side[rng.integers(0, side.size, side.size)].mean() for side in (a, b)] for _ in range(resamples)]
    return from_draws(a.mean() - b.mean(), -np.diff(means)[:, 0], n=a.size + b.size, unit=unit)


def crossed(
    function: Callable[..., float], *tables: np.ndarray, unit: str, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Any statistic of aligned (a, b) tables of two crossed kinds of units (runs × rows), both resampled; n is a."""
    rng, (a, b) = np.random.default_rng(seed), tables[0].shape
    picks = [np.ix_(rng.integers(0, a, a), rng.integers(0, b, b)) for _ in range(resamples)]
    draws = [function(*(table[pick] for table in tables)) for pick in picks]
    return replace(from_draws(function(*tables), draws, n=a, unit=unit), interval="crossed bootstrap95")


def _mean(data: np.ndarray, who: Units, unit: str, level: float, resamples: int, seed: int) -> Estimate:
    value = data.mean() if data.size else NAN
    if who.n < 2:
        return from_draws(value, [], n=who.n, unit=unit, level=level)
    totals, sizes = who.totals(data), None if who.place is None else np.bincount(who.place)
    picks = who.picks(resamples, seed)
    draws = [totals[p].sum(axis=1) / (who.n if sizes is None else sizes[p].sum(axis=1)) for p in picks]
    return from_draws(value, np.concatenate(draws), n=who.n, unit=unit, level=level)


def statistic(
    function: Callable[..., Any], *columns: npt.ArrayLike, unit: str, clusters: npt.ArrayLike | None = None,
    level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0, vectorized: bool = False,
) -> Estimate:
    """Any statistic of aligned (n, …) columns, units resampled together; resamples where it is NaN are left out.

    function: of the columns of one resample, to a number; vectorized: of (r, n, …) columns of r resamples, to (r,).
    """
    arrays = [np.asarray(c) for c in columns]
    if len({len(a) for a in arrays}) > 1:
        raise RequestError(f"columns have different lengths: {[len(a) for a in arrays]}; they must be aligned")
    who = units(len(arrays[0]), clusters)
    if who.n == 0:
        return from_draws(NAN, [], n=0, unit=unit, level=level)

    def apply(*blocks: np.ndarray) -> np.ndarray:
        return function(*blocks) if vectorized else np.array([function(*rows) for rows in zip(*blocks, strict=True)])

    value = apply(*(a[None] for a in arrays))[0]
    draws = [apply(*(a[pick] for a in arrays)) for pick in who.items(resamples, seed)]
    return from_draws(value, np.concatenate(draws), n=who.n, unit=unit, level=level)


def _finite(values: npt.ArrayLike) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise RequestError(f"{bad} of {data.size} values are NaN or infinite; drop or flag those items first")
    return data
