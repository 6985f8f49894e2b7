"""Evaluation sets: files by manifest (URL, digest, licence) or from a local path; nothing is part of this package.

A manifest in `data_manifests/evaluation_sets/` lists the files of a set. They are downloaded once into the cache and
checked every time: by sha256, or by git's own blob id where only that is published. A local folder or file is taken as
it is, and its digest is recorded in the run.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pythia_tools import hub
from pythia_tools.core import files, manifests, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError

_REQUIRED = {"name": manifests.text, "source": manifests.text, "licence": manifests.text, "files": manifests.mapping}
_OPTIONAL = {"paper": manifests.text, "notes": manifests.words, "items": manifests.anything}
_DIGESTS = {"sha256": manifests.text, "git_blob": manifests.text}


def load_set(name: str, local: str | Path | None = None, *, only: Iterable[str] | None = None) -> dict[str, Path]:
    """The files of a set by their names, from `local` (a folder that holds them, or the one file), else downloaded.

    `only`: names of the files that are needed. Raises: UnknownNameError for an unknown set; DataError when a file is
    missing or is not what the manifest says; EnvironmentFailure when it cannot be downloaded.
    """
    manifest = read_manifest(name)
    wanted = {key: entry for key, entry in manifest["files"].items() if only is None or key in set(only)}
    if local is not None:
        return _local(manifest["name"], wanted, Path(local))
    return {key: _download(manifest["name"], key, entry) for key, entry in wanted.items()}


def read_manifest(name: str) -> dict[str, Any]:
    """The checked fields of a set's manifest, shipped or by path. Raises DataError naming what is wrong with it."""
    path = manifests.find("evaluation_sets", name)
    value = manifests.checked(path, manifests.read(path), _REQUIRED, _OPTIONAL)
    for key, entry in value["files"].items():
        where = f"{path}: files: {key}"
        more = {**_DIGESTS, "bytes": manifests.whole()}
        value["files"][key] = checked = manifests.checked(where, entry, {"url": manifests.text}, more)
        if not any(checked[kind] for kind in _DIGESTS):
            raise DataError(f"{where}: a digest is needed, sha256 or git_blob")
    return value


def git_blob(path: Path) -> str:
    """Git's id of a file's content: sha1 of "blob SIZE\\0" and the bytes."""
    data = path.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _wrong(path: Path, entry: Mapping[str, Any]) -> str:
    """What is wrong with a downloaded file, or nothing."""
    kind, read = ("sha256", files.sha256_file) if entry["sha256"] else ("git_blob", git_blob)
    seen = read(path)
    return "" if seen == entry[kind] else f"{kind} {seen}, the manifest says {entry[kind]}"


def _local(name: str, wanted: Iterable[str], path: Path) -> dict[str, Path]:
    names = list(wanted)
    if path.is_file() and len(names) == 1:
        return {names[0]: path}
    if path.is_file():
        raise RequestError(f"{path}: evaluation set {name} has {len(names)} files; give their folder")
    missing = [key for key in names if not (path / key).is_file()]
    if missing:
        raise RequestError(f"{path}: no {missing[0]} there; evaluation set {name} has the files {', '.join(names)}")
    return {key: path / key for key in names}


def _download(name: str, key: str, entry: Mapping[str, Any]) -> Path:
    target = files.confined(files.cache_dir() / "evaluation_sets" / name, key)
    if target.is_file() and not _wrong(target, entry):
        return target
    progress.note(f"downloading {name}/{key}")
    try:
        hub.fetch_url(entry["url"], target)
    except EnvironmentFailure as error:
        instead = f"or download it elsewhere and give its folder with --data {name}=DIR"
        raise EnvironmentFailure(f"{error}; {instead}") from error
    if wrong := _wrong(target, entry):
        target.unlink()
        raise DataError(f"{entry['url']}: {wrong}; the file changed or was cut off, it was removed")
    return target
