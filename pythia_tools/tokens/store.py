"""Reading a token store: documents and ranges of tokens by number, without loading or merging files."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.tokens.index import StoreIndex, read_index
from pythia_tools.tokens.local import ByteSource, LocalBytes, find_shards

PROVENANCE = ".documents.parquet"
RECORD = ".json"


class TokenStore:
    """Sequences of token ids: an index over a stream of bytes.

    A sequence is what the builder was given at once; in every published store a document is one sequence.
    """

    def __init__(self, index: StoreIndex, data: ByteSource):
        if data.size != index.stop:
            what = "truncated" if data.size < index.stop else "longer than its index says"
            sizes = f"the index describes {index.stop} bytes, the .bin has {data.size}"
            raise DataError(f"{index.path}: {sizes}; it is {what}")
        self.index = index
        self.data = data
        self.dtype = index.dtype

    @cached_property
    def sizes(self) -> np.ndarray:
        """(n,) int32: tokens of each sequence."""
        return np.array(self.index.sizes, dtype=np.int32)

    @cached_property
    def pointers(self) -> np.ndarray:
        """(n,) int64: byte at which each sequence starts."""
        return np.array(self.index.pointers, dtype=np.int64)

    @property
    def doc_idx(self) -> np.ndarray:
        """(D,) int64: sequences at which documents begin, and the count at the end; [0] alone in preshuffled stores."""
        return self.index.doc_idx

    @property
    def n_tokens(self) -> int:
        if self.index.contiguous:
            return self.index.stop // self.dtype.itemsize
        return int(np.sum(self.index.sizes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.index.sizes)

    def __getitem__(self, i: int) -> np.ndarray:
        """Sequence `i` (negative counts from the end) as a read-only array."""
        return self.get(i)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.get(i) for i in range(len(self)))

    def get(self, i: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        """Tokens [offset, offset+length) of sequence `i`; without `length`, to its end.

        Raises: RequestError for a sequence or a range that does not exist.
        """
        n = len(self)
        if not -n <= i < n:
            raise RequestError(f"sequence {i}: there are {n}, numbered 0 to {n - 1}")
        i %= n
        size = int(self.index.sizes[i])
        length = size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > size:
            raise RequestError(f"sequence {i} has {size} tokens; {length} from {offset} were asked")
        start = int(self.index.pointers[i]) + offset * self.dtype.itemsize
        return self._tokens(start, start + length * self.dtype.itemsize)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the whole stream, read-only. Raises RequestError outside [0, n_tokens]."""
        if not self.index.contiguous:
            raise RequestError(f"{self.index.path}: this store has gaps between sequences; read them one by one")
        if not 0 <= start <= stop <= self.n_tokens:
            raise RequestError(f"tokens {start} to {stop}: the store has {self.n_tokens}")
        return self._tokens(start * self.dtype.itemsize, stop * self.dtype.itemsize)

    def _tokens(self, start: int, stop: int) -> np.ndarray:
        view = self.data.read(start, stop).view(self.dtype)
        view.flags.writeable = False
        return view


def prefix_of(path: str | os.PathLike[str]) -> Path:
    """A store's prefix from a prefix or from one of its files (`.bin`, `.idx`)."""
    path = Path(os.path.expanduser(path))
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


def beside(prefix: Path, ending: str) -> Path:
    """PREFIX and an ending, which may hold dots."""
    return prefix.with_name(prefix.name + ending)


def read_record(prefix: str | os.PathLike[str]) -> dict[str, Any]:
    """What `data tokenize` recorded beside a store (PREFIX.json); empty for a store that something else wrote.

    Raises: DataError when its tokenization was begun and did not end, so that the files are of no one corpus.
    """
    base = prefix_of(prefix)
    if not beside(base, PROVENANCE).exists():
        return {}
    if not beside(base, RECORD).exists():
        raise DataError(f"{base}: its last tokenization did not end ({base.name}{RECORD} is missing); run `data "
                        f"tokenize` again, or delete {base.name}{PROVENANCE} to take the store as it is")
    record = files.read_json(beside(base, RECORD))
    if not isinstance(record, dict):
        raise DataError(f"{beside(base, RECORD)}: not the record of a tokenization; run `data tokenize` again")
    return record


def open_store(prefix: str | os.PathLike[str]) -> TokenStore:
    """Open `PREFIX.idx` with `PREFIX.bin` or its shards; everything is checked, nothing is loaded.

    Raises: DataError when the index is damaged, a shard is missing or of the wrong size, `.bin` and index disagree, or
    the store's tokenization did not end.
    """
    base = prefix_of(prefix)
    read_record(base)
    index = read_index(base.with_name(base.name + ".idx"))
    return TokenStore(index, LocalBytes(find_shards(base)))
