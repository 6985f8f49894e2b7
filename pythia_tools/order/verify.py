"""Checking an order's files: sizes and sha256 of every byte, and index maps against the documents they pack.

Cost: reads everything it is given, 1-2 GB/s; for files on the hub only their records there are compared.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError
from pythia_tools.hub import Dataset
from pythia_tools.order.data_order import DataOrder
from pythia_tools.order.manifest import FileFact, HubFiles
from pythia_tools.order.map_files import PARTS, find_maps, load_maps, load_part, verify_maps
from pythia_tools.order.sources import PackedRows
from pythia_tools.tokens import find_shards, open_store
from pythia_tools.tokens.store import prefix_of

COLUMNS = ["file", "bytes", "sha256", "status", "note"]
LINE = re.compile(r"^(?:(?P<a>[0-9a-f]{64})\s+\*?(?P<n1>\S.*)|(?P<n2>\S.*?)\s+(?P<b>[0-9a-f]{64}))$")


def read_sums(path: str | Path) -> dict[str, str]:
    """{file name: sha256} of a checksum file, in `sha256sum`'s order of columns or the other. Raises DataError."""
    sums = {}
    for n, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match = LINE.match(line.strip())
        if not match:
            raise DataError(f"{path} line {n}: not a sha256 and a file name")
        sums[Path(match["n1"] or match["n2"]).name] = match["a"] or match["b"]
    return sums


def verify_store(prefix: str | Path, sums: dict[str, str] | None = None) -> pd.DataFrame:
    """A local store: its index against its bytes, and the sha256 of every file (compared with `sums` where it names one)."""
    base = prefix_of(prefix)
    records = []
    try:
        store = open_store(base)
        note = f"{len(store)} sequences, {store.n_tokens} tokens of {store.dtype.name}"
        records.append(_record(base.name, store.index.stop, None, "ok", note))
        paths = [base.with_name(base.name + ".idx"), *find_shards(base)]
    except DataError as error:
        return _table([_record(base.name, None, None, "wrong", str(error))])
    for path in progress.track(paths, "sha256", shown=len(paths) > 2):
        records.append(_digested(path, FileFact(path.name, sha256=(sums or {}).get(path.name))))
    for name in find_maps(base.parent, base.name):
        try:
            verify_maps(load_maps(name), store.sizes, name.seq_length, name.path("doc").name)
            records.append(_record(name.path("shuffle").name, None, None, "ok", "maps fit these documents"))
        except DataError as error:
            records.append(_record(name.path("shuffle").name, None, None, "wrong", str(error)))
    return _table(records)


def verify_order(order: DataOrder, local: str | Path | None = None, sums: dict[str, str] | None = None) -> pd.DataFrame:
    """An order's files: those in `local` byte by byte, those on the hub by the hub's records; then index maps.

    One line per file: file, bytes, sha256, status (ok, wrong, missing, unknown: nothing to compare with), note.
    """
    manifest = order.manifest
    if manifest.store.hub is None:
        table = verify_store(manifest.store.prefix or prefix_of(manifest.path), sums)
        if isinstance(order.source, PackedRows) and not (table["note"] == "maps fit these documents").any():
            verify_maps(order.source.maps, order.source.store.sizes, order.seq_length, order.name)
            table.loc[len(table)] = _record("index maps", None, None, "ok", "maps fit these documents")  # type: ignore[call-overload]
        return table
    records = []
    facts = [*manifest.store.hub.files, *([manifest.store.index] if manifest.store.index else [])]
    for fact in progress.track(facts, "verify", shown=local is not None):
        known = FileFact(fact.name, fact.bytes, fact.sha256 or (sums or {}).get(fact.name))
        records.append(_listed(manifest.store.hub, known) if local is None else _digested(Path(local) / fact.name, known))
    if manifest.maps is not None and manifest.maps.hub is not None:
        for part, fact in zip(PARTS, manifest.maps.hub.files, strict=True):
            records.append(_published_map(part, fact, manifest.maps.hub, manifest.maps.rebuild, local))
    return _table(records)


def _table(records: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(records, columns=COLUMNS).astype({"bytes": "Int64"})


def _record(file: str, size: int | None, sha256: str | None, status: str, note: str) -> dict[str, Any]:
    return {"file": file, "bytes": size, "sha256": sha256, "status": status, "note": note}


def _digested(path: Path, fact: FileFact) -> dict[str, Any]:
    if not path.is_file():
        return _record(path.name, None, None, "missing", f"no {path}")
    size = path.stat().st_size
    if fact.bytes is not None and size != fact.bytes:
        return _record(path.name, size, None, "wrong", f"{fact.bytes} bytes expected")
    came = files.sha256_file(path)
    if fact.sha256 is None:
        return _record(path.name, size, came, "unknown", "no published sha256 to compare with")
    if came != fact.sha256:
        return _record(path.name, size, came, "wrong", f"expected {fact.sha256}")
    return _record(path.name, size, came, "ok", "")


def _listed(hub: HubFiles, fact: FileFact) -> dict[str, Any]:
    try:
        found = Dataset(hub.repo, hub.revision).file(fact.name, size=fact.bytes, sha256=fact.sha256)
    except DataError as error:
        return _record(fact.name, None, None, "wrong", str(error))
    known = fact.sha256 is not None or fact.bytes is not None
    return _record(fact.name, found.size, found.sha256, "ok" if known else "unknown", "the hub's record")


def _published_map(part: str, fact: FileFact, hub: HubFiles, rebuild: tuple[str, ...], local: str | Path | None) -> dict[str, Any]:
    if part in rebuild:
        return _record(fact.name, None, None, "ok", "known corrupt as published; made again from the seed")
    if local is None:
        return _listed(hub, fact)
    for path in (Path(local) / fact.name, Path(local) / Path(fact.name).name):
        if path.is_file():
            try:
                load_part(path, part)
            except DataError as error:
                return _record(fact.name, path.stat().st_size, None, "wrong", str(error))
            return _digested(path, fact)
    return _record(fact.name, None, None, "missing", f"not in {local}")
