"""A fresh run of the checkpoints that a published table has, answered in full, and in part in another number format
again, and compared.

    OUT/items.parquet         the compared numbers (`columns.NUMBER`)
    OUT/neighbours.csv        which checkpoints fit as well or better
    OUT/answers.parquet       every answer, as `evaluate` keeps them
    OUT/formats.parquet       how far documents lie apart in two number formats

Cost: that of `evaluate`, and of `sample` documents of each task at each model's last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.evaluate import Evaluate, EvaluateOptions
from pythia_tools.analysis import Context, prepare, sweep
from pythia_tools.analysis.perform import Prepared
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError, few
from pythia_tools.core.files import atomic_write
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.models.devices import choose_device, choose_dtype, dtype_name, named_dtype
from pythia_tools.models.digest import known_record
from pythia_tools.suites import Checkpoint
from pythia_tools.verification.check import Verification, compared
from pythia_tools.verification.compare import of_suites
from pythia_tools.verification.noise import differences, kept_in

FORMATS = ("float16", "bfloat16", "float32")
"""Number formats that are tried for the second answers, the run's own left out."""
METHOD = (
    "Each published number is compared with the run's own for the same checkpoint, task, shots and metric. It is equal "
    "when the two differ by rounding only, within noise when documents that another number format may flip explain it, "
    "and outside otherwise. Formats were compared on up to {sample} documents of each task at each model's last "
    "checkpoint ({formats}, which log-likelihoods were rounded to as well); an honest run has a number outside at most "
    "once in a hundred runs."
)


@dataclass(frozen=True)
class Asked:
    """What is evaluated: the checkpoints that both have, `evaluate`'s options, documents of a task that are answered in
    `other` as well (None: a format that the run does not have; no documents: no second answers).
    """

    options: EvaluateOptions
    sample: int = 200
    other: str | None = None


class Answers(NamedTuple):
    """What `evaluate` gives: items, summary, digests of weights, counts of cells, the digests of its tasks."""

    items: pd.DataFrame
    summary: pd.DataFrame
    weights: dict[str, str]
    cells: dict[str, int]
    tasks: dict[str, str]


def shared(checkpoints: Sequence[Checkpoint], published: pd.DataFrame) -> list[Checkpoint]:
    """The checkpoints that the published table has, too. Raises RequestError when it has none of them."""
    suites = pd.DataFrame({"suite": [c.suite for c in checkpoints]}, dtype="string")
    mine = of_suites(published, suites)
    known = set(zip(mine["model"], mine["step"], strict=True))
    both = [c for c in checkpoints if (c.model.name, c.step) in known]
    if not both:
        names = few(sorted({f"{s}/{m}" for s, m in zip(published["suite"], published["model"], strict=True)}), 5)
        raise RequestError(f"none of the {len(checkpoints)} checkpoints chosen was published here, which has {names}; "
                           "choose others with --models and --steps")
    return both


def tasks_of(published: pd.DataFrame, checkpoints: Iterable[Checkpoint]) -> tuple[str, ...]:
    """Tasks of today that were published for these checkpoints."""
    here = {(c.model.name, c.step) for c in checkpoints}
    mine = [key in here for key in zip(published["model"], published["step"], strict=True)]
    rows = published[mine]
    found = tuple(dict.fromkeys(rows["task_now"].dropna()))
    if not found:
        raise RequestError("no published task of these checkpoints has a counterpart in lm-eval; give --tasks")
    return found


def prepared(context: Context, asked: Asked) -> Prepared:
    """`evaluate` with its tasks built."""
    return prepare(Evaluate(), context, asked.options)


def run(context: Context, asked: Asked, published: pd.DataFrame, folder: RunFolder) -> tuple[Verification, Run]:
    """Answer, compare, and write the run. Raises what `evaluate` and `verify` raise."""
    context.execution = replace(context.execution, cells=folder.cells)
    start = time.monotonic()
    answers = answer(context, asked.options)
    others = second_answers(context, asked) if asked.sample else {}
    apart = [differences(answers.items, items) for items in others.values()]
    seconds = round(time.monotonic() - start, 2)
    found = compared(answers.summary, answers.items, published, pd.concat(apart, ignore_index=True) if apart else None,
                     answers.weights)
    return found, _finish(found, answers, asked, folder, (tuple(others), seconds))


def answer(context: Context, options: EvaluateOptions) -> Answers:
    """The answers of every checkpoint of a context."""
    one = prepare(Evaluate(), context, options)
    result = sweep(context, one.tasks)
    items = one.analysis.items({task.name: result[task.name] for task in one.tasks}, context, one.options)
    summary = one.analysis.summarize(items, context, one.options)
    cells = {"computed": result.computed, "reused": result.reused}
    return Answers(items, summary, result.weights, cells, {task.name: task.digest for task in one.tasks})


def second_answers(context: Context, asked: Asked) -> dict[str, pd.DataFrame]:
    """Format → answers of the first documents, at each model's last checkpoint; a second one where the first one's
    numbers are lost.
    """
    last = {c.model.name: c for c in sorted(context.checkpoints, key=lambda c: c.step)}
    limit = asked.sample if asked.options.limit is None else min(asked.sample, asked.options.limit)
    options = replace(asked.options, limit=limit)
    found: dict[str, pd.DataFrame] = {}
    for name in [asked.other] if asked.other else other_formats(context, list(last.values())):
        execution = replace(context.execution, dtype=name)
        there = Context(list(last.values()), execution, suite=context.suite, tokenizer=context.tokenizer)
        one = prepare(Evaluate(), there, options)
        result = sweep(there, one.tasks)
        found[name] = kept_in(
            one.analysis.items({t.name: result[t.name] for t in one.tasks}, there, one.options), name
        )
        lost = ~np.isfinite(found[name]["ll"]) & found[name]["kind"].ne("generate_until")
        if not lost.any():
            break
        progress.note(f"{name} overflows in {int(lost.sum()):,} of {len(lost):,} answers")
    return found


def other_formats(context: Context, checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Formats that none of the checkpoints was just evaluated in, the likeliest of a published run first."""
    device, own = choose_device(context.execution.device), set()
    for checkpoint in checkpoints:
        record = known_record(checkpoint)
        stored = named_dtype(record.stored if record is not None else "float32")
        own.add(dtype_name(choose_dtype(checkpoint, context.execution.dtype, device, stored)))
    return [name for name in FORMATS if name not in own]


def _finish(
    found: Verification, answers: Answers, asked: Asked, folder: RunFolder, measured: tuple[tuple[str, ...], float]
) -> Run:
    formats, seconds = measured
    for name, table in (("answers.parquet", answers.items), ("formats.parquet", found.formats)):
        if table is not None:
            with atomic_write(folder.path / name) as out:
                table.to_parquet(out, index=False)
    with atomic_write(folder.path / "neighbours.csv", "w") as out:
        found.neighbours.to_csv(out, index=False)
    captions = {}
    if (found.numbers["verdict"] != "not compared").any():
        plots.save(plots.verdicts(found.numbers), folder.figures, "differences")
        captions["differences"] = "What the run has and what was published, in units of the noise allowed for."
    return folder.finish(
        found.numbers, found.summary, weights=answers.weights, timings={"evaluating": seconds},
        extra={
            "title": "Published numbers verified", "verdict": found.verdict, "captions": captions,
            "method": METHOD.format(sample=asked.sample, formats=", ".join(formats) or "not compared"),
            "sentences": [{"text": s.text, "rows": list(s.rows)} for s in found.sentences],
            "tasks": answers.tasks, "cells": answers.cells, "formats": list(formats),
        },
    )
