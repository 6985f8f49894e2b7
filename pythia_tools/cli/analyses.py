"""The command of an analysis, derived from its declaration: flags, help, plan, run. One for all, a user's own too."""

import argparse
from pathlib import Path

import pandas as pd

from pythia_tools.analysis import AnyAnalysis, Context, Execution, plan, prepare, run
from pythia_tools.cli.options import SWEEP, add, emit, recorded, require_out
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND
from pythia_tools.core.options import add_flags, from_mapping
from pythia_tools.core.results import CellStore, RunFolder
from pythia_tools.suites import load_suite

HIDDEN = ("suite", "params", "tokens", "seed", "analysis", "interval")
"""Columns of a summary that a person does not look at first."""


def configure(parser: argparse.ArgumentParser, analysis: AnyAnalysis) -> None:
    add(parser, "suite", *SWEEP, "--out")
    add_flags(parser, analysis.Options)


def run_command(args: argparse.Namespace, analysis: AnyAnalysis) -> int | None:
    """Plan or run it. Refusals come before anything is written or fetched."""
    context = context_of(args)
    prepared = prepare(analysis, context, from_mapping(analysis.Options, vars(args)))
    if args.dry_run:
        return show_plan(plan(context, prepared.tasks), args)
    config = recorded(analysis.name, args, version=analysis.version, checkpoints=chosen(context))
    with RunFolder(require_out(args), config) as folder:
        finished = run(prepared, context, folder)
    for sentence in finished.record["sentences"]:
        progress.note(sentence["text"])
    emit(finished.summary, args, shown(analysis, finished.summary))
    return None


def show_plan(found: dict[str, object], args: argparse.Namespace) -> int:
    """A plan on stdout; its exit code says whether anything is in the way."""
    emit(found, args)
    return EXIT_FOUND if found["problems"] else EXIT_DONE


def context_of(args: argparse.Namespace) -> Context:
    """The checkpoints, order, tokenizer and execution that the shared flags name."""
    suite = load_suite(args.suite)
    checkpoints = suite.checkpoints(
        args.models, args.steps, allow_defective=args.allow_defective, leave_out_defective=args.leave_out_defective
    )
    cells = CellStore(Path(args.out) / "cells", only_look=True) if args.dry_run and args.out else None
    execution = Execution(
        device=args.device, dtype=args.dtype, batch_size=args.batch_size, cells=cells, shard=args.shard,
        allow_defective=args.allow_defective,
    )
    return Context(checkpoints, execution, suite=suite, order=args.order, tokenizer=args.tokenizer)


def chosen(context: Context) -> dict[str, list[int]]:
    """The checkpoints that --models and --steps came to: model → steps, for the config."""
    steps: dict[str, list[int]] = {}
    for checkpoint in context.checkpoints:
        steps.setdefault(checkpoint.model.name, []).append(checkpoint.step)
    return steps


def shown(analysis: AnyAnalysis, summary: pd.DataFrame) -> pd.DataFrame:
    """What a person looks at first: the main metrics at every model's last step; the rest is in summary.csv."""
    first = tables.at_last_step(summary)
    if analysis.shown:
        first = first[first["metric"].isin(analysis.shown)]
    empty = [c for c in first.columns if first[c].isna().all()]
    return first.drop(columns=list({*HIDDEN, *empty} & set(first.columns))).round(4)
