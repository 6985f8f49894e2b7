"""Compiled loops behind index maps (numba; compiled once, cached on disk)."""

import numba
import numpy as np

from pythia_tools.order.shuffle_kernels import prefetch

AHEAD = 64


@numba.njit(nogil=True, cache=True, boundscheck=False)
def sample_index(sizes, doc_idx, seq_length, count, out):  # type: ignore[no-untyped-def]
    """Row starts: `out[k]` = (slot of doc_idx, token offset) of stream position k*seq_length, k = 0 … count.

    A start is the last token of the row before, so a position that is a document's first token belongs to that
    document, and empty documents are passed over.
    """
    out[0, 0] = 0
    out[0, 1] = 0
    slot = np.int64(0)
    begin = np.int64(0)
    slots = doc_idx.size
    size = np.int64(sizes[doc_idx[0]])
    for k in range(1, count + 1):
        position = k * seq_length
        while begin + size <= position and slot + 1 < slots:
            begin += size
            slot += 1
            if slot + AHEAD < slots:
                prefetch(sizes, np.intp(doc_idx[slot + AHEAD]))
            size = np.int64(sizes[doc_idx[slot]])
        out[k, 0] = slot
        out[k, 1] = position - begin


@numba.njit(nogil=True, cache=True, boundscheck=False)
def is_permutation(values, seen):  # type: ignore[no-untyped-def]
    """Index of the first value out of range or met before, or -1; `seen` is a zeroed bitmap of (n+63)//64 words."""
    n = np.uint64(values.size)
    for i in range(values.size):
        value = np.uint64(values[i])
        if value >= n:
            return i
        bit = np.uint64(1) << (value & np.uint64(63))
        word = np.int64(value >> np.uint64(6))
        if seen[word] & bit:
            return i
        seen[word] |= bit
    return -1


@numba.njit(nogil=True, cache=True, boundscheck=False)
def count_documents(doc_idx, counts):  # type: ignore[no-untyped-def]
    """Add to counts[d], for every document d, how often it occurs."""
    for i in range(doc_idx.size):
        counts[doc_idx[i]] += 1


@numba.njit(nogil=True, cache=True, boundscheck=False)
def sample_fault(sizes, doc_idx, sample_idx, seq_length, first, last):  # type: ignore[no-untyped-def]
    """First entry of a sample map after `first`, up to `last`, that is not where its row starts, or -1.

    The walk of `sample_index` from one entry to the next, so that pieces of a map are compared side by side: when the
    first entry is right and each follows from the one before it, all are right.
    """
    slots = doc_idx.size
    slot, offset = np.int64(sample_idx[first, 0]), np.int64(sample_idx[first, 1])
    if not 0 <= slot < slots or offset < 0:
        return first
    size = np.int64(sizes[doc_idx[slot]])
    for k in range(first + 1, last + 1):
        offset += seq_length
        while offset >= size and slot + 1 < slots:
            offset -= size
            slot += 1
            if slot + AHEAD < slots:
                prefetch(sizes, np.intp(doc_idx[slot + AHEAD]))
            size = np.int64(sizes[doc_idx[slot]])
        if sample_idx[k, 0] != slot or sample_idx[k, 1] != offset or offset >= size:
            return k
    return -1
