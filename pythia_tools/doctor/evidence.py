"""What an audit looks at: file listings, tensor shapes, and a few hundred embedding rows of every checkpoint.

Cost per checkpoint on the hub: one small request for its files, and unless `quick` at most 1 MB of headers and rows
(more only when more rows are asked for).
Local checkpoints are read whole (digests, and every tensor for NaN).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pythia_tools import hub
from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError
from pythia_tools.suites import Checkpoint, Folder, HubRevision

WORKERS = 8
REAL_TOKENS = 50254
"""Sampled embedding rows are of ids below this (and below the vocabulary): padding rows do not train."""
RESIDUAL = "gpt_neox.layers.0.attention.dense.weight"
RESIDUAL_BYTES = 30_000
BUFFER_NAMES = ("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")


@dataclass
class Evidence:
    """What is known of one checkpoint; `problem` says why nothing more is."""

    checkpoint: Checkpoint
    problem: str | None = None
    weights: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Weight file → (bytes, digest)."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """Tensor → (dtype, shape), buffers left out; empty when quick."""
    rows: np.ndarray | None = None
    """Embedding rows (n, d_model) as float32."""
    rows_dtype: str = ""
    """The format in which the file holds them, as safetensors spells it."""
    residual: np.ndarray | None = None
    """Rows of the first layer's attention output projection, at the first step only."""
    not_finite: list[str] = field(default_factory=list)
    network_bytes: int = 0

    @property
    def model(self) -> str:
        return self.checkpoint.model.name

    @property
    def step(self) -> int:
        return self.checkpoint.step

    @property
    def digests(self) -> set[str]:
        return {digest for _, digest in self.weights.values()}


def gather(checkpoints: Sequence[Checkpoint], *, quick: bool = False, row_count: int | None = None) -> list[Evidence]:
    """Evidence for checkpoints of one model, in order. Raises: EnvironmentFailure (hub unreachable)."""
    first = min(c.step for c in checkpoints)
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(_one, c, quick, row_count, c.step == first) for c in checkpoints]
        return [job.result() for job in progress.track(jobs, f"examine {checkpoints[0].model.name}", unit="ckpt")]


def main_digests(place: Folder | HubRevision) -> dict[str, str]:
    """{weight file: digest} of a repository's main branch; empty when it has none, and for folders."""
    if isinstance(place, Folder):
        return {}
    try:
        return {f.path: f.key for f in hub.listing(place.repo, "main").tensor_files}
    except DataError:
        return {}


def _one(checkpoint: Checkpoint, quick: bool, row_count: int | None, is_first: bool) -> Evidence:
    evidence = Evidence(checkpoint)
    try:
        if isinstance(checkpoint.location, Folder):
            folder = checkpoint.location.path
            if not (folder / "config.json").is_file():
                raise DataError(f"{folder} holds no config.json")
            paths = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
            evidence.weights = {p.name: (p.stat().st_size, files.sha256_file(p)) for p in paths}
        else:
            entry = hub.listing(checkpoint.location.repo, checkpoint.location.revision)
            evidence.weights = {f.path: (f.size, f.key) for f in entry.needed if f in entry.tensor_files}
        if not quick or isinstance(checkpoint.location, Folder):
            _look_inside(evidence, row_count, is_first)
    except DataError as error:
        evidence.problem = str(error)
    return evidence


def _look_inside(evidence: Evidence, row_count: int | None, is_first: bool) -> None:
    weights = hub.open_weights(evidence.checkpoint)
    spots = {name: weights.spot(name) for name in weights.names}
    evidence.shapes = {n: (s.dtype, s.shape) for n, s in spots.items() if not n.endswith(BUFFER_NAMES)}
    embedding = weights.embedding()
    rows = weights.rows(embedding, hub.sample_rows(spots[embedding], row_count, vocab=REAL_TOKENS))
    evidence.rows, evidence.rows_dtype = rows.astype(np.float32), spots[embedding].dtype
    evidence.not_finite = [] if _finite(evidence.rows) else [embedding]
    if is_first and RESIDUAL in spots:
        count = max(1, min(spots[RESIDUAL].shape[0], RESIDUAL_BYTES // spots[RESIDUAL].row_bytes))
        evidence.residual = weights.rows(RESIDUAL, np.arange(count)).astype(np.float32)
    if isinstance(evidence.checkpoint.location, Folder):
        evidence.not_finite += [n for n in evidence.shapes if n != embedding and not _finite(weights.tensor(n))]
    evidence.network_bytes = weights.read_bytes


def _finite(tensor: np.ndarray) -> bool:
    return bool(np.isfinite(tensor).all()) if tensor.dtype.kind == "f" else True
