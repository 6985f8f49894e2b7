"""DataOrder: which rows each step consumed, and the rows themselves.

Batch b (0-based) is rows [B*b, B*(b+1)), consumed by the update from step b to b+1; a checkpoint at step N has consumed
batches 0 … N-1, that is rows [0, B*N).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.order.fingerprint import array_digest, stream_digest
from pythia_tools.order.maps import IndexMaps, check_sizes
from pythia_tools.order.sources import PackedRows, PreshuffledRows, RowSource
from pythia_tools.tokens import TokenStore

if TYPE_CHECKING:
    from pythia_tools.order.manifest import OrderManifest


class DataOrder:
    """An ordered list of rows, `batch_rows` of them per step; opened lazily, so naming an order touches no file.

    name         what results call it
    seq_length   inputs per row (L); a row holds L+1 tokens
    batch_rows   rows per step (B)
    n_rows       rows in all; `steps` whole batches (of the run, if the manifest says how many it took)
    remote       whether rows come over the network
    """

    def __init__(
        self, name: str, open_rows: Callable[[], RowSource], *, seq_length: int, batch_rows: int,
        steps: int | None = None, n_rows: int | None = None, dtype: np.dtype | None = None,
        identity: Callable[[RowSource], Any] | None = None, reopen: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        manifest: OrderManifest | None = None, remote: bool = False,
    ):
        if batch_rows < 1:
            raise RequestError(f"batch_rows must be at least 1, not {batch_rows}")
        self.name = name
        self.seq_length = seq_length
        self.batch_rows = batch_rows
        self.manifest = manifest
        self.remote = remote
        self._open_rows = open_rows
        self._n_rows = n_rows
        self._dtype = dtype
        self._identity = identity or _content_identity
        self._reopen = reopen
        limit = n_rows if n_rows is not None else self.source.n_rows
        if steps is not None and steps * batch_rows > limit:
            raise RequestError(f"order {name}: {steps} steps of {batch_rows} rows need {steps * batch_rows} rows, it has {limit}")
        self._steps = steps

    def __reduce__(self) -> Any:
        if self._reopen is None:
            raise TypeError(f"order {self.name} lives in memory and cannot be sent to another process; write it to disk and load it")
        return self._reopen

    def __repr__(self) -> str:
        return f"DataOrder({self.name!r}: {self.n_rows} rows of {self.seq_length + 1}, {self.steps} steps of {self.batch_rows})"

    @cached_property
    def source(self) -> RowSource:
        """The rows' source, opened (and checked) on first use."""
        return self._open_rows()

    @property
    def n_rows(self) -> int:
        return self._n_rows if self._n_rows is not None else self.source.n_rows

    @property
    def steps(self) -> int:
        """Batches of the order: 0 … steps-1."""
        return self._steps if self._steps is not None else self.n_rows // self.batch_rows

    @property
    def dtype(self) -> np.dtype:
        return self._dtype if self._dtype is not None else self.source.dtype

    @property
    def row_tokens(self) -> int:
        """Tokens of a row: seq_length + 1."""
        return self.seq_length + 1

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the order's content and parameters (see `fingerprint` for what is read)."""
        return files.digest({
            "seq_length": self.seq_length, "batch_rows": self.batch_rows, "n_rows": self.n_rows, "steps": self.steps,
            "dtype": self.dtype.str, "content": self._identity(self.source if self._identity is _content_identity else None),  # type: ignore[arg-type]
        })

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as a fresh (stop-start, L+1) array. Raises RequestError outside [0, n_rows]."""
        start, stop = _whole(start, "row"), _whole(stop, "row")
        if not 0 <= start <= stop <= self.n_rows:
            raise RequestError(f"rows {start}:{stop} of order {self.name}: it has rows 0:{self.n_rows}")
        return self.source.span(start, stop)

    def rows_into(self, out: np.ndarray, start: int) -> None:
        """Rows [start, start+len(out)) into `out` (n, L+1), contiguous and of the order's dtype: a scan that uses one array again and
        again spares the system fresh pages, which cost more than the bytes. Raises RequestError outside [0, n_rows].
        """
        stop = start + len(out)
        if not 0 <= start <= stop <= self.n_rows:
            raise RequestError(f"rows {start}:{stop} of order {self.name}: it has rows 0:{self.n_rows}")
        if out.shape[1:] != (self.row_tokens,) or out.dtype != self.dtype or not out.flags.c_contiguous:
            shape = f"(n, {self.row_tokens}) {self.dtype}"
            raise RequestError(f"rows of order {self.name} need a contiguous {shape} array, not {out.shape} {out.dtype}")
        self.source.fill(out, start)

    def batch(self, step: int) -> np.ndarray:
        """Batch `step`, (B, L+1): what the update from `step` to `step`+1 consumed. Raises RequestError beyond the last."""
        step = _whole(step, "step")
        if not 0 <= step < self.steps:
            raise RequestError(f"batch {step} of order {self.name}: it has batches 0 to {self.steps - 1}, of {self.batch_rows} rows each")
        return self.source.span(step * self.batch_rows, (step + 1) * self.batch_rows)

    def take(self, indices: Any) -> np.ndarray:
        """Rows by number, in the order asked: (n, L+1). Raises RequestError for a row that does not exist."""
        wanted = np.asarray(indices)
        if wanted.dtype.kind not in "ui" and wanted.size:
            raise RequestError(f"row numbers must be whole, these are {wanted.dtype}")
        wanted = wanted.astype(np.int64).reshape(-1)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < self.n_rows):
            bad = int(wanted[(wanted < 0) | (wanted >= self.n_rows)][0])
            raise RequestError(f"row {bad} of order {self.name}: it has rows 0 to {self.n_rows - 1}")
        return self.source.take(wanted)

    def chunks(self, start: int = 0, stop: int | None = None, rows: int = 4096) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) over [start, stop) in pieces of at most `rows`; for scans that never hold the whole."""
        stop = self.n_rows if stop is None else stop
        for a in range(start, stop, rows):
            yield a, self.rows(a, min(stop, a + rows))

    def step_of(self, rows: Any) -> np.ndarray:
        """The batch that consumed each row; the first checkpoint that contains it is one later."""
        return np.asarray(rows, dtype=np.int64) // self.batch_rows


