"""Documents to a token store, in parallel, in order, with the provenance of every document beside it.

    PREFIX.bin, PREFIX.idx       GPT-NeoX's store: each document one sequence; empty ones are left out, as NeoX does
    PREFIX.documents.parquet     document, source, position, id, tokens, metadata (JSON); row i: document i of the store
    PREFIX.tokenizer.json        the tokenizer, so that an order over the store shows text without being told
    PREFIX.json                  last: sha256 of store and tokenizer, options, counts; its presence means complete
    PREFIX.encoded/              only while it runs: a cell per batch that is encoded, so that a killed run resumes

Cost: the tokenizer's own speed (about 2–4 MB/s per core for GPT-NeoX-20B's); memory is a few batches of documents.
Source: EleutherAI/gpt-neox preprocess_data (one sequence per document, order kept, end-of-document id on request).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.parallel import map_ahead, worker_count
from pythia_tools.core.results import CellStore
from pythia_tools.tokens.documents import Document, batched, expand_inputs, read_documents, repaired
from pythia_tools.tokens.index import dtype_for_vocab
from pythia_tools.tokens.store import PROVENANCE, RECORD, beside, prefix_of
from pythia_tools.tokens.tokenizer import END_OF_TEXT, Openable, Tokenizer, open_tokenizer
from pythia_tools.tokens.writer import StoreWriter

BATCH_CHARS = 1 << 22
BATCH_DOCUMENTS = 2048
ROWS_PER_GROUP = 100_000
COLUMNS = pa.schema({"document": pa.int64(), "source": pa.string(), "position": pa.int64(), "id": pa.string(),
                        "tokens": pa.int64(), "metadata": pa.string()})


@dataclass(frozen=True)
class Tokenized:
    """What was read and written: inputs (files or splits) and the documents in them; documents and tokens in the store,
    documents left out as empty, documents whose lone surrogates were replaced by U+FFFD because a tokenizer takes only
    valid Unicode."""

    prefix: Path
    inputs: int
    read: int
    documents: int
    tokens: int
    empty: int
    repaired: int


def tokenize(
    inputs: Iterable[str | os.PathLike[str]], prefix: str | os.PathLike[str], tokenizer: Openable, *,
    append_eod: bool = False, eod: int | None = None, text_key: str = "text", id_key: str | None = None,
    workers: int | None = None,
) -> Tokenized:
    """Write the store, the documents' provenance and the record.

    Args:
        inputs: files, folders or data sets, as for documents.expand_inputs.
        prefix: of the files written; those there before are replaced. A run that was killed resumes: what it encoded
            is not encoded again, as long as texts and tokenizer are the same.
        tokenizer: what open_tokenizer takes.
        append_eod: end every document with the end-of-document id (Pythia's data has none).
        eod: that id; by default the tokenizer's <|endoftext|>.
        text_key, id_key: fields of a record.
        workers: batches encoded at once; one per core by default.

    Raises: RequestError on a wrong option; DataError on a damaged input, or inputs that hold no text;
    EnvironmentFailure when the disk is full.
    """
    if eod is not None and not append_eod:
        raise RequestError(f"end-of-document id {eod} is given and no document ends with it; say --append-eod as well")
    sources, base, opened = expand_inputs(inputs), prefix_of(prefix), open_tokenizer(tokenizer)
    dtype, end = dtype_for_vocab(len(opened)), _end_id(opened, eod) if append_eod else None
    beside(base, RECORD).unlink(missing_ok=True)
    for ending in (".bin.", ".idx.", f"{PROVENANCE}."):
        files.sweep_parts(base.parent, base.name + ending)  # of a run that was killed
    empty = mended = 0
    with _kept_until_done(beside(base, ".encoded")) as cells:
        with StoreWriter(base, dtype) as store, _provenance(beside(base, PROVENANCE)) as add:
            stream = (d for source in sources for d in read_documents(source, text_key=text_key, id_key=id_key))
            batches = batched(stream, BATCH_CHARS, BATCH_DOCUMENTS)
            for document, ids in _encoded(batches, opened, worker_count(workers), cells):
                mended += repaired(document.text) is not document.text
                if not len(ids):
                    empty += 1
                    continue
                row = ids if end is None else np.append(ids, np.uint32(end))
                add({
                    "document": len(store), "source": repaired(document.source), "position": document.position,
                    "id": repaired(document.id), "tokens": len(row),
                    "metadata": json.dumps(document.metadata, default=str),
                })
                store.add_document(row)
            if not len(store):
                raise DataError(f"{', '.join(sources[:3])}: {empty} documents, none of which holds any text; name the "
                                "field with --text-key, or give other inputs")
        written = Tokenized(base, len(sources), len(store) + empty, len(store), store.n_tokens, empty, mended)
        files.write_text(beside(base, ".tokenizer.json"), opened.engine.to_str())
        files.write_json(beside(base, RECORD), {
            "tokenizer": opened.source, "tokenizer_sha256": opened.digest, "vocab_size": len(opened),
            "dtype": str(dtype), "append_eod": append_eod, "eod": end, "inputs": sources, "text_key": text_key,
            "id_key": id_key, "documents": written.documents, "tokens": written.tokens, "empty_documents": empty,
            "repaired_documents": mended,
            "bin_sha256": store.sha256, "idx_sha256": files.sha256_file(beside(base, ".idx")),
        })
    return written


def read_provenance(prefix: str | os.PathLike[str]) -> pd.DataFrame:
    """The store's documents: document, source, position, id, tokens, metadata. Raises DataError when absent."""
    base = prefix_of(prefix)
    path = beside(base, PROVENANCE)
    if not path.is_file():
        raise DataError(f"{path}: no such file; `pythia-tools data tokenize` writes it beside a store")
    try:
        return pq.read_table(path, columns=COLUMNS.names, schema=COLUMNS).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not the documents of a store ({error}); run `data tokenize` again") from error


@contextlib.contextmanager
def _provenance(path: Path) -> Iterator[Callable[[dict[str, object]], None]]:
    """Takes the rows of documents.parquet and writes them in groups, so that memory stays bounded; whole or absent."""
    rows: list[dict[str, object]] = []
    with files.atomic_write(path) as handle, pq.ParquetWriter(handle, COLUMNS) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, COLUMNS))
            rows.clear()

        def add(row: dict[str, object]) -> None:
            rows.append(row)
            if len(rows) == ROWS_PER_GROUP:
                flush()

        yield add
        flush()


