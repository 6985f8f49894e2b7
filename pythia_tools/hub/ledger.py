"""What this tool has put into the hub cache, so that a disk budget can make room without touching anything else.

One small JSON per fetched checkpoint below `<cache_dir>/hub/ledger`. Eviction takes the least recently used checkpoint
that is not pinned: by the user (until unpinned) or by a living process (while it uses it). Content that several
checkpoints share is counted once.
"""

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import human_bytes
from pythia_tools.hub import cache, client
from pythia_tools.hub.repositories import Listing, RemoteFile, kept_listing

LONGEST_HOLD_SECONDS = 24 * 3600
HOLD = "hold"
_mutex = threading.Lock()
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Entry:
    """One verified commit in the cache, and the branches by which it was asked for; `blobs`: content digest → bytes."""

    root: str
    repo: str
    revisions: list[str]
    commit: str
    blobs: dict[str, int]
    used: float
    pinned: bool

    @property
    def name(self) -> str:
        return _name(self.repo, self.commit)


def parse_bytes(text: str | int) -> int:
    """`50GB`, `1.5 TB`, `300MB`, or plain bytes; decimal units. Raises: RequestError."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgt]?)i?b?", str(text).strip().lower())
    if not match:
        raise RequestError(f"{text!r} is not an amount of bytes such as 50GB, 1.5TB or 300MB")
    return round(float(match[1]) * _UNITS[match[2]])


def set_budget(count: int | None) -> None:
    """The disk budget of this process in bytes, before $PYTHIA_TOOLS_DISK_BUDGET; None: that variable's again."""
    global _budget
    _budget = count


def default_budget() -> int | None:
    """What `set_budget` chose, or $PYTHIA_TOOLS_DISK_BUDGET, in bytes; None when neither is set."""
    text = os.environ.get("PYTHIA_TOOLS_DISK_BUDGET")
    return _budget if _budget is not None else parse_bytes(text) if text else None


_budget: int | None = None


def record(listing: Listing, *, pin: bool | None = None) -> None:
    """Notes a verified checkpoint as used now; `pin` None keeps its pin as it was."""
    with exclusive():
        old = find(listing.repo, listing.commit)
        pinned = pin if pin is not None else bool(old and old.pinned)
        revisions = sorted({listing.revision, *(old.revisions if old else ())})
        entry = Entry(str(client.cache_root().resolve()), listing.repo, revisions, listing.commit,
                      {f.key: f.size for f in listing.needed}, time.time(), pinned)
        files.write_json(_folder() / f"{entry.name}.json", asdict(entry))


def find(repo: str, commit: str) -> Entry | None:
    """The entry of a checkpoint in the current hub cache; None when this tool has not verified it there."""
    return _read(_folder() / f"{_name(repo, commit)}.json")


def verified(listing: Listing) -> set[RemoteFile]:
    """The needed files of a listing that are in place at their full size and were verified when they came."""
    entry = find(listing.repo, listing.commit)
    known = entry.blobs if entry else {}
    return {file for file in listing.needed if file.key in known and cache.is_whole(listing, file)}


def entries() -> list[Entry]:
    """Entries of the current hub cache, least recently used first; those whose snapshot is gone are forgotten."""
    found = []
    for path in _folder().glob("*.json"):
        if (entry := _read(path)) is None:
            continue
        if (cache.repo_folder(entry.repo) / "snapshots" / entry.commit).is_dir():
            found.append(entry)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda e: e.used)


def used_bytes() -> int:
    """Bytes of all recorded checkpoints, shared content once."""
    return sum({key: size for e in entries() for key, size in e.blobs.items()}.values())


