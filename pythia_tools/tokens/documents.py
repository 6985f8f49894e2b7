"""Documents from files: jsonl (plain, gz, zst), parquet, text files, folders of these, and `datasets` data sets.

One record type, read as a stream in a fixed order: inputs as given, folders sorted by path, lines and rows in turn.
Ids and metadata are kept. Bytes that are not UTF-8 become lone surrogates (Python's `surrogateescape`), so nothing is
dropped unseen and equal bytes stay equal text.
Cost: JSON decides, about 200–400 MB/s per process; memory is one line or one batch of rows.
"""

import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError, UnknownNameError

JSON_NAMES = (".jsonl", ".ndjson", ".json")
TEXT_NAMES = (".txt", ".text", ".md", ".rst", ".py", ".pyi", ".html", ".tex", ".csv", ".tsv", ".xml")
DATASET = "dataset:"
_PACKED = ("", ".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Document:
    """One text before packing. `source`: the input it came from; `position`: its 0-based line, row or example there."""

    text: str
    id: str
    source: str
    position: int
    metadata: dict[str, Any] = field(default_factory=dict)


def expand_inputs(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Inputs as single files or data sets: folders are replaced by the files below them that can be read, sorted.

    Raises: RequestError when an input does not exist, is of no known kind, or a folder holds nothing readable.
    """
    found: list[str] = []
    for entry in inputs:
        name = os.fspath(entry)
        path = Path(name)
        if name.startswith(DATASET) or path.is_file():
            kind_of(name)
            found.append(name)
        elif path.is_dir():
            below = [str(p) for p in sorted(path.rglob("*")) if p.is_file() and _kind(p.name) and not _hidden(p, path)]
            if not below:
                raise RequestError(f"{name}: no readable file in this folder; readable are {_readable()}")
            found += below
        else:
            raise RequestError(f"{name}: no such file or folder; for a data set say {DATASET}NAME")
    if not found:
        raise RequestError("no input; give files, folders, or dataset:NAME")
    return found


def kind_of(name: str) -> str:
    """`json`, `parquet`, `text` or `dataset`. Raises RequestError for anything else."""
    kind = "dataset" if name.startswith(DATASET) else _kind(Path(name).name)
    if not kind:
        raise RequestError(f"{name}: unknown kind of file; readable are {_readable()}")
    return kind


def read_documents(
    source: str | os.PathLike[str], *, text_key: str = "text", id_key: str | None = None, skip: int = 0
) -> Iterator[Document]:
    """Documents of one input, in order.

    Args:
        source: a file (see expand_inputs for folders) or `dataset:NAME[:CONFIG][@SPLIT]`, where NAME is on the hub
            (streamed) or a folder written by `save_to_disk`.
        text_key: field of a record that holds the text.
        id_key: field that holds the id; by default `id` if there is one, else "source:position".
        skip: leave out the first documents.

    Raises: DataError, naming file and line, when a record is damaged or lacks the field; RequestError: unknown kind.
    """
    name = os.fspath(source)
    kind = kind_of(name)
    if kind == "text":
        if skip == 0:
            yield Document(_whole(name), name, name, 0)
        return
    records = {"json": _json_records, "parquet": _parquet_records, "dataset": _dataset_records}[kind](name, skip)
    for position, record in records:
        yield _document(record, name, position, text_key, id_key)


def batched(documents: Iterable[Document], chars: int, most: int | None = None) -> Iterator[list[Document]]:
    """Documents in lists: each full at `chars` characters of text or `most` documents."""
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= chars or len(held) == most:
            yield held
            held, size = [], 0
    if held:
        yield held


def repaired(text: str) -> str:
    """The same string, or with U+FFFD for lone surrogates, which no tokenizer and no table can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@contextlib.contextmanager
def open_bytes(name: str) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked by its suffix (.gz, .zst).

    Raises: DataError when it cannot be read, is damaged or is cut off inside a frame.
    """
    try:
        if name.endswith(".zst"):
            with pa.input_stream(name, compression="zstd") as stream:
                yield io.BufferedReader(stream, 1 << 20)
        else:
            with gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb") as stream:
                yield io.BufferedReader(stream, 1 << 20)
    except (DataError, EnvironmentFailure):
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged or cut off ({error}); fetch it again") from error


@contextlib.contextmanager
def create_jsonl(target: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """A stream that packs what is written to `target` by the suffix of `name`; equal content gives equal bytes."""
    if name.endswith(".gz"):
        with gzip.GzipFile("", "wb", 6, target, mtime=0) as stream:
            yield stream  # type: ignore[misc]
    elif name.endswith(".zst"):
        try:
            import zstandard
        except ImportError as error:
            raise EnvironmentFailure(f"{name}: needs zstandard; pip install 'pythia-tools[zstd]'") from error
        with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as stream:
            yield stream
    else:
        yield target


def _kind(name: str) -> str:
    lower = name.lower()
    for suffix in _PACKED[1:]:
        lower = lower.removesuffix(suffix)
    if lower.endswith(JSON_NAMES):
        return "json"
    if lower.endswith(".parquet") and lower == name.lower():
        return "parquet"
    return "text" if lower.endswith(TEXT_NAMES) else ""


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _readable() -> str:
    return f"{', '.join(JSON_NAMES + TEXT_NAMES)} (each also with .gz or .zst), .parquet"


def _whole(name: str) -> str:
    with open_bytes(name) as stream:
        return stream.read().decode("utf-8", "surrogateescape")


def _json_records(name: str, skip: int) -> Iterator[tuple[int, Any]]:
    with open_bytes(name) as stream:
        lines = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        for position, (number, line) in islice(enumerate(lines), skip, None):
            try:
                yield position, json.loads(line.decode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise DataError(
                    f"{name}, line {number}: not valid JSON ({error}); one record per line is expected") from error


def _parquet_records(name: str, skip: int) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as pq

    try:
        position = 0
        with pq.ParquetFile(name) as file:
            for batch in file.iter_batches(1024):
                left_out = min(batch.num_rows, max(0, skip - position))
                yield from enumerate(batch.slice(left_out).to_pylist(), position + left_out)
                position += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: not a readable parquet file ({error})") from error


def _dataset_records(name: str, skip: int) -> Iterator[tuple[int, Any]]:
    yield from enumerate(open_dataset(name).skip(skip), skip)


def open_dataset(name: str) -> Any:
    """The data set behind `dataset:NAME[:CONFIG][@SPLIT]`; a folder of `save_to_disk` is mapped, the hub streamed."""
    rest, _, split = name.removeprefix(DATASET).partition("@")
    if Path(rest).is_dir():
        return _local_dataset(rest, split)
    rest, _, config = rest.partition(":")
    import datasets

    try:
        return datasets.load_dataset(rest, config or None, split=split or "train", streaming=True)
    except (ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UnknownNameError(f"data set {rest!r} cannot be opened: {' '.join(str(error).split())[:300]}") from error
    except (OSError, ConnectionError) as error:
        raise EnvironmentFailure(
            f"data set {rest!r} cannot be reached ({error}); check the network, or give local files") from error


def _local_dataset(folder: str, split: str) -> Any:
    import datasets

    try:
        found = datasets.load_from_disk(folder)
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{folder}: not a data set written by save_to_disk ({error})") from error
    if isinstance(found, datasets.DatasetDict):
        chosen = split or ("train" if "train" in found else next(iter(found)))
        if chosen not in found:
            raise UnknownNameError(f"split {chosen!r} is not in {folder}; it has {', '.join(found)}")
        return found[chosen]
    return found


def _document(record: Any, source: str, position: int, text_key: str, id_key: str | None) -> Document:
    if isinstance(record, str):
        return Document(record, f"{source}:{position}", source, position)
    text = record.get(text_key) if isinstance(record, dict) else None
    if not isinstance(text, str):
        fields = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        what = f"no text in field {text_key!r} (it has: {fields})"
        raise DataError(f"{source}, record {position}: {what}; name the field with --text-key")
    if id_key is not None and id_key not in record:
        raise DataError(f"{source}, record {position}: no field {id_key!r} for the id (it has: {', '.join(record)})")
    key = id_key or "id"
    given = record.get(key)
    metadata = {k: v for k, v in record.items() if k not in (text_key, key)}
    return Document(text, str(given) if given is not None else f"{source}:{position}", source, position, metadata)
