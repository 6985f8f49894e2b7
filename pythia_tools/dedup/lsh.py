"""Locality-sensitive hashing: bands and rows for a threshold, the S-curve in words, and candidates from equal bands.

A signature is cut into `bands` of `rows` values; documents that agree on all values of a band share a bucket, and
documents that share a bucket are candidates. A pair of Jaccard similarity J becomes one with probability
1 − (1 − J^rows)^bands. Bands and rows are chosen as datasketch's MinHashLSH does: false positives below the threshold
plus false negatives above it, as areas under that curve, weighed and least.
A band's values are hashed to 64 bits; two different ones meet with probability about n²/2⁶⁵ per band.
Empty documents are in no bucket.
Cost: sorting 8-byte keys, about 60 ns per document and band.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import njit

from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.connected import join
from pythia_tools.dedup.hashes import mix64


@functools.lru_cache(maxsize=256)
def choose_bands(threshold: float, num_perm: int, weights: tuple[float, float] = (0.5, 0.5)) -> tuple[int, int]:
    """(bands, rows) of datasketch's MinHashLSH(threshold, num_perm, weights): (0.87, 128) gives (7, 18).

    Unlike datasketch it allows a single band, which is what (0.87, 10) comes to.
    Raises: RequestError when threshold or weights are out of range.
    """
    from scipy.integrate import quad

    if not 0 < threshold <= 1 or num_perm < 1:
        raise RequestError(f"threshold {threshold} must lie in (0, 1] and num_perm {num_perm} be at least 1")
    if min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
        raise RequestError(f"weights {weights} must be (false positive, false negative), not negative, with sum 1")
    best, chosen = math.inf, (1, 1)
    for bands in range(1, num_perm + 1):
        for rows in range(1, num_perm // bands + 1):
            missed, _ = quad(lambda s, b=bands, r=rows: (1 - s ** float(r)) ** float(b), threshold, 1.0)
            false, _ = quad(lambda s, b=bands, r=rows: 1 - (1 - s ** float(r)) ** float(b), 0.0, threshold)
            error = false * weights[0] + missed * weights[1]
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


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """64-bit keys of every band; (bands, n) uint64. Raises RequestError when bands × rows exceed the signature."""
    if bands * rows > signatures.shape[1]:
        raise RequestError(f"{bands} bands of {rows} rows need {bands * rows} hashes; the signatures have {signatures.shape[1]}")
    out = np.empty((bands, len(signatures)), np.uint64)
    _band_keys(np.ascontiguousarray(signatures), bands, rows, out)
    return out


def empty_signatures(signatures: np.ndarray) -> np.ndarray:
    """Which documents are empty: every value the largest one; bool (n,)."""
    return (signatures == np.array(0xFFFFFFFF, signatures.dtype)).all(axis=1)


def candidate_pairs(signatures: np.ndarray, bands: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of documents that share a bucket: (left, right), left < right, sorted, without repeats.

    Quadratic in the size of a bucket, as pairs are; `components_of_buckets` is not.
    """
    keys = band_keys(signatures, bands, rows)
    documents = np.flatnonzero(~empty_signatures(signatures))
    found = [bucket_pairs(keys[band, documents], documents) for band in range(bands)]
    packed = np.unique(np.concatenate(found) if found else np.empty(0, np.uint64))
    return (packed >> np.uint64(32)).astype(np.int64), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def bucket_pairs(keys: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Pairs of documents with equal keys, each packed as left·2³² + right; uint64, each pair once."""
    order = np.argsort(keys, kind="stable")
    return _bucket_pairs(keys[order], np.ascontiguousarray(documents[order], dtype=np.int64))


def components_of_buckets(signatures: np.ndarray, bands: int, rows: int, parents: np.ndarray) -> None:
    """Join, in `parents` (see clusters.singles), all documents that share a bucket."""
    keys = band_keys(signatures, bands, rows)
    documents = np.flatnonzero(~empty_signatures(signatures))
    for band in range(bands):
        held = keys[band, documents]
        order = np.argsort(held, kind="stable")
        join_runs(held[order], documents[order], parents)


@njit(nogil=True, cache=True)
def _band_keys(signatures, bands, rows, out):  # type: ignore[no-untyped-def]
    for d in range(len(signatures)):
        for band in range(bands):
            key = np.uint64(band)
            for i in range(band * rows, band * rows + rows):
                key = np.uint64((key ^ np.uint64(signatures[d, i])) * np.uint64(0x9E3779B97F4A7C15))
                key ^= key >> np.uint64(29)
            out[band, d] = mix64(key)


@njit(nogil=True, cache=True)
def _bucket_pairs(keys, documents):  # type: ignore[no-untyped-def]
    """Keys sorted; documents in ascending order within equal keys."""
    count = 0
    for fill in range(2):
        if fill == 1:
            out = np.empty(count, np.uint64)
        count = 0
        first = 0
        for i in range(1, len(keys)):
            if keys[i] != keys[first]:
                first = i
            for j in range(first, i):
                if fill == 1:
                    out[count] = (np.uint64(documents[j]) << np.uint64(32)) | np.uint64(documents[i])
                count += 1
    return out


@njit(nogil=True, cache=True)
def join_runs(keys, documents, parents):  # type: ignore[no-untyped-def]
    """Join the documents of each run of equal keys; returns how many joins changed something."""
    joined = 0
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            joined += join(parents, documents[i], documents[i - 1])
    return joined
