"""Stage 2, band: signatures to buckets of documents that agree on a band, out of core.

First every signed part gets its band keys, each band's sorted (8 bytes of key and 4 of document per band). Then a task
takes one band and one range of keys, gathers that range from every part, sorts it, and writes the buckets of two and
more. Ranges are as many as keep a task below `memory_bytes`, so memory does not grow with the corpus.
With method `exact` the stage is one task: the join over all sets (memory: the sets, about the size of the text).
Cost: about 60 ns and 12 bytes of disk per document and band.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.exact import exact_links
from pythia_tools.dedup.lsh import band_keys, buckets, not_empty
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sets import ShingleSets
from pythia_tools.dedup.sign import Job, first_documents

RECORD_BYTES = 48  # key, document, sort order and their sorted copies


def write_keys(job: Job, number: int) -> None:
    """Band keys of a signed part: for each band keys in order, and the document (within the part) of each."""
    signed = job.signed()[number]
    path, key = job.work / "keys" / f"{number:05}", _keys_key(job.config, signed)
    if open_part(path, key) is not None:
        return
    documents = not_empty(signed.array("signatures"))
    keys = band_keys(signed.array("signatures"), *job.config.bands_and_rows())[:, documents]
    order = np.argsort(keys, axis=1)
    held = {"keys": np.take_along_axis(keys, order, axis=1), "documents": documents.astype(np.uint32)[order]}
    write_part(path, key, held, {})


def bucket_tasks(config: DedupConfig, documents: int) -> list[tuple[int, int, int]]:
    """(band, range, ranges) of every task."""
    ranges = max(1, -(-documents * RECORD_BYTES // config.memory_bytes))
    return [(band, i, ranges) for band in range(config.bands_and_rows()[0]) for i in range(ranges)]


def buckets_key(config: DedupConfig, signed: list[Part]) -> dict[str, Any]:
    bands = config.bands_and_rows() if config.method == "lsh" else None
    return {
        "stage": "buckets", "method": config.method, "bands": bands, "threshold": config.threshold,
        "memory_bytes": config.memory_bytes, "from": [p.facts for p in signed],
    }


def write_buckets(job: Job, task: tuple[int, int, int]) -> None:
    """Buckets of one band and one range of keys: documents, and where each bucket begins among them."""
    signed, (band, i, _) = job.signed(), task
    path, key = job.work / "buckets" / f"{band:03}-{i:04}", buckets_key(job.config, signed)
    if open_part(path, key) is not None:
        return
    keys, documents = _gather(job, signed, *task)
    members, begins = buckets(keys, documents)
    facts = {"records": len(keys), "buckets": len(begins) - 1}
    write_part(path, key, {"members": members, "begins": begins}, facts)


def write_exact_links(job: Job, workers: int | None) -> None:
    """The exact join, as buckets of two."""
    signed = job.signed()
    path, key = job.work / "buckets" / "exact", buckets_key(job.config, signed)
    if open_part(path, key) is not None:
        return
    left, right = exact_links(_all_sets(signed), job.config.threshold, worker_count(workers))
    members = np.stack([left, right], axis=1).ravel().astype(np.int64)
    write_part(path, key, {"members": members, "begins": np.arange(0, len(members) + 1, 2)}, {"links": len(left)})


def bucket_parts(job: Job, signed: list[Part]) -> list[Part]:
    """All finished bucket parts. Raises DataError when the stage is not complete."""
    key, folder = buckets_key(job.config, signed), job.work / "buckets"
    if job.config.method == "exact":
        return [need_part(folder / "exact", key)]
    tasks = bucket_tasks(job.config, int(first_documents(signed)[-1]))
    return [need_part(folder / f"{band:03}-{i:04}", key) for band, i, _ in tasks]


def _keys_key(config: DedupConfig, signed: Part) -> dict[str, Any]:
    return {"stage": "keys", "bands": config.bands_and_rows(), "from": signed.facts, "of": signed.path.parts[-2:]}


def _all_sets(signed: list[Part]) -> ShingleSets:
    """Every document's set, from the parts."""
    values = [np.empty(0, np.uint64), *(p.array("set_values") for p in signed)]
    sizes = [np.empty(0, np.int64), *(np.diff(p.array("set_offsets")) for p in signed)]
    return ShingleSets.of_sizes(np.concatenate(values), np.concatenate(sizes))


def _gather(job: Job, signed: list[Part], band: int, i: int, ranges: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys in the i-th of `ranges` equal ranges of 64 bits, and their documents by number."""
    low = np.uint64((i << 64) // ranges)
    high = np.uint64(min(((i + 1) << 64) // ranges, (1 << 64) - 1))
    keys, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number, (first, source) in enumerate(zip(first_documents(signed), signed, strict=False)):
        held = need_part(job.work / "keys" / f"{number:05}", _keys_key(job.config, source))
        row = held.array("keys")[band]
        a = np.searchsorted(row, low, "left")
        b = np.searchsorted(row, high, "right" if i == ranges - 1 else "left")
        keys.append(row[a:b])
        documents.append(held.array("documents")[band, a:b] + first)
    return np.concatenate(keys), np.concatenate(documents)