def make_room(need: int, budget: int, keep: Collection[tuple[str, str]] = ()) -> int:
    """Evicts until `need` more bytes fit the budget; `keep` holds (repo, commit) that must stay. Returns bytes freed.

    Raises: RequestError when even an otherwise empty cache would not do.
    """
    freed = 0
    with exclusive():
        fixed = [e for e in entries() if e.pinned or (e.repo, e.commit) in keep or _in_use(e)]
        base = sum({key: size for e in fixed for key, size in e.blobs.items()}.values())
        if base + need > budget:
            raise RequestError(
                f"the disk budget of {human_bytes(budget)} is too small: {human_bytes(need)} to come, "
                f"{human_bytes(base)} pinned, in use or asked for; raise --budget, ask for fewer checkpoints, or unpin "
                "some")
        for entry in entries():
            if used_bytes() + need <= budget:
                break
            if entry not in fixed:
                listed = kept_listing(entry.repo, entry.revisions[0], entry.commit)
                copies = {file.path: file.size for file in (listed.files if listed else ())}
                freed += cache.remove_snapshot(entry.repo, entry.commit, entry.revisions, copies)
                (_folder() / f"{entry.name}.json").unlink(missing_ok=True)
    return freed


@contextlib.contextmanager
def pinned(places: Collection[tuple[str, str]]) -> Iterator[None]:
    """Keeps (repo, commit) from eviction by any process for the duration; pins of dead processes do not count."""
    paths = _mark(places, uuid.uuid4().hex)
    try:
        yield
    finally:  # works while the interpreter shuts down, too
        for path in paths:
            path.unlink(missing_ok=True)


def hold(places: Collection[tuple[str, str]]) -> None:
    """Keeps (repo, commit) from eviction by other processes: from its fetch until `release`, for as long as this
    process lives, and for a day at most. This process may still make room for itself.
    """
    _mark(places, HOLD)


def release(places: Collection[tuple[str, str]]) -> None:
    """Ends `hold`: what was fetched has been used."""
    for path in _marks(places, HOLD):
        path.unlink(missing_ok=True)


def _marks(places: Collection[tuple[str, str]], use: str) -> list[Path]:
    owner = f"@{socket.gethostname()}@{os.getpid()}@{use}"
    return [_folder() / "pins" / f"{_name(repo, commit)}{owner}" for repo, commit in places]


def _mark(places: Collection[tuple[str, str]], use: str) -> list[Path]:
    """Says that this process uses these; not while another process chooses what to evict."""
    paths = _marks(places, use)
    with exclusive():
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return paths


def _in_use(entry: Entry) -> bool:
    """Whether a living process pins it, or another one holds it; stale pins are removed on the way."""
    (own,) = _marks([(entry.repo, entry.commit)], HOLD)
    pins = [path for path in (_folder() / "pins").glob(f"{entry.name}@*") if path != own]
    stale = [path for path in pins if not _alive(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale) < len(pins)


def _alive(pin: Path) -> bool:
    _, host, pid, use = pin.name.rsplit("@", 3)
    foreign = host != socket.gethostname() or os.name == "nt"  # on Windows os.kill(pid, 0) would not only ask
    try:
        young = time.time() - pin.stat().st_mtime < LONGEST_HOLD_SECONDS
    except FileNotFoundError:
        return False
    if foreign or (use == HOLD and not young):
        return young
    try:
        os.kill(int(pid), 0)
    except OSError as error:  # one that may not be asked is alive
        return not isinstance(error, ProcessLookupError)
    return True


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """One thread of one process at a time in the ledger."""
    from huggingface_hub.utils import WeakFileLock

    _folder().mkdir(parents=True, exist_ok=True)
    with _mutex, WeakFileLock(_folder() / ".lock"):
        yield


def _folder() -> Path:
    return files.cache_dir() / "hub" / "ledger"


def _name(repo: str, commit: str) -> str:
    root = files.digest(str(client.cache_root().resolve()))[:8]
    return f"{root}--{repo.replace('/', '--')}--{commit}"


def _read(path: Path) -> Entry | None:
    if not path.is_file():
        return None
    try:
        entry = Entry(**files.read_json(path))
        texts = (entry.root, entry.repo, entry.commit, entry.revisions[0], *entry.revisions)
        if not all(isinstance(text, str) for text in texts) or not isinstance(entry.used, int | float):
            raise TypeError
        if not all(isinstance(size, int) for size in entry.blobs.values()):
            raise TypeError
    except (DataError, TypeError, AttributeError, LookupError):
        path.unlink(missing_ok=True)
        return None
    return entry if entry.root == str(client.cache_root().resolve()) else None
