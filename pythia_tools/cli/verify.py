"""Published numbers against a fresh run, or against themselves.

examples:
  pythia-tools verify pythia-deduped --models 70m --steps last --tasks lambada_openai piqa --against evals --out runs/v
  pythia-tools verify ./my-suite --tasks mine --include-path tasks --against results_2026.json --out runs/v
  pythia-tools verify --published evals.tar.xz                # offline: the tables alone, no model

PATH is what `published` reads: the evals folder of EleutherAI/pythia or an archive of it, lm-eval's own results, and
others. Checkpoints that both have are evaluated, some documents in a second number format as well: what the formats
differ by is the noise that is allowed. Each number is equal to rounding, within noise, or outside; for what is outside,
the cause where it can be told, and the checkpoint that would fit. Exit code 1 when something is outside, or, with
--published, wrong and not known.
"""

import argparse
from pathlib import Path

import pandas as pd

from pythia_tools import public, verification
from pythia_tools.analyses.evaluate import EvaluateOptions
from pythia_tools.analysis import Context, Execution, plan
from pythia_tools.cli.analyses import chosen, show_plan
from pythia_tools.cli.options import SELECTION, add, at_least, emit, recorded, require_out
from pythia_tools.core import files, progress
from pythia_tools.core import words as say
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError
from pythia_tools.core.results import CellStore, RunFolder
from pythia_tools.core.words import Row
from pythia_tools.suites import load_suite
from pythia_tools.verification import fresh, published

SHOWN = ["model", "step", "task", "metric", "ours", "published", "low", "high", "verdict", "cause", "detail"]


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, "suite", nargs="?")
    parser.add_argument("--published", metavar="PATH", help="check this table of published numbers against itself")
    parser.add_argument("--against", metavar="PATH", help="the published numbers that a fresh run is held against")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="default: all that were published")
    parser.add_argument("--num-fewshot", type=at_least(0), metavar="N", help="examples in the prompt, as `evaluate`")
    parser.add_argument("--include-path", metavar="DIR", help="a folder of own task definitions, as `evaluate`")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N documents of each task")
    parser.add_argument("--sample", type=at_least(0), default=200, metavar="N",
                        help="documents of a task that are answered in a second number format (default 200; 0: none)")
    parser.add_argument("--other-dtype", choices=list(fresh.FORMATS), help="that format (default: float16, or what the "
                                                                           "run does not have)")
    add(parser, *SELECTION, "--tokenizer", "--device", "--dtype", "--batch-size", "--budget", "--dry-run", "--out")


def run(args: argparse.Namespace) -> int:
    if (args.suite is None) == (args.published is None) or (args.suite is None) != (args.against is None):
        raise RequestError("either SUITE with --against PATH, or --published PATH alone, is needed")
    return _published(args) if args.suite is None else _suite(args)


def _published(args: argparse.Namespace) -> int:
    found = verification.findings(public.published(args.published))
    news = published.news(found)
    if args.out:
        files.write_text(Path(args.out) / "findings.csv", found.to_csv(index=False))
    progress.note(f"{len(found)} findings: {len(news)} wrong and not known, {int(found['known'].sum())} known")
    emit(found, args, "\n".join(map(_line, say.records(found))) or "nothing is wrong")
    return EXIT_FOUND if len(news) else EXIT_DONE


def _line(row: Row) -> str:
    mark = "known" if row["known"] else row["severity"]
    place = " ".join(str(row[c]) for c in ("suite", "model", "step", "task", "metric") if row[c] == row[c] and row[c])
    return f"{mark:5}  {row['check']:9}  {row['collection']}  {place}: {row['detail']} [{row['source']}]"


def _suite(args: argparse.Namespace) -> int:
    table, context, asked = _asked(args)
    if args.dry_run:
        return show_plan(plan(context, fresh.prepared(context, asked).tasks), args)
    config = recorded("verify", args, checkpoints=chosen(context), tasks=list(asked.options.tasks))
    with RunFolder(require_out(args), config) as folder:
        found, finished = fresh.run(context, asked, table, folder)
    for sentence in finished.record["sentences"]:
        progress.note(sentence["text"])
    compared = found.numbers[SHOWN].dropna(axis=1, how="all").round(5)
    emit(found.numbers, args, compared)
    return EXIT_FOUND if found.verdict == "outside" else EXIT_DONE


def _asked(args: argparse.Namespace) -> tuple[pd.DataFrame, Context, fresh.Asked]:
    """The published table, the checkpoints that it has too, and what is asked of them."""
    suite, table = load_suite(args.suite), public.published(args.against)
    everything = suite.checkpoints(args.models, args.steps, allow_defective=args.allow_defective)
    checkpoints = fresh.shared(everything, table)
    cells = CellStore(Path(args.out) / "cells", only_look=True) if args.dry_run and args.out else None
    execution = Execution(device=args.device, dtype=args.dtype, batch_size=args.batch_size, cells=cells,
                          allow_defective=args.allow_defective)
    tasks = tuple(args.tasks) or fresh.tasks_of(table, checkpoints)
    options = EvaluateOptions(tasks=tasks, num_fewshot=args.num_fewshot, include_path=args.include_path,
                              limit=args.limit)
    context = Context(checkpoints, execution, suite=suite, tokenizer=args.tokenizer)
    return table, context, fresh.Asked(options, args.sample, args.other_dtype)
