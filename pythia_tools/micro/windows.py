"""Windows of held-out text for canaries and controls: distinct from training and from each other.

Two windows count as sharing text when they share `SHARED` tokens in a row. The comparison is exact up to a 64-bit hash.
Cost: a hash per training token.
"""

from collections.abc import Iterable

import numpy as np

SHARED = 12
LEAST_VARIETY = 0.4
"""Share of distinct tokens below which a window is a table or a ruler, which models continue without having seen it."""


def ngram_hashes(tokens: np.ndarray, n: int) -> np.ndarray:
    """(…, L - n + 1) uint64 polynomial hashes, wrapping, of the n-grams of (…, L) token ids."""
    if tokens.shape[-1] < n:
        return np.empty((*tokens.shape[:-1], 0), dtype=np.uint64)
    views = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64) + np.uint64(1), n, axis=-1)
    powers = np.cumprod(np.full(n, 0x9E3779B97F4A7C15, dtype=np.uint64))
    mixed = (views * powers).sum(axis=-1, dtype=np.uint64)
    return np.asarray(mixed ^ (mixed >> np.uint64(29)))


def training_hashes(documents: Iterable[np.ndarray]) -> np.ndarray:
    """Sorted distinct hashes of the stretches of `SHARED` tokens in all documents."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(ngram_hashes(d, SHARED) for d in documents)]))


def distinct_windows(documents: Iterable[np.ndarray], length: int, training: np.ndarray) -> list[np.ndarray]:
    """Whole windows of `length` tokens, none of which shares text with training or with an earlier window."""
    kept: list[np.ndarray] = []
    seen: set[int] = set()
    for tokens in documents:
        for start in range(0, len(tokens) - length + 1, length):
            window = tokens[start : start + length]
            hashes = ngram_hashes(window, SHARED)
            if len(np.unique(window)) < LEAST_VARIETY * length or not seen.isdisjoint(hashes.tolist()):
                continue
            if (np.searchsorted(training, hashes, "right") > np.searchsorted(training, hashes)).any():
                continue
            seen.update(hashes.tolist())
            kept.append(window)
    return kept
