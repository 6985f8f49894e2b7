"""The performance gap: accuracy on the most seen terms minus that on the least seen ones.

Equal exposures are equal: the answer does not depend on the order in which tied terms happen to stand.
Source: Biderman et al. 2023 (arXiv 2304.01373), table 4.
"""

import numpy as np
import numpy.typing as npt

from pythia_tools.core.statistics import Estimate, statistic

TOP = 10


def gap(
    exposures: npt.ArrayLike, accuracy: npt.ArrayLike, *, top: int = TOP, unit: str = "term",
    clusters: npt.ArrayLike | None = None, seed: int = 0,
) -> Estimate:
    """100 × (mean accuracy of the `top` most frequent terms − of the `top` least frequent), in percentage points.

    Of (n,) terms tied at the edge each counts in part. With fewer than 2·top terms, half of them on each side. NaN when
    all exposures are equal; no interval when all accuracies are.
    """
    k = max(1, min(top, np.size(exposures) // 2))

    def gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(np.ptp(a, axis=1) > 0, 100 * (_mean_of_top(a, b, k) - _mean_of_top(-a, b, k)), np.nan)

    return statistic(
        gaps, exposures, accuracy, unit=unit, clusters=clusters, seed=seed, vectorized=True, jackknife="plain"
    )


def _mean_of_top(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """(r,) mean of y over the k largest x of each row of (r, n) arrays."""
    edge = -np.partition(-x, k - 1, axis=1)[:, k - 1:k]
    above, at = x > edge, x == edge
    missing = k - above.sum(axis=1)
    return ((y * above).sum(axis=1) + missing * (y * at).sum(axis=1) / at.sum(axis=1)) / k
