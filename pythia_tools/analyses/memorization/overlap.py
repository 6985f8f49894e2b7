"""How much of these rows had been seen before? Shares of n-grams met, and exact copies counted, in one scan of consumed
rows.

A set of candidate rows is small, the rows consumed before a checkpoint are many; so the candidates' n-grams go into a
hash table and the consumed rows stream past it, each n-gram at the cost of one rolling-hash step and one look. Memory:
up to 100 bytes per candidate n-gram, nothing per consumed row. Hashes are 61-bit; a false match has a chance of about
(candidate n-grams) / 2^61 per position. Why it is needed: in a two-epoch order most later rows were partly seen, and
near-duplicates leak between members and non-members.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pythia_tools.core.errors import RequestError
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.ngram_scan import find, hash_table
from pythia_tools.order import Rows

CHUNK = 8192
"""Rows read at a time by scans."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 61) - 1


class Overlap:
    """n-grams of candidate rows (m, L), to be looked for in rows that stream by.

    overlap = Overlap(candidates, n=13)
    for _, rows in order.chunks(0, step * order.batch_rows):
        overlap.scan(rows)
    overlap.share()      # (m,) share of each candidate's n-grams that were met
    overlap.copies()     # (m,) how often the candidate's first n-gram occurred: with n = L, exact copies of the row
    """

    def __init__(self, candidates: npt.ArrayLike, n: int = 13):
        rows = np.ascontiguousarray(candidates, dtype=np.int64)
        if rows.ndim != 2 or rows.shape[1] < n or n < 1:
            raise RequestError(f"candidates have shape {rows.shape}; n-grams of {n} need rows of at least {n} ids")
        self.n = n
        hashes = np.empty((len(rows), rows.shape[1] - n + 1), np.uint64)
        for row, out in zip(rows, hashes, strict=True):
            _hashes(row, n, out)
        unique, place = np.unique(hashes, return_inverse=True)
        self.place = place.reshape(hashes.shape)
        self.keys, self.slots = hash_table(unique.astype(np.int64), np.arange(len(unique)))
        self.counts = np.zeros(len(unique), np.int64)

    def scan(self, rows: npt.ArrayLike) -> None:
        """Count the candidates' n-grams in rows (r, L') of any integer type; rows shorter than n hold none."""
        array = np.asarray(rows)
        if array.shape[1] >= self.n and len(self.counts):
            hashes = np.empty(array.shape[1] - self.n + 1, np.uint64)
            _scan(np.ascontiguousarray(array), self.n, self.keys, self.slots, hashes, self.counts)

    def share(self) -> np.ndarray:
        """(m,) share of each candidate's n-grams met so far."""
        return (self.counts[self.place] > 0).mean(axis=1)

    def share_elsewhere(self) -> np.ndarray:
        """(m,) share of each candidate's n-grams met outside it too; for candidates that streamed by themselves."""
        own = np.empty_like(self.place)
        for row, out in zip(self.place, own, strict=True):
            _, where, times = np.unique(row, return_inverse=True, return_counts=True)
            out[:] = times[where]
        return (self.counts[self.place] > own).mean(axis=1)

    def copies(self) -> np.ndarray:
        """(m,) occurrences of each candidate's first n-gram so far."""
        return self.counts[self.place[:, 0]]


def duplicate_counts(windows: npt.ArrayLike, consumed: Iterable[npt.ArrayLike]) -> np.ndarray:
    """(m,) how often each window (m, w) occurs, at any offset, in rows that stream by; once in its own row too."""
    array = np.asarray(windows)
    overlap = Overlap(array, array.shape[1])
    for rows in consumed:
        overlap.scan(rows)
    return overlap.copies()


def texts(numbers: np.ndarray, windows: npt.ArrayLike, documents: np.ndarray) -> pd.Series:
    """Row → the first of the rows `numbers` (m,) that share its document or its window (m, w), or share with those.

    documents: (m,) numbers, negative where unknown. Such rows are not independent.
    """
    _, same = np.unique(np.asarray(windows), axis=0, return_inverse=True)
    keys = np.concatenate([same.ravel(), np.where(documents < 0, same.max(initial=0) + 1 + np.arange(len(same)),
                                                  same.max(initial=0) + 1 + len(same) + documents)])
    _, node = np.unique(keys, return_inverse=True)
    ends = (np.tile(np.arange(len(numbers)), 2), len(numbers) + node)
    size = len(numbers) + int(node.max(initial=-1)) + 1
    _, part = connected_components(coo_matrix((np.ones(len(node), bool), ends), shape=(size, size)), directed=False)
    rows = pd.Series(numbers, index=numbers)
    return rows.groupby(part[: len(numbers)]).transform("min")


def window_exposures(order: Rows, windows: npt.ArrayLike, steps: Iterable[int]) -> pd.DataFrame:
    """How often each window (m, w) occurs, at any offset, in the rows consumed by each step: m rows, a column a step.

    Cost: one scan of the rows consumed by the last step.
    """
    array, found, start = np.asarray(windows), {}, 0
    overlap = Overlap(array, array.shape[1])
    for step in sorted({int(step) for step in steps}):
        stop = min(order.n_rows, step * order.batch_rows)
        for _, rows in order.chunks(start, stop, CHUNK):
            overlap.scan(rows)
        start, found[step] = stop, overlap.copies()
    return pd.DataFrame(found)


@kernel
def _mix(h):  # type: ignore[no-untyped-def]
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(32)
    return h & np.uint64(_MASK)


@kernel
def _token(t):  # type: ignore[no-untyped-def]
    return _mix((np.uint64(t) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9))


@kernel
def _hashes(row, n, out):  # type: ignore[no-untyped-def]
    """Rolling hash of every n-gram of a row."""
    power = np.uint64(1)
    for _ in range(n - 1):
        power *= _BASE
    h = np.uint64(0)
    for i in range(len(row)):
        if i >= n:
            h -= _token(row[i - n]) * power
        h = h * _BASE + _token(row[i])
        if i >= n - 1:
            out[i - n + 1] = _mix(h)


@kernel
def _scan(rows, n, keys, slots, hashes, counts):  # type: ignore[no-untyped-def]
    for r in range(rows.shape[0]):
        _hashes(rows[r], n, hashes)
        for h in hashes:
            slot = find(keys, slots, np.int64(h))
            if slot >= 0:
                counts[slot] += 1
