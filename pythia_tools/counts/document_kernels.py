"""Compiled loops that follow documents through an order (numba; compiled once, cached on disk).

Stream position p is trained on, as a label, in stream row (p-1) // L; position 0 never is.
"""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, boundscheck=False)
def slots_of_documents(doc_idx, n_documents):  # type: ignore[no-untyped-def]
    """(n_documents+1,) begin and (slots,) slot numbers grouped by document, in slot order."""
    begin = np.zeros(n_documents + 1, np.int64)
    for i in range(doc_idx.size):
        begin[np.int64(doc_idx[i]) + 1] += 1
    for d in range(n_documents):
        begin[d + 1] += begin[d]
    at = begin[:-1].copy()
    slots = np.empty(doc_idx.size, np.int32)
    for i in range(doc_idx.size):
        d = np.int64(doc_idx[i])
        slots[at[d]] = i
        at[d] += 1
    return begin, slots


@numba.njit(nogil=True, cache=True, boundscheck=False)
def exposure_counts(sizes, begin, slots, starts, consumed, length, out, first, last):  # type: ignore[no-untyped-def]
    """out[d, c] = tokens of document d in [first, last) trained on c times, c capped at the last column.

    A document is cut where any of its copies changes rows; within a piece every token has been seen equally often.
    """
    top = out.shape[1] - 1
    n_rows = consumed.size
    for d in range(first, last):
        size = np.int64(sizes[d])
        t = np.int64(0)
        while t < size:
            stop = size
            times = 0
            for k in range(begin[d], begin[d + 1]):
                p = starts[slots[k]] + t
                row = (p - 1) // length
                # the copy's next row begins to train at position (row+1)*L+1
                stop = min(stop, t + (row + 1) * length + 1 - p)
                if 0 <= row < n_rows and consumed[row]:
                    times += 1
            out[d, min(times, top)] += stop - t
            t = stop
