"""Digests of an order's content and parameters.

Content is named by the sha256 of its files where a manifest gives them. Otherwise it is read: all of it up to 64 MiB,
beyond that its length and 64 evenly spaced blocks of 64 KiB, so that opening 600 GB stays quick. A change outside those
blocks would go unnoticed here; `pythia-tools data verify` reads every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pythia_tools.order.manifest import FileFact, HubFiles, OrderManifest
from pythia_tools.order.sources import PackedRows, PreshuffledRows, RowSource

WHOLE_BYTES = 64 << 20
BLOCKS = 64
BLOCK_BYTES = 64 << 10


def published_content(manifest: OrderManifest) -> dict[str, Any] | None:
    """What a manifest says of an order on the hub, so that its fingerprint needs no download; None for local files."""
    hub, maps = manifest.store.hub, manifest.maps
    if hub is None:
        return None
    return {
        "store": _facts_digest(hub, manifest.store.index if manifest.kind == "packed" else None),
        "maps": _facts_digest(maps.hub) if maps is not None and maps.hub is not None else None,
        "seed": manifest.seed, "num_samples": manifest.num_samples, "separate_last_epoch": manifest.separate_last_epoch,
    }


def content(source: RowSource) -> dict[str, Any]:
    """Digests of what opened rows are read from."""
    if isinstance(source, PackedRows):
        store = source.store
        return {
            "store": _stream_digest(store.data.size, store.data.read), "sizes": array_digest(store.sizes),
            "maps": [array_digest(m) for m in source.maps],
        }
    assert isinstance(source, PreshuffledRows)
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


def _facts_digest(files: HubFiles, extra: FileFact | None = None) -> list[Any]:
    """Digests of published files where known, else repository, revision, name and bytes."""
    facts = [*files.files, *([extra] if extra else [])]
    return [f.sha256 or [files.repo, files.revision, f.name, f.bytes] for f in facts]
