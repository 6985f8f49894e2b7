"""Documents to a token store, in parallel, in order, with the provenance of every document beside it.

    PREFIX.bin, PREFIX.idx       GPT-NeoX's store: each document one sequence; empty ones are left out, as NeoX does
    PREFIX.documents.parquet     document, source, position, id, tokens, metadata (JSON): row i is document i of the store
    PREFIX.json                  last: tokenizer and its sha256, options, counts; its presence means complete
    PREFIX.encoded               only while it runs: what is encoded so far; a run that was killed goes on from there

Cost: the tokenizer's own speed (about 2–4 MB/s per core for GPT-NeoX-20B's); memory is a few batches of documents.
Source: EleutherAI/gpt-neox preprocess_data (one sequence per document, order kept, end-of-document id on request).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.core.parallel import worker_count
from pythia_tools.tokens.documents import Document, expand_inputs, read_documents
from pythia_tools.tokens.dtypes import dtype_for_vocab
from pythia_tools.tokens.journal import Journal, digest_texts
from pythia_tools.tokens.store import prefix_of
from pythia_tools.tokens.writer import StoreWriter

BATCH_CHARS = 1 << 20
BATCH_DOCUMENTS = 2048
END_OF_TEXT = "<|endoftext|>"
ROWS_PER_GROUP = 100_000


@dataclass(frozen=True)
class Tokenized:
    """What was written: documents and tokens in the store, documents left out as empty, documents whose lone
    surrogates were replaced by U+FFFD because a tokenizer takes only valid Unicode."""

    prefix: Path
    documents: int
    tokens: int
    empty: int
    repaired: int


def tokenize(
    inputs: Iterable[str | os.PathLike[str]], prefix: str | os.PathLike[str], tokenizer: Any, *, append_eod: bool = False,
    eod: int | None = None, text_key: str = "text", id_key: str | None = None, workers: int | None = None,
) -> Tokenized:
    """Write the store, the documents' provenance and the record.

    Args:
        inputs: files, folders or data sets, as for documents.expand_inputs.
        prefix: of the files written; those there before are replaced. A run that was killed is gone on with: what it
            encoded is not encoded again, as long as texts and tokenizer are the same.
        tokenizer: a `tokenizers.Tokenizer`, a tokenizer.json, a folder that holds one, or a name on the hub.
        append_eod: end every document with the end-of-document id (Pythia's data has none).
        eod: that id; by default the tokenizer's <|endoftext|>.
        text_key, id_key: fields of a record.
        workers: batches encoded at once; all processors by default.

    Raises: RequestError on a wrong option; DataError on a damaged input; EnvironmentFailure when the disk is full.
    """
    sources = expand_inputs(inputs)
    base = prefix_of(prefix)
    engine, digest = open_tokenizer(tokenizer)
    vocab = engine.get_vocab_size(with_added_tokens=True)
    end = _end_id(engine, eod) if append_eod else None
    record_path = base.with_name(base.name + ".json")
    record_path.unlink(missing_ok=True)
    for ending in (".bin.", ".idx.", ".documents.parquet."):
        files.sweep_parts(base.parent, base.name + ending)  # of a run that was killed
    counts = collections.Counter[str]()
    threads = worker_count(workers)
    with (
        Journal(base.with_name(base.name + ".encoded"), digest) as journal,
        StoreWriter(base, dtype_for_vocab(vocab)) as store,
        _Provenance(base.with_name(base.name + ".documents.parquet")) as table,
    ):
        stream = (d for source in sources for d in read_documents(source, text_key=text_key, id_key=id_key))
        for batch, rows in _encoded(_batches(stream), engine, threads, journal):
            for document, ids in zip(batch, rows, strict=True):
                counts["repaired"] += _repaired(document.text) is not document.text
                if not len(ids):
                    counts["empty"] += 1
                    continue
                row = ids if end is None else np.append(ids, np.uint32(end))
                store.add_document(row)
                table.add(document, len(row))
        written = Tokenized(base, table.count, store.n_tokens, counts["empty"], counts["repaired"])
    files.write_json(record_path, {
        "tokenizer_sha256": digest, "vocab_size": vocab, "dtype": str(dtype_for_vocab(vocab)), "append_eod": append_eod, "eod": end,
        "inputs": sources, "text_key": text_key, "id_key": id_key, "documents": written.documents, "tokens": written.tokens,
        "empty_documents": written.empty, "repaired_documents": written.repaired,
        "idx_sha256": files.sha256_file(base.with_name(base.name + ".idx")),
    })
    journal.remove()
    return written


def open_tokenizer(tokenizer: Any) -> tuple[Any, str]:
    """The tokenizer and the sha256 of its JSON. Raises RequestError when there is none of that name."""
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, str | os.PathLike):
        engine = tokenizer
    else:
        path = Path(tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            engine = Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(str(tokenizer))
        except Exception as error:
            if path.exists():
                raise DataError(f"{path}: not a tokenizer.json ({error})") from error
            raise RequestError(
                f"tokenizer {str(tokenizer)!r} is no file or folder here, and the hub gave none ({' '.join(str(error).split())[:160]})"
            ) from error
    return engine, files.digest(json.loads(engine.to_str()))


def read_provenance(prefix: str | os.PathLike[str]) -> Any:
    """The store's documents as a DataFrame: document, source, position, id, tokens, metadata. Raises DataError when absent."""
    import pandas as pd

    base = prefix_of(prefix)
    path = base.with_name(base.name + ".documents.parquet")
    if not path.exists():
        raise DataError(f"{path}: no such file; `pythia-tools data tokenize` writes it beside a store")
    return pd.read_parquet(path)


class _Provenance:
    """Rows of documents.parquet, written in groups so that memory stays bounded; whole or absent."""

    def __init__(self, path: Path):
        import pyarrow as pa

        self.count = 0
        self._path = path
        self._schema = pa.schema([
            ("document", pa.int64()), ("source", pa.string()), ("position", pa.int64()), ("id", pa.string()), ("tokens", pa.int64()),
            ("metadata", pa.string()),
        ])
        self._rows: list[tuple[Any, ...]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Provenance:
        import pyarrow.parquet as pq

        handle = self._stack.enter_context(files.atomic_write(self._path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(handle, self._schema))
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
        self._stack.__exit__(*error)

    def add(self, document: Document, tokens: int) -> None:
        metadata = json.dumps(document.metadata, default=str) if document.metadata else "{}"
        self._rows.append((self.count, _repaired(document.source), document.position, _repaired(document.id), tokens, metadata))
        self.count += 1
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [[row[i] for row in self._rows] for i in range(len(self._schema))]
        self._writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)], self._schema))
        self._rows = []


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    held: list[Document] = []
    chars = 0
    for document in documents:
        held.append(document)
        chars += len(document.text)
        if chars >= BATCH_CHARS or len(held) >= BATCH_DOCUMENTS:
            yield held
            held, chars = [], 0
    if held:
        yield held


