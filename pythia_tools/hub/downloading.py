"""Checkpoints and tokenizers from the hub, as local folders.

`fetch`: a checkpoint as a local `save_pretrained` folder; `fetch_tokenizer`: a repository's tokenizer alone;
`plan` and `download`: many checkpoints at once, in parallel, resumable, verified, within a disk budget.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.hub import cache, client, ledger, parts, repositories
from pythia_tools.hub.client import BRIEF, RETRIES, RetryPolicy
from pythia_tools.hub.repositories import TOKENIZER, WORKERS, Listing, RemoteFile, kept_listing, listing
from pythia_tools.suites import Checkpoint, Folder, HubRevision, check_defects

_unreachable: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Plan:
    """What a download would do. `missing` holds each content once; `problems` the checkpoints the hub lacks.

    `disk_peak` is the most that recorded checkpoints will take while it runs; `already` what is in the cache, `trusted`
    the part of it that was verified when it came and is only looked at for its size now.
    """

    listings: tuple[Listing, ...]
    missing: tuple[tuple[Listing, RemoteFile], ...]
    problems: tuple[str, ...]
    already: int
    trusted: int
    disk_peak: int

    @property
    def bytes(self) -> int:
        return sum(file.size for _, file in self.missing)


def plan(checkpoints: Sequence[Checkpoint]) -> Plan:
    """What a download would do (local checkpoints need nothing). Cost: one request per repository and new commit."""
    remote = [(c, c.location) for c in checkpoints if isinstance(c.location, HubRevision)]
    found = repositories.listings([(place.repo, place.revision) for _, place in remote])
    good: list[Listing] = []
    problems: list[str] = []
    missing: dict[str, tuple[Listing, RemoteFile]] = {}
    already: dict[str, int] = {}
    trusted: dict[str, int] = {}
    for (checkpoint, _), entry in zip(remote, found, strict=True):
        try:
            if isinstance(entry, DataError):
                raise entry
            needed = entry.needed
        except DataError as error:
            problems.append(f"{checkpoint}: {error}")
            continue
        good.append(entry)
        known = ledger.verified(entry)
        for file in needed:
            if cache.is_whole(entry, file) or cache.elsewhere(entry, file) is not None:
                already[file.key] = file.size
                trusted |= {file.key: file.size} if file in known else {}
            else:
                missing.setdefault(file.key, (entry, file))
    to_come = sum(file.size for _, file in missing.values())
    peak = ledger.used_bytes() + to_come
    there, looked_at = sum(already.values()), sum(trusted.values())
    return Plan(tuple(good), tuple(missing.values()), tuple(problems), there, looked_at, peak)


def download(
    checkpoints: Sequence[Checkpoint], *, budget: int | None = None, workers: int = WORKERS, pin: bool | None = None,
    retries: RetryPolicy = RETRIES, made: Plan | None = None, stop: threading.Event | None = None,
) -> list[Path]:
    """Fetches checkpoints into the hub cache and returns their folders, in order.

    Files come in parallel, resumed from parts of earlier processes, verified; identical content once. With a
    `budget` in bytes, other recorded checkpoints make room, least recently used first, pinned ones never.
    `made` is a plan of these checkpoints that was made before; setting `stop` ends it at the next chunk. Raises:
    DataError when the hub lacks one of them (nothing is fetched then), RequestError (budget), EnvironmentFailure
    (network, disk; parts stay for the next try).
    """
    todo = plan(checkpoints) if made is None else made
    if todo.problems:
        more = f" (and {len(todo.problems) - 1} more like it)" if len(todo.problems) > 1 else ""
        raise DataError(f"{todo.problems[0]}{more}")
    keep = {(entry.repo, entry.commit) for entry in todo.listings}
    ledger.hold(keep)
    budget = ledger.default_budget() if budget is None else budget
    if budget is not None:
        ledger.make_room(todo.bytes, budget, keep)
    parts.require_free(todo.bytes)
    try:
        with ledger.pinned(keep):
            _fetch_all(todo.listings, workers, retries, stop or threading.Event())
    finally:
        cache.finish_evictions()
    for entry in todo.listings:
        place(entry, pin=pin)
    folders = {HubRevision(entry.repo, entry.revision): cache.snapshot_folder(entry) for entry in todo.listings}
    return [folders[c.location] if isinstance(c.location, HubRevision) else c.location.path for c in checkpoints]


def place(entry: Listing, *, pin: bool | None = None) -> Path:
    """Links verified blobs into their snapshot, sets the ref, records it; the config last: half a one must not load."""
    with parts.one_line_disk_errors(f"{entry.repo}@{entry.revision}"):
        for file in sorted(entry.needed, key=lambda f: f.path == "config.json"):
            cache.link(entry, file)
        cache.set_ref(entry)
        ledger.record(entry, pin=pin)
    return cache.snapshot_folder(entry)


def _fetch_all(found: Sequence[Listing], workers: int, retries: RetryPolicy, stop: threading.Event) -> None:
    """Every needed blob of the listings, largest first; the first failure stops the rest."""
    chains: dict[str, dict[str, tuple[Listing, RemoteFile]]] = {}  # content → repository: one fetches, the others link
    for entry in found:
        known = ledger.verified(entry)
        for file in entry.needed:
            if file not in known:
                chains.setdefault(file.key, {}).setdefault(entry.repo, (entry, file))
    jobs = sorted((list(chain.values()) for chain in chains.values()), key=lambda chain: -chain[0][1].size)
    if not jobs:
        return
    total = sum(file.size for chain in jobs for _, file in chain)
    with progress.bar(total, "download", "B") as shown, ThreadPoolExecutor(workers) as pool:
        lock = threading.Lock()

        def count(n: int) -> None:
            with lock:
                shown.update(n)

        def one(chain: list[tuple[Listing, RemoteFile]]) -> None:
            for entry, file in chain:
                parts.get(entry, file, retries=retries, stop=stop, on_bytes=count)

        futures = [pool.submit(one, chain) for chain in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # an interrupt, too: the others stop at their next chunk and keep their parts
            stop.set()
            for future in futures:
                future.cancel()
            raise


def fetch(
    checkpoint: Checkpoint, *, budget: int | None = None, retries: RetryPolicy = RETRIES,
    stop: threading.Event | None = None,
) -> Path:
    """The local `save_pretrained` folder of a checkpoint, downloaded and verified if it is not there yet.

    A checkpoint that was fetched before costs at most one request per repository and process (has the branch
    moved?), none with HF_HUB_OFFLINE=1. `budget` (bytes; default $PYTHIA_TOOLS_DISK_BUDGET) evicts other checkpoints.
    Setting `stop` ends it at the next chunk, the part kept. Known-wrong checkpoints warn, once per model and fault.
    Raises: DataError, EnvironmentFailure, RequestError.
    """
    check_defects([checkpoint], allow_defective=True)
    if isinstance(checkpoint.location, Folder):
        path = checkpoint.location.path
        if not (path / "config.json").is_file():
            raise DataError(f"{checkpoint}: {path} holds no config.json; expected a save_pretrained folder")
        return path
    ready = _ready(checkpoint.location.repo, checkpoint.location.revision)
    return ready or download([checkpoint], budget=budget, retries=retries, stop=stop)[0]


def fetch_tokenizer(repo: str, revision: str | None = None, *, retries: RetryPolicy = RETRIES) -> Path:
    """The folder that holds a repository's tokenizer files (tokenizer.json and those beside it), and no weights.

    They land in the hub cache. A second call costs at most one request per repository and process, none with
    HF_HUB_OFFLINE=1. Raises: DataError when the repository or its tokenizer.json does not exist, EnvironmentFailure.
    """
    revision = revision or "main"
    here = _unmoved(repo, revision)
    if here is not None:
        folder = cache.repo_folder(repo) / "snapshots" / here
        kept = kept_listing(repo, revision, here)
        wanted = [f.path for f in kept.files if f.path in TOKENIZER] if kept else ["tokenizer.json"]
        if wanted and all((folder / name).is_file() for name in wanted):
            return folder
    client.require_online(f"the tokenizer of {repo}@{revision}")
    entry = listing(repo, revision)
    if entry.file("tokenizer.json") is None:
        raise DataError(f"{repo}@{revision}: no tokenizer.json in the repository; name another tokenizer")
    for file in entry.files:
        if file.path in TOKENIZER:
            parts.get(entry, file, retries=retries)
            cache.link(entry, file)
    cache.set_ref(entry)
    return cache.snapshot_folder(entry)


@contextlib.contextmanager
def pinned(checkpoint: Checkpoint) -> Iterator[None]:
    """Keeps a checkpoint safe from eviction (by this or any process) for the duration.

    Since its fetch it was safe from other processes; after this it is not.
    """
    if isinstance(checkpoint.location, Folder):
        yield
        return
    repo, revision = checkpoint.location.repo, checkpoint.location.revision
    places = {(repo, c) for c in (cache.ref(repo, revision), _commit(repo, revision)) if c}
    try:
        with ledger.pinned(places):
            yield
    finally:
        ledger.release(places)


def _ready(repo: str, revision: str) -> Path | None:
    """The folder when everything is in the cache and the branch has not moved; None when something is to fetch."""
    here = _unmoved(repo, revision)
    if here is None:
        return None
    ledger.hold([(repo, here)])  # before it is looked at, so that what is found here stays
    entry = kept_listing(repo, revision, here)
    if entry is None:
        return _unlisted(repo, revision, here) if client.offline() else None
    if not cache.is_present(entry) or ledger.find(repo, here) is None:
        return None
    if not client.offline():
        ledger.record(entry)
    return cache.snapshot_folder(entry)


def _unmoved(repo: str, revision: str) -> str | None:
    """The commit that is in the cache; None when there is none, or the branch has moved since."""
    here = cache.ref(repo, revision)
    now = _commit(repo, revision) if here is not None else None
    if here is not None and now is not None and now != here:
        progress.note(f"{repo}@{revision} has moved from {here[:8]} to {now[:8]}; fetching the new one")
        return None
    return here


def _unlisted(repo: str, revision: str, commit: str) -> Path | None:
    """Offline, a snapshot that another tool fetched: taken as it is when it has a config and weights."""
    folder = cache.repo_folder(repo) / "snapshots" / commit
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return folder if (folder / "config.json").is_file() and weights else None


def _commit(repo: str, revision: str) -> str | None:
    """The commit the hub states now; None offline, or when the hub cannot be reached (with a warning)."""
    if client.offline() or (client.endpoint(), repo) in _unreachable:
        return None
    try:
        return repositories.branches(repo, retries=BRIEF).get(revision)
    except EnvironmentFailure as error:
        _unreachable.add((client.endpoint(), repo))
        progress.warn(f"{error}; going on with the cached copy")
        return None


def drop_damaged(entry: Listing) -> list[str]:
    """Compares every cached file of a listing with its digest, deletes and names the damaged ones. About 1 GB/s."""
    damaged = []
    for file in entry.needed:
        blob, pointer = cache.blob_path(entry, file), cache.pointer_path(entry, file)
        for path in (blob, pointer) if pointer.is_file() and not pointer.is_symlink() else (blob,):
            if path.is_file() and not cache.digest_matches(path, file):
                path.unlink()
                damaged.append(file.path)
    return damaged
