"""Files that are whole or absent: write beside, rename into place; digests; confined paths; the cache folder.

Cost: one extra rename per file. Durability: the file is flushed to disk before the rename, so a
power cut leaves the old file or the new one, never a torn one.
"""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError, refused


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on a clean exit it replaces `path`, on an error it vanishes.

    Raises: EnvironmentFailure when the disk is full or the folder cannot be written.
    """
    with _beside(path) as (target, beside):
        with open(beside, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, target)


def atomic_folder(path: str | os.PathLike[str], fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `path`, then rename it into place (an existing `path` is replaced)."""
    with _beside(path) as (target, beside):
        beside.mkdir()
        fill(beside)
        old = beside.with_suffix(".old")
        if target.exists():
            os.replace(target, old)
        os.replace(beside, target)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _beside(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Path]]:
    """The target and a new name in its folder; what bears that name on an error vanishes."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target, beside
    except BaseException as error:
        delete(beside)
        if failure := refused(error, target):
            raise failure from error
        raise


def delete(path: Path) -> None:
    """A file or a folder with all it holds, as far as the system lets it go."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def sweep_parts(folder: str | os.PathLike[str], name: str = "") -> int:
    """Delete what a killed `atomic_write`/`atomic_folder` left in `folder` (of targets that begin with `name`); returns
    how many went.
    """
    gone = 0
    for entry in Path(folder).glob(f".{glob.escape(name)}*.part"):
        delete(entry)
        gone += 1
    return gone


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with atomic_write(path, "w") as handle:
        handle.write(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """JSON with sorted keys and two-space indent, so that equal values give equal files."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=_plain) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Raises: DataError when the file is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); delete it and run the command again") from error


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a text file that are not blank. Raises RequestError when there is no such file, DataError when it
    cannot be read or holds none.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file of {what}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {what} cannot be read ({error})") from error
    if not lines:
        raise DataError(f"{path}: holds no {what}")
    return lines


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes; about 1–2 GB/s."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value in canonical form: the key of caches and the fingerprint of configs."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def confined(root: str | os.PathLike[str], relative: str) -> Path:
    """`root/relative`, refused when it would leave `root` (absolute paths, `..`, links that point out)."""
    base = Path(root).resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise RequestError(f"path {relative!r} leads outside {base}; only paths below it are allowed")
    return path


def cache_dir() -> Path:
    """Where trained suites, range caches and indexes live: $PYTHIA_TOOLS_HOME, or the user's cache folder."""
    home = os.environ.get("PYTHIA_TOOLS_HOME")
    if home:
        return Path(os.path.expanduser(home))
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pythia_tools"


def require_free(path: str | os.PathLike[str], need_bytes: int, instead: str = "choose another --out") -> None:
    """Raises EnvironmentFailure when the disk under `path` has fewer than `need_bytes` bytes free; `instead` is what
    may help besides freeing some.
    """
    probe = Path(path)
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < need_bytes:
        raise EnvironmentFailure(f"{path}: needs {human_bytes(need_bytes)} of disk, {human_bytes(free)} are free; "
                                 f"free some space or {instead}")


def require_memory(need_bytes: int, what: str) -> None:
    """Raises EnvironmentFailure when Linux says that it has less memory to give than `what` takes."""
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), need_bytes)
    if need_bytes > free:
        raise EnvironmentFailure(
            f"{what} take {human_bytes(need_bytes)} of memory, {human_bytes(free)} are free; ask for less, or use a "
            "larger machine"
        )


def human_bytes(count: float) -> str:
    """Decimal units, as disks and hubs print them: 4.2 MB, 600.1 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, paths and sets as JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"not JSON-able: {type(value).__name__}")
