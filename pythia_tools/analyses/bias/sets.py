"""Evaluation sets: files by manifest (URL, digest, licence) or from a local path; nothing is part of this package.

A manifest in `data_manifests/evaluation_sets/` lists the files of a set. They are downloaded once into the cache and
checked every time: by sha256, or by git's own blob id where only that is published. A local folder or file is taken as
it is, and its digest is recorded in the run.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools import hub
from pythia_tools.core import files, manifests, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError

REQUIRED = ("name", "source", "licence", "files")
OPTIONAL = ("paper", "notes", "items")


@dataclass(frozen=True)
class EvaluationSet:
    """Local files of a set by their names in the manifest, and one digest of them all."""

    name: str
    files: dict[str, Path]
    digest: str

    def __getitem__(self, name: str) -> Path:
        if name not in self.files:
            raise DataError(f"evaluation set {self.name} has no file {name!r}; it has {', '.join(self.files)}")
        return self.files[name]


def load_set(name: str, local: str | Path | None = None, *, only: Iterable[str] | None = None) -> EvaluationSet:
    """The files of a set, from `local` (a folder with files of those names, or the set's one file), else downloaded.

    `only`: names of the files that are needed. Raises: UnknownNameError for an unknown set; DataError when a file is
    missing or is not what the manifest says; EnvironmentFailure when it cannot be downloaded.
    """
    manifest = read_manifest(name)
    wanted = {k: v for k, v in manifest["files"].items() if only is None or k in set(only)}
    if local is None:
        found = {key: _download(manifest["name"], key, entry) for key, entry in wanted.items()}
    else:
        found = _local(manifest["name"], wanted, Path(local))
    return EvaluationSet(manifest["name"], found, files.digest({k: files.sha256_file(p) for k, p in found.items()}))


def read_manifest(name: str) -> dict[str, Any]:
    path = manifests.find("evaluation_sets", name)
    value = manifests.read(path)
    manifests.check_fields(path, value, REQUIRED, OPTIONAL)
    for key, entry in value["files"].items():
        if not isinstance(entry, dict):
            raise DataError(f"{path}: files: {key}: a mapping of url and sha256 (or git_blob) is wanted")
        manifests.check_fields(f"{path}: files: {key}", entry, ("url",), ("sha256", "git_blob", "bytes"))
        if not entry.get("sha256") and not entry.get("git_blob"):
            raise DataError(f"{path}: files: {key}: a digest is needed, sha256 or git_blob")
    return value


def git_blob(path: Path) -> str:
    """Git's id of a file's content: sha1 of "blob SIZE\\0" and the bytes."""
    data = path.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _check(path: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with a downloaded file, or None."""
    if entry.get("sha256"):
        seen, wanted, kind = files.sha256_file(path), entry["sha256"], "sha256"
    else:
        seen, wanted, kind = git_blob(path), entry["git_blob"], "git blob id"
    return None if seen == wanted else f"{kind} {seen}, the manifest says {wanted}"


def _local(name: str, wanted: dict[str, Any], path: Path) -> dict[str, Path]:
    if path.is_file():
        if len(wanted) != 1:
            raise RequestError(f"{path}: evaluation set {name} has {len(wanted)} files; give their folder")
        return dict.fromkeys(wanted, path)
    found = {key: path / key for key in wanted}
    missing = [key for key, file in found.items() if not file.is_file()]
    if missing:
        raise RequestError(f"{path}: no {missing[0]} there; evaluation set {name} has the files {', '.join(wanted)}")
    return found


def _download(name: str, key: str, entry: dict[str, Any]) -> Path:
    target = files.confined(files.cache_dir() / "evaluation_sets" / name, key)
    if target.is_file() and _check(target, entry) is None:
        return target
    progress.note(f"downloading {name}/{key}")
    try:
        hub.fetch_url(entry["url"], target)
    except EnvironmentFailure as error:
        instead = f"or download it elsewhere and give its folder with --data {name}=DIR"
        raise EnvironmentFailure(f"{error}; {instead}") from error
    wrong = _check(target, entry)
    if wrong:
        target.unlink()
        raise DataError(f"{entry['url']}: {wrong}; the file changed or was cut off, it was removed")
    return target


def read_table(path: Path, required: Iterable[str]) -> pd.DataFrame:
    """A CSV, TSV, JSON-lines, JSON or parquet file with these columns. Raises DataError naming what is missing."""
    readers: dict[str, Any] = {
        ".csv": lambda p: pd.read_csv(p, keep_default_na=False),
        ".tsv": lambda p: pd.read_csv(p, sep="\t", keep_default_na=False),
        ".jsonl": lambda p: pd.read_json(p, lines=True), ".json": pd.read_json, ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise RequestError(f"{path}: a {path.suffix or 'nameless'} file; allowed are {', '.join(readers)}")
    try:
        frame = readers[path.suffix](path)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({str(error)[:120]})") from error
    missing = [c for c in required if c not in frame.columns]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}")
    return pd.DataFrame(frame)
