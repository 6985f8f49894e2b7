"""Rows of an order, read again and again into the same memory: fresh pages would cost more than the bytes that go into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


def reader(order: Any, most: int) -> Callable[[int, int], np.ndarray]:
    """`order.rows` for up to `most` rows at a time.

    Where the order can (`rows_into`), every thread gets its rows in one array of its own, good until its next call.
    """
    into = getattr(order, "rows_into", None)
    if into is None:
        return order.rows  # type: ignore[no-any-return]
    own = threading.local()

    def read(start: int, stop: int) -> np.ndarray:
        if not hasattr(own, "room"):
            own.room = np.empty((most, order.seq_length + 1), dtype=order.dtype)
        rows: np.ndarray = own.room[:stop - start]
        into(rows, start)
        return rows

    return read
