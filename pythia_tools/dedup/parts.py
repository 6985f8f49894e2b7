"""Files between the stages: a part is what a killed run resumes from, a folder of arrays, whole or absent.

    PART/name.npy      the content
    PART/part.json     key (digest of what decided it), facts, sha256 of every file

Not cells of core.results, which are tables read whole: these arrays are larger than memory, so they are mapped, read by
other processes a range at a time, and verified by their digests.
A part is written beside its place and renamed, so its presence means complete. A reader checks the key and, once per
process, every file's sha256. Cost: hashing at 1–2 GB/s.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.files import atomic_folder, digest, read_json, sha256_file, write_json

_verified: dict[Path, tuple[int, int]] = {}


class Part:
    """A finished part, opened for reading."""

    def __init__(self, path: Path, record: dict[str, Any]):
        self.path = path
        self.facts: dict[str, Any] = record["facts"]
        self._digests: dict[str, str] = record["sha256"]

    def array(self, name: str) -> np.ndarray:
        """An array, mapped into memory. Raises DataError when its file is missing or damaged."""
        path = self.path / f"{name}.npy"
        again = f"delete {self.path} and run the same command again"
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise DataError(f"{path}: missing; {again}") from error
        mark = (status.st_size, status.st_mtime_ns)
        if _verified.get(path) != mark:
            if sha256_file(path) != self._digests.get(path.name):
                raise DataError(f"{path}: damaged (its sha256 is not the recorded one); {again}")
            _verified[path] = mark
        return np.load(path, mmap_mode="r", allow_pickle=False)


def write_part(path: Path, key: object, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Part:
    """Write a part whole, and open it."""

    def fill(folder: Path) -> None:
        for name, array in arrays.items():
            with open(folder / f"{name}.npy", "wb") as handle:
                np.save(handle, array, allow_pickle=False)
                handle.flush()
                os.fsync(handle.fileno())
        digests = {p.name: sha256_file(p) for p in sorted(folder.iterdir())}
        write_json(folder / "part.json", {"key": digest(key), "facts": facts, "sha256": digests})

    atomic_folder(path, fill)
    return need_part(path, key)


def open_part(path: Path, key: object) -> Part | None:
    """The part if it is there and was made from `key`; None when it must be made."""
    if not (path / "part.json").exists():
        return None
    record = read_json(path / "part.json")
    if not isinstance(record, dict) or not {"key", "facts", "sha256"} <= record.keys():
        raise DataError(f"{path / 'part.json'}: not a part's record; delete {path} and run the same command again")
    return Part(path, record) if record["key"] == digest(key) else None


def need_part(path: Path, key: object) -> Part:
    """As open_part for a part an earlier stage has made. Raises DataError when it is not there."""
    part = open_part(path, key)
    if part is None:
        raise DataError(f"{path}: missing or made by another request; run the earlier stages again")
    return part
