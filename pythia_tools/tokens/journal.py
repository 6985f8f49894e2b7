"""Batches encoded so far, beside a store that is being written: a run that was killed reads them instead of encoding again.

PREFIX.encoded: 8 bytes of name, 32 of key (whose ids these are), then batch after batch, in order:
digest of the texts (32 bytes), documents and tokens (uint64 each), CRC-32 of the rest (uint32), sizes (uint32 each), ids (uint32 each).
A batch counts only when its texts have the same digest and its bytes the same checksum; from the first that does not on,
the file is cut and written anew. So a changed input, another tokenizer or a torn end costs time, never a wrong id.
Cost: 4 bytes per token on disk until the store stands; reading is a hundred times faster than encoding.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from pythia_tools.core.errors import EnvironmentFailure

_NAME = b"PTENC001"
_HEAD = struct.Struct("<32sQQI")


class Journal:
    """Read with `take` in order until it gives None; from then on `add`. `key`: a digest (hex) of what turns texts to ids."""

    def __init__(self, path: Path, key: str):
        self.path = path
        self.taken = 0
        self._begin = _NAME + hashlib.sha256(key.encode()).digest()
        self._reading = True

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = open(self.path, "r+b" if self.path.exists() else "w+b")
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: cannot be written ({error.strerror})") from error
        if self._file.read(len(self._begin)) != self._begin:
            self._cut(0)
            self._file.write(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError as failed:
            if kind is None:
                raise EnvironmentFailure(f"{self.path}: cannot be written ({failed.strerror}); free some space and run again") from failed
        if self.path.exists() and self.path.stat().st_size <= len(self._begin):
            self.remove()  # nothing in it to go on from

    def take(self, digest: bytes) -> list[np.ndarray] | None:
        """The ids of the next batch's documents, if that is the batch with these texts; None from the first that is not on."""
        if not self._reading:
            return None
        start = self._file.tell()
        rows = self._next(digest)
        if rows is None:
            self._reading = False
            self._cut(start)
        else:
            self.taken += 1
        return rows

    def add(self, digest: bytes, rows: Sequence[np.ndarray]) -> None:
        """Append a batch."""
        sizes = np.array([len(r) for r in rows], "<u4")
        ids = np.concatenate([*rows, np.empty(0, np.uint32)]).astype("<u4", copy=False)
        body = sizes.tobytes() + ids.tobytes()
        try:
            self._file.write(_HEAD.pack(digest, len(sizes), len(ids), zlib.crc32(body)) + body)
            self._file.flush()
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: cannot be written ({error.strerror}); free some space and run again") from error

    def remove(self) -> None:
        """The store stands; the journal has done its work."""
        self.path.unlink(missing_ok=True)

    def _next(self, digest: bytes) -> list[np.ndarray] | None:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        whose, documents, tokens, checksum = _HEAD.unpack(head)
        if whose != digest:
            return None
        body = self._file.read(4 * (documents + tokens))
        if len(body) < 4 * (documents + tokens) or zlib.crc32(body) != checksum:
            return None
        values = np.frombuffer(body, "<u4")
        return np.split(values[documents:], np.cumsum(values[:documents], dtype=np.int64)[:-1]) if documents else []

    def _cut(self, at: int) -> None:
        self._file.seek(at)
        self._file.truncate()


def digest_texts(texts: Sequence[str]) -> bytes:
    """sha256 of texts, told apart by their lengths."""
    sha = hashlib.sha256()
    for text in texts:
        raw = text.encode()
        sha.update(len(raw).to_bytes(8, "little"))
        sha.update(raw)
    return sha.digest()
