"""Stage 4, filter: the input read once more, kept documents to one place, dropped ones to another with the reason.

    kept/SHARD-PART.jsonl      records as they came: text, id, metadata
    dropped/SHARD-PART.jsonl   the same, and under "dedup": document, cluster, kept (number), kept_id, similarity, kind

The texts' sha256 is compared with what was signed, so a changed input is refused, not filtered.
Cost: reading, hashing and writing the text.
"""

import itertools
import json
from typing import Any

import numpy as np

from pythia_tools.core.files import atomic_write, sha256_file
from pythia_tools.dedup.cluster import cluster_key
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sign import Job, Labels, check_unchanged, first_documents
from pythia_tools.tokens.documents import Document, create_jsonl


def filter_shard(job: Job, number: int) -> None:
    """Write the kept and dropped documents of one shard, part by part; finished parts are left."""
    signed = job.signed()
    key = {**cluster_key(job.config, signed), "stage": "filter", "pack": job.config.pack}
    clusters = need_part(job.work / "clusters", cluster_key(job.config, signed))
    labels, firsts = Labels(signed), first_documents(signed)
    mine = [i for i, part in enumerate(signed) if part.path.parent.name == f"{number:05}"]
    documents = job.read_shard(number)
    for i in mine:
        held = list(itertools.islice(documents, signed[i].facts["documents"]))
        check_unchanged(signed[i], held)
        stem = f"{number:05}-{signed[i].path.name.removeprefix('part-')}"
        done = open_part(job.work / "filter" / stem, key)
        if done is None or not _whole(job, done):
            facts = _write(job, clusters, labels, int(firsts[i]), held, stem)
            write_part(job.work / "filter" / stem, key, {}, facts)
    if mine and next(documents, None) is not None:
        check_unchanged(signed[mine[-1]], [])


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
                    record["dedup"] = {
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
