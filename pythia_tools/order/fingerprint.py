"""Digests of an order's content and parameters.

Content is named by the sha256 of its files where a manifest gives them. Otherwise it is read: all of it up to 64 MiB,
beyond that its length and 64 evenly spaced blocks of 64 KiB, so that opening 600 GB stays quick. A change outside those
blocks would go unnoticed here; `pythia-tools data verify` reads every byte.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from pythia_tools.order.manifest import FileFact, HubFiles
from pythia_tools.tokens import ByteSource

WHOLE_BYTES = 64 << 20
BLOCKS = 64
BLOCK_BYTES = 64 << 10


def stream_digest(data: ByteSource) -> str:
    """Hex sha256 of a stream's length and bytes (sampled above 64 MiB)."""
    state = hashlib.sha256(data.size.to_bytes(8, "little"))
    if data.size <= WHOLE_BYTES:
        state.update(np.ascontiguousarray(data.read(0, data.size)).data)
    else:
        for start in np.linspace(0, data.size - BLOCK_BYTES, BLOCKS).astype(np.int64):
            state.update(np.ascontiguousarray(data.read(int(start), int(start) + BLOCK_BYTES)).data)
    return state.hexdigest()


def array_digest(values: np.ndarray) -> str:
    """The same for an array, with its dtype and shape."""
    flat = values.reshape(-1).view(np.uint8) if values.flags.c_contiguous else np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return f"{values.dtype.str}{list(values.shape)}:{stream_digest(_Memory(flat))}"


def facts_digest(files: HubFiles, extra: FileFact | None = None) -> Any:
    """What a manifest says of published files: digests where known, else repository, revision, name and bytes."""
    facts = [*files.files, *([extra] if extra else [])]
    return [f.sha256 or [files.repo, files.revision, f.name, f.bytes] for f in facts]


class _Memory:
    """An array's bytes as a stream."""

    def __init__(self, flat: np.ndarray):
        self.size = flat.size
        self._flat = flat

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._flat[start:stop]

    def read_into(self, start: int, out: np.ndarray) -> None:
        out[:] = self._flat[start : start + out.size]

    def gather(self, source: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
        for s, n, t in zip(source, length, target, strict=True):
            out[t : t + n] = self._flat[s : s + n]
