"""Stage 1, sign: documents to signatures (or sets of shingle hashes), a part of the input at a time.

A shard is one input file, or many small ones; it is read as a stream and cut into parts of about `part_bytes` of text.
A part holds what later stages need of its documents: signatures or sets, ids, sizes, and the sha256 of the texts, by
which the last stage knows that the input is still the same.
Cost: reading and signing overlap; memory is two parts of text and one of output.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.parts import Part, need_part, open_part, write_part
from pythia_tools.dedup.sets import shingle_sets
from pythia_tools.dedup.shingles import Packed, pack
from pythia_tools.dedup.signatures import minhash_signatures
from pythia_tools.tokens.documents import DATASET, Document, read_documents

PREVIEW_CHARS = 80


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
    names = ["ngram", "unit", "tokenizer", "text_key", "id_key", "group_by", "part_bytes"]
    names += ["num_perm", "seed", "scheme", "hashing"] if config.method == "lsh" else []
    chosen = {name: getattr(config, name) for name in names}
    sizes = [None if s.startswith(DATASET) else os.path.getsize(s) for s in shard]
    return {"stage": "sign", "sets": config.needs_sets, "method": config.method, "shard": shard, "sizes": sizes, **chosen}


def sign_shard(options: dict[str, Any], shard: list[str], number: int, folder: str, workers: int | None) -> int:
    """Sign one shard's documents; parts that are there already are kept. Returns the number of parts."""
    config = DedupConfig(**options)
    home = Path(folder) / f"{number:05}"
    key = sign_key(config, shard)
    if (done := open_part(home / "end", key)) is not None:
        return int(done.facts["parts"])
    finished = list(_finished_parts(home, key))
    skip = sum(part.facts["documents"] for part in finished)
    waiting: Future[Part] | None = None
    count = len(finished)
    with ThreadPoolExecutor(1) as pool:  # one part is signed while the next is read
        for batch in _batches(read_shard(config, shard, skip), config.part_bytes):
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(_sign_part, config, key, batch, home / f"part-{count:05}", worker_count(workers))
            count += 1
        if waiting is not None:
            waiting.result()
    write_part(home / "end", key, {}, {"parts": count})
    return count


def signed_parts(config: DedupConfig, shards: list[list[str]], folder: Path) -> list[Part]:
    """All parts in order of the documents. Raises DataError when the stage is not complete."""
    found = []
    for number, shard in enumerate(shards):
        key = sign_key(config, shard)
        home = folder / f"{number:05}"
        for i in range(need_part(home / "end", key).facts["parts"]):
            found.append(need_part(home / f"part-{i:05}", key))
    return found


def first_documents(parts: list[Part]) -> np.ndarray:
    """Number of each part's first document, and behind the last the count of all; int64 (parts + 1,)."""
    return np.concatenate([[0], np.cumsum([p.facts["documents"] for p in parts], dtype=np.int64)]).astype(np.int64)


def read_shard(config: DedupConfig, shard: list[str], skip: int = 0) -> Iterator[Document]:
    """A shard's documents from the skip-th on."""
    options = {"text_key": config.text_key, "id_key": config.id_key}
    if len(shard) == 1:
        return read_documents(shard[0], skip=skip, **options)  # type: ignore[arg-type]
    chained = itertools.chain.from_iterable(read_documents(source, **options) for source in shard)  # type: ignore[arg-type]
    return itertools.islice(chained, skip, None)


def pack_texts(documents: list[Document]) -> tuple[Packed, str]:
    """Texts packed for the kernels, and the sha256 of texts and their lengths."""
    packed = pack([d.text for d in documents])
    mark = hashlib.sha256(packed.data.data)
    mark.update(packed.offsets.data)
    return packed, mark.hexdigest()


def check_unchanged(part: Part, documents: list[Document]) -> None:
    """Raises DataError when the documents are not those the part was made from."""
    if len(documents) != part.facts["documents"] or pack_texts(documents)[1] != part.facts["text_sha256"]:
        source = documents[0].source if documents else part.path
        work = part.path.parents[1]
        raise DataError(f"{source}: changed since it was signed; restore it, or delete {work} and run the same command again")


