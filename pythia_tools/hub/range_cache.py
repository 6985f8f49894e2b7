"""A bounded cache of byte ranges on local disk, for all that is read from the hub in part.

A range is one file, named by where it lies and by a digest of its bytes, below a folder named by the content it was
cut from. So a killed process leaves nothing half-written under a final name, a damaged file is noticed and fetched
again, and several processes may share the cache. Beyond the limit the least recently read files go.
"""

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError

DEFAULT_LIMIT = 20_000_000_000
NAME = re.compile(r"^(\d+)-(\d+)-([0-9a-f]{32})$")


class RangeCache:
    """Ranges of many files, at most `limit` bytes of them (default 20 GB, or $PYTHIA_TOOLS_RANGE_CACHE_BYTES)."""

    def __init__(self, folder: Path | None = None, limit: int | None = None):
        self.folder = folder or files.cache_dir() / "ranges"
        self.limit = _limit() if limit is None else limit
        self._lock = threading.Lock()
        self._known: dict[str, dict[tuple[int, int], Path]] = {}
        self._total: int | None = None

    def pieces(self, key: str, start: int, stop: int, near: int = 0) -> list[tuple[int, int, bytes | None]]:
        """[start, stop) cut into (a, b, bytes), with None for what is to be fetched: where nothing is cached, and what
        is cached but shorter than `near` between two such stretches.
        """
        found: list[tuple[int, int, bytes | None]] = []
        at = start
        for (a, b), path in sorted(self._ranges(key).items()):
            if b <= at or a >= stop:
                continue
            data = self._load(key, a, b, path)
            if data is None:
                continue
            if a > at:
                found.append((at, a, None))
                at = a
            end = min(b, stop)
            found.append((at, end, data[at - a : end - a]))
            at = end
        if at < stop:
            found.append((at, stop, None))
        return _joined(found, near) if near else found

    def add(self, key: str, start: int, data: bytes) -> None:
        """Keep bytes that begin at `start` of `key`'s content."""
        if len(data) > self.limit:
            return
        path = self.folder / key[:2] / key / f"{start}-{start + len(data)}-{_digest(data)}"
        with files.atomic_write(path) as out:
            out.write(data)
        with self._lock:
            self._known.setdefault(key, {})[start, start + len(data)] = path
            if self._total is not None:
                self._total += len(data)
        self._shrink()

    def get_or_add(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """A whole value under its own key."""
        for (a, b), path in self._ranges(key).items():
            data = self._load(key, a, b, path)
            if data is not None:
                return data
        data = fetch()
        self.add(key, 0, data)
        return data

    def _ranges(self, key: str) -> dict[tuple[int, int], Path]:
        with self._lock:
            if key not in self._known:
                folder = self.folder / key[:2] / key
                entries = folder.iterdir() if folder.is_dir() else ()
                self._known[key] = {(int(m[1]), int(m[2])): p for p in entries if (m := NAME.match(p.name))}
            return dict(self._known[key])

    def _load(self, key: str, a: int, b: int, path: Path) -> bytes | None:
        """A cached range; None (and forgotten) when it was evicted or is damaged."""
        try:
            data = path.read_bytes()
            if len(data) == b - a and path.name.endswith(_digest(data)):
                os.utime(path)
                return data
            path.unlink(missing_ok=True)
        except OSError:
            pass
        with self._lock:
            self._known.get(key, {}).pop((a, b), None)
        return None

    def _shrink(self) -> None:
        with self._lock:
            if self._total is not None and self._total <= self.limit:
                return
            entries = []
            for path in self.folder.glob("*/*/*-*-*"):
                if not NAME.match(path.name):  # what another process is writing, and what is not ours
                    continue
                with contextlib.suppress(OSError):
                    status = path.stat()
                    entries.append((status.st_mtime, status.st_size, path))
            self._total = sum(size for _, size, _ in entries)
            for _, size, path in sorted(entries):
                if self._total <= self.limit:
                    break
                path.unlink(missing_ok=True)
                self._total -= size


def _joined(pieces: list[tuple[int, int, bytes | None]], near: int) -> list[tuple[int, int, bytes | None]]:
    """Stretches to fetch that lie less than `near` apart as one."""
    joined: list[tuple[int, int, bytes | None]] = []
    last: int | None = None
    for a, b, data in pieces:
        if data is None:
            if last is not None and a - joined[last][1] < near:
                a = joined[last][0]
                del joined[last:]
            last = len(joined)
        joined.append((a, b, data))
    return joined


def shared_cache() -> RangeCache:
    """The cache of this process in the current cache folder."""
    return _shared(files.cache_dir() / "ranges", _limit())


_shared = cache(RangeCache)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _limit() -> int:
    text = os.environ.get("PYTHIA_TOOLS_RANGE_CACHE_BYTES")
    if text is None:
        return DEFAULT_LIMIT
    try:
        return max(0, int(float(text)))
    except (ValueError, OverflowError):
        raise RequestError(f"PYTHIA_TOOLS_RANGE_CACHE_BYTES={text!r} is not a number of bytes") from None
