"""Files of data sets on the hub: what a repository holds, bytes of a file by range, and files whole."""

import threading
from pathlib import Path

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError
from pythia_tools.hub import cache, client, parts
from pythia_tools.hub.repositories import Listing, RemoteFile, ask_listing, cached_listing, kept_listing

NOTED_BYTES = 100_000_000


class Dataset:
    """A data set at a revision. What it holds is asked once, kept, and known without a network afterwards."""

    def __init__(self, repo: str, revision: str = "main"):
        self.repo = repo
        self.revision = revision
        self._listing: Listing | None = None
        self._fresh = False
        self._lock = threading.Lock()

    def listing(self, *, fresh: bool = False) -> Listing:
        """Its files. `fresh` asks the hub unless this object has done so already.

        Raises: DataError when the repository or revision does not exist, EnvironmentFailure when the hub cannot be
        reached.
        """
        with self._lock:
            commit = cache.ref(self.repo, self.revision, "dataset") if self._listing is None else None
            if commit is not None:
                self._listing = kept_listing(self.repo, self.revision, commit, "dataset")
                if self._listing is None and client.offline():
                    self._listing = cached_listing(self.repo, self.revision, commit, "dataset")
            if self._listing is None or (fresh and not self._fresh):
                self._listing = ask_listing(self.repo, self.revision, "dataset")
                self._fresh = True
                cache.set_ref(self._listing)
            return self._listing

    def file(self, name: str, *, size: int | None = None, sha256: str | None = None, fresh: bool = False) -> RemoteFile:
        """One file, held against what is known of it. Raises: DataError when it is missing or differs."""
        found = self.listing(fresh=fresh).file(name) or self.listing(fresh=True).file(name)
        if found is None:
            raise DataError(
                f"{self.repo}@{self.revision}: holds no {name}; a shard is missing there or the manifest is wrong")
        if size is not None and found.size != size:
            raise DataError(
                f"{self.repo}/{name}: {found.size} bytes on the hub, the manifest says {size}; do not use it")
        if sha256 is not None and found.sha256 is not None and found.sha256 != sha256:
            raise DataError(f"{self.repo}/{name}: the hub's sha256 {found.sha256[:12]}… is not the manifest's "
                            f"{sha256[:12]}…; do not use it")
        return found

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file from the hub, never from a cache. Raises: DataError, EnvironmentFailure."""
        return client.read_range(self.listing().address(file), start, stop)

    def download(self, name: str, *, size: int | None = None, sha256: str | None = None) -> Path:
        """A whole file in the hub cache, resumed and verified; nothing is asked where it is there already.

        Raises: DataError when it is missing, differs, or comes with wrong bytes; EnvironmentFailure (network, disk).
        """
        there = cache.pointer_path(self.listing(), self.file(name, size=size, sha256=sha256))
        if there.is_file():
            return there
        file = self.file(name, size=size, sha256=sha256, fresh=True)
        entry = self.listing()
        if file.size > NOTED_BYTES:
            progress.note(
                f"{self.repo}/{name}: {files.human_bytes(file.size)}, downloaded once into {client.cache_root()}")
        parts.require_free(file.size)
        with progress.bar(file.size, name, "B") as shown:
            parts.get(entry, file, on_bytes=shown.update)
        return cache.link(entry, file)
