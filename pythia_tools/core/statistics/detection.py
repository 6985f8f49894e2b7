"""How well a score tells two kinds of units apart: the area under the ROC curve, and true positives at few false ones.

An AUC has Wilson's bounds at the number of units it is worth by DeLong's variance, at Student's quantile for the
smaller side; percentiles of resamples lie too close where few units are almost told apart. A true-positive rate is as
uncertain as the share of the positives (Wilson) and as the threshold, which the negatives put between two of their own
scores (binomial); the two distances are added in squares on either side.
Sources: DeLong, DeLong & Clarke-Pearson 1988; Newcombe 2006 (Wilson-like bounds of an AUC); Zou & Donner 2008
(distances to both bounds recovered and put together).
Cost: O(n log n).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom
from scipy.stats import t as student

from pythia_tools.core.statistics.estimates import Estimate, _name, _score_bounds, wilson


def auc(positives: npt.ArrayLike, negatives: npt.ArrayLike, *, unit: str = "row", level: float = 0.95) -> Estimate:
    """Area under the ROC curve of (n,) and (m,) scores; ties count half. NaN when a side is empty, no interval when it
    is a single score.

    >>> found = auc([2.0, 3.0, 5.0], [1.0, 2.0, 0.0, 4.0])
    >>> round(found.value, 4), found.n
    (0.7917, 7)
    """
    p, n = (np.asarray(side, dtype=np.float64) for side in (positives, negatives))
    few, size = min(len(p), len(n)), len(p) + len(n)
    if not few:
        return Estimate(float("nan"), n=size, unit=unit)
    beaten, lost = _standing(p, n), 1 - _standing(n, p)
    value = float(beaten.mean())
    if few < 2:
        return Estimate(value, n=size, unit=unit)
    variance = float(beaten.var(ddof=1) / len(p) + lost.var(ddof=1) / len(n))
    worth = value * (1 - value) / variance if variance > 0 and 0 < value < 1 else few
    bounds = _score_bounds(value, worth, float(student.ppf(0.5 + level / 2, few - 1)))
    return Estimate(value, *bounds, size, unit, _name("delong wilson", level))


def roc(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, rates: Sequence[float], *, unit: str = "row",
    level: float = 0.95,
) -> list[Estimate]:
    """The AUC of (n,) and (m,) scores, then the true-positive rate at each false-positive rate of `rates`.

    A rate is that of the strictest threshold whose false-positive rate is at most the one asked. With fewer than
    1 / rate negatives the threshold is the largest negative score: nothing finer can be measured, and there is no
    interval.
    """
    p, n = (np.sort(np.asarray(side, dtype=np.float64))[::-1] for side in (positives, negatives))
    size = len(p) + len(n)
    if not len(p) or not len(n):
        return [Estimate(float("nan"), n=size, unit=unit)] * (1 + len(rates))
    above = len(p) - np.searchsorted(p[::-1], n, side="right")
    found = np.concatenate([[0], above, [len(p)]]) / len(p)  # share of the positives above each negative, all at last
    lines = [auc(p, n, unit=unit, level=level)]
    for rate in rates:
        allowed = min(int(np.floor(rate * len(n) + 1e-9)), len(n))
        value = float(found[allowed + 1])
        if not allowed:
            lines.append(Estimate(value, n=size, unit=unit))
            continue
        few, many = (int(k) for k in binom.ppf([0.5 - level / 2, 0.5 + level / 2], len(n), rate))
        strict = min(value, float(found[few + 1])) if few else 0.0
        loose, share = max(value, float(found[many])), wilson(value * len(p), len(p), unit=unit, level=level)
        low = max(0.0, value - float(np.hypot(value - share.low, value - strict)))
        high = min(1.0, value + float(np.hypot(share.high - value, loose - value)))
        lines.append(Estimate(value, low, high, size, unit, _name("wilson and binomial", level)))
    return lines


def _standing(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) share of the others that each score lies above; ties count half."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(others))
