"""`load_order`: an order from a shipped name, a manifest, or a local `.bin`/`.idx` prefix."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from pythia_tools.core import files, manifests
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.order.data_order import DataOrder, array_digest, store_digest, uniform_length
from pythia_tools.order.manifest import OrderManifest, StoreSpec, read_manifest
from pythia_tools.order.map_files import MapName, find_maps, load_maps, save_maps, verify_starts
from pythia_tools.order.maps import IndexMaps, build_index_maps
from pythia_tools.order.remote_store import check_row_length, open_bytes, open_remote_maps, open_remote_store
from pythia_tools.order.sources import PackedRows, PreshuffledRows, RowSource
from pythia_tools.tokens import TokenStore, open_store
from pythia_tools.tokens.store import prefix_of

MICRO = "pythia-micro"
DEFAULT_BATCH_ROWS = 1024


def load_order(
    name: str | os.PathLike[str], *, batch_rows: int | None = None, steps: int | None = None,
    local: str | os.PathLike[str] | None = None, workers: int = 8,
) -> DataOrder:
    """An order by name (`pile-deduped-preshuffled`), manifest, `.bin`/`.idx` prefix, or a folder with `order.yaml`.

    A prefix is read by the PREFIX.order.yaml that `data build-order` wrote beside it; without one it is packed when
    index maps lie beside it, else its sequences must be the rows. `batch_rows` (default: the manifest's, or 1,024) and
    `steps` override; `local` is a folder that already holds a hub manifest's shards; `workers` requests run at once.
    Raises: UnknownNameError, RequestError, DataError; nothing is downloaded before rows are asked for.
    """
    text = os.fspath(name)
    reopen = partial(load_order, text, batch_rows=batch_rows, steps=steps, local=local, workers=workers)
    if text == MICRO:
        text = str(files.cache_dir() / "suites" / MICRO / "order.yaml")
        if not Path(text).is_file():
            raise DataError(f"{MICRO} is not trained here (no {text}); run `pythia-tools train` first")
    elif (Path(os.path.expanduser(text)) / "order.yaml").is_file():
        text = str(Path(text) / "order.yaml")
    rows = None
    if not text.endswith((".yaml", ".yml")) and _is_prefix(text):
        prefix = prefix_of(text)
        if manifest_beside(prefix).is_file():
            manifest = read_manifest(manifest_beside(prefix))
        else:
            manifest, rows = _from_prefix(prefix)
    else:
        manifest = read_manifest(manifests.find("orders", text))
    if batch_rows is not None:
        if batch_rows and steps is None and manifest.steps is not None:
            steps = manifest.steps * manifest.batch_rows // batch_rows
        manifest = replace(manifest, batch_rows=batch_rows)
    if steps is not None:
        manifest = replace(manifest, steps=steps)
    folder = None if local is None else Path(local)
    remote = manifest.store.hub is not None and local is None
    return DataOrder(manifest, lambda: rows or _open_rows(manifest, folder, workers), remote=remote, reopen=reopen)


def manifest_beside(prefix: Path, part: str = "train") -> Path:
    """Where a store's order is written down: PREFIX.order.yaml; PREFIX.valid.order.yaml of a part not trained on."""
    return prefix.with_name(f"{prefix.name}.order.yaml" if part == "train" else f"{prefix.name}.{part}.order.yaml")


def tokenizer_beside(prefix: Path) -> Path | None:
    """The tokenizer that `data tokenize` leaves with its store, if it did."""
    path = prefix.with_name(f"{prefix.name}.tokenizer.json")
    return path if path.is_file() else None


def _is_prefix(text: str) -> bool:
    base = prefix_of(text)
    return text.endswith((".bin", ".idx")) or "/" in text or base.with_name(base.name + ".idx").exists()


def _from_prefix(prefix: Path) -> tuple[OrderManifest, RowSource]:
    """What the files of a prefix say of an order that nobody has written down."""
    there = any(prefix.with_name(prefix.name + end).exists() for end in (".idx", ".bin"))
    if not there and not prefix.parent.is_file():  # under a file it is the system that refuses
        raise RequestError(f"{prefix}: no such order; give a name, a manifest (.yaml), or the prefix of .idx and .bin")
    store = open_store(prefix)
    found = find_maps(prefix.parent, prefix.name)
    found = [m for m in found if m.name.startswith("train")] or found  # a split run writes valid and test beside it
    if len(found) > 1:
        names = ", ".join(m.path("doc").name for m in found)
        raise RequestError(
            f"{prefix}: several sets of index maps lie beside it ({names}); write a manifest that names one"
        )
    rows: RowSource
    if found:
        maps = load_maps(found[0])
        verify_starts(maps, store.sizes, found[0].seq_length, found[0].path("sample"))
        rows = PackedRows(store, maps, found[0].seq_length)
    else:
        rows = PreshuffledRows(store.data, store.dtype, uniform_length(store), name=prefix)
    kind = "packed" if found else "preshuffled"
    manifest = OrderManifest(prefix, prefix.name, kind, rows.row_tokens - 1, DEFAULT_BATCH_ROWS, StoreSpec(prefix))
    return replace(manifest, tokenizer=tokenizer_beside(prefix)), rows


def _open_rows(manifest: OrderManifest, local: Path | None, workers: int) -> RowSource:
    prefix, row_tokens = manifest.store.prefix, manifest.seq_length + 1
    store = None if prefix is None else open_store(prefix)
    if store is not None and manifest.store.digest not in (None, store_digest(store)):
        raise DataError(
            f"{manifest.path}: made for another store than {prefix} holds now (tokenized anew, or damaged); restore "
            "that store, or build the order again with `pythia-tools data build-order`"
        )
    rows: RowSource
    if manifest.kind == "packed":
        store = store or open_remote_store(manifest, local, workers)
        rows = PackedRows(store, _open_maps(manifest, store, local), manifest.seq_length)
    elif store is not None:
        length = uniform_length(store)
        if length != row_tokens:
            says = f"seq_length {row_tokens - 1} means rows of {row_tokens}"
            raise DataError(f"{manifest.path}: {says}, the store has rows of {length}")
        rows = PreshuffledRows(store.data, store.dtype, length, name=prefix)
    elif manifest.dtype is None:
        raise DataError(f"{manifest.path}: a preshuffled order on the hub needs dtype")
    else:
        data = open_bytes(manifest.store, local, workers)
        if manifest.rows is None:  # else the bytes are held against rows × their length
            check_row_length(manifest, local)
        rows = PreshuffledRows(data, manifest.dtype, row_tokens, name=manifest.name)
    said, holds = manifest.rows, rows.n_rows
    if said is not None and (said > holds or (said < holds and manifest.kind == "preshuffled")):
        raise DataError(f"{manifest.path}: it says {said} rows of {row_tokens} tokens, the data has {holds}")
    if manifest.dtype is not None and manifest.dtype != rows.dtype:
        raise DataError(f"{manifest.path}: it says {manifest.dtype.name}, the data is {rows.dtype.name}")
    return rows


def _open_maps(manifest: OrderManifest, store: TokenStore, local: Path | None) -> IndexMaps:
    """The order's maps, held against the documents' lengths: a stale or foreign map would give wrong rows."""
    spec = manifest.maps
    assert spec is not None and manifest.seed is not None and manifest.num_samples is not None
    wanted = (manifest.num_samples, manifest.seq_length, manifest.seed)
    if spec.hub is not None:
        maps = open_remote_maps(manifest, local)
    elif spec.folder is None:
        return _cached_build(manifest, store, wanted)  # named by a digest of the lengths they were built from
    else:
        near = [m for m in find_maps(spec.folder, spec.stem) if (m.num_samples, m.seq_length, m.seed) == wanted]
        found = [m for m in near if spec.name in (None, m.name)]
        which = f"index maps for num_samples {wanted[0]}, seq_length {wanted[1]}, seed {wanted[2]}"
        if len(found) > 1:
            raise DataError(f"{spec.folder}: several {which}; say which under maps, as name: {near[0].name}")
        if not found:
            command = "pythia-tools data build-order PREFIX --num-samples {} --seq-length {} --seed {}".format(*wanted)
            raise DataError(f"{spec.folder}: no {which}; build them with `{command}`")
        maps = load_maps(found[0])
    verify_starts(maps, store.sizes, manifest.seq_length, manifest.path)
    return maps


def _cached_build(manifest: OrderManifest, store: TokenStore, wanted: tuple[int, int, int]) -> IndexMaps:
    """Maps built from the store's sizes, kept under a name that holds a digest of them."""
    num_samples, seq_length, seed = wanted
    key = files.digest([array_digest(store.sizes), manifest.separate_last_epoch])[:16]
    name = MapName(files.cache_dir() / "index_maps" / f"{manifest.name}-{key}", *wanted)
    if not all(p.exists() for p in name.paths.values()):
        apart = manifest.separate_last_epoch
        save_maps(build_index_maps(store.sizes, seq_length, seed, num_samples, separate_last_epoch=apart), name)
    return load_maps(name)
