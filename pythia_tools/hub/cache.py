"""The hub cache on disk, as `huggingface_hub` lays it out, so that `from_pretrained(local_files_only=True)` finds it.

    models--ns--name/blobs/<etag>            content, stored once per repository (and hard-linked across repositories)
    models--ns--name/snapshots/<commit>/…    links to blobs
    models--ns--name/refs/<revision>         the commit a branch pointed to
    models--ns--name/blobs/<etag>.part       an unfinished download of ours; resumed, or deleted by age

A blob appears under its name only after its digest was verified.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pythia_tools.core import files
from pythia_tools.core.errors import DataError
from pythia_tools.hub import client

if TYPE_CHECKING:
    from pythia_tools.hub.repositories import Listing, RemoteFile

COMMIT = re.compile(r"[0-9a-f]{40}")
PART = ".part"
CHUNK = 1 << 22


def repo_folder(repo: str, kind: str = "model") -> Path:
    return client.cache_root() / f"{kind}s--{repo.replace('/', '--')}"


def blob_path(listing: Listing, file: RemoteFile) -> Path:
    return repo_folder(listing.repo, listing.kind) / "blobs" / file.key


def snapshot_folder(listing: Listing) -> Path:
    return repo_folder(listing.repo, listing.kind) / "snapshots" / listing.commit


def pointer_path(listing: Listing, file: RemoteFile) -> Path:
    """The snapshot's path of a file. Raises: DataError for a name that would leave the snapshot."""
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts or "\\" in file.path:
        raise DataError(
            f"{listing.repo}@{listing.revision}: the file name {file.path!r} leads outside its folder; refused")
    return snapshot_folder(listing) / relative


def digest_matches(path: Path, file: RemoteFile) -> bool:
    """Whether a file's size and digest are the hub's; reads it whole (about 1 GB/s)."""
    if path.stat().st_size != file.size:
        return False
    digest = file.digest_of()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.key


def link(listing: Listing, file: RemoteFile) -> Path:
    """The snapshot's link to a blob that is in place; a copy where links are impossible."""
    blob, pointer = blob_path(listing, file), pointer_path(listing, file)
    there = pointer.resolve() == blob.resolve() if pointer.is_symlink() else _size(pointer) == file.size
    if there:
        return pointer
    beside = pointer.with_name(f".{pointer.name}.{os.getpid()}{PART}")
    _put(pointer, beside, blob, lambda: beside.symlink_to(os.path.relpath(blob, pointer.parent)))
    return pointer


