"""Stores and maps on the hub: rows by range, small files whole.

Rows of a preshuffled store are one range per batch (4.2 MB for Pythia), two where it straddles shards. Documents of a
packed order lie all over the store: one short request per stretch, many at once, and the batch that results is cached
as one file. Indexes and index maps are needed at random places, so they are downloaded whole, once, and resumed.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.core.parallel import map_threads
from pythia_tools.hub import Dataset, RemoteFile, shared_cache
from pythia_tools.order.manifest import FileFact, HubFiles, OrderManifest, StoreSpec
from pythia_tools.order.map_files import PARTS, check_rows, load_part, save_part, verify_shuffle
from pythia_tools.order.maps import IndexMaps, rebuild_shuffles
from pythia_tools.tokens import ByteSource, LocalBytes, TokenStore, read_index
from pythia_tools.tokens.index import HEADER

REQUEST_BYTES = 16 << 20
FEW_RANGES = 64
NEAR_BYTES = 4096


class RemoteBytes:
    """Shards of a data set as one stream.

    Sizes come from the manifest, so opening asks nothing of the network, unless one is unknown.
    """

    def __init__(self, hub: HubFiles, *, workers: int = 8):
        self.hub = hub
        self.dataset = Dataset(hub.repo, hub.revision)
        self.cache = shared_cache()
        self.workers = max(1, workers)
        sizes = [f.bytes if f.bytes is not None else self.dataset.file(f.name).size for f in hub.files]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.size = int(self.starts[-1])

    def __reduce__(self) -> Any:
        return partial(RemoteBytes, self.hub, workers=self.workers), ()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as a fresh array: one request per shard touched (and per 16 MiB), less what is cached."""
        out = np.empty(max(0, stop - start), dtype=np.uint8)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: np.ndarray) -> None:
        """The same from `start` on into `out`, flat uint8."""
        if not 0 <= start <= start + out.size <= self.size:
            raise DataError(f"{self.hub.repo}: bytes {start} to {start + out.size} asked, there are {self.size}")
        self._fill([(start, start + out.size)], out)

    def gather(self, source: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
        """Segments (see ByteSource): neighbours are joined, the rest are asked for at once by `workers`."""
        ranges, places = _join(source, length)
        joined = np.empty(sum(b - a for a, b in ranges), dtype=np.uint8)
        if len(ranges) <= FEW_RANGES:
            self._fill(ranges, joined)
        else:
            key = files.digest([[self._file(k).key for k in range(len(self.hub.files))], ranges])

            def fetch() -> bytes:
                self._fill(ranges, joined, each_cached=False)
                return joined.tobytes()

            joined = np.frombuffer(self.cache.get_or_add(key, fetch), dtype=np.uint8)
        for place, n, to in zip(places, length, target, strict=True):
            out[to : to + n] = joined[place : place + n]

    def _fill(self, ranges: list[tuple[int, int]], out: np.ndarray, *, each_cached: bool = True) -> None:
        """Ranges one after the other into `out`, in parallel: what is cached from disk, the rest over the network."""
        parts = [part for start, stop in ranges for part in self._split(start, stop)]
        ends = np.cumsum([b - a for _, a, b in parts])

        def fetch(i: int) -> None:
            k, a, b = parts[i]
            for x, y, data in self.cache.pieces(self._file(k).key, a, b) if each_cached else [(a, b, None)]:
                if data is None:
                    file = self._file(k, fresh=True)
                    data = self.dataset.read(file, x, y)
                    if each_cached:
                        self.cache.add(file.key, x, data)
                out[ends[i] - b + x : ends[i] - b + y] = np.frombuffer(data, dtype=np.uint8)

        map_threads(fetch, range(len(parts)), self.workers)

    def _file(self, k: int, *, fresh: bool = False) -> RemoteFile:
        fact = self.hub.files[k]
        return self.dataset.file(fact.name, size=fact.bytes, sha256=fact.sha256, fresh=fresh)

    def _split(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(shard, first byte in it, last byte in it) of [start, stop)."""
        parts = []
        k = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self.starts[k + 1]))
            base = int(self.starts[k])
            parts += [(k, a - base, min(a + REQUEST_BYTES, end) - base) for a in range(start, end, REQUEST_BYTES)]
            start, k = end, k + 1
        return parts


def _join(source: np.ndarray, length: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Ranges that cover all segments, those less than 4 KiB apart joined, and where each segment lies in their sum."""
    filled = np.flatnonzero(length)
    order = filled[np.argsort(source[filled], kind="stable")]
    first, last = source[order], np.maximum.accumulate((source + length)[order])
    new = np.ones(len(order), dtype=bool)
    new[1:] = first[1:] > last[:-1] + NEAR_BYTES
    heads, of = np.flatnonzero(new), np.cumsum(new) - 1
    starts, stops = first[heads], last[np.append(heads[1:], len(order)) - 1] if len(order) else last
    places = np.zeros(len(source), dtype=np.int64)
    places[order] = (np.cumsum(stops - starts) - stops)[of] + first
    return list(zip(starts.tolist(), stops.tolist(), strict=True)), places


def open_bytes(spec: StoreSpec, local: Path | None, workers: int) -> ByteSource:
    """A store's bytes: the shards in `local` (all of them, with the manifest's sizes), else the hub's."""
    assert spec.hub is not None
    if local is None:
        return RemoteBytes(spec.hub, workers=workers)
    paths = {fact.name: _local_copy(fact, local) for fact in spec.hub.files}
    if gone := [name for name, path in paths.items() if path is None]:
        raise DataError(f"{local / gone[0]}: a shard is missing; the order has {len(paths)} of them")
    return LocalBytes([path for path in paths.values() if path is not None])


def check_row_length(manifest: OrderManifest, local: Path | None) -> None:
    """Hold a preshuffled order's seq_length against the first length in its index, which costs 38 bytes by range.

    Raises: DataError when they differ. An index that is not named or cannot be reached now is passed over.
    """
    hub, index, first = manifest.store.hub, manifest.store.index, HEADER.size
    if hub is None or index is None or (local is not None and index.below(local) is None):
        return
    spec = StoreSpec(hub=replace(hub, files=(index,)))
    try:
        length = int(open_bytes(spec, local, 1).read(first, first + 4).view("<i4")[0])
    except EnvironmentFailure:
        return  # rows that are cached can be read without a network
    if length != manifest.seq_length + 1:
        says = f"seq_length {manifest.seq_length} means rows of {manifest.seq_length + 1} tokens"
        raise DataError(f"{manifest.path}: {says}, {index.name} has rows of {length}")


def open_remote_store(manifest: OrderManifest, local: Path | None, workers: int) -> TokenStore:
    """A packed order's documents: the index whole (downloaded once), the bytes by range."""
    spec = manifest.store
    if spec.hub is None or spec.index is None:
        raise DataError(f"{manifest.path}: a packed order on the hub needs store.index")
    index = _local_or_downloaded(spec.hub, spec.index, local)
    return TokenStore(read_index(index), open_bytes(spec, local, workers))


def open_remote_maps(manifest: OrderManifest, local: Path | None) -> IndexMaps:
    """Published maps, each downloaded once; one known corrupt is made again from the seed, the doc map compared."""
    assert manifest.maps is not None and manifest.maps.hub is not None
    hub, rebuild = manifest.maps.hub, manifest.maps.rebuild
    named = {part: fact for part, fact in zip(PARTS, hub.files, strict=True) if part not in rebuild}
    parts = {part: load_part(_local_or_downloaded(hub, fact, local), part) for part, fact in named.items()}
    if rebuild:
        parts["shuffle"] = _rebuilt_shuffle(manifest, parts["doc"], len(parts["sample"]) - 1)
    maps = IndexMaps(*(parts[part] for part in PARTS))
    where = f"{hub.repo}/{hub.files[-1].name}"
    verify_shuffle(maps.shuffle_idx, where)
    check_rows(maps, where)
    return maps


def _rebuilt_shuffle(manifest: OrderManifest, doc_idx: np.ndarray, rows: int) -> np.ndarray:
    """The shuffle map from the seed, kept in the cache folder."""
    name, seed, slots = manifest.name, manifest.seed, len(doc_idx)
    assert seed is not None
    path = files.cache_dir() / "index_maps" / f"{name}-{slots}-{rows}-{seed}_shuffle_idx.npy"
    if not path.is_file():
        progress.note(f"{name}: the published shuffle map is corrupt; making it again from seed {seed}")
        documents = manifest.documents or slots
        made, shuffle_idx = rebuild_shuffles(documents, slots // documents, rows, seed)
        if not np.array_equal(made, doc_idx):
            raise DataError(
                f"{name}: seed {seed} gives another doc map than the published one; the order cannot be made again"
            )
        save_part(path, shuffle_idx)
    return load_part(path, "shuffle")


def _local_copy(fact: FileFact, local: Path) -> Path | None:
    """A file in a folder that may hold it, its size checked."""
    path = fact.below(local)
    size = None if path is None else path.stat().st_size
    if path is not None and fact.bytes is not None and size != fact.bytes:
        raise DataError(f"{path}: {size} bytes, the manifest says {fact.bytes}; download it again")
    return path


def _local_or_downloaded(hub: HubFiles, fact: FileFact, local: Path | None) -> Path:
    path = None if local is None else _local_copy(fact, local)
    return path or Dataset(hub.repo, hub.revision).download(fact.name, size=fact.bytes, sha256=fact.sha256)
