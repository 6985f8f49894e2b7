"""Stage 2, band: signatures to buckets of documents that agree on a band, out of core.

A task takes one band and one range of keys, gathers that range from every signed part, sorts it, and writes the buckets
of two and more. Ranges are as many as keep a task below `memory_bytes`, so memory does not grow with the corpus.
Method `exact` has no such stage: the join over all sets is part of the next one.
Cost: about 60 ns and 12 bytes of disk per document and band.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.lsh import buckets
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sign import Job, first_documents

RECORD_BYTES = 48  # key, document, sort order and their sorted copies


def bucket_tasks(config: DedupConfig, documents: int) -> list[tuple[int, int, int]]:
    """(band, range, ranges) of every task."""
    ranges = max(1, -(-documents * RECORD_BYTES // config.memory_bytes))
    return [(band, i, ranges) for band in range(config.bands_and_rows()[0]) for i in range(ranges)]


def buckets_key(config: DedupConfig, signed: list[Part]) -> dict[str, Any]:
    return {"stage": "buckets", "memory_bytes": config.memory_bytes, "from": [p.facts for p in signed]}


def write_buckets(job: Job, task: tuple[int, int, int]) -> None:
    """Buckets of one band and one range of keys: documents, and where each bucket begins among them."""
    signed, (band, i, _) = job.signed(), task
    path, key = job.work / "buckets" / f"{band:03}-{i:04}", buckets_key(job.config, signed)
    if open_part(path, key) is not None:
        return
    keys, documents = _gather(signed, *task)
    members, begins = buckets(keys, documents)
    facts = {"records": len(keys), "buckets": len(begins) - 1}
    write_part(path, key, {"members": members, "begins": begins}, facts)


def bucket_parts(job: Job, signed: list[Part]) -> Iterator[Part]:
    """All finished bucket parts. Raises DataError when the stage is not complete."""
    key, tasks = buckets_key(job.config, signed), bucket_tasks(job.config, int(first_documents(signed)[-1]))
    return (need_part(job.work / "buckets" / f"{band:03}-{i:04}", key) for band, i, _ in tasks)


def _gather(signed: list[Part], band: int, i: int, ranges: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys in the i-th of `ranges` equal ranges of 64 bits, and their documents by number."""
    low = np.uint64((i << 64) // ranges)
    high = np.uint64(min(((i + 1) << 64) // ranges, (1 << 64) - 1))
    keys, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for first, part in zip(first_documents(signed), signed, strict=False):
        row = part.array("keys")[band]
        a = np.searchsorted(row, low, "left")
        b = np.searchsorted(row, high, "right" if i == ranges - 1 else "left")
        keys.append(row[a:b])
        documents.append(part.array("key_documents")[band, a:b] + first)
    return np.concatenate(keys), np.concatenate(documents)
