"""The `.idx` file, byte for byte: read strictly, written as GPT-NeoX's builder writes it.

    offset 0    9 bytes   "MMIDIDX" and two NULs
           9    u64       version, 1
          17    u8        dtype code
          18    u64       S, number of sequences
          26    u64       D, entries of the document index
          34    i32 x S   length of each sequence in tokens
      34+4S    i64 x S   byte offset of each sequence in the `.bin`
     34+12S    i64 x D   sequences at which documents begin, and S at the end
                         (the published preshuffled indexes hold just [0])

Megatron-core's multimodal variant appends S mode bytes; they are allowed and ignored.
Dtype codes 1-5 and 8 mean the same in every lineage. Codes 6 and 7 do not: GPT-NeoX writes 6 for float32 and 7 for
float64, Megatron-core the reverse; here they are GPT-NeoX's. Token ids use 8 (uint16) or 4 (int32).
All integers are little-endian; the arrays are unaligned in the file, so they are copied when first used.
Checking every entry costs one pass: about a second for 134 million sequences.
"""

import contextlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import atomic_write

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
CHECK_ROWS = 1 << 22
DTYPE_CODES: dict[int, np.dtype] = {
    code: np.dtype(kind) for code, kind in enumerate(("u1", "i1", "<i2", "<i4", "<i8", "<f4", "<f8", "<u2"), 1)
}
SMALL_VOCAB = 65_500


@dataclass(frozen=True)
class StoreIndex:
    """A checked index.

    `sizes` (S,) int32 tokens, `pointers` (S,) int64 bytes, `doc_idx` (D,) int64 sequence numbers, `stop` the byte at
    which the last sequence ends, `contiguous` whether sequences follow each other without gaps from byte 0.
    """

    path: Path
    dtype: np.dtype
    sizes: np.ndarray
    pointers: np.ndarray
    doc_idx: np.ndarray
    stop: int
    contiguous: bool


def read_index(path: str | os.PathLike[str]) -> StoreIndex:
    """Read and check an `.idx` file.

    Raises: DataError naming what is wrong: magic, version, dtype code, length against the counts, negative sizes,
    pointers that run backwards or overlap, a document index that is not monotone or leaves the sequences.
    """
    path = Path(path)
    count, documents, dtype = _read_header(path)
    data = np.memmap(path, mode="r", dtype=np.uint8)
    at = HEADER.size
    sizes = data[at : at + 4 * count].view("<i4")
    pointers = data[at + 4 * count : at + 12 * count].view("<i8")
    doc_idx = np.array(data[at + 12 * count : at + 12 * count + 8 * documents].view("<i8"))
    stop, contiguous = _check_pointers(path, sizes, pointers, dtype.itemsize)
    _check_documents(path, doc_idx, count)
    return StoreIndex(path, dtype, sizes, pointers, doc_idx, stop, contiguous)


def write_index(path: str | os.PathLike[str], dtype: object, sizes: np.ndarray, doc_idx: np.ndarray) -> None:
    """Write the index of sequences that follow each other from byte 0; byte-identical to GPT-NeoX's builder.

    `sizes` (S,) tokens, `doc_idx` (D,) beginning with 0. Raises: DataError when a size does not fit int32.
    """
    code, wide = code_of(dtype), checked_sizes(path, sizes)
    itemsize = np.dtype(dtype).itemsize  # type: ignore[call-overload]
    pointers = np.zeros(wide.size, dtype="<i8")
    np.cumsum(wide[:-1] * itemsize, out=pointers[1:])
    with atomic_write(path) as out:
        out.write(HEADER.pack(MAGIC, VERSION, code, wide.size, len(doc_idx)))
        out.write(wide.astype("<i4").tobytes())
        out.write(pointers.tobytes())
        out.write(np.asarray(doc_idx, dtype="<i8").tobytes())


def checked_sizes(path: str | os.PathLike[str], sizes: Iterable[int] | np.ndarray) -> np.ndarray:
    """Sequence lengths as int64. Raises: DataError when one does not fit int32."""
    wide, most = np.asarray(sizes, dtype=np.int64), np.iinfo(np.int32).max
    if wide.size and (wide.min() < 0 or wide.max() > most):
        raise DataError(f"{path}: sequence lengths must be 0 to {most}, these go from {wide.min()} to {wide.max()}")
    return wide


