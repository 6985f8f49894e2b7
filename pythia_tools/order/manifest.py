"""Order manifests: what a YAML file says about an order, checked field by field.

    name: my-run
    kind: preshuffled | packed
    seq_length: 2048          # a row holds one token more
    batch_rows: 1024          # rows per optimizer step
    steps: 143000             # optional: steps the run took; without it, all whole batches
    rows: 146432000           # optional for local files
    dtype: uint16             # optional for local files; checked against the index
    about: one sentence       # optional, as are source, licence and documents (how many)
    tokenizer: tokenizer      # optional: a folder or tokenizer.json beside the manifest,
    tokenizer: {repo: owner/name}   # or a model on the hub; for --text

    store:                    # local: a prefix of .bin/.idx, relative to the manifest's folder
      prefix: data/train
    store:                    # or a data set on the hub
      repo: owner/name
      revision: main
      index: {name: document.idx, bytes: 1757184042, sha256: …}
      shards: {stem: document, count: 21, bytes: 30000000000, last_bytes: 78336000, sha256: […]}
                              # last_bytes: null when unknown: the hub is asked

    maps:                     # packed only; one of
      folder: data            #   .npy files under GPT-NeoX's names, relative to the manifest's folder; optional `stem`,
                              #   and `name` (train_0, valid_0 …) where several sets lie there
    maps:
      build: true             #   built from the store's index when first needed, kept in the cache folder
    maps:
      repo: owner/name        #   published files: path on the hub, bytes, and sha256 where known
      revision: main
      files: {doc: {name: …, bytes: …}, sample: {…}, shuffle: {…}}
      rebuild: [shuffle]      #   known corrupt there: made again from the seed, and the doc map compared
    seed: 1234                # packed only, with num_samples
    num_samples: 147164160
    separate_last_epoch: false
    known_defects: [{what: …, source: …}]

Paths may not leave the manifest's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, manifests
from pythia_tools.core.errors import DataError
from pythia_tools.tokens import shard_names

REQUIRED = {"name", "kind", "seq_length", "batch_rows", "store"}
OPTIONAL = {"tokenizer", "steps", "rows", "dtype", "about", "source", "licence", "known_defects", "documents"}


@dataclass(frozen=True)
class FileFact:
    """A published file: its name in the repository, and bytes and sha256 where known."""

    name: str
    bytes: int | None = None
    sha256: str | None = None

    def below(self, folder: Path) -> Path | None:
        """The file in a folder that holds it under its path in the repository or its bare name, else None."""
        return next((p for p in (folder / self.name, folder / Path(self.name).name) if p.is_file()), None)


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set on the hub."""

    repo: str
    revision: str
    files: tuple[FileFact, ...]


@dataclass(frozen=True)
class StoreSpec:
    """Where a store's bytes are: a local prefix, or shards (and an index) on the hub."""

    prefix: Path | None = None
    hub: HubFiles | None = None
    index: FileFact | None = None


@dataclass(frozen=True)
class MapsSpec:
    """Where index maps are: a local folder, the hub, or nowhere yet (`build`)."""

    build: bool = False
    folder: Path | None = None
    stem: str | None = None
    name: str | None = None
    hub: HubFiles | None = None
    rebuild: tuple[str, ...] = ()


@dataclass(frozen=True)
class OrderManifest:
    """What is known of an order before its rows are opened; `path` is the file that says so (for messages)."""

    path: Path
    name: str
    kind: str
    seq_length: int
    batch_rows: int
    store: StoreSpec = StoreSpec()
    maps: MapsSpec | None = None
    steps: int | None = None
    rows: int | None = None
    dtype: np.dtype | None = None
    seed: int | None = None
    num_samples: int | None = None
    separate_last_epoch: bool = False
    documents: int | None = None
    tokenizer: str | Path | None = None


def read_manifest(path: str | Path) -> OrderManifest:
    """Read and check an order's manifest. Raises DataError naming the field that is wrong."""
    path = Path(path)
    value = manifests.read(path)
    kind = value.get("kind")
    if kind not in ("preshuffled", "packed"):
        raise DataError(f"{path}: kind is {kind!r}; it is one of preshuffled, packed")
    packed = kind == "packed"
    required, optional = REQUIRED, OPTIONAL
    if packed:
        required, optional = REQUIRED | {"maps", "seed", "num_samples"}, OPTIONAL | {"separate_last_epoch"}
    manifests.check_fields(path, value, required, optional)
    return OrderManifest(
        path=path, name=str(value["name"]), kind=kind,
        seq_length=_whole(path, value, "seq_length"), batch_rows=_whole(path, value, "batch_rows"),
        store=_store(path, value["store"]), maps=_maps(path, value["maps"]) if packed else None,
        steps=_optional(path, value, "steps"), rows=_optional(path, value, "rows"),
        dtype=_dtype(path, value.get("dtype")), seed=_optional(path, value, "seed", least=0),
        num_samples=_optional(path, value, "num_samples"), documents=_optional(path, value, "documents"),
        separate_last_epoch=bool(value.get("separate_last_epoch", False)),
        tokenizer=_tokenizer(path, value.get("tokenizer")),
    )


