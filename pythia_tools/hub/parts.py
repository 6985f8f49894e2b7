"""One file, resumed: ranged requests into a `.part` file, verified against size and digest, then renamed into place.

A killed process leaves the part, and the next one goes on from its last byte. A part whose digest is wrong is
deleted and fetched once more from the start; wrong again is an error. Cost: the bytes once, hashed as they come
(what an earlier process left is hashed first, about 1 GB/s).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pythia_tools.core import files, progress
from pythia_tools.core.errors import ADVICE, DataError, EnvironmentFailure
from pythia_tools.hub import cache, client
from pythia_tools.hub.client import RETRIES, Refused, RetryPolicy
from pythia_tools.hub.repositories import Listing, RemoteFile

BLOCK = 1 << 20
BLOCK_SECONDS = 0.25
SYNC = 1 << 24


class Stopped(Exception):
    """Another file failed or the user interrupted; the part is kept."""


def get(
    listing: Listing, file: RemoteFile, *, retries: RetryPolicy = RETRIES, stop: threading.Event | None = None,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> Path:
    """The blob of a file, verified, in the cache; downloads what is missing of it.

    `on_bytes` hears of bytes as they are done. Raises: DataError (wrong bytes, missing), EnvironmentFailure
    (network, disk full); the part stays in both cases unless it was wrong.
    """
    blob, source = cache.blob_path(listing, file), listing.address(file)
    with one_line_disk_errors(source.what), cache.locked(listing, file):
        if blob.is_file():
            if cache.digest_matches(blob, file):
                on_bytes(file.size)
                return blob
            progress.warn(f"{source.what}: the cached copy is damaged; fetching it again")
            blob.unlink()
        other = cache.elsewhere(listing, file)
        if other is not None and cache.adopt(listing, file, other):
            on_bytes(file.size)
            return blob
        blob.parent.mkdir(parents=True, exist_ok=True)
        path = blob.with_name(blob.name + cache.PART)
        for last in (False, True):
            client.require_online(source.what)
            with open(path, "a+b") as handle, _Part(handle, file, on_bytes) as part:
                _receive_all(part, source, retries, stop)
                right = part.is_right()
            if right:
                os.replace(path, blob)
                return blob
            path.unlink()
            on_bytes(-file.size)
            if not last:
                progress.warn(f"{source.what}: came with wrong bytes; fetching it once more")
    raise DataError(f"{source.what}: twice in a row its bytes were not those that the hub lists ({file.key[:12]}…); "
                    "none were kept, try later")


class _Part:
    """An unfinished file: what comes is gathered, then written, hashed and counted together.

    A megabyte at a time (or a quarter of a second's worth, so that a killed process loses no more), because each
    write hands the interpreter to and fro with the thread that computes. The disk is made to write what came while
    the rest is still coming, so that the last sync of a large file finds little left to do.
    """

    def __init__(self, handle: IO[bytes], file: RemoteFile, on_bytes: Callable[[int], object]) -> None:
        self._handle, self._file, self._on_bytes = handle, file, on_bytes
        self._digest = file.digest_of()
        self._waiting = bytearray()
        self._flushed = time.monotonic()
        self._unsynced = 0
        self._sync: threading.Thread | None = None
        if handle.tell() > file.size:
            handle.truncate(0)
        handle.seek(0)
        while chunk := handle.read(cache.CHUNK):
            self._digest.update(chunk)
            on_bytes(len(chunk))
        self.size = handle.tell()

    @property
    def missing(self) -> int:
        return self._file.size - self.size

    def add(self, chunk: bytes) -> None:
        self._waiting += chunk
        self.size += len(chunk)
        if len(self._waiting) >= BLOCK or time.monotonic() - self._flushed > BLOCK_SECONDS:
            self.flush()

    def flush(self) -> None:
        block, self._waiting = self._waiting, bytearray()
        self._flushed = time.monotonic()
        self._handle.write(block)
        self._digest.update(block)
        self._on_bytes(len(block))
        self._unsynced += len(block)
        if self._unsynced >= SYNC and (self._sync is None or not self._sync.is_alive()):
            self._unsynced = 0
            self._sync = threading.Thread(target=self._to_disk, daemon=True)
            self._sync.start()

    def restart(self) -> None:
        """Drops what is there."""
        self._handle.seek(0)
        self._handle.truncate()
        self._on_bytes(-self.size)
        self._digest, self.size = self._file.digest_of(), 0

    def is_right(self) -> bool:
        """Whether the digest of the whole file, which is on the disk then, is the listed one."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        return self._digest.hexdigest() == self._file.key

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sync is not None:
            self._sync.join()

    def _to_disk(self) -> None:
        with contextlib.suppress(OSError):  # the last sync says what is wrong
            os.fdatasync(self._handle.fileno())


def _receive_all(part: _Part, source: client.Address, retries: RetryPolicy, stop: threading.Event | None) -> None:
    """Requests what is missing until nothing is, however often the connection breaks."""
    attempts, restarts = client.Attempts(source.what, retries), 0
    while part.missing:
        before = part.size
        try:
            whole_again = _receive(part, source, stop)
            if not whole_again and part.size == before:
                raise Refused(502, None, f"the body ended at byte {before} of {source.size}", None)
        except client.passing_errors() as error:
            attempts.failed(error, progress_made=part.size > before and not restarts)
            continue
        restarts += whole_again
        if restarts >= retries.tries:
            raise EnvironmentFailure(
                f"{source.what}: the server cannot resume and broke off {restarts} times; try later")


def _receive(part: _Part, source: client.Address, stop: threading.Event | None) -> bool:
    """Appends one response's bytes to the part, never more than the file's size; what came stays when it breaks.

    True when the server sent the whole file instead of the rest of it: the part is empty then.
    """
    start = part.size
    with client.stream(source.url, start) as response:
        if start and response.status_code == 200:
            part.restart()
            return True
        try:
            for chunk in response.iter_raw():
                if stop is not None and stop.is_set():
                    raise Stopped(source.what)
                room = part.missing
                part.add(chunk[:room])
                if len(chunk) > room:
                    break  # more than the file: its digest will tell, reading on would not
        finally:
            part.flush()
    return False


def require_free(need: int) -> None:
    """Raises EnvironmentFailure when the disk of the hub cache has less than `need` bytes free: before anything is
    fetched, not after an hour."""
    instead = "set HF_HUB_CACHE to another disk, or ask for fewer checkpoints"
    try:
        files.require_free(client.cache_root(), need, instead)
    except EnvironmentFailure:
        cache.finish_evictions()
        files.require_free(client.cache_root(), need, instead)


@contextlib.contextmanager
def one_line_disk_errors(what: str) -> Iterator[None]:
    """A full or unwritable disk becomes an EnvironmentFailure in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        raise EnvironmentFailure(
            f"{what}: {client.cache_root()} cannot be written ({error.strerror}): {ADVICE[error.errno]} "
            "(HF_HUB_CACHE names the folder); what came is kept") from error