class Labels:
    """Ids, groups and previews of documents by number, read from the parts as asked for."""

    def __init__(self, signed: list[Part]):
        self._signed, self._firsts = signed, first_documents(signed)

    def of(self, documents: np.ndarray) -> dict[int, tuple[str, str, str]]:
        """number → (id, group, preview)."""
        found = {}
        wanted = np.unique(documents)
        owner = np.searchsorted(self._firsts, wanted, "right") - 1
        for part in np.unique(owner).tolist():
            lines = self._lines(part)
            for d in wanted[owner == part].tolist():
                found[d] = tuple(json.loads(lines[d - int(self._firsts[part])]))
        return found  # type: ignore[return-value]

    def ids(self, documents: np.ndarray) -> list[str]:
        """Ids of documents given in ascending order, read a part at a time."""
        found: list[str] = []
        owner = np.searchsorted(self._firsts, documents, "right") - 1
        for part in np.unique(owner).tolist():
            lines = self._lines(part)
            found += [json.loads(lines[d])[0] for d in (documents[owner == part] - self._firsts[part]).tolist()]
        return found

    def everything(self) -> Iterator[tuple[str, str, str]]:
        """All documents in order."""
        for part in range(len(self._signed)):
            for line in self._lines(part):
                yield tuple(json.loads(line))

    def _lines(self, part: int) -> list[str]:
        return self._signed[part].file("labels.jsonl").read_text(encoding="ascii").splitlines()


def _finished_parts(home: Path, key: object) -> Iterator[Part]:
    for i in itertools.count():
        part = open_part(home / f"part-{i:05}", key)
        if part is None:
            return
        yield part


def _batches(documents: Iterable[Document], limit: int) -> Iterator[list[Document]]:
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= limit:
            yield held
            held, size = [], 0
    if held:
        yield held


def _sign_part(config: DedupConfig, key: object, documents: list[Document], path: Path, threads: int) -> Part:
    packed, mark = pack_texts(documents)
    size = int(packed.offsets[-1])
    arrays: dict[str, np.ndarray] = {"bytes": np.diff(packed.offsets)}
    if config.tokenizer is not None:
        packed = pack(_token_ids(config.tokenizer, documents), "token")
    else:
        packed = Packed(packed.data, packed.offsets, config.unit)
    if config.method == "lsh":
        arrays["signatures"] = minhash_signatures(
            packed, config.num_perm, config.seed, config.ngram, scheme=config.scheme, hashing=config.hashing, unit=config.unit,
            workers=threads,
        ).astype(np.uint32)  # legacy values are below 2^32 too
    if config.needs_sets:
        sets = shingle_sets(packed, config.ngram, threads)
        arrays["set_values"], arrays["set_offsets"] = sets.values, sets.offsets
    facts = {"documents": len(documents), "bytes": size, "text_sha256": mark}
    return write_part(path, key, arrays, facts, lambda folder: _write_labels(folder / "labels.jsonl", config, documents))


def _write_labels(path: Path, config: DedupConfig, documents: list[Document]) -> None:
    """One line per document: id, group, preview. Plain JSON, since it holds any string."""
    with open(path, "w", encoding="ascii") as handle:
        for d in documents:
            preview = " ".join(d.text[: 4 * PREVIEW_CHARS].split())[:PREVIEW_CHARS]
            handle.write(json.dumps([d.id, group_of(config, d), preview]) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def group_of(config: DedupConfig, document: Document) -> str:
    """The kind of a document for the report: a metadata field's value, else the ending of its id or the name of its source."""
    if config.group_by is not None:
        return str(document.metadata.get(config.group_by, "(none)"))
    ending = os.path.splitext(document.id)[1]
    return ending.lower() if 1 < len(ending) <= 6 and ending[1:].isalnum() else os.path.basename(document.source)


_tokenizers: collections.OrderedDict[str, Any] = collections.OrderedDict()


def _token_ids(name: str, documents: list[Document]) -> list[np.ndarray]:
    from pythia_tools.tokens.tokenize import _repaired, open_tokenizer

    if name not in _tokenizers:
        _tokenizers[name] = open_tokenizer(name)[0]
    found = _tokenizers[name].encode_batch_fast([_repaired(d.text) for d in documents], add_special_tokens=False)
    return [np.array(e.ids, np.uint32) for e in found]
