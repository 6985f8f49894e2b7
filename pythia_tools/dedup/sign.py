"""Stage 1, sign: documents to signatures (or sets of shingle hashes), a part of the input at a time.

A shard is one input file, or many small ones; it is read as a stream and cut into parts of about `part_bytes` of text.
A part holds what later stages need of its documents: signatures and the sorted keys of their bands (8 bytes of key and
4 of document per band), or sets; labels (id, group, preview); sizes; and the sha256 of the texts, by which the last
stage knows that the input is still the same.
Cost: reading and signing overlap; memory is two parts of text and one of output.
"""

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.parallel import map_ahead, worker_count
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.lsh import sorted_keys
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.recall import Sample, draw
from pythia_tools.dedup.sets import ShingleSets, shingle_sets
from pythia_tools.dedup.shingles import Packed, pack, take
from pythia_tools.dedup.signatures import sign
from pythia_tools.tokens import open_tokenizer
from pythia_tools.tokens.documents import DATASET, Document, batched, read_documents, repaired

PREVIEW_CHARS = 80
LSH = ("num_perm", "seed", "scheme", "hashing", "threshold", "bands", "rows")
_tokenizer = functools.cache(open_tokenizer)


@dataclass(frozen=True)
class Job:
    """What every task of a run knows: the options, the inputs by shard, and the run's folder."""

    config: DedupConfig
    shards: list[list[str]]
    out: Path

    @property
    def work(self) -> Path:
        """The folder of what the stages hand on."""
        return self.out / "work"

    def signed(self) -> list[Part]:
        """All signed parts in order of the documents. Raises DataError when the stage is not complete."""
        found = []
        for number, shard in enumerate(self.shards):
            key, home = sign_key(self.config, shard), self.work / "sign" / f"{number:05}"
            count = need_part(home / "end", key).facts["parts"]
            found += [need_part(home / f"part-{i:05}", key) for i in range(count)]
        return found

    def read_shard(self, number: int, skip: int = 0) -> Iterator[Document]:
        """A shard's documents from the skip-th on."""
        read = functools.partial(read_documents, text_key=self.config.text_key, id_key=self.config.id_key)
        shard = self.shards[number]
        if len(shard) == 1:
            return read(shard[0], skip=skip)
        return itertools.islice(itertools.chain.from_iterable(map(read, shard)), skip, None)


def make_shards(sources: list[str], part_bytes: int) -> list[list[str]]:
    """Consecutive small files together, big ones and data sets alone."""
    shards: list[list[str]] = []
    room = 0
    for source in sources:
        size = part_bytes if source.startswith(DATASET) else os.path.getsize(source)
        if not shards or size > room:
            shards.append([])
            room = part_bytes
        shards[-1].append(source)
        room -= size
    return shards


def sign_key(config: DedupConfig, shard: list[str]) -> dict[str, Any]:
    """What decides a signed part: the options that bear on it, and the files it was made from."""
    names = ["method", "ngram", "unit", "tokenizer", "text_key", "id_key", "group_by", "part_bytes"]
    names += [*LSH, "judged"] if config.method == "lsh" else []
    sizes = [None if s.startswith(DATASET) else os.path.getsize(s) for s in shard]
    chosen = {name: getattr(config, name) for name in names}
    return {"stage": "sign", "format": 2, "sets": config.needs_sets, "shard": shard, "sizes": sizes, **chosen}


def sign_shard(job: Job, number: int, workers: int | None) -> None:
    """Sign one shard's documents; parts that are there already are kept."""
    config, home, key = job.config, job.work / "sign" / f"{number:05}", sign_key(job.config, job.shards[number])
    if open_part(home / "end", key) is not None:
        return
    count = skip = 0
    while (done := open_part(home / f"part-{count:05}", key)) is not None:
        count, skip = count + 1, skip + done.facts["documents"]

    def work(task: tuple[int, list[Document]]) -> None:
        texts = pack([d.text for d in task[1]])
        labels = pack([json.dumps(_label(config, d)) for d in task[1]])  # JSON, since it holds any string
        facts = {"documents": len(task[1]), "bytes": int(texts.offsets[-1]), "text_sha256": _digest(texts)}
        arrays = {"bytes": np.diff(texts.offsets), "labels": labels.data, "label_ends": labels.offsets}
        arrays |= _signed(config, in_units(config, task[1], texts), worker_count(workers), [number, task[0]])
        write_part(home / f"part-{task[0]:05}", key, arrays, facts)

    batches = enumerate(batched(job.read_shard(number, skip), config.part_bytes), count)
    for _ in map_ahead(work, batches, 1, ahead=2):  # one part is signed while the next is read
        count += 1
    write_part(home / "end", key, {}, {"parts": count})


