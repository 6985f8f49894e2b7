"""DataOrder: a training order on disk or on the hub; which rows each step consumed, and the rows themselves.

Its fingerprint names content by the sha256 of its files where a manifest gives them. Otherwise it is read: all of it up
to 64 MiB, beyond that its length and 64 evenly spaced blocks of 64 KiB, so that opening 600 GB stays quick. A change
outside those blocks would go unnoticed here; `pythia-tools data verify` reads every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.order.manifest import FileFact, HubFiles, OrderManifest
from pythia_tools.order.maps import IndexMaps
from pythia_tools.order.rows import Rows
from pythia_tools.order.sources import PackedRows, RowSource
from pythia_tools.tokens import TokenStore

WHOLE_BYTES = 64 << 20
BLOCKS = 64
BLOCK_BYTES = 64 << 10


class DataOrder(Rows):
    """The rows of a manifest; see `Rows` for its attributes.

    Opened on first use: naming an order whose manifest says how many rows there are touches no file.

    manifest     what is known of the order before anything is opened
    source       the opened rows: `PreshuffledRows` or `PackedRows`
    """

    def __init__(
        self, manifest: OrderManifest, open_rows: Callable[[], RowSource], *, remote: bool = False,
        reopen: Callable[[], DataOrder] | None = None,
    ):
        self.manifest = manifest
        self.name = manifest.name
        self.seq_length = manifest.seq_length
        self.batch_rows = manifest.batch_rows
        self.tokenizer = manifest.tokenizer
        self.remote = remote
        self._open_rows = open_rows
        self._reopen = reopen
        if self.batch_rows < 1:
            raise RequestError(f"batch_rows must be at least 1, not {self.batch_rows}")
        self.n_rows = self.source.n_rows if manifest.rows is None else manifest.rows
        self.steps = self.n_rows // self.batch_rows if manifest.steps is None else manifest.steps
        need = self.steps * self.batch_rows
        if need > self.n_rows:
            has = f"{self.steps} steps of {self.batch_rows} rows need {need} rows, it has {self.n_rows}"
            raise RequestError(f"order {self.name}: {has}")

    def __reduce__(self) -> Any:
        if self._reopen is None:
            raise TypeError(
                f"order {self.name} lives in memory and cannot be sent to another process; write it to disk and load it"
            )
        return self._reopen, ()

    def __repr__(self) -> str:
        steps = f"{self.steps} steps of {self.batch_rows}"
        return f"DataOrder({self.name!r}: {self.n_rows} rows of {self.row_tokens}, {steps})"

    @cached_property
    def source(self) -> RowSource:
        """The rows' source, opened (and checked) on first use."""
        return self._open_rows()

    @cached_property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Type of the token ids."""
        return self.source.dtype if self.manifest.dtype is None else self.manifest.dtype

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the order's content and parameters (see the module for what is read)."""
        published = _published(self.manifest)
        return files.digest({
            "seq_length": self.seq_length, "batch_rows": self.batch_rows, "n_rows": self.n_rows, "steps": self.steps,
            "dtype": self.dtype.str, "content": _content(self.source) if published is None else published,
        })

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as a fresh (stop-start, L+1) array. Raises RequestError outside [0, n_rows]."""
        return self.source.span(*self.check_span(start, stop))

    def rows_into(self, out: np.ndarray, start: int) -> None:
        """As `Rows.rows_into`, straight from the source."""
        self.check_span(start, start + len(out))
        self.check_room(out)
        self.source.fill(out, start)

    def take(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Rows by number, in the order asked: (n, L+1). Raises RequestError for a row that does not exist."""
        return self.source.take(self.check_numbers(numbers))

    @property
    def opening(self) -> tuple[int, int]:
        """As `Rows.opening`: index and maps of a packed order on the hub; those whose sizes are not published take 20
        bytes per document in the index, 4, 8 and 4 per document, row and row in the maps, as far as these are known.
        """
        maps, index, documents = self.manifest.maps, self.manifest.store.index, self.manifest.documents or 0
        if not self.remote or self.manifest.kind != "packed" or index is None:
            return 0, 0
        rows = self.manifest.num_samples or 0
        published = () if maps is None or maps.hub is None else maps.hub.files
        derived = zip((index, *published), (20 * documents, 4 * documents, 8 * rows, 4 * rows), strict=False)
        return sum(size if fact.bytes is None else fact.bytes for fact, size in derived), 1 + len(published)

    def fetching(self, rows: int, stretches: int) -> tuple[int, int]:
        """As `Rows.fetching`; rows of a packed order are pieces of documents that lie apart, at least one each."""
        return super().fetching(rows, rows if self.manifest.kind == "packed" else stretches)

    def documents(self, numbers: npt.ArrayLike) -> np.ndarray:
        """As `Rows.documents`; an order of preshuffled rows does not know."""
        checked, source = self.check_numbers(numbers), self.source
        return source.documents(checked) if isinstance(source, PackedRows) else super().documents(checked)


def packed_order(
    store: TokenStore, maps: IndexMaps, seq_length: int, batch_rows: int, *, name: str = "order",
    steps: int | None = None,
) -> DataOrder:
    """An order over documents and index maps."""
    manifest = OrderManifest(store.index.path, name, "packed", seq_length, batch_rows, steps=steps)
    return DataOrder(manifest, lambda: PackedRows(store, maps, seq_length))


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


def store_digest(store: TokenStore) -> str:
    """Hex sha256 that tells a store from another one: its tokens and lengths, sampled as the module says."""
    return files.digest([_stream_digest(store.data.size, store.data.read), array_digest(store.sizes)])


def _published(manifest: OrderManifest) -> dict[str, Any] | None:
    """What a manifest says of an order on the hub, so that its fingerprint needs no download; None for local files."""
    hub, maps = manifest.store.hub, manifest.maps
    if hub is None:
        return None
    return {
        "store": _facts_digest(hub, manifest.store.index if manifest.kind == "packed" else None),
        "maps": _facts_digest(maps.hub) if maps is not None and maps.hub is not None else None,
        "seed": manifest.seed, "num_samples": manifest.num_samples, "separate_last_epoch": manifest.separate_last_epoch,
    }


def _content(source: RowSource) -> dict[str, Any]:
    """Digests of what opened rows are read from."""
    if isinstance(source, PackedRows):
        store = source.store
        return {
            "store": _stream_digest(store.data.size, store.data.read), "sizes": array_digest(store.sizes),
            "maps": [array_digest(m) for m in source.maps],
        }
    return {"store": _stream_digest(source.data.size, source.data.read)}


def array_digest(values: np.ndarray) -> str:
    """Hex sha256 of an array's length and bytes (sampled above 64 MiB), after its dtype and shape."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return f"{values.dtype.str}{list(values.shape)}:{_stream_digest(flat.size, lambda start, stop: flat[start:stop])}"


def _stream_digest(size: int, read: Callable[[int, int], np.ndarray]) -> str:
    state = hashlib.sha256(size.to_bytes(8, "little"))
    if size <= WHOLE_BYTES:
        state.update(np.ascontiguousarray(read(0, size)).data)
    else:
        for start in np.linspace(0, size - BLOCK_BYTES, BLOCKS).astype(np.int64).tolist():
            state.update(np.ascontiguousarray(read(start, start + BLOCK_BYTES)).data)
    return state.hexdigest()


def _facts_digest(found: HubFiles, extra: FileFact | None = None) -> list[Any]:
    """Digests of published files where known, else repository, revision, name and bytes."""
    facts = [*found.files, *([extra] if extra else [])]
    return [f.sha256 or [found.repo, found.revision, f.name, f.bytes] for f in facts]