def preshuffled_order(store: TokenStore, batch_rows: int, *, name: str = "order", steps: int | None = None) -> DataOrder:
    """An order over a store whose sequences are the rows. Raises RequestError when they differ in length."""
    length = uniform_length(store)
    rows = PreshuffledRows(store.data, store.dtype, length, name=store.index.path)
    return DataOrder(name, lambda: rows, seq_length=length - 1, batch_rows=batch_rows, steps=steps)


def packed_order(
    store: TokenStore, maps: IndexMaps, seq_length: int, batch_rows: int, *, name: str = "order", steps: int | None = None,
) -> DataOrder:
    """An order over documents and index maps."""
    check_sizes(store.sizes)
    return DataOrder(name, lambda: PackedRows(store, maps, seq_length), seq_length=seq_length, batch_rows=batch_rows, steps=steps)


def uniform_length(store: TokenStore) -> int:
    """The one length of all sequences. Raises RequestError when they differ: such a store needs index maps."""
    sizes = store.index.sizes
    length = int(sizes[0]) if len(sizes) else 0
    if length < 2 or not store.index.contiguous or (np.asarray(sizes) != length).any():
        raise RequestError(
            f"{store.index.path}: its sequences are documents of different lengths, not rows; "
            "build index maps with `pythia-tools data build-order`"
        )
    return length


def _content_identity(source: RowSource) -> Any:
    if isinstance(source, PackedRows):
        return {
            "store": stream_digest(source.store.data), "sizes": array_digest(source.store.sizes),
            "maps": [array_digest(m) for m in source.maps],
        }
    assert isinstance(source, PreshuffledRows)
    return {"store": stream_digest(source.data)}


def _whole(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise RequestError(f"{what} must be a whole number, not {value!r}") from None
