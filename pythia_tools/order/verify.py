"""Checking an order's files: sizes and sha256 of every byte, and index maps against the documents they pack.

Cost: reads everything it is given, 1-2 GB/s; for files on the hub only their records there are compared.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.hub import Dataset
from pythia_tools.order.data_order import DataOrder
from pythia_tools.order.load import manifest_beside
from pythia_tools.order.manifest import FileFact, HubFiles, read_manifest
from pythia_tools.order.map_files import PARTS, find_maps, load_maps, load_part, verify_maps
from pythia_tools.order.sources import PackedRows
from pythia_tools.tokens import find_shards, open_store
from pythia_tools.tokens.store import prefix_of, read_record

LINE = re.compile(r"^(?:(?P<a>[0-9a-f]{64})\s+\*?(?P<n1>\S.*)|(?P<n2>\S.*?)\s+(?P<b>[0-9a-f]{64}))$")
FIT = "maps fit these documents"


class Record(NamedTuple):
    """One file: what is known of it, and how it compares (ok, wrong, missing, or unknown: nothing to compare with)."""

    file: str
    status: str
    note: str = ""
    bytes: int | None = None
    sha256: str | None = None


def read_sums(path: str | Path) -> dict[str, str]:
    """{file name: sha256} of a checksum file, in `sha256sum`'s order of columns or the other. Raises RequestError
    when there is no such file, DataError when it is none of the kind.
    """
    sums = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file of checksums") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: checksums cannot be read ({error})") from error
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = LINE.match(line.strip())
        if not match:
            raise DataError(f"{path} line {n}: not a sha256 and a file name")
        sums[Path(match["n1"] or match["n2"]).name] = match["a"] or match["b"]
    return sums


def verify_store(prefix: str | Path, sums: dict[str, str] | None = None) -> pd.DataFrame:
    """A local store: its index against its bytes, and the sha256 of every file against `sums` or, where they name none,
    what `data tokenize` and `data build-order` wrote down."""
    base = prefix_of(prefix)
    written = [path for part in ("train", "valid", "test") if (path := manifest_beside(base, part)).is_file()]
    known = dict(pair for path in written for pair in read_manifest(path).store.sha256)
    return _table(_stored(base, {**known, **recorded_sums(base), **(sums or {})}))


def recorded_sums(base: Path) -> dict[str, str]:
    """{file name: sha256} of a store as `data tokenize` wrote it; empty when something else did."""
    sums = {f"{base.name}.{kind}": read_record(base).get(f"{kind}_sha256") for kind in ("bin", "idx")}
    return {name: str(digest) for name, digest in sums.items() if digest is not None}


def store_files(base: Path) -> list[Path]:
    """Index and shards of a store. Raises DataError when one is missing."""
    return [base.with_name(f"{base.name}.idx"), *find_shards(base)]


def verify_order(order: DataOrder, local: str | Path | None = None, sums: dict[str, str] | None = None) -> pd.DataFrame:
    """An order's files: those in `local` byte by byte, those on the hub by the hub's records; then index maps.

    One line per file: file, bytes, sha256, status (ok, wrong, missing, unknown: nothing to compare with), note.
    """
    store, maps = order.manifest.store, order.manifest.maps
    known = {**dict(store.sha256), **(sums or {})}
    if store.hub is None:
        records = _stored(store.prefix or prefix_of(order.manifest.path), known)
        try:
            if isinstance(order.source, PackedRows) and not any(r.note == FIT for r in records):
                verify_maps(order.source.maps, order.source.store.sizes, order.seq_length, order.name)
                records.append(Record("index maps", "ok", FIT))
        except DataError as error:
            records.append(Record(order.name, "wrong", str(error)))
        return _table(records)
    records = []
    facts = [(store.hub, "", fact) for fact in [*store.hub.files, store.index] if fact is not None]
    if maps is not None and maps.hub is not None:
        facts += [(maps.hub, part, fact) for part, fact in zip(PARTS, maps.hub.files, strict=True)]
    for hub, part, fact in progress.track(facts, "verify", shown=local is not None):
        fact = replace(fact, sha256=fact.sha256 or known.get(fact.name))
        if maps is not None and part in maps.rebuild:
            records.append(Record(fact.name, "ok", "known corrupt as published; made again from the seed"))
        else:
            records.append(_listed(hub, fact) if local is None else _local(part, fact, Path(local)))
    return _table(records)


def _table(records: list[Record]) -> pd.DataFrame:
    columns = ["file", "bytes", "sha256", "status", "note"]
    return pd.DataFrame(records, columns=Record._fields)[columns].astype({"bytes": "Int64"})


def _stored(base: Path, sums: dict[str, str]) -> list[Record]:
    try:
        store, paths = open_store(base), store_files(base)
    except DataError as error:
        return [Record(base.name, "wrong", str(error))]
    note = f"{len(store)} sequences, {store.n_tokens} tokens of {store.dtype.name}"
    records = [Record(base.name, "ok", note, store.index.stop)]
    for path in progress.track(paths, "sha256", shown=len(paths) > 2):
        records.append(_digested(path, FileFact(path.name, sha256=sums.get(path.name))))
    for name in find_maps(base.parent, base.name):
        file = name.path("shuffle").name
        try:
            verify_maps(load_maps(name), store.sizes, name.seq_length, name.path("doc").name)
            records.append(Record(file, "ok", FIT))
        except DataError as error:
            records.append(Record(file, "wrong", str(error)))
    return records


def _digested(path: Path, fact: FileFact) -> Record:
    size = path.stat().st_size
    if fact.bytes is not None and size != fact.bytes:
        return Record(path.name, "wrong", f"{fact.bytes} bytes expected", size)
    came = files.sha256_file(path)
    if fact.sha256 is None:
        return Record(path.name, "unknown", "no published sha256 to compare with", size, came)
    if came != fact.sha256:
        return Record(path.name, "wrong", f"expected {fact.sha256}", size, came)
    return Record(path.name, "ok", "", size, came)


def _listed(hub: HubFiles, fact: FileFact) -> Record:
    try:
        found = Dataset(hub.repo, hub.revision).file(fact.name, size=fact.bytes, sha256=fact.sha256)
    except DataError as error:
        return Record(fact.name, "wrong", str(error))
    known = fact.sha256 is not None or fact.bytes is not None
    return Record(fact.name, "ok" if known else "unknown", "the hub's record", found.size, found.sha256)


def _local(part: str, fact: FileFact, folder: Path) -> Record:
    """A file of a shard or index (`part` empty) or of a map."""
    path = fact.below(folder)
    if path is None:
        return Record(fact.name, "missing", f"not in {folder}")
    try:
        if part:
            load_part(path, part)
    except DataError as error:
        return Record(fact.name, "wrong", str(error), path.stat().st_size)
    return _digested(path, fact)
