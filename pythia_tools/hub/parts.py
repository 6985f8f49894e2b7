"""One file, resumed: ranged requests into a `.part` file, verified against size and digest, then renamed into place.

A killed process leaves the part, and the next one goes on from its last byte. A part whose digest is wrong is
deleted and fetched once more from the start; wrong again is an error. Cost: the bytes once, hashed as they come
(what an earlier process left is hashed first, about 1 GB/s).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.core.files import human_bytes
from pythia_tools.hub import cache, client
from pythia_tools.hub.client import PATIENCE, Patience, Refused
from pythia_tools.hub.repositories import Listing, RemoteFile

BLOCK = 1 << 20
BLOCK_SECONDS = 0.25
FLUSH = 1 << 24


class Stopped(Exception):
    """Another file failed or the user interrupted; the part is kept."""


def get(
    listing: Listing, file: RemoteFile, *, patience: Patience = PATIENCE, stop: threading.Event | None = None,
    on_bytes: Callable[[int], Any] = lambda count: None,
) -> Path:
    """The blob of a file, verified, in the cache; downloads what is missing of it.

    `on_bytes` hears of bytes as they are done. Raises: DataError (wrong bytes, missing), EnvironmentFailure
    (network, disk full); the part stays in both cases unless it was wrong.
    """
    blob = cache.blob_path(listing, file)
    what = f"{listing.repo}@{listing.revision}/{file.path}"
    with one_line_disk_errors(what), cache.locked(listing, file):
        if blob.is_file():
            if cache.digest_matches(blob, file):
                on_bytes(file.size)
                return blob
            progress.warn(f"{what}: the cached copy is damaged; fetching it again")
            blob.unlink()
        other = cache.elsewhere(listing, file)
        if other is not None and cache.adopt(listing, file, other):
            on_bytes(file.size)
            return blob
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(blob.name + cache.PART)
        for last in (False, True):
            if _fill(part, listing, file, what, patience, stop, on_bytes):
                os.replace(part, blob)
                return blob
            part.unlink()
            on_bytes(-file.size)
            if not last:
                progress.warn(f"{what}: came with wrong bytes; fetching it once more")
    raise DataError(f"{what}: twice in a row its bytes were not those that the hub lists ({file.key[:12]}…); none were kept, try later")


def _fill(part: Path, listing: Listing, file: RemoteFile, what: str, patience: Patience, stop: threading.Event | None,
          on_bytes: Callable[[int], Any]) -> bool:
    """Completes the part; whether its digest is right."""
    client.require_online(what)
    digest = file.digest_of()
    with open(part, "a+b") as handle, _ToDisk(handle.fileno()) as to_disk:
        if handle.tell() > file.size:
            handle.truncate(0)
        handle.seek(0)
        while chunk := handle.read(cache.CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))

        def came(count: int) -> None:
            on_bytes(count)
            to_disk.written(count)

        attempt = restarts = 0
        while handle.tell() < file.size:
            before = handle.tell()
            try:
                _receive(handle, listing, file, what, digest, stop, came)
                if handle.tell() == before:
                    raise Refused(502, None, f"the body ended at byte {before} of {file.size}", None)
            except _Restart:
                digest, restarts = file.digest_of(), restarts + 1
                if restarts >= patience.tries:
                    raise EnvironmentFailure(f"{what}: the server cannot resume and broke off {restarts} times; try later") from None
            except client.passing_errors() as error:
                attempt = 0 if handle.tell() > before and not restarts else attempt
                client.retry(what, error, attempt, patience)
                attempt += 1
        handle.flush()
        os.fsync(handle.fileno())
    return digest.hexdigest() == file.key


class _ToDisk:
    """Has the disk write what came while the rest is still coming, so that the last flush of a large file finds little left to do."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._since = 0
        self._thread: threading.Thread | None = None

    def written(self, count: int) -> None:
        self._since += count
        if self._since >= FLUSH and (self._thread is None or not self._thread.is_alive()):
            self._since = 0
            self._thread = threading.Thread(target=self._flush, daemon=True)
            self._thread.start()

    def __enter__(self) -> _ToDisk:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):  # the last flush says what is wrong
            os.fdatasync(self._descriptor)


class _Restart(Exception):
    """The server sent the whole file instead of the rest of it: what was there is dropped."""


def _receive(handle: Any, listing: Listing, file: RemoteFile, what: str, digest: Any, stop: threading.Event | None,
             on_bytes: Callable[[int], Any]) -> None:
    """Appends one response's bytes to the part, never more than the file's size."""
    start = handle.tell()
    url = client.file_url(listing.repo, listing.commit, file.path, listing.kind)
    with client.stream(url, start) as response:
        if start and response.status_code == 200:
            handle.seek(0)
            handle.truncate()
            on_bytes(-start)
            raise _Restart
        with _Block(handle, digest, on_bytes) as block:
            for chunk in response.iter_raw():
                if stop is not None and stop.is_set():
                    raise Stopped(what)
                room = file.size - block.end
                block.add(chunk[:room])
                if len(chunk) > room:
                    return  # more than the file: its digest will tell, reading on would not


class _Block:
    """Gathers small chunks and writes, hashes and counts them together; what came is written even when the connection breaks.

    A megabyte at a time (or a quarter of a second's worth, so that a killed process loses no more), because each of these
    hands the interpreter to and fro with the thread that computes.
    """

    def __init__(self, handle: Any, digest: Any, on_bytes: Callable[[int], Any]) -> None:
        self._handle, self._digest, self._on_bytes = handle, digest, on_bytes
        self._waiting = bytearray()
        self._since = time.monotonic()
        self.end = handle.tell()

    def add(self, chunk: bytes) -> None:
        self._waiting += chunk
        self.end += len(chunk)
        if len(self._waiting) >= BLOCK or time.monotonic() - self._since > BLOCK_SECONDS:
            self._flush()

    def __enter__(self) -> _Block:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def _flush(self) -> None:
        block, self._waiting = self._waiting, bytearray()
        self._since = time.monotonic()
        self._handle.write(block)
        self._digest.update(block)
        self._on_bytes(len(block))


class one_line_disk_errors:
    """A full disk becomes an EnvironmentFailure that says that the part is kept."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = _free()
            raise EnvironmentFailure(
                f"{self.what}: the disk of {client.cache_root()} is full ({error.strerror}{free}); what came is kept, "
                "free some space or set HF_HUB_CACHE to another disk, and run the same command again to resume"
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO):
            raise EnvironmentFailure(
                f"{self.what}: {client.cache_root()} cannot be written ({error.strerror}); set HF_HUB_CACHE to another folder"
            ) from error


def _free() -> str:
    import shutil

    try:
        return f", {human_bytes(shutil.disk_usage(client.cache_root()).free)} free"
    except OSError:
        return ""
