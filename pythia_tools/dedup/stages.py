"""Deduplication of corpora on disk: sign → band → cluster → filter, with files between, each restartable.

    OUT/config.json      the request; another request into the same folder is refused
    OUT/work/sign|keys|buckets|clusters|filter/   what the stages hand on, each part with its digests
    OUT/kept/*.jsonl, OUT/dropped/*.jsonl         the documents, dropped ones with cluster, kept member and similarity
    OUT/items.parquet    one row per member of a cluster; summary.csv; run.json last: its presence means complete

Killed anywhere, the same call goes on where it stopped and ends with the same files. Every stage checks the digests of
what it reads; a damaged file is named, never used.
Cost: see scripts/benchmarks/dedup.py. Memory: a few parts of text, and under 100 bytes per document with method lsh.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import sweep_parts
from pythia_tools.core.results import RunFolder, load_run
from pythia_tools.dedup.backends import Backend, open_backend
from pythia_tools.dedup.band import bucket_tasks, write_buckets, write_exact_links, write_keys
from pythia_tools.dedup.cluster import write_clusters
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.filter import filter_shard
from pythia_tools.dedup.lsh import curve_in_words
from pythia_tools.dedup.parts import Part
from pythia_tools.dedup.report import member_table, summary_table
from pythia_tools.dedup.sign import first_documents, make_shards, sign_shard, signed_parts
from pythia_tools.tokens.documents import DATASET, expand_inputs


@dataclass(frozen=True)
class DedupResult:
    """A finished deduplication: counts, the folder, and per document its cluster and kept member (arrays on disk)."""

    folder: Path
    documents: int
    dropped: int
    clusters: int
    roots: np.ndarray
    kept: np.ndarray


def run_stages(
    inputs: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str], config: DedupConfig | None = None, *,
    backend: str = "local", workers: int | None = None, request: dict[str, Any] | None = None,
) -> DedupResult:
    """Deduplicate files into a folder; called again after being stopped, it goes on.

    Args:
        inputs: files, folders, `dataset:NAME`; see tokens.documents.
        out: the folder.
        config: options; exact clusters at 0.87 by default.
        backend: `local`, or `ray` for tasks on a Ray cluster whose machines share the folder.
        workers: threads per task, or Ray's processors when it is started here.
        request: what `pythia-tools rerun` should repeat; by default the config.

    Raises: RequestError when `out` holds another request; DataError on a damaged input or stage file.
    """
    config = config or DedupConfig()
    sources = expand_inputs(inputs)
    sizes = [None if s.startswith(DATASET) else os.path.getsize(s) for s in sources]
    run = RunFolder(out, {**(request or {"command": None}), "dedup": config.as_dict(), "inputs": sources, "input_bytes": sizes})
    for folder in {left.parent for left in run.path.rglob(".*.part")}:
        sweep_parts(folder)  # what a killed run was writing
    if config.method == "lsh":
        progress.note(curve_in_words(config.threshold, *config.bands_and_rows()))
    shards = make_shards(sources, config.part_bytes)
    timings: dict[str, float] = {}
    with open_backend(backend, workers) as engine:
        signed, clusters = _all_stages(config, shards, run.path, engine, workers, timings)
    if not run.complete:
        items = member_table(signed, clusters, config)
        scheme = f"{config.scheme}, {config.hashing}" if config.method == "lsh" else None
        facts = {"signature_scheme": scheme, "similarity": config.similarity_kind()}
        if config.method == "lsh":
            facts["curve"] = curve_in_words(config.threshold, *config.bands_and_rows())
        run.finish(items, summary_table(signed, clusters), data=_fingerprint(signed), timings=timings, extra={"dedup": facts})
    return _result(run.path, clusters)


def load_dedup(folder: str | os.PathLike[str]) -> DedupResult:
    """A finished deduplication. Raises RequestError or DataError when there is none."""
    return _result(Path(folder), stored_parts(folder)[1])


def stored_parts(folder: str | os.PathLike[str]) -> tuple[list[Part], Part, DedupConfig]:
    """Signed parts, clusters and config of a finished deduplication."""
    config = load_run(folder).record["config"]
    if "dedup" not in config:
        raise RequestError(f"{folder} is a run of another command; a deduplication is written by `pythia-tools dedup`")
    signed, clusters = _stored(Path(folder), config)
    return signed, clusters, DedupConfig(**config["dedup"])


def _stored(folder: Path, record: dict[str, Any]) -> tuple[list[Part], Part]:
    config = DedupConfig(**record["dedup"])
    signed = signed_parts(config, make_shards(record["inputs"], config.part_bytes), folder / "work" / "sign")
    return signed, write_clusters(config, signed, folder / "work")


def _all_stages(
    config: DedupConfig, shards: list[list[str]], out: Path, engine: Backend, workers: int | None, timings: dict[str, float]
) -> tuple[list[Part], Part]:
    options, work = config.as_dict(), str(out / "work")
    start = time.perf_counter()
    engine.run(sign_shard, [(options, shard, i, f"{work}/sign", workers) for i, shard in enumerate(shards)], "sign")
    signed = signed_parts(config, shards, out / "work" / "sign")
    timings["sign"] = time.perf_counter() - start
    if config.method == "lsh":
        engine.run(write_keys, [(options, shards, i, work) for i in range(len(signed))], "band keys")
        tasks = bucket_tasks(config, int(first_documents(signed)[-1]))
        engine.run(write_buckets, [(options, shards, task, work) for task in tasks], "band")
    else:
        engine.run(write_exact_links, [(options, shards, work, workers)], "band")
    timings["band"] = time.perf_counter() - start - sum(timings.values())
    clusters = write_clusters(config, signed, out / "work")
    timings["cluster"] = time.perf_counter() - start - sum(timings.values())
    engine.run(filter_shard, [(options, shards, i, str(out)) for i in range(len(shards))], "filter")
    timings["filter"] = time.perf_counter() - start - sum(timings.values())
    return signed, clusters


def _fingerprint(signed: list[Part]) -> list[str]:
    return [str(p.facts["text_sha256"]) for p in signed]


def _result(folder: Path, clusters: Part) -> DedupResult:
    facts = clusters.facts
    return DedupResult(folder, facts["documents"], facts["dropped"], facts["clusters"], clusters.array("roots"), clusters.array("kept"))
