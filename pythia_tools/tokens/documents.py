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
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pythia_tools.core import errors, files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, PythiaToolsError, RequestError, UnknownNameError

KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"), ".parquet": "parquet",
    **dict.fromkeys((".txt", ".text", ".md", ".rst", ".py", ".pyi", ".html", ".tex", ".csv", ".tsv", ".xml"), "text"),
}
DATASET = "dataset:"
PACKED = (".gz", ".zst")
ABOUT = re.compile(r"(readme|licen[cs]e|citation|changelog)\b.*|dataset_infos?\.json", re.IGNORECASE)
"""Files that describe a data set and are none of its documents, where they lie beside its records."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Document:
    """One text before packing. `source`: the input it came from; `position`: its 0-based line, row or example there;
    `metadata`: the record's other fields, and its id where that is no text.
    """

    text: str
    id: str
    source: str
    position: int
    metadata: dict[str, Any] = field(default_factory=dict)


def expand_inputs(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Inputs as single files or data sets, said on stderr: a folder is replaced by what can be read below it, sorted.

    A folder that `save_to_disk` wrote is a data set, each of its splits one. Left out, and said so, are files that
    describe the records beside them (README.md of a clone from the hub).
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
            below, about = _below(path)
            if not below:
                raise RequestError(f"{name}: no readable file in this folder; readable are {_readable()}")
            if about:
                described = errors.few(about, SHOWN)
                progress.note(f"{name}: left out, since they describe the data: {described}; name them to read them")
            found += below
        else:
            raise RequestError(f"{name}: no such file or folder; for a data set say {DATASET}NAME")
    if not found:
        raise RequestError("no input; give files, folders, or dataset:NAME")
    progress.note(f"reading {errors.few(found, SHOWN)}")
    return found


def _below(folder: Path) -> tuple[list[str], list[str]]:
    """(What can be read below a folder, sorted; files that describe it)."""
    if (listed := folder / "dataset_dict.json").is_file():
        splits = files.read_json(listed)
        splits = splits.get("splits") if isinstance(splits, dict) else None
        if not isinstance(splits, list) or not splits:
            raise DataError(f"{listed}: lists no splits; the data set that save_to_disk wrote is damaged")
        return [f"{DATASET}{folder}@{split}" for split in splits], []
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return [f"{DATASET}{folder}"], []
    found: list[str] = []
    about: list[str] = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if path.is_dir() and not path.is_symlink():
            below, more = _below(path)
            found += below
            about += more
        elif path.is_file() and _kind(path.name):
            found.append(str(path))
    attributes = folder / ".gitattributes"
    described = [name for name in found if Path(name).parent == folder and ABOUT.fullmatch(Path(name).name)]
    rest = [name for name in found if name not in described]
    if any(kind_of(name) != "text" for name in rest) or (attributes.is_file() and b"=lfs" in attributes.read_bytes()):
        return rest, about + described
    return found, about


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
    if kind != "dataset":
        _refuse_pointer(name)
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
    path = Path(name.lower())
    packed = path.suffix in PACKED
    kind = KINDS.get(Path(path.stem).suffix if packed else path.suffix, "")
    return "" if packed and kind == "parquet" else kind


def _readable() -> str:
    return f"{', '.join(s for s in KINDS if s != '.parquet')} (each also with .gz or .zst), .parquet"


def _refuse_pointer(name: str) -> None:
    """A clone without Git LFS holds pointers in place of its data."""
    try:
        with open(name, "rb") as handle:
            pointer = handle.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    if pointer:
        raise DataError(f"{name}: a Git LFS pointer, not the data; run `git lfs pull` in its clone")


def _whole(name: str) -> str:
    with open_bytes(name) as stream:
        return stream.read().decode("utf-8", "surrogateescape")


def _json_records(name: str, skip: int) -> Iterator[tuple[int, Any]]:
    with open_bytes(name) as stream:
        lines = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        for position, (number, line) in islice(enumerate(lines), skip, None):
            try:
                yield position, json.loads(line.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError) as error:
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
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: not a readable parquet file ({error})") from error


def _dataset_records(name: str, skip: int) -> Iterator[tuple[int, Any]]:
    import datasets

    try:
        yield from enumerate(open_dataset(name).skip(skip), skip)
    except PythiaToolsError:
        raise
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name}: cannot be read ({' '.join(str(error).split())[:200]}); fetch it again") from error


def open_dataset(name: str) -> Any:
    """The data set behind `dataset:NAME[:CONFIG][@SPLIT]`; a folder of `save_to_disk` is mapped, the hub streamed."""
    whole = name.removeprefix(DATASET)
    rest, _, split = (whole, "", "") if Path(whole).is_dir() or "@" not in whole else whole.rpartition("@")
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
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    where = f"{source}, record {position + 1}"
    if not isinstance(text, str):
        fields = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"{where}: no text in field {text_key!r} (it has: {fields}); name the field with --text-key")
    if id_key is not None and id_key not in record:
        raise DataError(f"{where}: no field {id_key!r} for the id (it has: {', '.join(record)})")
    key = id_key or "id"
    given = record.get(key)
    left_out = (text_key, key) if given is None or isinstance(given, str) else (text_key,)  # a number stays a number
    metadata = {k: v for k, v in record.items() if k not in left_out}
    return Document(text, str(given) if given is not None else f"{source}:{position}", source, position, metadata)
