"""Bytes of a store on local disk: one file or many shards, mapped into memory, seen as one stream.

Shards, `{stem}-00003-of-00020.bin`, are pieces of one `.bin` cut at any byte. The published files number from 0 and put
the *last number* after "of", so 00020 means 21 files; the other convention, the count, is recognised too. Nothing here
merges: shards need not end at a row, nor even at a token, and a range that straddles a boundary is put together from
both sides.
Reading costs a memory copy; opening costs one `mmap` per shard.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.parallel import parallel_for

PARALLEL_BYTES = 1 << 20
PATTERN = re.compile(r"^(?P<stem>.*)-(?P<i>\d{5})-of-(?P<n>\d{5})\.bin$")


class ByteSource(Protocol):
    """A stream of `size` bytes that can be read in ranges."""

    size: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as (stop-start,) uint8, possibly a read-only view."""

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Bytes [start, start+len(out)) into `out`, flat uint8."""

    def gather(self, source: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
        """For each segment k copy `length[k]` bytes at `source[k]` to `out[target[k]:]`; `out` is flat uint8."""


class LocalBytes:
    """`paths` one after the other as one stream of bytes. Raises DataError when one is missing."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]):
        self.paths = tuple(Path(p) for p in paths)
        sizes = []
        for path in self.paths:
            if not path.is_file():
                what = "a folder, not a file" if path.is_dir() else "no such file"
                raise DataError(f"{path}: {what}; the store needs {len(self.paths)} file(s)")
            sizes.append(path.stat().st_size)
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.size = int(self.starts[-1])
        self._maps = [_mapped(p) if n else np.zeros(0, np.uint8) for p, n in zip(self.paths, sizes, strict=True)]

    def __reduce__(self) -> Any:
        return LocalBytes, (self.paths,)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop): a read-only view of the map inside one shard, a copy across a boundary."""
        if not 0 <= start <= stop <= self.size:
            raise DataError(f"{self.paths[0]}: bytes {start} to {stop} asked, there are {self.size}")
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        if first == len(self._maps) or stop <= self.starts[first + 1]:
            first = min(first, len(self._maps) - 1)
            base = int(self.starts[first])
            return self._maps[first][start - base : stop - base]
        out = np.empty(stop - start, dtype=np.uint8)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Bytes from `start` on into `out`, flat uint8, read, not mapped: a scan of a store stays as small as `out`.

        Raises: DataError beyond the end, also when a file has become shorter since it was opened.
        """
        at, stop = start, start + out.size
        if not 0 <= start <= stop <= self.size:
            raise DataError(f"{self.paths[0]}: bytes {start} to {stop} asked, there are {self.size}")
        while at < stop:
            k = int(np.searchsorted(self.starts, at, side="right")) - 1
            end = min(stop, int(self.starts[k + 1]))
            _read_file(self.paths[k], at - int(self.starts[k]), out[at - start : end - start])
            at = end

    def gather(self, source: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
        """Copy segments (see ByteSource) at the speed of memory, on all cores; segments may straddle shards."""
        from pythia_tools.tokens.kernels import copy_segments

        def copy(a: int, b: int) -> None:
            for k, data in enumerate(self._maps):
                if len(data) and not copy_segments(data, int(self.starts[k]), source, length, target, out, a, b):
                    raise DataError(f"{self.paths[k]}: a segment does not fit the {out.size} bytes it should fill")

        parallel_for(len(source), copy, pieces=None if out.size >= PARALLEL_BYTES else 1)


def _read_file(path: Path, offset: int, out: np.ndarray) -> None:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            got = file.readinto(out.data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if got < out.size:
        raise DataError(f"{path}: the file has become shorter since it was opened")


def _mapped(path: Path) -> np.ndarray:
    """A file's bytes as a plain array over the map (the memmap class costs a Python call per slice)."""
    return np.memmap(path, mode="r", dtype=np.uint8).view(np.ndarray)


def shard_names(stem: str, count: int) -> list[str]:
    """Names of `count` shards in the published convention (the number after "of" is the last index)."""
    return [f"{stem}-{i:05}-of-{count - 1:05}.bin" for i in range(count)]


def find_shards(prefix: str | os.PathLike[str]) -> list[Path]:
    """`PREFIX.bin`, or all shards of PREFIX in order.

    Raises: DataError when there is neither, when a shard is missing, or when all but the last are not of one size.
    """
    prefix = Path(prefix)
    whole = prefix.with_name(prefix.name + ".bin")
    if whole.exists():
        return [whole]
    named = [(m, path) for path in prefix.parent.glob("*.bin") if (m := PATTERN.match(path.name))]
    found = {int(m["i"]): path for m, path in named if m["stem"] == prefix.name}
    ends = {int(m["n"]) for m, _ in named if m["stem"] == prefix.name}
    if not found:
        raise DataError(f"{whole}: no such file, and no shards {prefix.name}-00000-of-NNNNN.bin beside it")
    if len(ends) > 1:
        raise DataError(f"{prefix}: shards of several splits lie together (of {sorted(ends)}); keep one")
    end = ends.pop()
    if set(found) == set(range(end)):
        end -= 1
    missing = [i for i in range(end + 1) if i not in found]
    if missing:
        raise DataError(
            f"{prefix}: shard {missing[0]:05} of {end:05} is missing ({len(missing)} of {end + 1} are); download it")
    paths = [found[i] for i in range(end + 1)]
    check_strides(paths)
    return paths


def check_strides(paths: list[Path]) -> None:
    """Shards are cut at one stride: all but the last have one size, and the last is not longer."""
    sizes = [p.stat().st_size for p in paths]
    for path, size in zip(paths, sizes, strict=True):
        if size > sizes[0] or (size < sizes[0] and path != paths[-1]):
            raise DataError(f"{path}: {size} bytes, but shard 0 has {sizes[0]}; all but the last have one size and the "
                            "last has no more, so one of them is damaged")
