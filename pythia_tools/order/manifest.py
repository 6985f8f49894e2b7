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
      digest: …               # optional: the store this order was made for (`store_digest`); another one is refused
      sha256: {train.bin: …}  # optional, for `data verify`
    store:                    # or a data set on the hub
      repo: owner/name
      revision: main
      index: {name: document.idx, bytes: 1757184042, sha256: …}   # with `derived: true` its bytes are arithmetic, not
                              # seen: nothing is held against them (maps' files likewise)
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

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, manifests
from pythia_tools.core.errors import DataError
from pythia_tools.core.manifests import Check, anything, boolean, checked, mapping, one_of, whole, words
from pythia_tools.tokens import shard_names

KIND = one_of(("preshuffled", "packed"))
TOKEN_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
MOST_SHARDS = 100_000
NOTES = dict.fromkeys(("about", "source", "licence", "known_defects"), anything)


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
    """Where a store's bytes are: a local prefix (with what is known of its content), or shards and index on the hub."""

    prefix: Path | None = None
    digest: str | None = None
    sha256: tuple[tuple[str, str], ...] = ()
    hub: HubFiles | None = None
    index: FileFact | None = None


@dataclass(frozen=True)
class MapsSpec:
    """Where index maps are: a local folder, the hub, or nowhere yet (`build`)."""

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
    required: dict[str, Check] = {
        "name": words, "kind": KIND, "seq_length": whole(), "batch_rows": whole(),
        "store": partial(_store, path.parent),
    }
    optional: dict[str, Check] = {
        "steps": whole(), "rows": whole(), "documents": whole(), "dtype": _dtype, **NOTES,
        "tokenizer": partial(_tokenizer, path.parent),
    }
    if KIND(f"{path}: kind", value.get("kind")) == "packed":
        required |= {"maps": partial(_maps, path.parent), "seed": whole(0), "num_samples": whole()}
        optional["separate_last_epoch"] = boolean
    fields = checked(path, value, required, optional)
    if fields["tokenizer"] is None and (path.parent / "tokenizer" / "tokenizer.json").is_file():
        fields["tokenizer"] = path.parent / "tokenizer" / "tokenizer.json"
    fields["separate_last_epoch"] = bool(fields.get("separate_last_epoch"))
    return OrderManifest(path, **{key: known for key, known in fields.items() if key not in NOTES})


def _dtype(where: str, name: Any) -> np.dtype:
    if name not in TOKEN_TYPES:
        raise DataError(f"{where} {name!r} is not a type of token ids; use uint16 or int32")
    return np.dtype(name).newbyteorder("<")


def _tokenizer(folder: Path, where: str, value: Any) -> str | Path:
    """A repository's name, or a path below the manifest's folder."""
    if isinstance(value, dict):
        return str(checked(where, value, {"repo": words})["repo"])
    return files.confined(folder, str(value))


def _store(folder: Path, where: str, value: Any) -> StoreSpec:
    if isinstance(value, dict) and "prefix" in value:
        found = checked(where, value, {"prefix": words}, {"digest": _sha256, "sha256": mapping})
        sums = tuple((str(name), _sha256(f"{where}: sha256", d)) for name, d in (found["sha256"] or {}).items())
        return StoreSpec(files.confined(folder, found["prefix"]), found["digest"], sums)
    found = checked(where, value, {"repo": words, "shards": _shards}, {"revision": words, "index": _fact})
    return StoreSpec(hub=HubFiles(found["repo"], found["revision"] or "main", found["shards"]), index=found["index"])


def _shards(where: str, value: Any) -> tuple[FileFact, ...]:
    required = {"stem": words, "count": whole(), "bytes": whole()}
    found = checked(where, value, required, {"last_bytes": whole(), "sha256": _sha256_list})
    stem, count, each = found["stem"], found["count"], found["bytes"]
    if count > MOST_SHARDS:
        raise DataError(f"{where}: count {count}; at most {MOST_SHARDS}, since shards are numbered in five digits")
    names = [f"{stem}.bin"] if count == 1 else shard_names(stem, count)
    sizes = [each] * (count - 1) + [found["last_bytes"] if "last_bytes" in value else each]
    digests = found["sha256"] or [None] * count
    if len(digests) != count:
        raise DataError(f"{where}: {len(digests)} sha256 for {count} shards")
    return tuple(map(FileFact, names, sizes, digests))


def _maps(folder: Path, where: str, value: Any) -> MapsSpec:
    if isinstance(value, dict) and "build" in value:
        if not checked(where, value, {"build": boolean})["build"]:
            raise DataError(f"{where}: build is false; say build: true, or name a folder or a repo with files")
        return MapsSpec()
    if isinstance(value, dict) and "folder" in value:
        found = checked(where, value, {"folder": words}, {"stem": words, "name": words})
        return MapsSpec(**{**found, "folder": files.confined(folder, found["folder"])})
    found = checked(where, value, {"repo": words, "files": _map_files}, {"revision": words, "rebuild": anything})
    rebuild = found["rebuild"] or []
    if rebuild not in ([], ["shuffle"]):
        raise DataError(f"{where}: rebuild is {rebuild}; only the shuffle map can be made again: [shuffle]")
    return MapsSpec(hub=HubFiles(found["repo"], found["revision"] or "main", found["files"]), rebuild=tuple(rebuild))


def _map_files(where: str, value: Any) -> tuple[FileFact, ...]:
    return tuple(checked(where, value, dict.fromkeys(("doc", "sample", "shuffle"), _fact)).values())


def _fact(where: str, value: Any) -> FileFact:
    found = checked(where, value, {"name": words}, {"bytes": whole(), "derived": boolean, "sha256": _sha256})
    return FileFact(found["name"], None if found["derived"] else found["bytes"], found["sha256"])


def _sha256_list(where: str, value: Any) -> list[str | None]:
    if not isinstance(value, list):
        raise DataError(f"{where} must be a list, one digest or null per shard, not {value!r}")
    return [None if v is None else _sha256(where, v) for v in value]


def _sha256(where: str, value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{64}", str(value)):
        raise DataError(f"{where} {value!r} is not 64 hexadecimal digits")
    return str(value)