def first_documents(parts: list[Part]) -> np.ndarray:
    """Number of each part's first document, and behind the last the count of all; int64 (parts + 1,)."""
    return np.cumsum([0, *(p.facts["documents"] for p in parts)], dtype=np.int64)


def by_part(firsts: np.ndarray, documents: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each part that holds some of `documents`: its number, which of them (bool), and their numbers within it."""
    owner = np.searchsorted(firsts, documents, "right") - 1
    for part in np.unique(owner).tolist():
        yield part, owner == part, documents[owner == part] - firsts[part]


def check_unchanged(part: Part, documents: list[Document]) -> Packed:
    """Their texts, packed. Raises DataError when the documents are not those the part was made from."""
    texts = pack([d.text for d in documents])
    if len(documents) != part.facts["documents"] or _digest(texts) != part.facts["text_sha256"]:
        source, work = documents[0].source if documents else part.path, part.path.parents[1]
        advice = f"restore it, or delete {work} and run the same command again"
        raise DataError(f"{source}: changed since it was signed; {advice}")
    return texts


class Labels:
    """Id, group and preview of documents by number, read from the parts as asked for."""

    def __init__(self, signed: list[Part]):
        self._signed, self._firsts = signed, first_documents(signed)
        self._arrays = functools.lru_cache(64)(lambda part: [signed[part].array(n) for n in ("labels", "label_ends")])

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return map(self.__getitem__, range(int(self._firsts[-1])))

    def __getitem__(self, document: int) -> tuple[str, str, str]:
        part = int(np.searchsorted(self._firsts, document, "right")) - 1
        labels, ends = self._arrays(part)
        i = document - int(self._firsts[part])
        return tuple(json.loads(labels[ends[i] : ends[i + 1]].tobytes()))


def _digest(packed: Packed) -> str:
    """sha256 of texts and their lengths."""
    mark = hashlib.sha256(packed.data.data)
    mark.update(packed.offsets.data)
    return mark.hexdigest()


def in_units(config: DedupConfig, documents: list[Document], texts: Packed) -> Packed:
    """Documents in the unit of their shingles; `texts` are theirs, packed."""
    if config.tokenizer is None:
        return Packed(texts.data, texts.offsets, config.unit)
    return pack(_tokenizer(config.tokenizer).ids([repaired(d.text) for d in documents]), "token")


def _signed(config: DedupConfig, packed: Packed, threads: int, seed: list[int]) -> dict[str, np.ndarray]:
    """Signatures with the keys of their bands, sets, and a sample's sets, as far as the later stages need them."""
    arrays: dict[str, np.ndarray] = {}
    if config.method == "lsh":
        signatures = sign(packed, config, threads).astype(np.uint32)  # legacy values are below 2^32 too
        arrays |= {"signatures": signatures, **sorted_keys(signatures, *config.bands_and_rows())}
    if config.judges:
        numbers, priorities = draw(len(packed), config.judged, seed)
        sets = shingle_sets(take(packed, numbers), config.ngram, threads)
        arrays |= {"judged": numbers, "judged_priorities": priorities}
        arrays |= {"judged_values": sets.values, "judged_sizes": sets.sizes}
    if config.needs_sets:
        sets = shingle_sets(packed, config.ngram, threads)
        arrays |= {"set_values": sets.values, "set_offsets": sets.offsets}
    return arrays


def judged_sample(config: DedupConfig, signed: list[Part]) -> Sample:
    """The documents to judge, of all parts, with their sets."""
    firsts = first_documents(signed)
    documents = np.concatenate([part.array("judged") + first for part, first in zip(signed, firsts, strict=False)])
    priorities, sizes, values = (
        np.concatenate([part.array(f"judged_{name}") for part in signed]) for name in ("priorities", "sizes", "values")
    )
    best = np.sort(np.argsort(priorities)[: config.judged])
    best = best[sizes[best] > 0]
    ends = np.cumsum(sizes)
    pieces = [values[end - size : end] for end, size in zip(ends[best].tolist(), sizes[best].tolist(), strict=True)]
    return Sample(documents[best], ShingleSets.of_sizes(np.concatenate([values[:0], *pieces]), sizes[best]))


def _label(config: DedupConfig, document: Document) -> tuple[str, str, str]:
    """Id, group and preview. The group is a metadata field's value, else the id's ending or the source's name."""
    preview = " ".join(document.text[: 4 * PREVIEW_CHARS].split())[:PREVIEW_CHARS]
    if config.group_by is not None:
        return document.id, str(document.metadata.get(config.group_by, "(none)")), preview
    ending = os.path.splitext(document.id)[1]
    known = 1 < len(ending) <= 6 and ending[1:].isalnum()
    return document.id, ending.lower() if known else os.path.basename(document.source), preview
