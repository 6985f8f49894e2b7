"""Shards: `{stem}-00003-of-00020.bin`, pieces of one `.bin` cut at any byte.

The published files number from 0 and put the *last number* after "of", so 00020 means 21 files; the other convention,
the count, is recognised too. Nothing here merges: readers read across the cuts.
"""

import os
import re
from pathlib import Path

from pythia_tools.core.errors import DataError

PATTERN = re.compile(r"^(?P<stem>.*)-(?P<i>\d{5})-of-(?P<n>\d{5})\.bin$")


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
