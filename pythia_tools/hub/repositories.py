"""What a repository holds at a revision: files, sizes and digests, without downloading any of them.

Cost: one request for all branches of a repository, one per revision for its files. Listings are kept by commit
(a commit never changes), so a second look costs nothing and works offline.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError
from pythia_tools.hub import cache, client
from pythia_tools.suites import Folder, HubRevision, Suite

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "vocab.json",
             "merges.txt", "added_tokens.json", "chat_template.jinja")
SIDE_FILES = ("config.json", "generation_config.json", *TOKENIZER)
WORKERS = 8


@dataclass(frozen=True)
class RemoteFile:
    """`sha256` for large (LFS) files, else None; `blob` is git's own id of the content."""

    path: str
    size: int
    sha256: str | None
    blob: str | None

    @property
    def key(self) -> str:
        """The name under which the hub cache stores the content (the file's ETag)."""
        key = self.sha256 or self.blob
        if not key or not re.fullmatch(r"[0-9a-f]{40,64}", key):
            raise DataError(f"{self.path}: the hub states no digest for it, so it cannot be verified")
        return key

    def digest_of(self) -> hashlib._Hash:
        """A fresh hash of the kind that `key` states, ready for the file's bytes."""
        return hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % self.size)


@dataclass(frozen=True)
class Listing:
    """The files of one commit."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    kind: str = "model"

    def address(self, file: RemoteFile) -> client.Address:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(
            self.repo, file.path, repo_type=self.kind, revision=self.commit, endpoint=client.endpoint())
        return client.Address(f"{self.repo}@{self.revision}/{file.path}", url, file.size, file.sha256)

    def file(self, path: str) -> RemoteFile | None:
        return next((f for f in self.files if f.path == path), None)

    @property
    def weights(self) -> tuple[RemoteFile, ...]:
        """The weight files a loader takes: safetensors when there are any, else torch files; never both.

        Raises: DataError when there are none, or when a shard is missing.
        """
        names = {f.path: f for f in self.files}
        for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
            if f"{stem}.{suffix}" in names:
                return (names[f"{stem}.{suffix}"],)
            shards = [(m, f) for f in self.files if (m := re.fullmatch(rf"{stem}-(\d+)-of-(\d+)\.{suffix}", f.path))]
            if shards:
                total = int(shards[0][0][2])
                missing = sorted(set(range(1, total + 1)) - {int(m[1]) for m, _ in shards})
                index = names.get(f"{stem}.{suffix}.index.json")
                if missing or index is None:
                    lacks = f"shards {missing} of {total}" if missing else f"{stem}.{suffix}.index.json"
                    raise DataError(
                        f"{self.repo}@{self.revision}: {lacks} missing; the checkpoint is incomplete on the hub")
                return (index, *sorted((f for _, f in shards), key=lambda f: f.path))
        raise DataError(f"{self.repo}@{self.revision}: no model.safetensors or pytorch_model.bin; "
                        "the checkpoint is missing on the hub")

    @property
    def tensor_files(self) -> tuple[RemoteFile, ...]:
        """The weight files less their index."""
        return tuple(f for f in self.weights if not f.path.endswith(".json"))

    @property
    def needed(self) -> tuple[RemoteFile, ...]:
        """Weights, configuration and tokenizer: what `from_pretrained` opens, and nothing else."""
        if self.file("config.json") is None:
            raise DataError(f"{self.repo}@{self.revision}: no config.json; the checkpoint is incomplete on the hub")
        return (*(f for f in self.files if f.path in SIDE_FILES), *self.weights)


_branches: dict[tuple[str, str, str], dict[str, str]] = {}


def branches(
    repo: str, kind: str = "model", *, fresh: bool = False, retries: client.RetryPolicy = client.RETRIES,
) -> dict[str, str]:
    """{branch or tag: commit} of a repository; asked once per process unless `fresh`."""
    key = (client.endpoint(), kind, repo)
    if fresh or key not in _branches:
        refs = client.ask(repo, lambda: client.api().list_repo_refs(repo, repo_type=kind), retries)
        _branches[key] = {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}
    return _branches[key]


def listing(repo: str, revision: str, kind: str = "model") -> Listing:
    """The files of a revision; offline, of the commit it named when it was last fetched.

    Raises: DataError when there is no such repository or revision, EnvironmentFailure when it cannot be asked.
    """
    if client.offline() or cache.COMMIT.fullmatch(revision):
        commit = cache.ref(repo, revision, kind)
    else:
        commit = branches(repo, kind).get(revision)
    kept = kept_listing(repo, revision, commit, kind) if commit is not None else None
    if kept is None and commit is not None and client.offline():
        found = cached_listing(repo, revision, commit, kind)
        with contextlib.suppress(DataError):
            kept = found if found and found.needed else None
    return kept or ask_listing(repo, revision, kind, commit)


def ask_listing(repo: str, revision: str, kind: str, commit: str | None = None) -> Listing:
    """What the hub says now, kept. Cost: one request. Raises: DataError, EnvironmentFailure."""
    ask_info = client.api().dataset_info if kind == "dataset" else client.api().model_info

    def once() -> Listing:
        info = ask_info(repo, revision=commit or revision, files_metadata=True, timeout=client.TIMEOUT_SECONDS)
        found = [(s.rfilename, (s.lfs or s).size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id)
                 for s in info.siblings or ()]
        return _checked(Listing(repo, revision, str(info.sha), tuple(starmap(RemoteFile, found)), kind))

    result = client.ask(f"{repo}@{revision}", once)
    kept = {"commit": result.commit, "files": [asdict(f) for f in result.files]}
    files.write_json(_kept_path(repo, result.commit, kind), kept)
    return result


def _checked(found: Listing) -> Listing:
    """Raises: ValueError for what no hub lists."""
    for file in found.files:
        known = [v is None or isinstance(v, str) for v in (file.sha256, file.blob)]
        if not (isinstance(file.path, str) and isinstance(file.size, int) and file.size >= 0 and all(known)):
            raise ValueError(f"no file of a listing: {file!r}")
    if not cache.COMMIT.fullmatch(found.commit):
        raise ValueError(f"no commit: {found.commit!r}")
    return found


def cached_listing(repo: str, revision: str, commit: str, kind: str) -> Listing | None:
    """The files of a snapshot in the hub cache, perhaps not all, as its links to blobs name them; None for no files."""
    folder = cache.repo_folder(repo, kind) / "snapshots" / commit
    links = [(path, path.resolve().name) for path in sorted(folder.rglob("*")) if path.is_symlink() and path.is_file()]
    found = tuple(
        RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, name if len(name) == 64 else None, name)
        for path, name in links if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name)
    )
    return Listing(repo, revision, commit, found, kind) if found else None


def listings(places: Iterable[tuple[str, str]]) -> list[Listing | DataError]:
    """Listings of many (repo, revision) at once; a missing one is its DataError, in place."""

    def one(place: tuple[str, str]) -> Listing | DataError:
        try:
            return listing(*place)
        except DataError as error:
            return error

    places = list(places)
    for repo in dict.fromkeys(repo for repo, _ in places if not client.offline()):
        with contextlib.suppress(DataError):
            branches(repo)
    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(one, places)
        return list(progress.track(found, "list files", total=len(places), unit="rev", shown=len(places) > WORKERS))


def grid_states(suite: Suite, model: str) -> tuple[dict[int, str], list[str]]:
    """({step: present or missing} over the grid, branches that no step of the grid names).

    Cost: one request per repository; one that does not exist misses every step. Raises: EnvironmentFailure when the hub
    cannot be reached.
    """
    locations = {step: suite.checkpoint(model, step).location for step in suite.steps(model)}
    on_hub = {place for place in locations.values() if isinstance(place, HubRevision)}
    own, there = suite.places[model].repo, set[HubRevision]()
    for repo in {place.repo for place in on_hub} | ({own} if own else set()):
        with contextlib.suppress(DataError):
            there |= {HubRevision(repo, branch) for branch in branches(repo)}
    states = {}
    for step, place in locations.items():
        present = (place.path / "config.json").is_file() if isinstance(place, Folder) else place in there
        states[step] = "present" if present else "missing"
    return states, sorted(place.revision for place in there - on_hub if place.repo == own and place.revision != "main")


def kept_listing(repo: str, revision: str, commit: str, kind: str = "model") -> Listing | None:
    """A listing seen before, from disk; None when there is none."""
    path = _kept_path(repo, commit, kind)
    if not path.is_file():
        return None
    try:
        value = files.read_json(path)
        return _checked(Listing(repo, revision, value["commit"], tuple(RemoteFile(**f) for f in value["files"]), kind))
    except (DataError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)
        return None


def _kept_path(repo: str, commit: str, kind: str) -> Path:
    folder = files.cache_dir() / "hub" / "listings" / f"{kind}s--{repo.replace('/', '--')}"
    return files.confined(folder, f"{commit}.json")