def _put(target: Path, beside: Path, content: Path, make_link: Callable[[], None]) -> None:
    """`target` as a link to `content`, made at `beside` and renamed; a copy where links are impossible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)
    try:
        make_link()
    except OSError:
        shutil.copyfile(content, beside)
    os.replace(beside, target)


def set_ref(listing: Listing) -> None:
    """Records which commit the branch pointed to, as the client does; commits need none."""
    if listing.revision != listing.commit:
        refs = repo_folder(listing.repo, listing.kind) / "refs"
        files.write_text(files.confined(refs, listing.revision), listing.commit)


def ref(repo: str, revision: str, kind: str = "model") -> str | None:
    """The commit a branch pointed to when it was last fetched; None when it never was."""
    return revision if COMMIT.fullmatch(revision) else _stated(repo_folder(repo, kind) / "refs" / revision)


def _stated(ref: Path) -> str | None:
    """The commit that a file of refs/ states; None for any other file."""
    try:
        text = ref.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if COMMIT.fullmatch(text) else None


def is_present(listing: Listing) -> bool:
    """Whether every needed file is in the cache at its full size."""
    folder = snapshot_folder(listing)
    return all(_size(folder / f.path) == f.size for f in listing.needed)


def is_whole(listing: Listing, file: RemoteFile) -> bool:
    """Whether a blob is in place at its full size."""
    return _size(blob_path(listing, file)) == file.size


def elsewhere(listing: Listing, file: RemoteFile) -> Path | None:
    """The same content under another repository of the cache (large files only); None when there is none."""
    if file.sha256 is None or not client.cache_root().is_dir():
        return None
    own = blob_path(listing, file)
    for folder in client.cache_root().glob("*--*"):
        other = folder / "blobs" / file.key
        if other != own and _size(other) == file.size:
            return other
    return None


def adopt(listing: Listing, file: RemoteFile, other: Path) -> bool:
    """Takes verified content of another repository as a hard link (a copy across disks); False when it is damaged."""
    if not digest_matches(other, file):
        return False
    blob = blob_path(listing, file)
    beside = blob.with_name(f"{blob.name}.{os.getpid()}.link")
    _put(blob, beside, other, lambda: os.link(other.resolve(), beside))
    return True


@contextlib.contextmanager
def locked(listing: Listing, file: RemoteFile) -> Iterator[None]:
    """The lock that the real client takes for this blob, so that neither downloads it twice."""
    from huggingface_hub.utils import WeakFileLock

    folder = client.cache_root() / ".locks" / repo_folder(listing.repo, listing.kind).name
    folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder / f"{file.key}.lock"):
        yield


def remove_snapshot(repo: str, commit: str, revisions: Iterable[str], copies: Mapping[str, int]) -> int:
    """Deletes one snapshot, the refs of `revisions` to it, and every blob that no other snapshot of the repository has.

    A snapshot that yet another ref names was fetched by another tool as well and stays, refs and all. Of the snapshot
    go its links to blobs, and the files in `copies` (name: size, for disks without links); a file of the user's own and
    a link that leads out of the cache stay, with what it leads to. Returns bytes freed.
    """
    folder = repo_folder(repo)
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return 0
    refs = [p for p in (folder / "refs").rglob("*") if not p.name.startswith(".")]
    naming = {p for p in refs if _stated(p) == commit}
    if naming - {folder / "refs" / revision for revision in revisions}:
        return 0
    for path in naming:
        path.unlink()
    links = _links(snapshot, folder / "blobs")
    copied = [p for name in copies if not (p := snapshot / name).is_symlink() and _size(p) == copies[name]]
    for path in (*links, *copied):
        path.unlink()
    for path in (*sorted(snapshot.rglob("*"), reverse=True), snapshot):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    others = {b for other in (folder / "snapshots").iterdir() for b in _links(other, folder / "blobs").values()}
    freed, gone = 0, []
    for blob in set(links.values()) - others:
        if blob.is_file():
            freed += blob.stat().st_size if blob.stat().st_nlink == 1 else 0
            gone.append(blob.with_name(f"{blob.name}.{os.getpid()}.evicted"))
            os.replace(blob, gone[-1])
    _unlink_aside(gone)
    return freed


def _unlink_aside(paths: list[Path]) -> None:
    """Deletes in the background, since a gigabyte takes the system a fifth of a second; the names are free already."""

    def work() -> None:
        for path in paths:
            with contextlib.suppress(OSError):  # `delete_unfinished` finds what stays
                path.unlink()

    if paths:
        thread = threading.Thread(target=work, name="evict")
        thread.start()
        _evictions.append(thread)


def finish_evictions() -> None:
    """Waits until what was evicted is off the disk."""
    while _evictions:
        with contextlib.suppress(IndexError):  # another thread waited for the last one
            _evictions.pop().join()


_evictions: list[threading.Thread] = []


def _links(snapshot: Path, blobs: Path) -> dict[Path, Path]:
    """{link: blob} of a snapshot's links to blobs of its own repository; what leads elsewhere is not the cache's."""
    targets = {p: Path(os.path.normpath(p.parent / os.readlink(p))) for p in snapshot.rglob("*") if p.is_symlink()}
    home = blobs.resolve()
    return {link: blobs / target.name for link, target in targets.items() if target.parent.resolve() == home}


def delete_unfinished(older_than_seconds: float = 24 * 3600) -> list[tuple[Path, int]]:
    """Deletes unfinished files that nobody has written to for a while: downloads, ours and the client's `.incomplete`
    ones, and what a killed process left among refs, links, listings and ledger.

    Returns (path, bytes) of what was deleted.
    """
    gone = []
    before = time.time() - older_than_seconds
    leftovers = (".incomplete", PART, ".link", ".evicted")
    patterns = [f"*--*/blobs/*{end}" for end in leftovers]
    patterns += [f"*--*/snapshots/*/**/.*{PART}", f"*--*/refs/**/.*{PART}"]
    found = [path for pattern in patterns for path in client.cache_root().glob(pattern)]
    ours = [path for name in ("hub", "ranges") for path in (files.cache_dir() / name).rglob(f".*{PART}")]
    for path in (*found, *ours):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if status.st_mtime < before:
                path.unlink()
                gone.append((path, status.st_size))
    return gone


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
