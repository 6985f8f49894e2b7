"""Compiled loops that turn rows of an order into byte ranges of its store (numba; compiled once, cached on disk)."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, boundscheck=False)
def fill_segments(  # type: ignore[no-untyped-def]
    sample_idx, doc_idx, sizes, pointers, stream_rows, itemsize, row_bytes, begin, source, length, target, first_row,
    last_row,
):
    """Byte ranges of rows [first_row, last_row): `source` in the store, `target` in the output; counts wrong rows.

    A row is the documents from slot d0 (at `offset`) to slot d1 (up to and with `last`), joined; the segment of each
    document touched has its own slot from begin[r] on, so rows can be filled by several threads. A row is right when
    every stretch lies within its document and together they fill it exactly; nothing of a wrong stretch is copied.
    """
    wrong = 0
    for r in range(first_row, last_row):
        s = np.int64(stream_rows[r])
        d0, d1 = np.int64(sample_idx[s, 0]), np.int64(sample_idx[s + 1, 0])
        at, fits = np.int64(0), True
        for d in range(d0, d1 + 1):
            document = np.int64(doc_idx[d])
            size = np.int64(sizes[document]) if 0 <= document < sizes.size else np.int64(-1)
            first = np.int64(sample_idx[s, 1]) if d == d0 else np.int64(0)
            stop = np.int64(sample_idx[s + 1, 1]) + 1 if d == d1 else size
            inside = 0 <= first <= stop <= size and at + (stop - first) * itemsize <= row_bytes
            k = begin[r] + d - d0
            source[k] = pointers[document] + first * itemsize if inside else 0
            length[k] = (stop - first) * itemsize if inside else 0
            target[k] = r * row_bytes + at
            at += length[k]
            fits = fits and inside
        wrong += not fits or at != row_bytes
    return wrong
