"""Stage 2, band: signatures to buckets of documents that agree on a band, out of core.

First every signed part gets its band keys, each band's sorted (8 bytes of key and 4 of document per band). Then a task
takes one band and one range of keys, gathers that range from every part, sorts it, and writes the buckets of two and
more. Ranges are as many as keep a task below `memory_bytes`, so memory does not grow with the corpus.
With method `exact` the stage is one task: the join over all sets (memory: the sets, about the size of the text).
Cost: about 60 ns and 12 bytes of disk per document and band.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.exact import exact_links
from pythia_tools.dedup.lsh import band_keys, empty_signatures
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sets import ShingleSets
from pythia_tools.dedup.sign import first_documents, signed_parts

RECORD_BYTES = 48  # key, document, sort order and their sorted copies


def keys_key(config: DedupConfig, signed: Part) -> dict[str, Any]:
    return {"stage": "keys", "bands": config.bands_and_rows(), "from": signed.facts, "of": signed.path.parts[-2:]}


def write_keys(options: dict[str, Any], shards: list[list[str]], number: int, folder: str) -> None:
    """Band keys of the number-th signed part: for each band keys in order, and the document (within the part) of each."""
    config = DedupConfig(**options)
    signed = signed_parts(config, shards, Path(folder) / "sign")[number]
    path = Path(folder) / "keys" / f"{number:05}"
    key = keys_key(config, signed)
    if open_part(path, key) is not None:
        return
    signatures = signed.array("signatures")
    keys = band_keys(signatures, *config.bands_and_rows())
    documents = np.flatnonzero(~empty_signatures(signatures)).astype(np.uint32)
    order = np.argsort(keys[:, documents], axis=1)
    write_part(path, key, {"keys": np.take_along_axis(keys[:, documents], order, axis=1), "documents": documents[order]}, {})


def bucket_tasks(config: DedupConfig, documents: int) -> list[tuple[int, int, int]]:
    """(band, range, ranges) of every task."""
    ranges = max(1, -(-documents * RECORD_BYTES // config.memory_bytes))
    return [(band, part, ranges) for band in range(config.bands_and_rows()[0]) for part in range(ranges)]


def buckets_key(config: DedupConfig, signed: list[Part]) -> dict[str, Any]:
    bands = config.bands_and_rows() if config.method == "lsh" else None
    return {
        "stage": "buckets", "method": config.method, "bands": bands, "threshold": config.threshold,
        "memory_bytes": config.memory_bytes, "from": [p.facts for p in signed],
    }


def write_buckets(options: dict[str, Any], shards: list[list[str]], task: tuple[int, int, int], folder: str) -> None:
    """Buckets of one band and one range of keys: documents, and where each bucket begins among them."""
    config = DedupConfig(**options)
    signed = signed_parts(config, shards, Path(folder) / "sign")
    band, part, ranges = task
    path, key = Path(folder) / "buckets" / f"{band:03}-{part:04}", buckets_key(config, signed)
    if open_part(path, key) is not None:
        return
    keys, documents = _gather(config, signed, Path(folder), band, part, ranges)
    order = np.argsort(keys)
    members, begins = _runs(keys[order], documents[order])
    write_part(path, key, {"members": members, "begins": begins}, {"records": len(keys), "buckets": len(begins) - 1})


def write_exact_links(options: dict[str, Any], shards: list[list[str]], folder: str, workers: int | None) -> None:
    """The exact join, as buckets of two."""
    config = DedupConfig(**options)
    signed = signed_parts(config, shards, Path(folder) / "sign")
    path, key = Path(folder) / "buckets" / "exact", buckets_key(config, signed)
    if open_part(path, key) is not None:
        return
    left, right = exact_links(all_sets(signed), config.threshold, worker_count(workers))
    members = np.stack([left, right], axis=1).ravel().astype(np.int64)
    write_part(path, key, {"members": members, "begins": np.arange(0, len(members) + 1, 2)}, {"links": len(left)})


def bucket_parts(config: DedupConfig, signed: list[Part], folder: Path) -> list[Part]:
    """All finished bucket parts. Raises DataError when the stage is not complete."""
    key = buckets_key(config, signed)
    if config.method == "exact":
        return [need_part(folder / "buckets" / "exact", key)]
    tasks = bucket_tasks(config, int(first_documents(signed)[-1]))
    return [need_part(folder / "buckets" / f"{band:03}-{part:04}", key) for band, part, _ in tasks]


def all_sets(signed: list[Part]) -> ShingleSets:
    """Every document's set, from the parts."""
    values = [np.empty(0, np.uint64), *(p.array("set_values") for p in signed)]
    sizes = [np.empty(0, np.int64), *(np.diff(p.array("set_offsets")) for p in signed)]
    return ShingleSets(np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64))


def _gather(
    config: DedupConfig, signed: list[Part], folder: Path, band: int, part: int, ranges: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys in the part-th of `ranges` equal ranges of 64 bits, and their documents by number."""
    low = np.uint64((part << 64) // ranges)
    high = np.uint64(min(((part + 1) << 64) // ranges, (1 << 64) - 1))
    keys, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number, (first, source) in enumerate(zip(first_documents(signed), signed, strict=False)):
        held = need_part(folder / "keys" / f"{number:05}", keys_key(config, source))
        row = held.array("keys")[band]
        a = np.searchsorted(row, low, "left")
        b = np.searchsorted(row, high, "right" if part == ranges - 1 else "left")
        keys.append(row[a:b])
        documents.append(held.array("documents")[band, a:b] + first)
    return np.concatenate(keys), np.concatenate(documents)


@njit(nogil=True, cache=True)
def _runs(keys, documents):  # type: ignore[no-untyped-def]
    """Documents of runs of at least two equal keys, and where each run begins, the end included."""
    members, begins = np.empty(len(keys), np.int64), np.empty(len(keys) // 2 + 1, np.int64)
    held, runs, first = 0, 0, 0
    for i in range(1, len(keys) + 1):
        if i < len(keys) and keys[i] == keys[first]:
            continue
        if i - first > 1:
            begins[runs] = held
            runs += 1
            run = np.sort(documents[first:i])
            for j in range(len(run)):
                members[held + j] = run[j]
            held += len(run)
        first = i
    begins[runs] = held
    return members[:held].copy(), begins[: runs + 1].copy()
