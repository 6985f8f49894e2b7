"""Stage 4, filter: the input read once more, kept documents to one place, dropped ones to another with the reason.

    kept/SHARD-PART.jsonl      records as they came: text, id, metadata
    dropped/SHARD-PART.jsonl   the same, and under "dedup": document, cluster, kept (number), kept_id, similarity, kind
                               (under "pythia_dedup" where a record has a field of that name, which stays as it is)

The texts' sha256 is compared with what was signed, so a changed input is refused, not filtered.
Cost: reading, hashing and writing the text.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.files import atomic_write, sha256_file
from pythia_tools.core.parallel import worker_count
from pythia_tools.core.statistics import Estimate
from pythia_tools.dedup.cluster import cluster_key
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.recall import recall
from pythia_tools.dedup.sets import shingle_sets
from pythia_tools.dedup.sign import Job, Labels, check_unchanged, first_documents, in_units, judged_sample
from pythia_tools.tokens.documents import Document, create_jsonl


def filter_shard(job: Job, number: int, workers: int | None = None) -> None:
    """Write the kept and dropped documents of one shard, part by part; finished parts are left.

    With method lsh, a part of this stage holds `near`: the near-duplicates of the judged documents.
    """
    signed, config = job.signed(), job.config
    sample = judged_sample(config, signed) if config.judges else None
    key, clusters = filter_key(job, signed), need_part(job.work / "clusters", cluster_key(job.config, signed))
    labels, firsts = Labels(signed), first_documents(signed)
    mine = [i for i, part in enumerate(signed) if part.path.parent.name == f"{number:05}"]
    documents = job.read_shard(number)
    for i in mine:
        held = list(itertools.islice(documents, signed[i].facts["documents"]))
        texts = check_unchanged(signed[i], held)
        done = open_part(place(job, signed[i]), key)
        if done is not None and _whole(job, done):
            continue
        facts, arrays = _write(job, clusters, labels, int(firsts[i]), held, place(job, signed[i]).name), {}
        if sample is not None:
            sets = shingle_sets(in_units(config, held, texts), config.ngram, worker_count(workers))
            arrays["near"] = sample.near_duplicates(sets, int(firsts[i]), config.threshold)
        write_part(place(job, signed[i]), key, arrays, facts)
    if mine and next(documents, None) is not None:
        check_unchanged(signed[mine[-1]], [])


def filter_key(job: Job, signed: list[Part]) -> dict[str, Any]:
    config = job.config
    return {**cluster_key(config, signed), "stage": "filter", "pack": config.pack, "judged": config.judged}


def place(job: Job, part: Part) -> Path:
    """Where this stage's part of a signed part lies."""
    return job.work / "filter" / f"{part.path.parent.name}-{part.path.name.removeprefix('part-')}"


def estimated_recall(job: Job, signed: list[Part], roots: np.ndarray) -> Estimate:
    """Recall of method lsh on this corpus, when all shards are filtered; see recall.py."""
    key = filter_key(job, signed)
    found = [np.empty((0, 2), np.int64), *(need_part(place(job, part), key).array("near") for part in signed)]
    return recall(np.concatenate(found), roots)


def _write(
    job: Job, clusters: Part, labels: Labels, first: int, documents: list[Document], stem: str
) -> dict[str, Any]:
    config, name, digests = job.config, f"{stem}.jsonl{job.config.pack}", {}
    roots, kept, dropped = clusters.array("roots"), clusters.array("kept"), clusters.array("dropped")
    low, high = np.searchsorted(dropped, [first, first + len(documents)])
    near = dict(zip(dropped[low:high].tolist(), clusters.array("similarity")[low:high].tolist(), strict=True))
    for kind in ("kept", "dropped"):
        with atomic_write(job.out / kind / name) as target, create_jsonl(target, name) as stream:
            for number, document in enumerate(documents, first):
                if (number in near) != (kind == "dropped"):
                    continue
                record = {config.text_key: document.text, config.id_key or "id": document.id, **document.metadata}
                if kind == "dropped":
                    field = "dedup"
                    while field in record:
                        field = f"pythia_{field}"
                    record[field] = {
                        "document": number, "cluster": int(roots[number]), "kept": int(kept[number]),
                        "kept_id": labels[int(kept[number])][0], "similarity": near[number],
                        "similarity_kind": config.similarity_kind(),
                    }
                stream.write(_line(record))
        digests[f"{kind}/{name}"] = sha256_file(job.out / kind / name)
    return {"kept": len(documents) - len(near), "dropped": len(near), "files": digests}


def _whole(job: Job, done: Part) -> bool:
    """Whether the files a finished part wrote are there as they were written."""
    files = done.facts["files"].items()
    return all((job.out / name).exists() and sha256_file(job.out / name) == mark for name, mark in files)


def _line(record: dict[str, Any]) -> bytes:
    """A record as UTF-8; with escapes where it holds lone surrogates."""
    try:
        return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(record, default=str) + "\n").encode()
