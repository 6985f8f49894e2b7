"""A number with its interval, and what was independent behind it: canaries, terms, sentence pairs; never tokens.

A resample holds independent units drawn with replacement, each with all its items. Draws depend on the number of units
and the seed alone: different statistics of the same units see the same resamples.

`clusters` are labels (n,) of items that are not independent: whole clusters are resampled and counted, and the estimate
stays that of the items.
Intervals hold for few units: `scripts/benchmarks/coverage.py` measures how often each of them covers.
Sources: Wilson 1927 (score interval); Korn & Graubard 1998 (shares with clusters: as many items as they are worth);
Agresti & Min 2005 (paired shares); Hall 1988 and Efron & Tibshirani 1993, ch. 12 (studentized bootstrap; symmetric),
ch. 13 (percentile bootstrap), ch. 11 (jackknife); for clusters, Davison & Hinkley 1997, section 3.8.
Cost: a bootstrap of n items and R resamples takes O(n R) time, in blocks of bounded memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pythia_tools.core.errors import RequestError

Jackknife: TypeAlias = Literal["never", "plain", "fisher"]
MANY = 256
"""Distinct values up to which a mean can be resampled by their frequencies."""
NAN = float("nan")
RESAMPLES = 2000
FEWEST = 6
"""Units below which a percentile interval is refused, and a mean has Student's alone."""
SCARCE = 20
"""Clusters below which a smooth statistic has the jackknife's interval: percentiles of so few lie too close."""
_BLOCK = 1 << 20
"""Numbers of a resample held at a time."""
_CLOSE = 1 - 1e-6
"""A correlation above which Fisher's z is that of this one."""


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

    def smooth_weights(self, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
        """(resamples, items) weights of mean about 1, exponential per unit: no resample lacks a unit, so none of a fit
        has too few to be one (Rubin 1981; for least absolute residuals Jin, Ying & Wei 2001).
        """
        drawn = np.random.default_rng(seed).exponential(size=(resamples, self.n))
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
    interval: how the bounds came about (`wilson95`, `studentized bootstrap95`, `bootstrap95`), `none` without bounds.
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
    return Estimate(float(value), low, high, int(n), unit, _name("bootstrap", level) if np.isfinite(low) else "none")


def fitted(
    value: float, draws: npt.ArrayLike, *, n: int, freedom: int, unit: str, level: float = 0.95
) -> Estimate:
    """An estimate out of a fit to n units, of which its constants leave `freedom` over: from (R,) values in resamples.

    The bounds are percentiles, as much further from the value as Student's quantile exceeds the normal one and as
    residuals of a fit fall short (n / freedom, in squares); none below FEWEST units, or without resamples.
    """
    low, high = percentiles(np.asarray(draws), level)
    if n < FEWEST or not np.isfinite(low):
        return Estimate(value, n=n, unit=unit)
    quantiles = float(student.ppf(0.5 + level / 2, freedom)), NormalDist().inv_cdf(0.5 + level / 2)
    wider = quantiles[0] / quantiles[1] * (n / freedom) ** 0.5
    bounds = value + wider * (low - value), value + wider * (high - value)
    return Estimate(value, *bounds, n, unit, _name("bootstrap", level))


def wilson(successes: float, n: int, *, unit: str, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval; n = 0 gives NaN and the bounds 0 and 1."""
    name = _name("wilson", level)
    if n == 0:
        return Estimate(NAN, 0.0, 1.0, 0, unit, name)
    p = successes / n
    return Estimate(p, *_score_bounds(p, n, NormalDist().inv_cdf(0.5 + level / 2)), n, unit, name)


def _score_bounds(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's bounds of a share p of n items, at z standard errors."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def paired_shares(gained: int, lost: int, n: int, *, unit: str, level: float = 0.95) -> Estimate:
    """(gained − lost) / n of n paired flags with Agresti and Min's interval: half a pair is added to each cell.

    It stays open when no pair differs: pairs that all agree are evidence of a small difference, not proof of none.
    """
    more, total = n + 2, gained + lost + 1
    centre = (gained - lost) / more
    half = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(total - (gained - lost) ** 2 / more) / more
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Estimate((gained - lost) / n, low, high, n, unit, _name("agresti-min", level))


def normal_bounds(values: npt.ArrayLike, errors: npt.ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of values whose standard errors are known: ± z errors, elementwise; NaN where the error is."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * np.asarray(errors, dtype=np.float64)
    return np.asarray(values) - half, np.asarray(values) + half


def mean(
    values: npt.ArrayLike, *, unit: str, clusters: npt.ArrayLike | None = None, level: float = 0.95,
    resamples: int = RESAMPLES, seed: int = 0, share: bool = False,
) -> Estimate:
    """Mean of (n,) values with an interval: Wilson's for values that are 0 or 1, else by the studentized bootstrap.

    Zeros and ones in clusters count as the number of independent ones whose share would vary as much, and Wilson's
    bounds are taken at Student's quantile for so many clusters; `share`: so do other values between 0 and 1, which are
    shares themselves, and their bounds are never narrower than the studentized ones. These lie symmetrically and are
    never narrower than Student's, which are given below FEWEST units. One unit has no interval (NaN bounds).
    Raises RequestError for NaN values.
    """
    data = _finite(values)
    who, flags = units(data.size, clusters), bool(np.isin(data, (0.0, 1.0)).all())
    if flags and data.size and who.place is None:
        return wilson(float(data.sum()), data.size, unit=unit, level=level)
    between = share and data.size and 0 <= data.min() <= data.max() <= 1
    if who.n < 2 or not (flags or between):
        return _mean(data, who, unit, level, resamples, seed)
    value, error = float(data.mean()), _error(*_rests(data, who))
    worth = value * (1 - value) / max(error, 1e-12) ** 2
    if flags or error < 1e-12:
        worth = min(worth, float(data.size))
    # all alike: one for each unit
    low, high = _score_bounds(value, worth or who.n, float(student.ppf(0.5 + level / 2, who.n - 1)))
    if flags:
        return Estimate(value, low, high, who.n, unit, _name("clustered wilson", level))
    found = _mean(data, who, unit, level, resamples, seed)
    low, high = max(min(low, found.low), 0.0), min(max(high, found.high), 1.0)
    return Estimate(value, low, high, who.n, unit, _name("effective wilson", level))


def difference(
    treated: npt.ArrayLike, control: npt.ArrayLike = 0.0, *, unit: str, clusters: npt.ArrayLike | None = None,
    level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0,
) -> Estimate:
    """Mean of treated − control over aligned (n,) items, by the studentized bootstrap over units. One column:
    differences. Flags that are not clustered, or of which none differs, get the interval of `paired_shares`.
    """
    a, b = _finite(treated), _finite(control)
    if b.ndim and a.shape != b.shape:
        raise RequestError(f"paired columns differ in length: {a.size} and {b.size}; pair them by item first")
    change, who = a - b, units(a.size, clusters)
    equal = bool(b.ndim and not change.any() and np.isin(a, (0.0, 1.0)).all())
    if change.size and (equal or (who.place is None and np.isin(change, (-1.0, 0.0, 1.0)).all())):
        return paired_shares(int((change > 0).sum()), int((change < 0).sum()), who.n, unit=unit, level=level)
    found = _mean(change, who, unit, level, resamples, seed)
    return replace(found, interval=f"paired {found.interval}") if found.interval != "none" else found


def dispersion(
    counts: npt.ArrayLike, *, unit: str, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Sample variance over mean of (n,) counts, 1 for Poisson's; NaN when all are 0, no interval below FEWEST units.

    The interval is that of its logarithm, studentized by the influence of each unit.
    """
    data = _finite(counts)
    value, error = (float(found[0]) for found in _log_dispersion(data[None]))
    if data.size < FEWEST or not np.isfinite(error):
        return Estimate(float(np.exp(value)), n=data.size, unit=unit)
    drawn = [_log_dispersion(data[pick]) for pick in Units(data.size).picks(resamples, seed)]
    others, errors = (np.concatenate(part) for part in zip(*drawn, strict=True))
    reach = _studentized(error, others - value, errors, data.size - 1, level)
    low, high = np.exp([value - reach, value + reach])
    return Estimate(float(np.exp(value)), low, high, data.size, unit, _name("studentized bootstrap", level))


def _log_dispersion(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(r,) logarithms of the dispersion of each row of (r, n) counts, and their standard errors."""
    n, middle = counts.shape[1], counts.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # no count above 0, or all counts equal
        variance = ((counts - middle) ** 2).sum(axis=1, keepdims=True) / (n - 1)
        influence = (counts - middle) ** 2 / variance - (n - 1) / n - (counts - middle) / middle
        return np.log(variance / middle)[:, 0], np.sqrt((influence**2).sum(axis=1) / (n * (n - 1)))


def _mean(data: np.ndarray, who: Units, unit: str, level: float, resamples: int, seed: int) -> Estimate:
    value = float(data.mean()) if data.size else NAN
    if who.n < 2:
        return Estimate(value, n=who.n, unit=unit)
    rests, sizes = _rests(data, who)
    if who.n < FEWEST:
        reach = float(student.ppf(0.5 + level / 2, who.n - 1)) * _error(rests, sizes)
        return Estimate(value, value - reach, value + reach, who.n, unit, _name("student", level))
    distinct, counts = np.unique(rests, return_counts=True) if who.place is None else (rests, sizes)
    if who.place is None and who.n > MANY >= len(distinct):  # a resample is how often each value is drawn
        drawn = frequencies(counts, resamples, seed)
        shifts = drawn @ distinct / who.n
        errors = np.sqrt(np.maximum(drawn @ distinct**2 / who.n - shifts**2, 0) / (who.n - 1))
    else:
        shifts, errors = _redrawn(rests, sizes, who, resamples, seed)
    reach = _studentized(_error(rests, sizes), shifts, errors, who.n - 1, level)
    return Estimate(value, value - reach, value + reach, who.n, unit, _name("studentized bootstrap", level))


def _rests(data: np.ndarray, who: Units) -> tuple[np.ndarray, np.ndarray]:
    """(n,) what each unit's items sum to beyond the mean, and how many they are."""
    return who.totals(data - data.mean()), np.ones(who.n) if who.place is None else np.bincount(who.place)


def _error(rests: np.ndarray, sizes: np.ndarray) -> float:
    """Standard error of the mean by the units' rests."""
    n = len(rests)
    return float(np.sqrt(n / (n - 1) * (rests**2).sum()) / sizes.sum())


def _redrawn(
    rests: np.ndarray, sizes: np.ndarray, who: Units, resamples: int, seed: int | np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(resamples,) how far the mean of each resample lies from the mean, and its own standard error."""
    shifts, squares, items = [], [], []
    for pick in who.picks(resamples, seed):
        rest = rests[pick]
        if who.place is None:
            shifts.append(rest.mean(axis=1))
            squares.append(np.einsum("ij,ij->i", rest, rest) - who.n * shifts[-1] ** 2)
            items.append(np.full(len(rest), who.n))
        else:
            size = sizes[pick]
            items.append(size.sum(axis=1))
            shifts.append(rest.sum(axis=1) / items[-1])
            squares.append(((rest - shifts[-1][:, None] * size) ** 2).sum(axis=1))
    variances = np.maximum(np.concatenate(squares), 0) * who.n / (who.n - 1)
    return np.concatenate(shifts), np.sqrt(variances) / np.concatenate(items)


def _studentized(error: float, shifts: np.ndarray, errors: np.ndarray, freedom: float, level: float) -> float:
    """Half the width of a symmetric interval: so many standard errors as `level` of the resamples lie apart, by their
    own; at least as many as Student's t has it.
    """
    told = errors > 1e-6 * error  # a resample of one value alone has no error of its own
    far = np.abs(shifts[told]) / errors[told]
    least = float(student.ppf(0.5 + level / 2, freedom))
    return error * max(least, float(np.quantile(far, level)) if far.size else 0.0)


def statistic(
    function: Callable[..., Any], *columns: npt.ArrayLike, unit: str, clusters: npt.ArrayLike | None = None,
    level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0, vectorized: bool = False,
    jackknife: Jackknife = "never",
) -> Estimate:
    """Any statistic of aligned (n, …) columns, units resampled together; resamples where it is NaN are left out.

    Bounds are percentiles. There are none below FEWEST units, and none where every resample gives the same: a bootstrap
    that cannot vary knows nothing of chance.

    function: of the columns of one resample, to a number; vectorized: of (r, n, …) columns of r resamples, to (r,).
    jackknife: fewer than SCARCE clusters are left out one by one instead (Student's t), where the statistic is smooth,
    unlike a median; `fisher`: a correlation, whose z is taken.
    """
    arrays = [np.asarray(c) for c in columns]
    if len({len(a) for a in arrays}) > 1:
        raise RequestError(f"columns have different lengths: {[len(a) for a in arrays]}; they must be aligned")
    who = units(len(arrays[0]), clusters)
    if who.n == 0:
        return Estimate(NAN, unit=unit)

    def apply(*blocks: np.ndarray) -> np.ndarray:
        return function(*blocks) if vectorized else np.array([function(*rows) for rows in zip(*blocks, strict=True)])

    value = float(apply(*(a[None] for a in arrays))[0])
    if who.n < FEWEST:
        return Estimate(value, n=who.n, unit=unit)
    if jackknife != "never" and who.place is not None and who.n < SCARCE:
        without = [apply(*(a[who.place != k][None] for a in arrays))[0] for k in range(who.n)]
        return _jackknifed(value, np.array(without), unit, level, jackknife == "fisher")
    draws = np.concatenate([apply(*(a[pick] for a in arrays)) for pick in who.items(resamples, seed)])
    kept = draws[np.isfinite(draws)]
    if not kept.size or np.ptp(kept) == 0:
        return Estimate(value, n=who.n, unit=unit)
    return from_draws(value, draws, n=who.n, unit=unit, level=level)


def _jackknifed(value: float, without: np.ndarray, unit: str, level: float, fisher: bool) -> Estimate:
    """A statistic with Student's bounds from its (n,) values without one unit each; none where one is undefined."""
    n = len(without)
    centre, left = np.asarray(value), without
    if fisher:
        centre, left = np.arctanh(np.clip(centre, -_CLOSE, _CLOSE)), np.arctanh(np.clip(left, -_CLOSE, _CLOSE))
    error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
    if not error > 0:
        return Estimate(value, n=n, unit=unit)
    reach = float(student.ppf(0.5 + level / 2, n - 1)) * error
    low, high = (float(np.tanh(v) if fisher else v) for v in (centre - reach, centre + reach))
    return Estimate(value, low, high, n, unit, _name("jackknife t", level))


def _name(kind: str, level: float) -> str:
    return f"{kind}{round(100 * level)}"


def _finite(values: npt.ArrayLike) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise RequestError(f"{bad} of {data.size} values are NaN or infinite; drop or flag those items first")
    return data
