"""`fetch`: a checkpoint as a local `save_pretrained` folder; `fetch_tokenizer`: a repository's tokenizer alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.hub import cache, client, downloading, ledger, parts
from pythia_tools.hub.client import BRIEF, RETRIES, RetryPolicy
from pythia_tools.hub.repositories import TOKENIZER, Listing, branches, kept_listing, listing
from pythia_tools.suites import Checkpoint, Folder, check_defects

_unreachable: set[tuple[str, str]] = set()


def fetch(
    checkpoint: Checkpoint, *, budget: int | None = None, verify: bool = False, retries: RetryPolicy = RETRIES,
    stop: threading.Event | None = None,
) -> Path:
    """The local `save_pretrained` folder of a checkpoint, downloaded and verified if it is not there yet.

    A checkpoint that was fetched before costs at most one request per repository and process (has the branch
    moved?), none with HF_HUB_OFFLINE=1. `verify` reads it again and compares digests. `budget` (bytes; default
    $PYTHIA_TOOLS_DISK_BUDGET) evicts other checkpoints. Setting `stop` ends it at the next chunk, the part kept.
    Known-wrong checkpoints warn, once per model and fault.
    Raises: DataError, EnvironmentFailure, RequestError.
    """
    check_defects([checkpoint], allow_defective=True)
    if isinstance(checkpoint.location, Folder):
        return _local(checkpoint)
    repo, revision = checkpoint.location.repo, checkpoint.location.revision
    ready = _ready(repo, revision)
    if ready is not None and not verify:
        return ready
    if ready is not None and verify:
        for name in drop_damaged(listing(repo, cache.ref(repo, revision) or revision)):
            progress.warn(f"{repo}@{revision}/{name}: the cached copy is damaged; fetching it again")
    return downloading.download([checkpoint], budget=budget, retries=retries, stop=stop)[0]


def fetch_tokenizer(repo: str, revision: str | None = None, *, retries: RetryPolicy = RETRIES) -> Path:
    """The folder that holds a repository's tokenizer files (tokenizer.json and those beside it), and no weights.

    They land in the hub cache. A second call costs at most one request per repository and process, none with
    HF_HUB_OFFLINE=1. Raises: DataError when the repository or its tokenizer.json does not exist, EnvironmentFailure.
    """
    revision = revision or "main"
    here = cache.ref(repo, revision)
    now = _commit(repo, revision) if here is not None else None
    if here is not None and now in (None, here):
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
    """Keeps a checkpoint safe from eviction (by this or any process) for the duration."""
    if isinstance(checkpoint.location, Folder):
        yield
        return
    repo, revision = checkpoint.location.repo, checkpoint.location.revision
    with ledger.pinned({(repo, c) for c in (cache.ref(repo, revision), _commit(repo, revision)) if c}):
        yield


def _local(checkpoint: Checkpoint) -> Path:
    assert isinstance(checkpoint.location, Folder)
    path = checkpoint.location.path
    if not (path / "config.json").is_file():
        raise DataError(f"{checkpoint}: {path} holds no config.json; expected a save_pretrained folder")
    return path


def _ready(repo: str, revision: str) -> Path | None:
    """The folder when everything is in the cache and the branch has not moved; None when something is to fetch."""
    here = cache.ref(repo, revision)
    now = _commit(repo, revision) if here is not None else None
    if here is None or (now is not None and now != here):
        if here is not None:
            progress.note(f"{repo}@{revision} has moved from {here[:8]} to {now and now[:8]}; fetching the new one")
        return None
    entry = kept_listing(repo, revision, here)
    if entry is None:
        return _unlisted(repo, revision, here) if client.offline() else None
    recorded = ledger.find(repo, here)
    if not cache.is_present(entry) or recorded is None:
        return None
    if not client.offline():
        ledger.record(entry)
    return cache.snapshot_folder(entry)


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
        return branches(repo, retries=BRIEF).get(revision)
    except EnvironmentFailure as error:
        _unreachable.add((client.endpoint(), repo))
        progress.warn(f"{error}; going on with the cached copy")
        return None


def drop_damaged(entry: Listing) -> list[str]:
    """Compares every cached blob of a listing with its digest, deletes and names the damaged ones. About 1 GB/s."""
    damaged = []
    for file in entry.needed:
        blob = cache.blob_path(entry, file)
        if blob.is_file() and not cache.digest_matches(blob, file):
            blob.unlink()
            damaged.append(file.path)
    return damaged