def _encoded(
    batches: Iterable[list[Document]], engine: Any, threads: int, journal: Journal,
) -> Iterator[tuple[list[Document], list[np.ndarray]]]:
    """Batches with their ids, in order; a few batches ahead are encoded while one is written. What the journal holds is not encoded."""

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.array(e.ids, np.uint32) for e in engine.encode_batch_fast(texts, add_special_tokens=False)]

    waiting: collections.deque[tuple[list[Document], bytes, Future[list[np.ndarray]]]] = collections.deque()

    def first() -> tuple[list[Document], list[np.ndarray]]:
        batch, digest, rows = waiting.popleft()
        journal.add(digest, rows.result())
        bar.update(len(batch))
        return batch, rows.result()

    with ThreadPoolExecutor(threads) as pool, progress.bar(None, "tokenizing", "documents") as bar:
        for batch in batches:
            texts = [_repaired(d.text) for d in batch]
            digest = digest_texts(texts)
            known = journal.take(digest)
            if known is not None:
                bar.update(len(batch))
                yield batch, known
                continue
            waiting.append((batch, digest, pool.submit(encode, texts)))
            if len(waiting) > threads + 1:
                yield first()
        while waiting:
            yield first()


def _repaired(text: str) -> str:
    """The same string, or with U+FFFD for lone surrogates, which no tokenizer and no parquet file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _end_id(engine: Any, eod: int | None) -> int:
    if eod is not None:
        if not 0 <= eod < engine.get_vocab_size():
            raise RequestError(f"end-of-document id {eod} is not in the vocabulary (0 to {engine.get_vocab_size() - 1})")
        return eod
    found = engine.token_to_id(END_OF_TEXT)
    if found is None:
        raise RequestError(f"the tokenizer has no {END_OF_TEXT}; name the end-of-document id with --eod")
    return int(found)


def check_complete(prefix: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a finished store. Raises EnvironmentFailure when tokenizing did not finish."""
    base = prefix_of(prefix)
    path = base.with_name(base.name + ".json")
    if not path.exists():
        raise EnvironmentFailure(f"{base}: not complete (no {path.name}); run `pythia-tools data tokenize` again")
    return dict(files.read_json(path))
