"""The digest of a checkpoint's weights: what results are keyed by, whatever the file, folder or branch is called.

sha256 over the tensors sorted by canonical name, each as `name NUL dtype NUL shape NUL bytes`. Mask and rotary buffers
and an output head that is a copy of the input embedding are left out, so `.bin` and `.safetensors` of the same weights
agree. The same pass looks for NaN and Inf.

Cost: about 1.7 GB/s the first time. After that a record below the cache folder answers, keyed by path, size, times and
inode of every file; a file changed under the same name has other ones and is read again. Records are one small file
each, written whole, so that any number of processes may share them.
"""

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pythia_tools.core import files
from pythia_tools.core.errors import DataError
from pythia_tools.models.devices import dtype_name
from pythia_tools.models.places import cached_contents, local_folder, stated_contents
from pythia_tools.models.weights import HEAD, TensorFiles, canonical_name, has_own_head, is_buffer, weight_files
from pythia_tools.suites.checkpoint import Checkpoint, Folder

SCHEME = 2
CHUNK = 1 << 20
SETTLED_SECONDS = 2.0
"""A file younger than this is not remembered: it could change again within one tick of the file system's clock."""
_EXPONENT = {torch.float16: (np.uint16, 0x7C00), torch.bfloat16: (np.uint16, 0x7F80),
             torch.float32: (np.uint32, 0x7F800000),
             torch.float64: (np.uint64, 0x7FF0000000000000)}


class Cancelled(Exception):
    """The reader was told to stop (its result is no longer wanted)."""


@dataclass(frozen=True)
class WeightsRecord:
    """What one pass over the weights found.

    `nonfinite`: tensors that hold NaN or Inf, as the file calls them; `stored`: the format of the largest tensor.
    """

    digest: str
    nonfinite: tuple[str, ...]
    parameters: int
    bytes: int
    stored: str


def weights_digest(checkpoint: Checkpoint | str | os.PathLike[str]) -> str:
    """sha256 (hex) of a checkpoint's weights; see the module's first lines. A hub checkpoint is downloaded first.

    Raises: DataError when a weight file is missing or damaged.
    """
    folder = local_folder(checkpoint) if isinstance(checkpoint, Checkpoint) else Path(checkpoint)
    return weights_record(folder).digest


def weights_record(folder: Path, cancel: threading.Event | None = None) -> WeightsRecord:
    """The record of a folder's weights, remembered or computed now. Raises DataError when a file changes meanwhile."""
    paths = weight_files(folder)
    before = identity(paths)
    kept = _record_path([SCHEME, before])
    known = _read(kept)
    if known is not None:
        return known
    record = _compute(TensorFiles(folder), cancel or threading.Event())
    if identity(paths) != before:
        raise DataError(f"{folder}: the weights changed while they were read; run again when nothing writes there")
    if all(time.time() - max(entry["mtime_ns"], entry["ctime_ns"]) / 1e9 > SETTLED_SECONDS for entry in before):
        files.write_json(kept, asdict(record))
    contents = cached_contents(paths)
    if contents is not None:
        files.write_json(_record_path([SCHEME, "contents", contents]), asdict(record))
    return record


def known_record(checkpoint: Checkpoint) -> WeightsRecord | None:
    """What is remembered of a checkpoint's weights; None when they were never read here. Reads and fetches no weights.
    """
    if isinstance(checkpoint.location, Folder):
        return _read(_record_path([SCHEME, identity(weight_files(checkpoint.location.path))]))
    return record_of_contents(stated_contents(checkpoint))


def record_of_contents(contents: list[str] | None) -> WeightsRecord | None:
    """The record of weights seen before, by the sha256 of their files (sorted); None when they are new."""
    return None if contents is None else _read(_record_path([SCHEME, "contents", contents]))


def identity(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What says that files are unchanged: path, size, modification and change time, inode, device."""
    return [
        {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns,
         "inode": stat.st_ino, "device": stat.st_dev}
        for path in paths for stat in [path.stat()]
    ]


def _record_path(of: list[Any]) -> Path:
    key = files.digest(of)
    return files.cache_dir() / "weights_digests" / key[:2] / f"{key[:40]}.json"


def _read(path: Path) -> WeightsRecord | None:
    try:
        value = files.read_json(path)
        return WeightsRecord(**{**value, "nonfinite": tuple(value["nonfinite"])})
    except (DataError, KeyError, TypeError, ValueError):
        path.unlink(missing_ok=True)
        return None


def _compute(tensors: TensorFiles, cancel: threading.Event) -> WeightsRecord:
    names = {canonical_name(n): n for n in tensors if not is_buffer(n, tuple(tensors[n].shape))}
    if not has_own_head(tensors):
        names.pop(HEAD, None)
    total, parameters, bad = 0, 0, []
    sha = hashlib.sha256()
    for name in sorted(names):
        tensor = tensors[names[name]].detach().contiguous()
        sha.update(f"{name}\0{dtype_name(tensor.dtype)}\0{','.join(map(str, tensor.shape))}\0".encode())
        if _feed(sha, tensor, cancel):
            bad.append(names[name])
        total += tensor.numel() * tensor.element_size()
        parameters += tensor.numel()
    return WeightsRecord(sha.hexdigest(), tuple(bad), parameters, total, dtype_name(tensors.stored_dtype()))


def _feed(sha: Any, tensor: torch.Tensor, cancel: threading.Event) -> bool:
    """Feed a tensor's bytes to the hash in chunks that stay in the processor's cache; True when one is NaN or Inf."""
    flat = tensor.reshape(-1).view(torch.uint8).numpy()
    kind, mask = _EXPONENT.get(tensor.dtype, (None, 0))
    found = False
    for start in range(0, flat.size, CHUNK):
        if cancel.is_set():
            raise Cancelled
        chunk = flat[start:start + CHUNK]
        sha.update(chunk)
        if kind is not None and not found:
            found = bool((chunk.view(kind) & kind(mask)).max() == mask)
    return found
