"""Compiled loop that finds token sequences in rows (numba; compiled once, cached on disk)."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _row_hits(row, needle):  # type: ignore[no-untyped-def]
    """How often `needle` lies within one row, overlaps included."""
    n, m = row.size, needle.size
    first = needle[0]
    hits = 0
    for j in range(n - m + 1):
        if row[j] == first:
            k = 1
            while k < m and row[j + k] == needle[k]:
                k += 1
            hits += k == m
    return hits


@numba.njit(nogil=True, cache=True, boundscheck=False)
def count_hits(rows, needle, first, last, out):  # type: ignore[no-untyped-def]
    """out[i] = occurrences of `needle` within row i, for i in [first, last); none straddles two rows."""
    for i in range(first, last):
        out[i] = _row_hits(rows[i], needle)


@numba.njit(nogil=True, cache=True, boundscheck=False)
def offsets_in_row(row, needle):  # type: ignore[no-untyped-def]
    """Offsets at which `needle` lies within one row."""
    out = np.empty(_row_hits(row, needle), np.int64)
    m = needle.size
    at = 0
    for j in range(row.size - m + 1):
        k = 0
        while k < m and row[j + k] == needle[k]:
            k += 1
        if k == m:
            out[at] = j
            at += 1
    return out
