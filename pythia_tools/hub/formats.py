"""Where tensors lie inside a weight file: the safetensors header, or the zip directory of a torch file.

Nothing here runs a pickle: a torch file's `data.pkl` goes through an unpickler that knows tensors, storages and
ordered dictionaries, and refuses every other name. Cost: the header (tens of kB), never the tensors.
Sources: the safetensors format description; APPNOTE.TXT 4.3 (zip, zip64); torch's serialization notes.
"""

from __future__ import annotations

import collections
import io
import json
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError

Read = Callable[[int, int], bytes]
"""`read(start, stop)` gives exactly those bytes of a file."""

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
HEADER_GUESS = 1 << 15
"""Bytes read at once in the hope that they hold a file's whole directory; a second request follows where they do not."""
LARGEST_HEADER = 100_000_000
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
_STORAGES = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
             "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"}


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
            spot = Spot(entry["dtype"], tuple(entry["shape"]), 8 + length + start)
            if spot.bytes != stop - start or not 0 <= start <= stop <= size - 8 - length:
                raise DataError(f"{what}: {name} claims bytes {start} to {stop} of {size - 8 - length}; the file is cut short or damaged")
            spots[name] = spot
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{what}: its safetensors header is damaged ({error})") from error
    end = max((s.start + s.bytes for s in spots.values()), default=8 + length)
    if end != size:
        raise DataError(f"{what}: its header describes {end} bytes, the file has {size}; it is cut short or damaged")
    return spots


def torch_spots(read: Read, size: int, what: str, guess: int = HEADER_GUESS) -> dict[str, Spot]:
    """Every tensor of a zipped torch file (torch ≥ 1.6). Raises: DataError for other files and non-contiguous tensors."""
    entries = _zip_entries(read, size, what, guess)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError(f"{what}: not a torch weight file (no data.pkl in its directory)")
    root = pickles[0].removesuffix("data.pkl")
    offset, length = entries[pickles[0]]
    data = _entry_bytes(read, offset, length, what)
    try:
        value = _TensorUnpickler(io.BytesIO(data), what).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise DataError(f"{what}: its directory of tensors is damaged ({error})") from error
    spots = {}
    for name, tensor in value.items() if isinstance(value, dict) else ():
        if isinstance(tensor, _Tensor):
            key = f"{root}data/{tensor.storage.key}"
            if key not in entries:
                raise DataError(f"{what}: the storage of {name} is missing; the file is cut short or damaged")
            spot = Spot(tensor.storage.dtype, tensor.shape, tensor.offset * ITEM_BYTES[tensor.storage.dtype], entries[key][0])
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
    start = entry_data_start(lambda a, b: data[a - header_offset : b - header_offset], header_offset, what) - header_offset
    return data[start : start + length] if start + length <= len(data) else read(header_offset + start, header_offset + start + length)


def _zip_entries(read: Read, size: int, what: str, guess: int) -> dict[str, tuple[int, int]]:
    """{name: (offset of the local header, bytes)} from the zip's central directory."""
    base = max(0, size - guess)
    tail = read(base, size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        legacy = read(0, 2) == b"\x80\x02"
        why = "a torch file from before 1.6, which cannot be read in part" if legacy else "not a torch file, or cut short"
        raise DataError(f"{what}: {why}")
    count, length, start = struct.unpack("<HII", tail[at + 10 : at + 20])
    if 0xFFFFFFFF in (length, start) or count == 0xFFFF:
        locator = tail.rfind(b"PK\x06\x07", 0, at)
        (where,) = struct.unpack("<Q", tail[locator + 8 : locator + 16])
        record = tail[where - base : where - base + 56] if where >= base else read(where, where + 56)
        length, start = struct.unpack("<QQ", record[40:56])
    if start + length > size:
        raise DataError(f"{what}: its zip directory lies outside the file; it is cut short or damaged")
    directory = tail[start - base : start - base + length] if start >= base else read(start, start + length)
    return _directory_entries(directory, what)


def _directory_entries(directory: bytes, what: str) -> dict[str, tuple[int, int]]:
    entries, at = {}, 0
    while at + 46 <= len(directory):
        if directory[at : at + 4] != b"PK\x01\x02":
            raise DataError(f"{what}: its zip directory is damaged")
        method, = struct.unpack("<H", directory[at + 10 : at + 12])
        _, size, names, extras, comments = struct.unpack("<IIHHH", directory[at + 20 : at + 34])
        offset, = struct.unpack("<I", directory[at + 42 : at + 46])
        name = directory[at + 46 : at + 46 + names].decode("utf-8", "replace")
        extra = directory[at + 46 + names : at + 46 + names + extras]
        if method != 0:
            raise DataError(f"{what}: {name} is compressed; parts of it cannot be read")
        size, offset = _zip64(extra, size, offset)
        entries[name] = (offset, size)
        at += 46 + names + extras + comments
    return entries


def _zip64(extra: bytes, size: int, offset: int) -> tuple[int, int]:
    """Sizes above 4 GB live in an extra field: uncompressed, compressed, offset; each only where its short form is full."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack("<HH", extra[at : at + 4])
        if tag == 1:
            values = [v for (v,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            if size == 0xFFFFFFFF:
                size = values.pop(0)
                if values and offset == 0xFFFFFFFF and len(values) > 1:
                    values.pop(0)
            if offset == 0xFFFFFFFF:
                offset = values.pop()
        at += 4 + length
    return size, offset


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]


class _TensorUnpickler(pickle.Unpickler):
    """Knows the few names that a state dictionary needs; everything else is refused."""

    def __init__(self, data: io.BytesIO, what: str) -> None:
        super().__init__(data)
        self._what = what

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise DataError(f"{self._what}: refers to {module}.{name}, which a weight file has no need of; refused")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype not in ITEM_BYTES:
            raise DataError(f"{self._what}: holds something other than tensors; refused")
        return _Storage(dtype, str(key))


def _rebuild_parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


def _rebuild(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    expected = 1
    for n, step in zip(reversed(shape), reversed(stride), strict=True):
        if n != 1 and step != expected:
            raise DataError(f"a tensor of shape {tuple(shape)} is stored with strides {tuple(stride)}; parts of it cannot be read")
        expected *= n
    return _Tensor(storage, int(offset), tuple(shape))
