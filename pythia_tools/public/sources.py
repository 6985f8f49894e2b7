"""The files that a path means: one file, those below a folder, or those in an archive (.zip, tars).

Only files whose names say that they may hold results are opened.
"""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pythia_tools.core.errors import DataError, RequestError

_MAY_HOLD = re.compile(r"(\.(json|csv|tsv|parquet)|/samples_[^/]*\.jsonl|^samples_[^/]*\.jsonl)$")
_ARCHIVE = re.compile(r"\.(zip|tar|tar\.\w+|tgz|txz)$")


def walk(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name (as the folder or archive has it) and content of every file that may hold results.

    Raises: RequestError when nothing is at `path`; DataError when it is a damaged archive, or a file that cannot be
    read.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if _MAY_HOLD.search(name) and file.is_file():
                yield name, _content(file)
    elif not path.is_file():
        raise RequestError(f"{path}: no such folder, archive or file of results")
    elif _ARCHIVE.search(path.name.lower()):
        unpack = _zipped if path.name.lower().endswith(".zip") else _tarred
        try:
            yield from unpack(path, lambda name: _MAY_HOLD.search(name) is not None)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
            raise DataError(f"{path}: not a readable archive ({error}); fetch it again") from error
    else:
        yield path.name, _content(path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _tarred(path: Path, chosen: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if chosen(member.name) else None
            if content is not None:
                yield member.name, content.read()


def _zipped(path: Path, chosen: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        for name in archive.namelist():
            if chosen(name):
                yield name, archive.read(name)
