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
      rebuild: [shuffle]      #   parts known corrupt there: made again from the seed, the others checked against it
    seed: 1234                # packed only, with num_samples
    num_samples: 147164160
    separate_last_epoch: false
    known_defects: [{what: …, source: …}]

Paths may not leave the manifest's folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, manifests
from pythia_tools.core.errors import DataError
from pythia_tools.tokens import shard_names

KINDS = ("preshuffled", "packed")
COMMON = {"tokenizer", "steps", "rows", "dtype", "about", "source", "licence", "known_defects", "documents"}
PACKED = {"maps", "seed", "num_samples", "separate_last_epoch"}


@dataclass(frozen=True)
class FileFact:
    """A published file: its name in the repository, and bytes and sha256 where known."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


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
    about: str = ""
    defects: tuple[dict[str, Any], ...] = field(default=(), hash=False)


def read_manifest(path: str | Path) -> OrderManifest:
    """Read and check an order's manifest. Raises DataError naming the field that is wrong."""
    path = Path(path)
    value = manifests.read(path)
    kind = value.get("kind")
    if kind not in KINDS:
        raise DataError(f"{path}: kind is {kind!r}; it is one of {', '.join(KINDS)}")
    required = {"name", "kind", "seq_length", "batch_rows", "store"} | ({"maps", "seed", "num_samples"} if kind == "packed" else set())
    manifests.check_fields(path, value, required, COMMON | (PACKED if kind == "packed" else set()))
    return OrderManifest(
        path=path, name=str(value["name"]), kind=kind,
        seq_length=_whole(path, value, "seq_length"), batch_rows=_whole(path, value, "batch_rows"),
        steps=_whole(path, value, "steps", None), rows=_whole(path, value, "rows", None),
        seed=_whole(path, value, "seed", None, least=0), num_samples=_whole(path, value, "num_samples", None),
        documents=_whole(path, value, "documents", None),
        separate_last_epoch=bool(value.get("separate_last_epoch", False)),
        dtype=_dtype(path, value.get("dtype")), store=_store(path, value["store"]),
        maps=_maps(path, value["maps"]) if kind == "packed" else None,
        tokenizer=_tokenizer(path, value.get("tokenizer")),
        about=str(value.get("about", "")), defects=tuple(value.get("known_defects") or ()),
    )


def _whole(path: Path, value: dict[str, Any], key: str, default: Any = "required", *, least: int = 1) -> Any:
    number = value.get(key, default)
    if number is None and default is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise DataError(f"{path}: {key} must be a whole number of at least {least}, not {number!r}")
    return number


def _dtype(path: Path, name: Any) -> np.dtype | None:
    if name is None:
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "ui":
        raise DataError(f"{path}: dtype {name!r} is not a type of token ids; use uint16 or int32")
    return dtype.newbyteorder("<")


def _tokenizer(path: Path, value: Any) -> str | Path | None:
    """A path below the manifest's folder, a repository's name, or the `tokenizer/` folder beside the manifest if there is one."""
    if isinstance(value, dict):
        manifests.check_fields(f"{path}: tokenizer", value, {"repo"}, ())
        return str(value["repo"])
    if value is None:
        beside = path.parent / "tokenizer" / "tokenizer.json"
        return beside if beside.is_file() else None
    return files.confined(path.parent, str(value))


def _store(path: Path, value: Any) -> StoreSpec:
    value = _mapping(path, "store", value)
    if "prefix" in value:
        manifests.check_fields(f"{path}: store", value, {"prefix"}, ())
        return StoreSpec(prefix=files.confined(path.parent, str(value["prefix"])))
    manifests.check_fields(f"{path}: store", value, {"repo", "shards"}, {"revision", "index"})
    index = _fact(path, "store.index", value["index"]) if "index" in value else None
    return StoreSpec(hub=HubFiles(str(value["repo"]), str(value.get("revision", "main")), _shards(path, value["shards"])), index=index)


def _shards(path: Path, value: Any) -> tuple[FileFact, ...]:
    value = _mapping(path, "store.shards", value)
    manifests.check_fields(f"{path}: store.shards", value, {"stem", "count", "bytes"}, {"last_bytes", "sha256"})
    count, each = _whole(path, value, "count"), _whole(path, value, "bytes")
    last = None if value.get("last_bytes", each) is None else _whole(path, value, "last_bytes", each)
    names = [f"{value['stem']}.bin"] if count == 1 else shard_names(str(value["stem"]), count)
    digests = value.get("sha256") or [None] * count
    if len(digests) != count:
        raise DataError(f"{path}: {len(digests)} sha256 for {count} shards")
    facts = [FileFact(n, each, _sha256(path, d)) for n, d in zip(names, digests, strict=True)]
    return (*facts[:-1], FileFact(facts[-1].name, last, facts[-1].sha256))


def _maps(path: Path, value: Any) -> MapsSpec:
    value = _mapping(path, "maps", value)
    if value.get("build"):
        manifests.check_fields(f"{path}: maps", value, {"build"}, ())
        return MapsSpec(build=True)
    if "folder" in value:
        manifests.check_fields(f"{path}: maps", value, {"folder"}, {"stem", "name"})
        folder = files.confined(path.parent, str(value["folder"]))
        return MapsSpec(folder=folder, stem=value.get("stem"), name=value.get("name"))
    manifests.check_fields(f"{path}: maps", value, {"repo", "files"}, {"revision", "rebuild"})
    parts = _mapping(path, "maps.files", value["files"])
    manifests.check_fields(f"{path}: maps.files", parts, {"doc", "sample", "shuffle"}, ())
    facts = tuple(_fact(path, f"maps.files.{part}", parts[part]) for part in ("doc", "sample", "shuffle"))
    return MapsSpec(hub=HubFiles(str(value["repo"]), str(value.get("revision", "main")), facts), rebuild=tuple(value.get("rebuild") or ()))


def _fact(path: Path, where: str, value: Any) -> FileFact:
    value = _mapping(path, where, value)
    manifests.check_fields(f"{path}: {where}", value, {"name"}, {"bytes", "sha256"})
    return FileFact(str(value["name"]), _whole(path, value, "bytes", None), _sha256(path, value.get("sha256")))


def _sha256(path: Path, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        return value
    raise DataError(f"{path}: sha256 {value!r} is not 64 hexadecimal digits")


def _mapping(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {where} must be a mapping, not {value!r}")
    return value