def _mapping(path: Path, where: str, value: Any, required: set[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {where} must be a mapping, not {value!r}")
    manifests.check_fields(f"{path}: {where}", value, required, optional)
    return value


def _whole(path: Path, value: dict[str, Any], key: str, least: int = 1) -> int:
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise DataError(f"{path}: {key} must be a whole number of at least {least}, not {number!r}")
    return number


def _optional(path: Path, value: dict[str, Any], key: str, least: int = 1) -> int | None:
    return None if value.get(key) is None else _whole(path, value, key, least)


def _dtype(path: Path, name: Any) -> np.dtype | None:
    if name is None:
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "ui":
        raise DataError(f"{path}: dtype {name!r} is not a type of token ids; use uint16 or int32")
    return dtype.newbyteorder("<")


def _tokenizer(path: Path, value: Any) -> str | Path | None:
    """A repository's name, or a path below the manifest's folder; unsaid, the `tokenizer/` there, if any."""
    if isinstance(value, dict):
        return str(_mapping(path, "tokenizer", value, {"repo"})["repo"])
    if value is not None:
        return files.confined(path.parent, str(value))
    beside = path.parent / "tokenizer" / "tokenizer.json"
    return beside if beside.is_file() else None


def _store(path: Path, value: Any) -> StoreSpec:
    if isinstance(value, dict) and "prefix" in value:
        _mapping(path, "store", value, {"prefix"})
        return StoreSpec(prefix=files.confined(path.parent, str(value["prefix"])))
    value = _mapping(path, "store", value, {"repo", "shards"}, {"revision", "index"})
    index = _fact(path, "store.index", value["index"]) if "index" in value else None
    return StoreSpec(hub=_hub(value, _shards(path, value["shards"])), index=index)


def _shards(path: Path, value: Any) -> tuple[FileFact, ...]:
    value = _mapping(path, "store.shards", value, {"stem", "count", "bytes"}, {"last_bytes", "sha256"})
    count, each, stem = _whole(path, value, "count"), _whole(path, value, "bytes"), str(value["stem"])
    names = [f"{stem}.bin"] if count == 1 else shard_names(stem, count)
    sizes = [each] * (count - 1) + [_optional(path, {"last_bytes": each, **value}, "last_bytes")]
    digests = value.get("sha256") or [None] * count
    if len(digests) != count:
        raise DataError(f"{path}: {len(digests)} sha256 for {count} shards")
    return tuple(FileFact(n, b, _sha256(path, d)) for n, b, d in zip(names, sizes, digests, strict=True))


def _maps(path: Path, value: Any) -> MapsSpec:
    if isinstance(value, dict) and value.get("build"):
        _mapping(path, "maps", value, {"build"})
        return MapsSpec(build=True)
    if isinstance(value, dict) and "folder" in value:
        _mapping(path, "maps", value, {"folder"}, {"stem", "name"})
        folder = files.confined(path.parent, str(value["folder"]))
        return MapsSpec(folder=folder, stem=value.get("stem"), name=value.get("name"))
    value = _mapping(path, "maps", value, {"repo", "files"}, {"revision", "rebuild"})
    named = _mapping(path, "maps.files", value["files"], {"doc", "sample", "shuffle"})
    facts = tuple(_fact(path, f"maps.files.{part}", named[part]) for part in ("doc", "sample", "shuffle"))
    rebuild = tuple(value.get("rebuild") or ())
    if rebuild not in ((), ("shuffle",)):
        raise DataError(f"{path}: maps.rebuild is {list(rebuild)}; only the shuffle map can be made again: [shuffle]")
    return MapsSpec(hub=_hub(value, facts), rebuild=rebuild)


def _hub(value: dict[str, Any], facts: tuple[FileFact, ...]) -> HubFiles:
    return HubFiles(str(value["repo"]), str(value.get("revision", "main")), facts)


def _fact(path: Path, where: str, value: Any) -> FileFact:
    value = _mapping(path, where, value, {"name"}, {"bytes", "sha256"})
    return FileFact(str(value["name"]), _optional(path, value, "bytes"), _sha256(path, value.get("sha256")))


def _sha256(path: Path, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        return value
    raise DataError(f"{path}: sha256 {value!r} is not 64 hexadecimal digits")
