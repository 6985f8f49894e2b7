"""Deduplication of corpora on disk: sign → band → cluster → filter, with files between, each restartable.

    OUT/config.json      the request; another request into the same folder is refused
    OUT/work             what the stages hand on (sign, buckets, clusters, filter), each part with its digests
    OUT/kept/*.jsonl, OUT/dropped/*.jsonl         the documents, dropped ones with cluster, kept member and similarity
    OUT/items.parquet    one row per member of a cluster; summary.csv; run.json last: its presence means complete

Killed anywhere, the same call resumes where it stopped and ends with the same files. Every stage checks the digests of
what it reads; a damaged file is named, never used.
Cost: see scripts/benchmarks/dedup.py. Memory: a few parts of text, and under 100 bytes per document with method lsh.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import sweep_parts
from pythia_tools.core.results import RunFolder, load_run
from pythia_tools.dedup.backends import Runner, open_backend
from pythia_tools.dedup.band import bucket_tasks, write_buckets
from pythia_tools.dedup.cluster import write_clusters
from pythia_tools.dedup.config import DedupConfig, curve_in_words
from pythia_tools.dedup.filter import estimated_recall, filter_shard
from pythia_tools.dedup.parts import Part
from pythia_tools.dedup.report import member_table, summary_table
from pythia_tools.dedup.sign import Job, first_documents, make_shards, sign_shard
from pythia_tools.tokens.documents import DATASET, expand_inputs


@dataclass(frozen=True)
class DedupResult:
    """A finished deduplication: the folder, counts (inputs: files or splits read; below_threshold: of the dropped,
    those below the threshold to the one kept), and per document its cluster and kept member (arrays on disk)."""

    folder: Path
    inputs: int
    documents: int
    dropped: int
    below_threshold: int
    clusters: int
    roots: np.ndarray
    kept: np.ndarray


def run_stages(
    inputs: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str], config: DedupConfig | None = None, *,
    backend: str = "local", workers: int | None = None, request: dict[str, Any] | None = None,
) -> DedupResult:
    """Deduplicate files into a folder; called again after being stopped, it resumes.

    Args:
        inputs: files, folders, `dataset:NAME`; see tokens.documents.
        out: the folder.
        config: options; exact clusters at 0.87 by default.
        backend: `local`, or `ray` for tasks on a Ray cluster whose machines share the folder.
        workers: threads per task, or the cores Ray gets when it is started here.
        request: what `pythia-tools rerun` should repeat; by default the config.

    Raises: RequestError when `out` holds another request; DataError on a damaged input or stage file.
    """
    config = config or DedupConfig()
    if (config.unit == "token") != (config.tokenizer is not None):
        raise RequestError("unit 'token' needs a tokenizer, and a tokenizer is for unit 'token' only")
    sources = expand_inputs(inputs)
    sizes = [None if s.startswith(DATASET) else os.path.getsize(s) for s in sources]
    chosen = {name: value for name, value in asdict(config).items() if name != "memory_bytes"}  # it decides no result
    decided = {"dedup": chosen, "inputs": sources, "input_bytes": sizes}
    with RunFolder(out, {**(request or {"command": None}), **decided}) as run:
        return _run_in(run, Job(config, make_shards(sources, config.part_bytes), run.path), backend, workers)


def _run_in(run: RunFolder, job: Job, backend: str, workers: int | None) -> DedupResult:
    config = job.config
    for folder in {left.parent for left in run.path.rglob(".*.part")}:
        sweep_parts(folder)  # what a killed run was writing
    if config.method == "lsh":
        progress.note(curve_in_words(config.threshold, *config.bands_and_rows()))
    timings: dict[str, float] = {}
    with open_backend(backend, workers) as runner:
        signed, clusters = _all_stages(job, runner, workers, timings)
    if not run.complete:
        items = member_table(signed, clusters, config)
        scheme = f"{config.scheme}, {config.hashing}" if config.method == "lsh" else None
        facts = {"signature_scheme": scheme, "similarity": config.similarity_kind()}
        if config.method == "lsh":
            facts["curve"] = curve_in_words(config.threshold, *config.bands_and_rows())
        found = estimated_recall(job, signed, clusters.array("roots")) if config.judges else None
        if found is not None:
            said = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" if found.n else "no near-duplicate in it"
            progress.note(f"recall on this corpus, by {config.judged} documents judged exactly: {said}")
        summary = summary_table(signed, clusters, found)
        texts = [str(p.facts["text_sha256"]) for p in signed]
        run.finish(items, summary, data=texts, timings=timings, extra={"dedup": facts})
    counts = {name: clusters.facts[name] for name in ("documents", "dropped", "below_threshold", "clusters")}
    roots, kept = clusters.array("roots"), clusters.array("kept")
    return DedupResult(run.path, sum(map(len, job.shards)), **counts, roots=roots, kept=kept)


def stored_parts(folder: str | os.PathLike[str]) -> tuple[list[Part], Part]:
    """Signed parts and clusters of a finished deduplication. Raises RequestError or DataError when there is none."""
    config = load_run(folder).record["config"]
    if "dedup" not in config:
        raise RequestError(f"{folder} is a run of another command; a deduplication is written by `pythia-tools dedup`")
    options = DedupConfig(**config["dedup"])
    job = Job(options, make_shards(config["inputs"], options.part_bytes), Path(folder))
    signed = job.signed()
    return signed, write_clusters(job, signed)


def _all_stages(
    job: Job, run: Runner, workers: int | None, timings: dict[str, float]
) -> tuple[list[Part], Part]:
    start = time.perf_counter()

    def lap(stage: str) -> None:
        timings[stage] = time.perf_counter() - start - sum(timings.values())

    run(sign_shard, [(job, i, workers) for i in range(len(job.shards))], "sign")
    signed = job.signed()
    lap("sign")
    if job.config.method == "lsh":
        tasks = bucket_tasks(job.config, int(first_documents(signed)[-1]))
        run(write_buckets, [(job, task) for task in tasks], "band")
    lap("band")
    clusters = write_clusters(job, signed, workers)
    lap("cluster")
    run(filter_shard, [(job, i, workers) for i in range(len(job.shards))], "filter")
    lap("filter")
    return signed, clusters
