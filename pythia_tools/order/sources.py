"""Where rows come from: a preshuffled store whose rows lie in training order, or documents plus index maps.

Both read through a ByteSource, so files on disk, shards that cut rows and ranges over HTTP are one thing here.
A row is seq_length + 1 tokens. Reading costs a copy of the bytes asked for, and nothing else is touched.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.parallel import parallel_for
from pythia_tools.order.maps import IndexMaps
from pythia_tools.tokens import ByteSource, TokenStore

PARALLEL_ROWS = 256


class RowSource(Protocol):
    """`n_rows` rows of `row_tokens` ids; checked indices only."""

    n_rows: int
    row_tokens: int
    dtype: np.dtype

    def span(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as a fresh (stop-start, row_tokens) array."""

    def fill(self, out: np.ndarray, start: int) -> None:
        """Rows [start, start+len(out)) into `out`, a contiguous (n, row_tokens) array of `dtype`."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Rows `indices` (n,) int64 as a fresh (n, row_tokens) array."""


class PreshuffledRows:
    """Row i is bytes [i*r, (i+1)*r) of the stream, for rows of r bytes. Raises DataError when the stream is not whole rows."""

    def __init__(self, data: ByteSource, dtype: np.dtype, row_tokens: int, *, name: object = "store"):
        self.data = data
        self.dtype = dtype
        self.row_tokens = row_tokens
        self._row_bytes = row_tokens * dtype.itemsize
        if data.size % self._row_bytes:
            raise DataError(
                f"{name}: {data.size} bytes are not whole rows of {row_tokens} {dtype.name} ({self._row_bytes} bytes each); "
                "the row length is wrong or the file damaged"
            )
        self.n_rows = data.size // self._row_bytes

    def span(self, start: int, stop: int) -> np.ndarray:
        raw = self.data.read(start * self._row_bytes, stop * self._row_bytes)
        rows = raw.view(self.dtype).reshape(-1, self.row_tokens)
        return rows if rows.flags.owndata or (rows.base is raw and raw.flags.owndata) else rows.copy()

    def fill(self, out: np.ndarray, start: int) -> None:
        self.data.read_into(start * self._row_bytes, out.reshape(-1).view(np.uint8))

    def take(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), self.row_tokens), dtype=self.dtype)
        target = np.arange(len(indices), dtype=np.int64) * self._row_bytes
        length = np.full(len(indices), self._row_bytes, dtype=np.int64)
        self.data.gather(indices * self._row_bytes, length, target, out.reshape(-1).view(np.uint8))
        return out


class PackedRows:
    """Documents of a store, packed by index maps. Row i is stream row shuffle_idx[i]."""

    def __init__(self, store: TokenStore, maps: IndexMaps, seq_length: int):
        self.store = store
        self.maps = maps
        self.dtype = store.dtype
        self.row_tokens = seq_length + 1
        self.n_rows = len(maps.shuffle_idx)

    def span(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, stop, dtype=np.int64))

    def fill(self, out: np.ndarray, start: int) -> None:
        self._gather(out, np.arange(start, start + len(out), dtype=np.int64))

    def take(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), self.row_tokens), dtype=self.dtype)
        self._gather(out, indices)
        return out

    def _gather(self, out: np.ndarray, indices: np.ndarray) -> None:
        source, length, target = self.segments(indices)[1:]
        self.store.data.gather(source, length, target, out.reshape(-1).view(np.uint8))

    def segments(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where rows come from: `begin` (n+1,), then one entry per document touched: `source` byte, `length`, `target` byte.

        Raises: DataError when a row is not full, which means that maps and documents do not belong together.
        """
        from pythia_tools.order.gather_kernels import count_segments, fill_segments

        stream_rows = self.maps.shuffle_idx[indices].astype(np.int64)
        n = len(self.maps.sample_idx) - 1
        if len(stream_rows) and not 0 <= int(stream_rows.min()) <= int(stream_rows.max()) < n:
            raise DataError(f"the shuffle map points outside the {n} rows of its sample map; the maps are damaged")
        starts = self.maps.sample_idx[np.concatenate([stream_rows, stream_rows + 1]), 0]
        if len(starts) and not 0 <= int(starts.min()) <= int(starts.max()) < len(self.maps.doc_idx):
            raise DataError(f"the sample map points outside the {len(self.maps.doc_idx)} slots of its doc map; the maps are damaged")
        begin = count_segments(self.maps.sample_idx, stream_rows)
        if (np.diff(begin) < 1).any():
            raise DataError("the sample map runs backwards; the maps are damaged")
        source, length, target = (np.empty(int(begin[-1]), dtype=np.int64) for _ in range(3))
        short = []

        def fill(a: int, b: int) -> None:
            short.append(fill_segments(
                self.maps.sample_idx, self.maps.doc_idx, self.store.sizes, self.store.pointers, stream_rows, self.dtype.itemsize,
                self.row_tokens * self.dtype.itemsize, begin, source, length, target, a, b,
            ))

        parallel_for(len(indices), fill, pieces=None if len(indices) >= PARALLEL_ROWS else 1)
        if any(short):
            raise DataError(f"{sum(short)} of {len(indices)} rows are not full: the index maps do not belong to {self.store.index.path}")
        return begin, source, length, target
