"""The study: one sweep over all checkpoints for all analyses, then a finished run per analysis and one report.

Folder: `OUT/{memorization,term-frequency,bias,learning}` are runs of their own; OUT itself is a run too (all items, all
numbers), and holds `report.html`. Every cell is kept as it is computed, so a killed study resumes where it stopped and
ends with the same tables.
Cost: for pythia-micro about a minute on two cores, most of it forward passes of the largest model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools import plots
from pythia_tools.analysis import SweepResult, sweep
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import write_text
from pythia_tools.core.results import CellStore, Run, RunFolder, load_run
from pythia_tools.report import build_report
from pythia_tools.study.bias import BiasPart
from pythia_tools.study.learning import LearningPart
from pythia_tools.study.material import Material, compare_with_truth, gather
from pythia_tools.study.memorization import MemorizationPart
from pythia_tools.study.parts import Part
from pythia_tools.study.term_frequency import TermFrequencyPart
from pythia_tools.suites import load_suite
from pythia_tools.suites.checkpoint import Checkpoint

ANALYSES = ("memorization", "term-frequency", "bias", "learning")


@dataclass(frozen=True)
class Study:
    """A finished study: its folder, its report, its runs by analysis, and how counts compare with what was planted."""

    path: Path
    report: Path
    runs: dict[str, Run]
    truth: pd.DataFrame | None = field(repr=False, default=None)


def run_study(
    suite: str | Path = "pythia-micro", out: str | Path = "runs/study", *, models_wanted: Sequence[str] | None = None, steps: Any = "all",
    analyses: Sequence[str] = ANALYSES, device: str = "auto", dtype: str | None = None, allow_defective: bool = False,
    config: Mapping[str, Any] | None = None, command: str | None = None, title: str | None = None,
) -> Study:
    """The study of a suite, written to `out`. Raises what loading, reading and writing raise (see `errors`).

    `analyses`: any of ANALYSES. `config` is what `rerun` repeats (default: these arguments); `command` the shell line shown
    in the report.
    """
    unknown = [a for a in analyses if a not in ANALYSES]
    if unknown or not analyses:
        raise RequestError(f"unknown analysis {', '.join(map(repr, unknown)) or 'list (empty)'}; allowed: {', '.join(ANALYSES)}")
    loaded = load_suite(suite)
    checkpoints = loaded.checkpoints(models_wanted, steps, allow_defective=allow_defective)
    config = dict(config or {"command": "study", "suite": str(suite), "models": models_wanted, "steps": steps, "analyses": list(analyses),
                             "dtype": dtype, "allow_defective": allow_defective})
    folder = RunFolder(out, config)
    clock = Clock()
    material = gather(loaded)
    parts = make_parts(material, checkpoints, analyses, folder.cells)
    clock.lap("reading data and counting exposures")
    tasks = [task for part in parts for task in part.tasks()]
    result = sweep(checkpoints, tasks, cells=folder.cells, device=device, dtype=dtype, allow_defective=allow_defective)
    clock.lap(f"evaluating {len(checkpoints)} checkpoints")
    runs = {part.name: finish_part(part, result, folder, config, material) for part in parts}
    clock.lap("tables and figures")
    truth = check_truth(parts, material)
    whole = finish_whole(folder, runs, result.weights, material, truth, clock.laps)
    page = build_report(
        list(runs.values()), title=title or f"Training dynamics of {loaded.name}", lead=lead(loaded.name, checkpoints, truth),
        command=command or f"python scripts/study.py {suite} --out {out}", timings=clock.laps | {"all": sum(clock.laps.values())},
    )
    report = whole.path / "report.html"
    write_text(report, page)
    return Study(whole.path, report, runs, truth)


def make_parts(material: Material, checkpoints: Sequence[Checkpoint], analyses: Sequence[str], cells: CellStore) -> list[Part]:
    """The parts asked for, built once; all checkpoints share them."""
    steps = sorted({c.step for c in checkpoints})
    makers: dict[str, Any] = {
        "memorization": lambda: MemorizationPart(material, steps),
        "term-frequency": lambda: TermFrequencyPart(material, steps, cells=cells),
        "bias": lambda: BiasPart(material),
        "learning": lambda: LearningPart(material, checkpoints),
    }
    return [makers[name]() for name in ANALYSES if name in analyses]


def finish_part(part: Part, result: SweepResult, folder: RunFolder, config: Mapping[str, Any], material: Material) -> Run:
    """One analysis as a run of its own: tables, figures, sentences' input, receipts."""
    items, summary = part.tables(result)
    own = RunFolder(folder.path / part.name, {**config, "analysis": part.name})
    captions = {}
    for drawing in part.draw(items, summary):
        plots.save(drawing.target, own.figures, drawing.name)
        captions[drawing.name] = drawing.caption
    return own.finish(items, summary, weights=result.weights, data=material.order.fingerprint,
                      extra={"captions": captions, "method": part.method, "analysis": part.name})


def check_truth(parts: Sequence[Part], material: Material) -> pd.DataFrame | None:
    """Exposures as counted beside exposures as planted; a warning when they disagree. None without a truth manifest."""
    counted = [c for c in (part.counted() for part in parts) if c is not None]
    if material.truth is None or not counted:
        return None
    table = compare_with_truth(pd.concat(counted, ignore_index=True), material.truth)
    wrong = table[table["items that differ"] > 0]
    if len(wrong):
        progress.warn(f"exposures counted differ from those planted for: {', '.join(wrong['table'])}")
    return table


def finish_whole(
    folder: RunFolder, runs: Mapping[str, Run], weights: dict[str, str], material: Material,
    truth: pd.DataFrame | None, laps: dict[str, float],
) -> Run:
    """The study's own tables: every item and number of its runs, with the analysis in front."""
    items = pd.concat([run.items.assign(analysis=name) for name, run in runs.items()], ignore_index=True)
    summary = pd.concat([run.summary for run in runs.values()], ignore_index=True)
    extra = {} if truth is None else {"truth": json.loads(truth.to_json(orient="records"))}
    folder.finish(tables.check_items(items), summary, weights=weights, data=material.order.fingerprint, timings=laps, extra=extra)
    return load_run(folder.path)


def lead(name: str, checkpoints: Sequence[Checkpoint], truth: pd.DataFrame | None) -> str:
    """What was studied, in two sentences."""
    sizes = {c.model.name: c.model.params for c in checkpoints if c.model.branch == "main"}
    branches = {c.model.name for c in checkpoints} - set(sizes)
    steps = {c.step for c in checkpoints}
    text = f"{len(checkpoints)} checkpoints of {name}: {len(sizes)} sizes, {len(steps)} steps from {min(steps):,} to {max(steps):,}"
    text += f", and {len(branches)} intervention branch{'es' if len(branches) != 1 else ''}. " if branches else ". "
    if truth is not None:
        differ, total = int(truth["items that differ"].sum()), int(truth["items"].sum())
        text += (f"Exposures counted in the training order equal what was planted for all {total:,} planted items."
                 if differ == 0 else f"Exposures counted differ from what was planted for {differ:,} of {total:,} planted items.")
    return text


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