def _read_header(path: Path) -> tuple[int, int, np.dtype]:
    try:
        length = path.stat().st_size
        with open(path, "rb") as handle:
            head = handle.read(HEADER.size)
    except FileNotFoundError as error:
        what = "a token store is PREFIX.idx beside PREFIX.bin or its shards"
        raise DataError(f"{path}: no such index; {what}") from error
    except OSError as error:
        raise DataError(f"{path}: the index cannot be read ({error.strerror})") from error
    if len(head) < HEADER.size:
        raise DataError(f"{path}: {len(head)} bytes long, an index has at least {HEADER.size}; it is truncated")
    magic, version, code, count, documents = HEADER.unpack(head)
    if magic != MAGIC:
        legacy = magic.startswith(b"TNTIDX\x00\x00")
        old = "; it is the legacy non-mmap format, convert it with the builder" if legacy else ""
        raise DataError(f"{path}: begins with {magic!r}, an index begins with {MAGIC!r}{old}")
    if version != VERSION:
        raise DataError(f"{path}: version {version}, only version {VERSION} is known")
    dtype = dtype_of(code, path)
    need = HEADER.size + 12 * count + 8 * documents
    if length not in (need, need + count):
        what = "truncated" if length < need else "longer than it says"
        holds = f"its {count} sequences and {documents} document entries take {need}"
        raise DataError(f"{path}: {length} bytes, but {holds}; it is {what}")
    return count, documents, dtype


def _check_pointers(path: Path, sizes: np.ndarray, pointers: np.ndarray, itemsize: int) -> tuple[int, bool]:
    """(byte at which the last sequence ends, whether there are no gaps)."""
    end, contiguous = 0, True
    for a in range(0, len(sizes), CHECK_ROWS):
        lengths = sizes[a : a + CHECK_ROWS].astype(np.int64) * itemsize
        starts = np.array(pointers[a : a + CHECK_ROWS])
        if lengths.min() < 0:
            i = a + int(np.argmin(lengths))
            raise DataError(f"{path}: sequence {i} has length {sizes[i]}; lengths are 0 or more, the index is damaged")
        stops = starts + lengths
        gaps = starts - np.concatenate([[end], stops[:-1]])
        if gaps.min() < 0:
            i = a + int(np.argmax(gaps < 0))
            raise DataError(
                f"{path}: sequence {i} starts at byte {pointers[i]}, before the one in front of it ends; "
                "pointers must be monotone"
            )
        contiguous &= not gaps.any()
        end = int(stops[-1])
    return end, contiguous


def _check_documents(path: Path, doc_idx: np.ndarray, count: int) -> None:
    if not len(doc_idx):
        raise DataError(f"{path}: no document index; it holds at least [0]")
    if doc_idx[0] != 0 or (np.diff(doc_idx) < 0).any() or doc_idx[-1] > count:
        raise DataError(f"{path}: the document index must rise from 0 to at most {count}; the index is damaged")


def dtype_of(code: int, path: object) -> np.dtype:
    """The dtype of a code read from `path`. Raises DataError for a code that no lineage defines."""
    if code not in DTYPE_CODES:
        known = ", ".join(f"{c} ({d.name})" for c, d in DTYPE_CODES.items())
        raise DataError(f"{path}: dtype code {code} is not one of {known}; the index is damaged")
    return DTYPE_CODES[code]


def code_of(dtype: object) -> int:
    """The code of a dtype. Raises RequestError for one that the format cannot hold."""
    codes = {stored: code for code, stored in DTYPE_CODES.items()}
    with contextlib.suppress(TypeError, KeyError):
        return codes[np.dtype(dtype)]  # type: ignore[call-overload]
    known = ", ".join(d.name for d in DTYPE_CODES.values())
    raise RequestError(f"dtype {dtype!r} cannot be stored; use one of {known}")


def dtype_for_vocab(vocab_size: int | None) -> np.dtype:
    """The builders' rule: uint16 when the unpadded vocabulary is known and below 65,500, else int32."""
    return np.dtype("<u2") if vocab_size is not None and vocab_size < SMALL_VOCAB else np.dtype("<i4")
