"""Stage 4, filter: the input read once more, kept documents to one place, dropped ones to another with the reason.

    kept/SHARD-PART.jsonl      records as they came: text, id, metadata
    dropped/SHARD-PART.jsonl   the same, and under "dedup": document, cluster, kept (number), kept_id, similarity, kind

The texts' sha256 is compared with what was signed, so a changed input is refused, not filtered.
Cost: reading, hashing and writing the text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.files import atomic_write, sha256_file
from pythia_tools.dedup.cluster import cluster_key
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sign import check_unchanged, first_documents, read_shard, signed_parts
from pythia_tools.tokens.documents import Document, create_jsonl


def filter_shard(options: dict[str, Any], shards: list[list[str]], number: int, out: str) -> None:
    """Write the kept and dropped documents of one shard, part by part; finished parts are left."""
    config = DedupConfig(**options)
    work = Path(out) / "work"
    signed = signed_parts(config, shards, work / "sign")
    key = {**cluster_key(config, signed), "stage": "filter", "pack": config.pack}
    clusters = need_part(work / "clusters", cluster_key(config, signed))
    ids = clusters.file("kept_ids.jsonl").read_text(encoding="ascii").splitlines()
    mine = [i for i, part in enumerate(signed) if part.path.parent.name == f"{number:05}"]
    documents = read_shard(config, shards[number])
    for i in mine:
        held = [d for _, d in zip(range(signed[i].facts["documents"]), documents, strict=False)]
        stem = f"{number:05}-{signed[i].path.name.removeprefix('part-')}"
        check_unchanged(signed[i], held)
        done = open_part(work / "filter" / stem, key)
        if done is None or not _whole(done, Path(out)):
            facts = _write(config, clusters, ids, int(first_documents(signed)[i]), held, Path(out), stem)
            write_part(work / "filter" / stem, key, {}, facts)
    if mine and next(documents, None) is not None:
        check_unchanged(signed[mine[-1]], [])


def _write(
    config: DedupConfig, clusters: Part, ids: list[str], first: int, documents: list[Document], out: Path, stem: str
) -> dict[str, Any]:
    roots, kept = clusters.array("roots"), clusters.array("kept")
    dropped, similarity = clusters.array("dropped"), clusters.array("similarity")
    low, high = np.searchsorted(dropped, [first, first + len(documents)])
    near = {int(d): (float(s), json.loads(i)) for d, s, i in zip(dropped[low:high], similarity[low:high], ids[low:high], strict=True)}
    digests = {}
    name = f"{stem}.jsonl{config.pack}"
    for kind in ("kept", "dropped"):
        with atomic_write(out / kind / name) as target, create_jsonl(target, name) as stream:
            for number, document in enumerate(documents, first):
                if (number in near) != (kind == "dropped"):
                    continue
                record = {config.text_key: document.text, config.id_key or "id": document.id, **document.metadata}
                if kind == "dropped":
                    record["dedup"] = {
                        "document": number, "cluster": int(roots[number]), "kept": int(kept[number]), "kept_id": near[number][1],
                        "similarity": near[number][0], "similarity_kind": config.similarity_kind(),
                    }
                stream.write(_line(record))
        digests[f"{kind}/{name}"] = sha256_file(out / kind / name)
    return {"kept": len(documents) - len(near), "dropped": len(near), "files": digests}


def _whole(done: Part, out: Path) -> bool:
    """Whether the files a finished part wrote are there as they were written."""
    return all((out / name).exists() and sha256_file(out / name) == mark for name, mark in done.facts["files"].items())


def _line(record: dict[str, Any]) -> bytes:
    """A record as UTF-8; with escapes where it holds lone surrogates."""
    try:
        return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(record, default=str) + "\n").encode()
