"""Where rows come from: a preshuffled store whose rows lie in training order, or documents plus index maps.

Both read through a ByteSource, so files on disk, shards that cut rows and ranges over HTTP are one thing here.
A row is seq_length + 1 tokens. Reading costs a copy of the bytes asked for, and nothing else is touched.
"""

from typing import TypeAlias

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.parallel import parallel_for
from pythia_tools.order.maps import IndexMaps
from pythia_tools.tokens import ByteSource, TokenStore

PARALLEL_ROWS = 256


class PreshuffledRows:
    """Row i is bytes [i*r, (i+1)*r) of the stream, for rows of r bytes. Raises DataError unless it is whole rows."""

    def __init__(self, data: ByteSource, dtype: np.dtype, row_tokens: int, *, name: object = "store"):
        self.data = data
        self.dtype = dtype
        self.row_tokens = row_tokens
        self._row_bytes = row_tokens * dtype.itemsize
        if data.size % self._row_bytes:
            rows = f"rows of {row_tokens} {dtype.name} ({self._row_bytes} bytes each)"
            raise DataError(
                f"{name}: {data.size} bytes are not whole {rows}; the row length is wrong or the file damaged"
            )
        self.n_rows = data.size // self._row_bytes

    def span(self, start: int, stop: int) -> np.ndarray:
        raw = self.data.read(start * self._row_bytes, stop * self._row_bytes)
        rows = raw.view(self.dtype).reshape(-1, self.row_tokens)
        return rows if raw.flags.owndata else rows.copy()

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

    def documents(self, indices: np.ndarray) -> np.ndarray:
        """(n,) the document in which each row begins."""
        doc_idx, sample_idx, shuffle_idx = self.maps
        slots = np.asarray(sample_idx[shuffle_idx[indices].astype(np.int64), 0]).astype(np.int64)
        return np.asarray(doc_idx[slots]).astype(np.int64)

    def _gather(self, out: np.ndarray, indices: np.ndarray) -> None:
        """Find the stretch of every document touched, then copy them all at once.

        Raises: DataError when a row is not filled exactly: maps and documents do not belong together.
        """
        from pythia_tools.order.gather_kernels import fill_segments

        store, (doc_idx, sample_idx, shuffle_idx) = self.store, self.maps
        stream_rows = shuffle_idx[indices].astype(np.int64)
        n = len(sample_idx) - 1
        if len(stream_rows) and not 0 <= int(stream_rows.min()) <= int(stream_rows.max()) < n:
            raise DataError(f"the shuffle map points outside the {n} rows of its sample map; the maps are damaged")
        starts = sample_idx[np.concatenate([stream_rows, stream_rows + 1]), 0]
        if len(starts) and not 0 <= int(starts.min()) <= int(starts.max()) < len(doc_idx):
            slots = f"the {len(doc_idx)} slots of its doc map"
            raise DataError(f"the sample map points outside {slots}; the maps are damaged")
        touched = np.diff(starts.astype(np.int64).reshape(2, -1), axis=0)[0] + 1
        if (touched < 1).any():
            raise DataError("the sample map runs backwards; the maps are damaged")
        begin = np.concatenate([[0], np.cumsum(touched)])
        source, length, target = (np.empty(int(begin[-1]), dtype=np.int64) for _ in range(3))
        item = self.dtype.itemsize
        wrong = []

        def fill(a: int, b: int) -> None:
            wrong.append(fill_segments(
                sample_idx, doc_idx, store.sizes, store.pointers, stream_rows, item, self.row_tokens * item, begin,
                source, length, target, a, b,
            ))

        parallel_for(len(indices), fill, pieces=None if len(indices) >= PARALLEL_ROWS else 1)
        if any(wrong):
            these = f"{sum(wrong)} of {len(indices)} rows are not filled exactly"
            raise DataError(
                f"{store.index.path}: {these} by its documents, so the index maps belong to other documents or another "
                "seq_length; build them again with `pythia-tools data build-order`"
            )
        store.data.gather(source, length, target, out.reshape(-1).view(np.uint8))


RowSource: TypeAlias = PreshuffledRows | PackedRows
"""`n_rows` rows of `row_tokens` ids of `dtype`; `span`, `fill` and `take` read them by numbers that are checked."""
