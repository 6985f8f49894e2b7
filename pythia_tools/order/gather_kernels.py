"""Compiled loops that turn rows of an order into byte ranges of its store (numba; compiled once, cached on disk)."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, boundscheck=False)
def fill_segments(  # type: ignore[no-untyped-def]
    sample_idx, doc_idx, sizes, pointers, stream_rows, itemsize, row_bytes, begin, source, length, target, first_row,
    last_row,
):
    """Byte ranges of rows [first_row, last_row): `source` in the store, `target` in the output; counts short rows.

    A row is the documents from slot d0 (at `offset`) to slot d1 (up to and with `last`), joined; the segment of each
    document touched has its own slot from begin[r] on, so rows can be filled by several threads.
    """
    short = 0
    n_sizes = sizes.size
    for r in range(first_row, last_row):
        s = np.int64(stream_rows[r])
        d0, d1 = np.int64(sample_idx[s, 0]), np.int64(sample_idx[s + 1, 0])
        offset, last = np.int64(sample_idx[s, 1]), np.int64(sample_idx[s + 1, 1])
        at = np.int64(0)
        k = begin[r]
        for d in range(d0, d1 + 1):
            document = np.int64(doc_idx[d])
            first = offset if d == d0 else np.int64(0)
            stop = last + 1
            if document < 0 or document >= n_sizes:
                first, stop = np.int64(0), np.int64(0)
                source[k] = 0
            else:
                if d < d1 or stop > sizes[document]:
                    stop = np.int64(sizes[document])
                source[k] = pointers[document] + first * itemsize
            size = max(np.int64(0), (stop - first) * itemsize)
            size = min(size, row_bytes - at)
            length[k] = size
            target[k] = r * row_bytes + at
            at += size
            k += 1
        if at != row_bytes:
            short += 1
    return short
