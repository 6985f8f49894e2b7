"""Many checkpoints at once: a plan in bytes, then parallel, resumable, verified downloads within a disk budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError
from pythia_tools.hub import cache, ledger, parts
from pythia_tools.hub.client import RETRIES, RetryPolicy
from pythia_tools.hub.repositories import WORKERS, Listing, RemoteFile, listings
from pythia_tools.suites import Checkpoint, HubRevision


@dataclass(frozen=True)
class Plan:
    """What a download would do. `missing` holds each content once; `problems` the checkpoints the hub lacks.

    `disk_peak` is the most that recorded checkpoints will take while it runs; `already` what is in the cache.
    """

    checkpoints: tuple[Checkpoint, ...]
    listings: tuple[Listing, ...]
    missing: tuple[tuple[Listing, RemoteFile], ...]
    problems: tuple[str, ...]
    already: int
    disk_peak: int

    @property
    def bytes(self) -> int:
        return sum(file.size for _, file in self.missing)


def plan(checkpoints: Sequence[Checkpoint]) -> Plan:
    """What a download would do (local checkpoints need nothing). Cost: one request per repository and new commit."""
    remote = [c for c in checkpoints if isinstance(c.location, HubRevision)]
    found = listings([(c.location.repo, c.location.revision) for c in remote if isinstance(c.location, HubRevision)])
    good: list[Listing] = []
    problems: list[str] = []
    missing: dict[str, tuple[Listing, RemoteFile]] = {}
    already: dict[str, int] = {}
    for checkpoint, entry in zip(remote, found, strict=True):
        try:
            if isinstance(entry, DataError):
                raise entry
            needed = entry.needed
        except DataError as error:
            problems.append(f"{checkpoint}: {error}")
            continue
        good.append(entry)
        for file in needed:
            if cache.blob_path(entry, file).is_file() or cache.elsewhere(entry, file) is not None:
                already[file.key] = file.size
            else:
                missing.setdefault(file.key, (entry, file))
    to_come = sum(file.size for _, file in missing.values())
    return Plan(tuple(checkpoints), tuple(good), tuple(missing.values()), tuple(problems), sum(already.values()),
                ledger.used_bytes() + to_come)


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
        recorded = ledger.find(entry.repo, entry.commit)
        for file in entry.needed:
            if recorded is None or file.key not in recorded.blobs or not cache.is_whole(entry, file):
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
