"""How well a score tells positives from negatives: the area under the ROC curve, and true positives at few false ones.

A resample is a weight per item, so scores are sorted once: everything is sums of weights above or below a score.
Cost: O(n R) for n items and R resamples, in blocks of bounded memory.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pythia_tools.core.statistics.estimates import Estimate, from_draws
from pythia_tools.core.statistics.resampling import units

_BLOCK = 1 << 21


def auc(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, *, unit: str = "row", level: float = 0.95,
    resamples: int = 1000, seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of (n,) and (m,) scores (ties count half), with a bootstrap over both sides."""
    return roc(positives, negatives, (), unit=unit, level=level, resamples=resamples, seed=seed)[0]


def roc(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, rates: Sequence[float], *, unit: str = "row",
    level: float = 0.95, resamples: int = 1000, seed: int = 0,
) -> list[Estimate]:
    """The AUC, then the true-positive rate at each false-positive rate of `rates`, all from the same resamples.

    A rate is that of the strictest threshold whose false-positive rate is at most the one asked. With fewer than
    1 / rate negatives the threshold is the largest negative score: nothing finer can be measured.
    """
    p, n = (np.sort(np.asarray(side, dtype=np.float64))[::-1] for side in (positives, negatives))
    size = len(p) + len(n)
    if not len(p) or not len(n):
        return [from_draws(np.nan, [], n=size, unit=unit, level=level)] * (1 + len(rates))
    rng, step, draws = np.random.default_rng(seed), max(1, _BLOCK // size), []
    for start in range(0, resamples, step):
        take = min(step, resamples - start)
        held, others = (units(len(side)).weights(take, rng).astype(np.float64) for side in (p, n))
        draws.append(_curve(p, n, held, others, rates))
    values = _curve(p, n, np.ones((1, len(p))), np.ones((1, len(n))), rates)[:, 0]
    kept = np.concatenate(draws, axis=1)
    return [from_draws(v, d, n=size, unit=unit, level=level) for v, d in zip(values, kept, strict=True)]


def _curve(p: np.ndarray, n: np.ndarray, wp: np.ndarray, wn: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """(1 + rates, R) of descending scores p, n under weights wp (R, P), wn (R, N)."""
    above = np.concatenate([np.zeros((len(wn), 1)), np.cumsum(wn, axis=1)], axis=1)  # weight of the k highest negatives
    higher, not_lower = np.searchsorted(-n, -p, side="left"), np.searchsorted(-n, -p, side="right")
    beaten = len(n) - (above[:, higher] + above[:, not_lower]) / 2
    lines = [(wp * beaten).sum(axis=1) / (len(p) * len(n))]
    found = np.concatenate([np.zeros((len(wp), 1)), np.cumsum(wp, axis=1)], axis=1)
    positives_above = np.append(np.searchsorted(-p, -n, side="left"), len(p))  # strictly; and all
    for rate in rates:
        allowed = np.floor(rate * len(n) + 1e-9)
        threshold = (above[:, 1:] <= allowed).sum(axis=1)  # the first negative that would be one too many
        lines.append(found[np.arange(len(wp)), positives_above[threshold]] / len(p))
    return np.array(lines)
