"""What an audit finds, and what it looks at: files, configuration, and statistics of every tensor of every checkpoint.

Cost per checkpoint on the hub: one small request for its files, and unless `quick` at most 1 MB of headers, config.json
and samples, plus its one-dimensional tensors, which are read whole (70m: 0.2 MB, 12b: 5 MB).
Local checkpoints are read whole, once (`models.statistics`).
"""

import math
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools import hub
from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.models.digest import weights_record
from pythia_tools.models.statistics import SKETCH, describe, weight_statistics
from pythia_tools.models.weights import canonical_name, is_buffer
from pythia_tools.suites import Checkpoint, Folder, HubRevision

WORKERS = 8
REAL_TOKENS = 50254
"""Sampled embedding rows are of ids below this (and below the vocabulary): padding rows do not train."""
EMBEDDING_VALUES = 100_000
"""Most values of sampled rows of the input embedding (at most 256 rows). The same ones at every step, as below."""
MATRIX_VALUES = SKETCH
"""First values of every other matrix that are read."""
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Finding:
    """One fault (`wrong`) or remark (`note`) about one checkpoint."""

    model: str
    step: int
    check: str
    detail: str
    severity: str = "wrong"


@dataclass
class Evidence:
    """What is known of one checkpoint; `problems` (check, what) say why no more is."""

    checkpoint: Checkpoint
    problems: list[tuple[str, str]] = field(default_factory=list)
    weights: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Weight file → (bytes, digest); of a folder one entry, its weights' digest."""
    config: dict[str, Any] | None = None
    tensors: dict[str, dict[Hashable, Any]] = field(default_factory=dict)
    """Canonical name → stored (its name), dtype, shape, values (how many it has), and `describe` of those read."""
    row_norm: float = float("nan")
    """Mean L2 norm of sampled rows of the input embedding."""
    network_bytes: int = 0

    @property
    def model(self) -> str:
        return self.checkpoint.model.name

    @property
    def step(self) -> int:
        return self.checkpoint.step

    @property
    def whole(self) -> bool:
        """Every value of every tensor was read."""
        return bool(self.tensors) and all(t["size"] == t["values"] for t in self.tensors.values())


def gather(checkpoints: Sequence[Checkpoint], *, quick: bool = False) -> list[Evidence]:
    """Evidence for checkpoints of one model, in order. Raises: EnvironmentFailure (hub unreachable)."""
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(_one, c, quick) for c in checkpoints]
        return [job.result() for job in progress.track(jobs, f"examine {checkpoints[0].model.name}", unit="ckpt")]


def main_digests(place: Folder | HubRevision) -> dict[str, str]:
    """{weight file: digest} of a repository's main branch; empty when it has none, and for folders."""
    if isinstance(place, Folder):
        return {}
    try:
        return {f.path: f.key for f in hub.listing(place.repo, "main").tensor_files}
    except DataError:
        return {}


def _one(checkpoint: Checkpoint, quick: bool) -> Evidence:
    found = Evidence(checkpoint)
    local = isinstance(checkpoint.location, Folder)
    for check, look in (("missing", _list_files), ("config", _read_config), ("damaged", _read_tensors)):
        if check == "missing" or local or not quick:
            try:
                look(found)
            except (DataError, RequestError, PermissionError, IsADirectoryError, ValueError) as error:
                found.problems.append((check, " ".join(str(error).split())))
                if check == "missing":
                    break
    return found


def _list_files(found: Evidence) -> None:
    place = found.checkpoint.location
    if isinstance(place, Folder):
        if not place.path.is_dir():
            raise DataError(f"{place.path}: no such checkpoint folder")
    else:
        entry = hub.listing(place.repo, place.revision)
        found.weights = {f.path: (f.size, f.key) for f in entry.needed if f in entry.tensor_files}


def _read_config(found: Evidence) -> None:
    config, read = hub.read_config(found.checkpoint)
    found.network_bytes += read
    if not isinstance(config, dict):
        raise DataError(f"config.json holds a {type(config).__name__}, not an object")
    found.config = config


def _read_tensors(found: Evidence) -> None:
    place = found.checkpoint.location
    weights = hub.open_weights(found.checkpoint)
    if isinstance(place, Folder):
        record = weights_record(place.path)
        found.weights = {"weights": (record.bytes, record.digest)}
        table = weight_statistics(place.path).assign(values=lambda t: t["size"])
    else:
        try:
            table = _samples(weights)
        finally:
            found.network_bytes += weights.read_bytes
    table["shape"] = table["shape"].map(tuple)
    found.tensors = {str(row["tensor"]): row for row in table.to_dict("records")}
    rows = _embedding_rows(weights)
    if rows is not None:
        found.row_norm = float(np.linalg.norm(rows.astype(np.float64), axis=1).mean())


def _samples(weights: hub.Weights) -> pd.DataFrame:
    """Statistics of the one-dimensional tensors, of rows of the embedding, and of the beginning of each matrix."""
    spots = {n: weights.spot(n) for n in weights.names}
    spots = {n: s for n, s in spots.items() if s.dtype in DTYPES and not is_buffer(n, s.shape)}
    embedding, sizes = weights.embedding(), {n: math.prod(s.shape) for n, s in spots.items()}
    values = weights.heads({n: MATRIX_VALUES if len(s.shape) > 1 else sizes[n] for n, s in spots.items()
                            if n != embedding})
    if (rows := _embedding_rows(weights)) is not None:
        values[str(embedding)] = rows
    return pd.DataFrame([
        {"tensor": canonical_name(n), "stored": n, "dtype": DTYPES[s.dtype], "shape": list(s.shape),
         "values": sizes[n], **describe(values[n])} for n, s in spots.items()
    ])


def _embedding_rows(weights: hub.Weights) -> np.ndarray | None:
    """Sampled rows of the input embedding; None where none is known by name."""
    name = weights.embedding()
    if name is None:
        return None
    spot = weights.spot(name)
    count = min(hub.SAMPLE_ROWS, max(1, EMBEDDING_VALUES // math.prod(spot.shape[1:])))
    return weights.rows(name, hub.sample_rows(spot, count, vocab=REAL_TOKENS))
