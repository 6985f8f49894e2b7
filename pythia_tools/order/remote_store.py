"""Stores and maps on the hub: rows by range, small files whole.

Rows of a preshuffled store are one range per batch (4.2 MB for Pythia), two where it straddles shards. Documents of a packed
order lie all over the store: one short request per stretch, many at once, and the batch that results is cached as one file.
Indexes and index maps are needed at random places, so they are downloaded whole, once, in resumable pieces.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError
from pythia_tools.hub import Dataset, RemoteFile, shared_cache
from pythia_tools.order.manifest import FileFact, HubFiles, OrderManifest, StoreSpec
from pythia_tools.order.map_files import PARTS, load_part, verify_shuffle
from pythia_tools.order.maps import IndexMaps, rebuild_shuffles
from pythia_tools.tokens import ByteSource, LocalBytes, TokenStore, read_index

REQUEST_BYTES = 16 << 20
PIECE_BYTES = 32 << 20
FEW_RANGES = 64
NEAR_BYTES = 4096
NOTED_BYTES = 100_000_000


class RemoteBytes:
    """Shards of a data set as one stream. Sizes come from the manifest, so opening asks nothing of the network (unless one is unknown)."""

    def __init__(self, hub: HubFiles, *, workers: int = 8):
        self.hub = hub
        self.dataset = Dataset(hub.repo, hub.revision)
        self.cache = shared_cache()
        self.workers = max(1, workers)
        sizes = [f.bytes if f.bytes is not None else self.dataset.file(f.name).size for f in hub.files]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.size = int(self.starts[-1])

    def __reduce__(self) -> Any:
        return _remote_bytes, (self.hub, self.workers)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as a fresh array: one request per shard touched (and per 16 MiB), less what is cached."""
        out = np.empty(max(0, stop - start), dtype=np.uint8)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: np.ndarray) -> None:
        """The same from `start` on into `out`, flat uint8."""
        if not 0 <= start <= start + out.size <= self.size:
            raise DataError(f"{self.hub.repo}: bytes {start} to {start + out.size} asked, there are {self.size}")
        self._read_into([(start, start + out.size, 0)], out)

    def gather(self, source: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
        """Segments (see ByteSource): neighbours are joined, the rest are asked for at once by `workers`."""
        ranges, places = _join(source, length)
        if len(ranges) <= FEW_RANGES:
            joined = np.empty(sum(b - a for a, b in ranges), dtype=np.uint8)
            at, wanted = 0, []
            for a, b in ranges:
                wanted.append((a, b, at))
                at += b - a
            self._read_into(wanted, joined)
        else:
            key = files.digest([[self._file(k, fresh=False).key for k in range(len(self.hub.files))], ranges])
            joined = np.frombuffer(self.cache.get_or_add(key, lambda: self._fetch_all(ranges)), dtype=np.uint8)
        for place, n, to in zip(places, length, target, strict=True):
            out[to : to + n] = joined[place : place + n]

    def _file(self, k: int, *, fresh: bool) -> RemoteFile:
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

    def _read_into(self, wanted: list[tuple[int, int, int]], out: np.ndarray) -> None:
        """Fill `out` from (start, stop, place) ranges; cached parts from disk, the others over the network in parallel."""
        missing: list[tuple[int, int, int, int]] = []
        for start, stop, place in wanted:
            at = place
            for k, a, b in self._split(start, stop):
                for x, y, data in self.cache.pieces(self._file(k, fresh=False).key, a, b):
                    if data is None:
                        missing.append((k, x, y, at))
                    else:
                        out[at : at + y - x] = np.frombuffer(data, dtype=np.uint8)
                    at += y - x

        def fetch(part: tuple[int, int, int, int]) -> None:
            k, x, y, at = part
            file = self._file(k, fresh=True)
            data = self.dataset.read(file, x, y)
            self.cache.add(file.key, x, data)
            out[at : at + y - x] = np.frombuffer(data, dtype=np.uint8)

        _all(fetch, missing, self.workers)

    def _fetch_all(self, ranges: list[tuple[int, int]]) -> bytes:
        """Many short ranges, cached together by the caller."""
        parts = [part for a, b in ranges for part in self._split(a, b)]

        def fetch(part: tuple[int, int, int]) -> bytes:
            k, start, stop = part
            return self.dataset.read(self._file(k, fresh=True), start, stop)

        return b"".join(_all(fetch, parts, self.workers))


def _remote_bytes(hub: HubFiles, workers: int) -> RemoteBytes:
    return RemoteBytes(hub, workers=workers)


def _all(work: Any, parts: list[Any], workers: int) -> list[Any]:
    if len(parts) <= 1:
        return [work(p) for p in parts]
    with ThreadPoolExecutor(min(workers, len(parts))) as pool:
        return list(pool.map(work, parts))


def _join(source: np.ndarray, length: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Ranges that cover all segments, those less than 4 KiB apart joined, and where each segment lies in their sum."""
    ranges: list[list[int]] = []
    places = np.zeros(len(source), dtype=np.int64)
    total = 0
    for k in np.argsort(source, kind="stable"):
        a, b = int(source[k]), int(source[k] + length[k])
        if a == b:
            continue
        if not ranges or a > ranges[-1][1] + NEAR_BYTES:
            ranges.append([a, b])
            total += b - a
        elif b > ranges[-1][1]:
            total += b - ranges[-1][1]
            ranges[-1][1] = b
        places[k] = total - (ranges[-1][1] - a)
    return [(a, b) for a, b in ranges], places


def open_bytes(spec: StoreSpec, local: Path | None, workers: int) -> ByteSource:
    """A store's bytes: the shards in `local` (all of them, with the manifest's sizes), else the hub's."""
    assert spec.hub is not None
    if local is None:
        return RemoteBytes(spec.hub, workers=workers)
    for fact in spec.hub.files:
        path = local / fact.name
        if not path.is_file():
            raise DataError(f"{path}: a shard is missing; the order has {len(spec.hub.files)} of them")
        if fact.bytes is not None and path.stat().st_size != fact.bytes:
            raise DataError(f"{path}: {path.stat().st_size} bytes, the manifest says {fact.bytes}; download it again")
    return LocalBytes([local / fact.name for fact in spec.hub.files])


def open_remote_store(manifest: OrderManifest, local: Path | None, workers: int) -> TokenStore:
    """A packed order's documents: the index whole (downloaded once), the bytes by range."""
    spec = manifest.store
    if spec.hub is None or spec.index is None:
        raise DataError(f"{manifest.path}: a packed order on the hub needs store.index")
    index = _local_or_download(spec.hub, spec.index, local)
    return TokenStore(read_index(index), open_bytes(spec, local, workers))


def open_remote_maps(manifest: OrderManifest, local: Path | None) -> IndexMaps:
    """Published maps, each downloaded once; parts known corrupt are made again from the seed and the doc map compared."""
    assert manifest.maps is not None and manifest.maps.hub is not None and manifest.seed is not None
    hub, rebuild = manifest.maps.hub, manifest.maps.rebuild
    named = dict(zip(PARTS, hub.files, strict=True))
    parts = {part: load_part(_local_or_download(hub, fact, local), part) for part, fact in named.items() if part not in rebuild}
    if rebuild == ("shuffle",):
        parts["shuffle"] = _rebuilt_shuffle(manifest, parts)
    elif rebuild:
        raise DataError(f"{manifest.path}: only the shuffle map can be made again, not {', '.join(rebuild)}")
    else:
        verify_shuffle(parts["shuffle"], f"{hub.repo}/{hub.files[2].name}")
    if len(parts["shuffle"]) != len(parts["sample"]) - 1:
        raise DataError(f"{hub.repo}: {len(parts['shuffle'])} rows in the shuffle map, {len(parts['sample']) - 1} in the sample map")
    return IndexMaps(parts["doc"], parts["sample"], parts["shuffle"])


def _rebuilt_shuffle(manifest: OrderManifest, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The shuffle map from the seed, kept in the cache folder."""
    rows, slots = len(parts["sample"]) - 1, len(parts["doc"])
    documents = manifest.documents or slots
    assert manifest.seed is not None
    path = files.cache_dir() / "index_maps" / f"{manifest.name}-{slots}-{rows}-{manifest.seed}_shuffle_idx.npy"
    if not path.is_file():
        progress.note(f"{manifest.name}: the published shuffle map is corrupt; making it again from seed {manifest.seed}")
        doc_idx, shuffle_idx = rebuild_shuffles(documents, slots // documents, rows, manifest.seed)
        if not np.array_equal(doc_idx, parts["doc"]):
            raise DataError(
                f"{manifest.name}: seed {manifest.seed} gives another doc map than the published one; the order cannot be made again"
            )
        with files.atomic_write(path) as out:
            np.lib.format.write_array(out, shuffle_idx, version=(1, 0), allow_pickle=False)
    shuffle = load_part(path, "shuffle")
    verify_shuffle(shuffle, path)
    return shuffle


def _local_or_download(hub: HubFiles, fact: FileFact, local: Path | None) -> Path:
    if local is not None:
        for path in (local / fact.name, local / Path(fact.name).name):
            if path.is_file():
                if fact.bytes is not None and path.stat().st_size != fact.bytes:
                    raise DataError(f"{path}: {path.stat().st_size} bytes, the manifest says {fact.bytes}; download it again")
                return path
    return Dataset(hub.repo, hub.revision).download(fact.name, size=fact.bytes, sha256=fact.sha256)