@contextlib.contextmanager
def _kept_until_done(folder: Path) -> Iterator[CellStore]:
    """Encoded batches beside a store that is being written; they stay when that ends early, unless there are none."""
    try:
        yield CellStore(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    shutil.rmtree(folder)


def _encoded(
    batches: Iterable[list[Document]], tokenizer: Tokenizer, threads: int, cells: CellStore,
) -> Iterator[tuple[Document, np.ndarray]]:
    """Documents with their ids, in order; a few batches are encoded ahead, those that are in a cell are read."""

    def encode(batch: list[Document]) -> tuple[list[Document], list[np.ndarray]]:
        texts = [repaired(d.text) for d in batch]
        key = ["encoded", tokenizer.digest, files.digest(texts)]
        found = cells.get(key)
        if found is None:
            ids = [np.array(row, np.uint32) for row in tokenizer.ids(texts)]
            found = cells.put(key, pd.DataFrame({"ids": ids}))
        return batch, found["ids"].tolist()

    with progress.bar(None, "tokenizing", "documents") as bar:
        for batch, rows in map_ahead(encode, batches, threads, ahead=threads + 1):
            bar.update(len(batch))
            yield from zip(batch, rows, strict=True)


def _end_id(tokenizer: Tokenizer, eod: int | None) -> int:
    if eod is not None:
        if not 0 <= eod < len(tokenizer):
            raise RequestError(f"end-of-document id {eod} is not in the vocabulary (0 to {len(tokenizer) - 1})")
        return eod
    found = tokenizer.engine.token_to_id(END_OF_TEXT)
    if found is None:
        raise RequestError(f"the tokenizer has no {END_OF_TEXT}; name the end-of-document id with --eod")
    return int(found)
