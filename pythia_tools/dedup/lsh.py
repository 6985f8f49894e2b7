"""Locality-sensitive hashing: buckets of documents that agree on a band of their signatures.

A band's values are hashed to 64 bits; two different ones meet with probability about n²/2⁶⁵ per band.
Empty documents are in no bucket. How many bands, and what they find: config.py.
Cost: sorting 8-byte keys, about 60 ns per document and band.
"""

from collections.abc import Iterator

import numpy as np
from numba import njit

from pythia_tools.dedup.hashes import mix64


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """64-bit keys of every band; (bands, n) uint64."""
    out = np.empty((bands, len(signatures)), np.uint64)
    _band_keys(np.ascontiguousarray(signatures), bands, rows, out)
    return out


def _not_empty(signatures: np.ndarray) -> np.ndarray:
    """Numbers of the documents that are not empty (an empty one's values are all the largest); int64, ascending."""
    return np.flatnonzero((signatures != np.array(0xFFFFFFFF, signatures.dtype)).any(axis=1))


def sorted_keys(signatures: np.ndarray, bands: int, rows: int) -> dict[str, np.ndarray]:
    """Keys of every band in order, (bands, m) uint64, and the document of each, (bands, m) uint32; m are not empty."""
    documents = _not_empty(signatures)
    keys = band_keys(signatures, bands, rows)[:, documents]
    order = np.argsort(keys, axis=1)
    return {"keys": np.take_along_axis(keys, order, axis=1), "key_documents": documents.astype(np.uint32)[order]}


def buckets(keys: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents with equal keys: members of buckets of two and more; where each begins, and the end."""
    order = np.argsort(keys)
    keys = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    sizes = np.diff(np.flatnonzero(new), append=len(keys))
    members = documents[order][np.repeat(sizes > 1, sizes)]
    return members.astype(np.int64), np.concatenate([[0], np.cumsum(sizes[sizes > 1])]).astype(np.int64)


def buckets_by_band(signatures: np.ndarray, bands: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The buckets of each band in turn, as `buckets` gives them; documents of one bucket are candidates."""
    documents = _not_empty(signatures)
    for keys in band_keys(signatures, bands, rows):
        yield buckets(keys[documents], documents)


@njit(nogil=True, cache=True)
def _band_keys(signatures, bands, rows, out):  # type: ignore[no-untyped-def]
    for d in range(len(signatures)):
        for band in range(bands):
            key = np.uint64(band)
            for i in range(band * rows, band * rows + rows):
                key = np.uint64((key ^ np.uint64(signatures[d, i])) * np.uint64(0x9E3779B97F4A7C15))
                key ^= key >> np.uint64(29)
            out[band, d] = mix64(key)
