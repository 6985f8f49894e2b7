"""Bands and rows for a threshold, and what a choice of them finds.

A signature is cut into `bands` of `rows` values, and documents that agree on all values of a band are candidates. A
pair of Jaccard similarity J becomes one with probability 1 − (1 − J^rows)^bands. Bands and rows are chosen as in
datasketch's MinHashLSH: the sum of false positives below the threshold and false negatives above it, as areas under
that curve, is least.
"""

from __future__ import annotations

import functools
import math

from pythia_tools.core.errors import RequestError


@functools.lru_cache(maxsize=256)
def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) of datasketch's MinHashLSH(threshold, num_perm): (0.87, 128) gives (7, 18).

    Unlike datasketch it allows a single band, which is what (0.87, 10) comes to.
    Raises: RequestError when either is out of range.
    """
    from scipy.integrate import quad

    if not 0 < threshold <= 1 or num_perm < 1:
        raise RequestError(f"threshold {threshold} must lie in (0, 1] and num_perm {num_perm} be at least 1")
    best, chosen = math.inf, (1, 1)
    for bands in range(1, num_perm + 1):
        for rows in range(1, num_perm // bands + 1):
            missed, _ = quad(lambda s, b=bands, r=rows: (1 - s ** float(r)) ** float(b), threshold, 1.0)
            false, _ = quad(lambda s, b=bands, r=rows: 1 - (1 - s ** float(r)) ** float(b), 0.0, threshold)
            error = 0.5 * false + 0.5 * missed
            if error < best:
                best, chosen = error, (bands, rows)
    return chosen


def hit_probability(similarity: float, bands: int, rows: int) -> float:
    """Chance that a pair of this Jaccard similarity shares a bucket."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def curve_in_words(threshold: float, bands: int, rows: int) -> str:
    """What a setting finds, as sentences: at the threshold, around it, and where a pair's chance is one half."""
    half = (1.0 - 0.5 ** (1.0 / bands)) ** (1.0 / rows)
    points = sorted({0.5, 0.7, 0.8, 0.9, 0.95, 1.0} - {threshold})
    others = ", ".join(f"{hit_probability(s, bands, rows):.3g} at {s:g}" for s in points)
    return (
        f"{bands} bands of {rows} rows ({bands * rows} hashes): a pair at J = {threshold:g} is found with probability "
        f"{hit_probability(threshold, bands, rows):.2f}; {others}. Even chance at J = {half:.3f}. "
        "The threshold is where the search is aimed, not a guarantee: method 'exact' finds every pair."
    )
