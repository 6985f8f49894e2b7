"""Analyses over one suite: one sweep for all of them, then a finished run each. The command, the study and Python all
come here.

    OUT/config.json, OUT/cells/                    one analysis: OUT is its run
    OUT/NAME/…                                     several: a run each, with the cells in OUT

Every cell is kept as it is computed, so a killed run resumes where it stopped and ends with the same tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import pandas as pd

from pythia_tools import plots
from pythia_tools.analysis.context import Context, Execution, Where
from pythia_tools.analysis.declaration import AnyAnalysis, Export
from pythia_tools.analysis.sweep import SweepResult, Task, sweep
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.core.files import atomic_write, confined, write_json, write_text
from pythia_tools.core.options import Options, from_mapping
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.suites import Checkpoint


@dataclass(frozen=True)
class Prepared:
    """An analysis with its options and the tasks that they make."""

    analysis: AnyAnalysis
    options: Options
    tasks: Sequence[Task]

    @property
    def config(self) -> dict[str, object]:
        """What of the analysis decides its numbers."""
        return {"analysis": self.analysis.name, "version": self.analysis.version, "options": asdict(self.options)}


def prepare(analysis: AnyAnalysis, context: Context, options: Options | None = None) -> Prepared:
    """Check the options and build the tasks. Raises RequestError for what the suite or the options cannot give."""
    chosen = from_mapping(analysis.Options, asdict(options) if options is not None else {})
    return Prepared(analysis, chosen, list(analysis.tasks(context, chosen)))


def measure(analysis: AnyAnalysis, checkpoints: Iterable[Checkpoint], **request: object) -> pd.DataFrame:
    """The item table of an analysis: `measure(get("weight-norms"), checkpoints, matrices="*", device="cpu")`.

    Keywords: the analysis' options, those of an Execution, and `suite`, `order`, `tokenizer` as a Context takes them.
    Raises RequestError for a keyword that is none of these.
    """
    own = {f.name for f in fields(analysis.Options)}
    where = {k: request.pop(k) for k in list(request) if k in Where.__annotations__ and k not in own}
    about = {k: request.pop(k) for k in list(request) if k in ("suite", "order", "tokenizer") and k not in own}
    strange = sorted(set(request) - own)
    if strange:
        raise unknown(f"option of {analysis.name}", strange[0], sorted(own))
    context = Context(checkpoints, Execution(**where), **about)  # type: ignore[arg-type]
    prepared = prepare(analysis, context, from_mapping(analysis.Options, request))
    result = sweep(context, prepared.tasks)
    return analysis.items(result, context, prepared.options)


def run(prepared: Prepared, context: Context, folder: RunFolder) -> Run:
    """One analysis as a finished run in its folder."""
    return run_all([prepared], context, folder, {prepared.analysis.name: folder})[prepared.analysis.name]


def run_all(
    prepared: Sequence[Prepared], context: Context, whole: RunFolder, folders: Mapping[str, RunFolder]
) -> dict[str, Run]:
    """Several analyses, one sweep: analysis name → its finished run. Cells are kept in the folder of the whole."""
    context.execution = replace(context.execution, cells=whole.cells)
    start = time.monotonic()
    result = sweep(context, [task for one in prepared for task in one.tasks])
    timings = {f"evaluating {len(context.checkpoints)} checkpoints": round(time.monotonic() - start, 2)}
    named = {one.analysis.name: one for one in prepared}
    return {name: finish(one, context, result, folders[name], timings) for name, one in named.items()}


def finish(
    one: Prepared, context: Context, result: SweepResult, folder: RunFolder, timings: Mapping[str, float]
) -> Run:
    """Tables, figures, sentences and receipts of one analysis; run.json last. A shard draws and claims nothing."""
    analysis, options, start = one.analysis, one.options, time.monotonic()
    items = analysis.items({task.name: result[task.name] for task in one.tasks}, context, options)
    summary = checked(analysis, analysis.summarize(items, context, options) if len(items) else tables.summary([]))
    captions: dict[str, str] = {}
    sentences: list[dict[str, object]] = []
    if context.execution.shard is None:
        for figure in analysis.figures(items, summary):
            plots.save(figure.target, folder.figures, figure.name)
            captions[figure.name] = figure.caption
        for export in analysis.exports(items, context, options):
            _write(folder, export)
        sentences = [{"text": s.text, "rows": list(s.rows)} for s in analysis.sentences(summary)]
    seconds = round(time.monotonic() - start, 2)
    return folder.finish(
        items, summary, weights=result.weights, data=context.order.fingerprint if "order" in vars(context) else None,
        timings={**timings, f"{analysis.name}: tables and figures": seconds},
        extra={
            **one.config, "title": analysis.title(), "method": analysis.method_text(options), "captions": captions,
            "sentences": sentences, "tasks": {task.name: task.digest for task in one.tasks},
            "cells": {"computed": result.computed, "reused": result.reused},
        },
    )


def checked(analysis: AnyAnalysis, summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with the analysis' name and the units of its metrics; a number named twice is a fault of the
    analysis.
    """
    whole = tables.summary(summary.to_dict("records"), analysis=analysis.name, metrics=analysis.metrics)  # type: ignore[arg-type]
    twice = whole[whole.duplicated(tables.KEYS)]
    if len(twice):
        raise AssertionError(f"{analysis.name}: two numbers are called {twice.iloc[0][tables.KEYS].dropna().to_dict()}")
    return whole


def _write(folder: RunFolder, export: Export) -> None:
    target, content = confined(folder.path, str(export.path)), export.content
    if isinstance(content, pd.DataFrame):
        with atomic_write(target) as out:
            (content.to_csv if target.suffix == ".csv" else content.to_parquet)(out, index=False)
    elif isinstance(content, Mapping):
        write_json(target, content)
    else:
        write_text(target, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content))


def prepare_all(
    analyses: Sequence[AnyAnalysis], context: Context, options: Mapping[str, Options], *, strict: bool
) -> list[Prepared]:
    """Those of the analyses that the suite can carry; one that it cannot is refused when strict, else left out with a
    note.
    """
    found = []
    for analysis in analyses:
        try:
            found.append(prepare(analysis, context, options.get(analysis.name)))
        except RequestError as error:
            if strict:
                raise
            progress.note(f"{analysis.name} is left out: {error}")
    if not found:
        raise RequestError(f"no analysis can be made of {context.name}; see the reasons above")
    return found
