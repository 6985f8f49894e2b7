"""Where tensors lie inside a weight file: the safetensors header, or the zip directory of a torch file.

Nothing here runs a pickle: a torch file's `data.pkl` goes through an unpickler that knows tensors, storages and
ordered dictionaries, and refuses every other name. Cost: the header (tens of kB), never the tensors.
Sources: the safetensors format description; torch's serialization notes.
"""

import collections
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pythia_tools.core.errors import DataError

Read = Callable[[int, int], bytes]
"""`read(start, stop)` gives exactly those bytes of a file."""

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
HEADER_GUESS = 1 << 15
"""Bytes read at once in the hope that they hold a file's whole directory; a second request follows if not."""
LARGEST_HEADER = 100_000_000
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
          "BOOL": "?"}
_STORAGES = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
             "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
             "BoolStorage": "BOOL"}


@dataclass(frozen=True)
class Spot:
    """A tensor's place: `start` is its first byte, its rows follow each other. dtype as safetensors spells it.

    In torch files `start` counts from the data of the zip entry whose header is at byte `entry`.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    entry: int | None = None

    @property
    def bytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first dimension."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape[1:])


def _checked(counts: Iterable[Any]) -> tuple[int, ...]:
    """A shape as a file states it. Raises: ValueError when it is none."""
    found = tuple(counts)
    if not all(type(n) is int and n >= 0 for n in found):
        raise ValueError(f"{found} is no shape")
    return found


def to_array(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes as an array of `shape`; bfloat16, which numpy lacks, becomes float32 without loss."""
    if dtype == "BF16":
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, dtype=_NUMPY[dtype]).reshape(shape)


def safetensors_spots(read: Read, size: int, what: str, guess: int = HEADER_GUESS) -> dict[str, Spot]:
    """Every tensor of a safetensors file. Raises: DataError when the header is not one, or does not cover the file."""
    head = read(0, min(guess, size))
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
        raise DataError(f"{what}: not a safetensors file (its header claims {length} bytes of {size})")
    if len(head) < 8 + length:
        head += read(len(head), 8 + length)
    try:
        entries = json.loads(head[8 : 8 + length])
        spots = {}
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            spot = Spot(entry["dtype"], _checked(entry["shape"]), 8 + length + start)
            if spot.bytes != stop - start or not 0 <= start <= stop <= size - 8 - length:
                raise DataError(f"{what}: {name} claims bytes {start} to {stop} of {size - 8 - length}; "
                                "the file is cut short or damaged")
            spots[name] = spot
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{what}: its safetensors header is damaged ({error})") from error
    end = max((s.start + s.bytes for s in spots.values()), default=8 + length)
    if end != size:
        raise DataError(f"{what}: its header describes {end} bytes, the file has {size}; it is cut short or damaged")
    return spots


def torch_spots(read: Read, size: int, what: str, guess: int = HEADER_GUESS) -> dict[str, Spot]:
    """Every tensor of a zipped torch file (torch ≥ 1.6). Raises: DataError for others and non-contiguous tensors."""
    entries = _zip_entries(read, size, what, guess)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError(f"{what}: not a torch weight file (no data.pkl in its directory)")
    root = pickles[0].removesuffix("data.pkl")
    offset, length = entries[pickles[0]]
    data = _entry_bytes(read, offset, length, what)
    try:
        value = _TensorUnpickler(io.BytesIO(data), what).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
            RecursionError, MemoryError) as error:
        raise DataError(f"{what}: its directory of tensors is damaged ({error})") from error
    spots = {}
    for name, tensor in value.items() if isinstance(value, dict) else ():
        if isinstance(tensor, _Tensor):
            key = f"{root}data/{tensor.storage}"
            if key not in entries:
                raise DataError(f"{what}: the storage of {name} is missing; the file is cut short or damaged")
            spot = Spot(tensor.dtype, tensor.shape, tensor.offset * ITEM_BYTES[tensor.dtype], entries[key][0])
            if spot.start + spot.bytes > entries[key][1]:
                raise DataError(f"{what}: {name} claims more bytes than its storage has; the file is damaged")
            spots[str(name)] = spot
    return spots


def entry_data_start(read: Read, header_offset: int, what: str) -> int:
    """First byte of a stored zip entry's data, from its local header (whose padding the directory does not state)."""
    header = read(header_offset, header_offset + 30)
    if header[:4] != b"PK\x03\x04":
        raise DataError(f"{what}: damaged zip entry at byte {header_offset}")
    name, extra = struct.unpack("<HH", header[26:30])
    return header_offset + 30 + int(name) + int(extra)


def _entry_bytes(read: Read, header_offset: int, length: int, what: str) -> bytes:
    """An entry's data in one request: header, name and padding are short."""
    slack = 512
    data = read(header_offset, header_offset + 30 + length + slack)
    start = entry_data_start(lambda a, b: data[a - header_offset : b - header_offset], header_offset, what)
    if start - header_offset + length <= len(data):
        return data[start - header_offset : start - header_offset + length]
    return read(start, start + length)


def _zip_entries(read: Read, size: int, what: str, guess: int) -> dict[str, tuple[int, int]]:
    """{name: (offset of the local header, bytes)} from the zip's central directory."""
    try:
        entries = zipfile.ZipFile(_Tail(read, size, guess)).infolist()  # type: ignore[call-overload]
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError) as error:
        legacy = read(0, 2) == b"\x80\x02"
        old = "a torch file from before 1.6, which cannot be read in part"
        raise DataError(f"{what}: {old if legacy else 'not a torch file, or cut short'}") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise DataError(f"{what}: {entry.filename} is compressed; parts of it cannot be read")
        if entry.header_offset + entry.file_size > size:
            raise DataError(f"{what}: {entry.filename} lies outside the file; it is cut short or damaged")
    return {entry.filename: (entry.header_offset, entry.file_size) for entry in entries}


class _Tail:
    """A file as `zipfile` reads it; the last `guess` bytes come in one request, since the directory lies there."""

    def __init__(self, read: Read, size: int, guess: int) -> None:
        self._read, self._size, self._at = read, size, 0
        self._start = max(0, size - guess)
        self._tail = read(self._start, size)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError("before the file's beginning")
        self._at = at
        return at

    def read(self, count: int = -1) -> bytes:
        start, stop = self._at, self._size if count < 0 else min(self._size, self._at + count)
        self._at = max(start, stop)
        if start >= self._start:
            return self._tail[start - self._start : stop - self._start]
        return self._read(start, stop)


class _Tensor(NamedTuple):
    """A tensor of a torch file: the dtype and key of its storage, its first element there, its shape."""

    dtype: str
    storage: str
    offset: int
    shape: tuple[int, ...]


class _TensorUnpickler(pickle.Unpickler):
    """Knows the few names that a state dictionary needs; everything else is refused."""

    def __init__(self, data: io.BytesIO, what: str) -> None:
        super().__init__(data)
        self._what = what

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise DataError(f"{self._what}: refers to {module}.{name}, which a weight file has no need of; refused")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype not in ITEM_BYTES:
            raise DataError(f"{self._what}: holds something other than tensors; refused")
        return dtype, str(key)


def _rebuild(
    storage: tuple[str, str], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any,
) -> _Tensor:
    expected = 1
    for n, step in zip(reversed(shape), reversed(stride), strict=True):
        if n != 1 and step != expected:
            raise DataError(
                f"a tensor of shape {tuple(shape)} is stored with strides {tuple(stride)}; parts of it cannot be read")
        expected *= n
    return _Tensor(*storage, _checked([offset])[0], _checked(shape))


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}
