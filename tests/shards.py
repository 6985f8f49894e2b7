"""Shards for tests: a `.bin` cut into pieces under the published names."""

from __future__ import annotations

from pathlib import Path

from pythia_tools.tokens import shard_names


def split_store(binary: Path, folder: Path, shard_bytes: int) -> list[Path]:
    """Cut a `.bin` into shards of `shard_bytes` (the last one shorter) in `folder`; the source stays."""
    folder.mkdir(parents=True, exist_ok=True)
    data = binary.read_bytes()
    count = max(1, -(-len(data) // shard_bytes))
    paths = [folder / name for name in shard_names(binary.stem, count)]
    for i, path in enumerate(paths):
        path.write_bytes(data[i * shard_bytes : (i + 1) * shard_bytes])
    return paths
