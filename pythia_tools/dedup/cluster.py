"""Stage 3, cluster: buckets to connected components, the member kept of each, and every dropped one's similarity to it.

With method `exact` the pairs come from the join over all sets (memory: the sets, about the size of the text).
With `verify`, two documents of a bucket are joined only when their exact similarity reaches the threshold; pairs that
are connected already are not compared.
Cost: 20 ns per record of a bucket; memory 16 bytes per document and one bucket file.
"""

from functools import partial
from typing import Any

import numpy as np

from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup.band import bucket_parts
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.connected import components, flatten, join_buckets, kept_member, preference
from pythia_tools.dedup.exact import exact_links, join_verified, similarities
from pythia_tools.dedup.parts import Part, open_part, write_part
from pythia_tools.dedup.sets import ShingleSets
from pythia_tools.dedup.sign import Job, by_part, first_documents
from pythia_tools.dedup.stars import stars

PAIRS_AT_ONCE = 1 << 13


def cluster_key(config: DedupConfig, signed: list[Part]) -> dict[str, Any]:
    names = ("method", "threshold", "verify", "clustering", "keep")
    chosen = {name: getattr(config, name) for name in names}
    return {"stage": "cluster", "from": [p.facts for p in signed], **chosen}


def write_clusters(job: Job, signed: list[Part], workers: int | None = None) -> Part:
    """Arrays: roots (n,), kept (n,), and for each dropped document its number and its similarity to the kept one."""
    config, path, key = job.config, job.work / "clusters", cluster_key(job.config, signed)
    if (done := open_part(path, key)) is not None:
        return done
    firsts = first_documents(signed)
    parents = np.arange(firsts[-1], dtype=np.int64)
    if config.method == "exact":
        links = exact_links(_all_sets(signed), config.threshold, worker_count(workers))
        parents = components(len(parents), *links)
    for part in bucket_parts(job, signed) if config.method == "lsh" else ():
        members, begins = np.asarray(part.array("members")), np.asarray(part.array("begins"))
        if config.verify:
            sets, numbers = _gather_sets(signed, firsts, members)
            join_verified(parents, members, begins, numbers, sets.values, sets.offsets, config.threshold)
        else:
            join_buckets(parents, members, begins)
    flatten(parents)
    lengths = text_bytes(signed) if config.keep == "longest" else None
    if config.clustering == "stars":
        rank = preference(len(parents), config.keep, lengths)
        parents = stars(parents, rank, config.threshold, partial(_gather_sets, signed, firsts))
    kept = kept_member(parents, config.keep, lengths)
    dropped = np.flatnonzero(kept != np.arange(len(kept)))
    similarity = _similarity(config, signed, firsts, dropped, kept[dropped])
    arrays = {"roots": parents, "kept": kept, "dropped": dropped, "similarity": similarity}
    facts = {
        "documents": len(kept), "dropped": len(dropped), "clusters": len(np.unique(parents[dropped])),
        "below_threshold": int((similarity < config.threshold).sum()),
    }
    return write_part(path, key, arrays, facts)


def text_bytes(signed: list[Part]) -> np.ndarray:
    """Bytes of every document's text; int64 (n,)."""
    return np.concatenate([np.empty(0, np.int64), *(p.array("bytes") for p in signed)])


def _all_sets(signed: list[Part]) -> ShingleSets:
    """Every document's set, from the parts."""
    values = [np.empty(0, np.uint64), *(p.array("set_values") for p in signed)]
    sizes = [np.empty(0, np.int64), *(np.diff(p.array("set_offsets")) for p in signed)]
    return ShingleSets.of_sizes(np.concatenate(values), np.concatenate(sizes))


def _gather_sets(signed: list[Part], firsts: np.ndarray, documents: np.ndarray) -> tuple[ShingleSets, np.ndarray]:
    """Sets of some documents, read from the parts; each once, and the index of each of `documents` among them."""
    wanted, numbers = np.unique(documents, return_inverse=True)
    found = [np.empty(0, np.uint64)]
    for part, _, inside in by_part(firsts, wanted):
        values, offsets = signed[part].array("set_values"), signed[part].array("set_offsets")
        found += [values[offsets[d] : offsets[d + 1]] for d in inside.tolist()]
    return ShingleSets.of_sizes(np.concatenate(found), np.array([len(f) for f in found[1:]], np.int64)), numbers


def _similarity(
    config: DedupConfig, signed: list[Part], firsts: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Exact where sets are at hand, else the share of equal hashes; float64."""
    out = np.empty(len(left))
    for a in range(0, len(left), PAIRS_AT_ONCE):
        b = min(a + PAIRS_AT_ONCE, len(left))
        both = np.concatenate([left[a:b], right[a:b]])
        if config.needs_sets:
            sets, numbers = _gather_sets(signed, firsts, both)
            out[a:b] = similarities(sets, numbers[: b - a], numbers[b - a :])
        else:
            rows = np.empty((len(both), config.num_perm), np.uint32)
            for part, which, inside in by_part(firsts, both):
                rows[which] = signed[part].array("signatures")[inside]
            out[a:b] = (rows[: b - a] == rows[b - a :]).mean(axis=1)
    return out
