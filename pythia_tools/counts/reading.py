"""Rows of an order, read again and again into the same memory: fresh pages would cost more than the bytes."""

import threading
from collections.abc import Callable

import numpy as np

from pythia_tools.order import Rows

BLOCK_TOKENS = 1 << 21
"""Tokens that a worker reads and scans at a time (4 MB of uint16)."""


def block_rows(order: Rows) -> int:
    """Rows in a block of about BLOCK_TOKENS tokens."""
    return max(1, BLOCK_TOKENS // order.row_tokens)


def reader(order: Rows) -> Callable[[int, int], np.ndarray]:
    """`order.rows` for up to `block_rows` at a time, in one array per thread, good until the thread's next call."""
    own = threading.local()

    def read(start: int, stop: int) -> np.ndarray:
        if not hasattr(own, "room"):
            own.room = np.empty((block_rows(order), order.row_tokens), dtype=order.dtype)
        rows: np.ndarray = own.room[:stop - start]
        order.rows_into(rows, start)
        return rows

    return read


def blocks(order: Rows, start: int, stop: int) -> list[tuple[int, int]]:
    """Rows [start, stop) cut into blocks."""
    size = block_rows(order)
    return [(a, min(stop, a + size)) for a in range(start, stop, size)]
