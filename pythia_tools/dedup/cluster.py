"""Stage 3, cluster: buckets to connected components, the member kept of each, and every dropped one's similarity to it.

With `verify`, two documents of a bucket are joined only when their exact similarity reaches the threshold; pairs that
are connected already are not compared.
Cost: 20 ns per record of a bucket; memory 16 bytes per document and one bucket file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from pythia_tools.dedup.band import bucket_parts, buckets_key
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.connected import find, flatten, join, kept_member, singles
from pythia_tools.dedup.exact import _overlap, similarities
from pythia_tools.dedup.parts import Part, open_part, write_part
from pythia_tools.dedup.sets import ShingleSets
from pythia_tools.dedup.sign import Labels, first_documents

PAIRS_AT_ONCE = 1 << 13


def cluster_key(config: DedupConfig, signed: list[Part]) -> dict[str, Any]:
    return {**buckets_key(config, signed), "stage": "cluster", "verify": config.verify, "keep": config.keep}


def write_clusters(config: DedupConfig, signed: list[Part], folder: Path) -> Part:
    """Arrays: roots (n,), kept (n,), and for each dropped document its number and its similarity to the kept one."""
    path, key = folder / "clusters", cluster_key(config, signed)
    if (done := open_part(path, key)) is not None:
        return done
    firsts = first_documents(signed)
    parents = singles(int(firsts[-1]))
    for part in bucket_parts(config, signed, folder):
        members, begins = np.asarray(part.array("members")), np.asarray(part.array("begins"))
        if config.verify and config.method == "lsh":
            sets, numbers = gather_sets(signed, firsts, members)
            _join_verified(members, begins, numbers, sets.values, sets.offsets, config.threshold, parents)
        else:
            _join_buckets(members, begins, parents)
    flatten(parents)
    lengths = np.concatenate([np.empty(0, np.int64), *(p.array("bytes") for p in signed)]) if config.keep == "longest" else None
    kept = kept_member(parents, config.keep, lengths)
    dropped = np.flatnonzero(kept != np.arange(len(kept)))
    similarity = _similarity(config, signed, firsts, dropped, kept[dropped])
    arrays = {"roots": parents, "kept": kept, "dropped": dropped, "similarity": similarity}
    facts = {"documents": len(kept), "dropped": len(dropped), "clusters": len(np.unique(parents[dropped]))}
    return write_part(path, key, arrays, facts, lambda made: _write_kept_ids(made / "kept_ids.jsonl", Labels(signed), kept[dropped]))


def _write_kept_ids(path: Path, labels: Labels, kept: np.ndarray) -> None:
    """The id of the kept document, a line per dropped one."""
    wanted, numbers = np.unique(kept, return_inverse=True)
    ids = labels.ids(wanted)
    with open(path, "w", encoding="ascii") as handle:
        for i in numbers:
            handle.write(json.dumps(ids[i]) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def gather_sets(signed: list[Part], firsts: np.ndarray, documents: np.ndarray) -> tuple[ShingleSets, np.ndarray]:
    """Sets of some documents, read from the parts; each once, and the index of each of `documents` among them."""
    wanted, numbers = np.unique(documents, return_inverse=True)
    values, sizes = [np.empty(0, np.uint64)], []
    owner = np.searchsorted(firsts, wanted, "right") - 1
    for part in np.unique(owner):
        held, offsets = signed[part].array("set_values"), signed[part].array("set_offsets")
        for d in (wanted[owner == part] - firsts[part]).tolist():
            values.append(held[offsets[d] : offsets[d + 1]])
            sizes.append(len(values[-1]))
    return ShingleSets(np.concatenate(values), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)), numbers.astype(np.int64)


def _similarity(config: DedupConfig, signed: list[Part], firsts: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Exact where sets are at hand, else the share of equal hashes; float64."""
    out = np.empty(len(left))
    for a in range(0, len(left), PAIRS_AT_ONCE):
        b = min(a + PAIRS_AT_ONCE, len(left))
        both = np.concatenate([left[a:b], right[a:b]])
        if config.needs_sets:
            sets, numbers = gather_sets(signed, firsts, both)
            out[a:b] = similarities(sets, numbers[: b - a], numbers[b - a :])
        else:
            rows = _gather_signatures(signed, firsts, both)
            out[a:b] = (rows[: b - a] == rows[b - a :]).mean(axis=1)
    return out


def _gather_signatures(signed: list[Part], firsts: np.ndarray, documents: np.ndarray) -> np.ndarray:
    owner = np.searchsorted(firsts, documents, "right") - 1
    rows: np.ndarray | None = None
    for part in np.unique(owner):
        here = owner == part
        found = signed[part].array("signatures")[documents[here] - firsts[part]]
        rows = np.empty((len(documents), found.shape[1]), found.dtype) if rows is None else rows
        rows[here] = found
    return np.empty((0, 1)) if rows is None else rows


@njit(nogil=True, cache=True)
def _join_buckets(members, begins, parents):  # type: ignore[no-untyped-def]
    for bucket in range(len(begins) - 1):
        for i in range(begins[bucket] + 1, begins[bucket + 1]):
            join(parents, members[i - 1], members[i])


@njit(nogil=True, cache=True)
def _join_verified(members, begins, numbers, values, offsets, threshold, parents):  # type: ignore[no-untyped-def]
    for bucket in range(len(begins) - 1):
        for i in range(begins[bucket], begins[bucket + 1]):
            d = numbers[i]
            for j in range(begins[bucket], i):
                if find(parents, members[i]) == find(parents, members[j]):
                    continue
                e = numbers[j]
                a, b = offsets[d + 1] - offsets[d], offsets[e + 1] - offsets[e]
                shared = _overlap(values[offsets[d] : offsets[d + 1]], values[offsets[e] : offsets[e + 1]], 0)
                if shared / (a + b - shared) >= threshold:
                    join(parents, members[i], members[j])
