"""Accuracy per term against its exposures, within each checkpoint, over models × steps.

examples:
  pythia-tools term-frequency pythia-micro --out runs/terms                               # the planted facts and sums
  pythia-tools term-frequency pythia-deduped --models 1b --steps 13000:143000:26000 --task multiplication --shots 0 4 16 --out runs/mul
  pythia-tools term-frequency pythia-deduped --models 160m --task questions --file trivia.jsonl --shots 4 --out runs/qa
  pythia-tools term-frequency ./my-suite --order my.yaml --task template --file capitals.csv --template "The capital of {country} is" \\
      --answer " {capital}" --term " {country}" --out runs/capitals
  pythia-tools term-frequency stored --results evals.tar.xz --out runs/public             # the public tables, no model loaded

Exposures are counted in the suite's order (or --order), or read from --exposures, a table of term, step, exposures such
as `pythia-tools count` writes (a file, or the folder of its run).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools.cli import planning
from pythia_tools.cli.options import add_output, add_sweep, emit, recorded, require_out
from pythia_tools.core import errors
from pythia_tools.core.errors import DataError, RequestError

OPERATIONS = ("multiplication", "addition", "hidden-multiplication", "hidden-addition")
CONVERSIONS = ("minutes-seconds", "hours-minutes", "days-hours", "weeks-days", "months-weeks", "years-months", "decades-years")
FROM_FILE = ("questions", "facts", "template")
TASKS = ("planted", *OPERATIONS, *CONVERSIONS, *FROM_FILE)


def configure(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    default = "planted where there is a truth manifest, else multiplication"
    parser.add_argument("--task", nargs="+", choices=TASKS, metavar="TASK", help=f"{', '.join(TASKS)} (default: {default})")
    parser.add_argument("--shots", nargs="+", type=int, default=[16], metavar="N", help="few-shot examples: 0 2 4 8 16 (default 16)")
    parser.add_argument("--seed", type=int, default=42, help="of the draw of examples (default 42, as published)")
    parser.add_argument("--operands", type=int, default=100, metavar="N", help="first operands 0 to N-1 (default 100)")
    parser.add_argument("--second", type=int, default=50, metavar="N", help="second operands 1 to N (default 50)")
    parser.add_argument("--file", metavar="FILE", help="questions, facts (prompt, answer, term), or the table of a template")
    parser.add_argument("--examples", metavar="FILE", help="questions to draw few-shot examples from (default: --file)")
    parser.add_argument("--template", help="a prompt with {columns} of --file")
    parser.add_argument("--answer", help="the answer behind it, with its leading space, likewise")
    parser.add_argument("--term", help="the text whose exposures count, likewise")
    parser.add_argument("--open", action="store_true", help="decode greedily instead of choosing among all answers (facts, template)")
    parser.add_argument("--order", help="the data order (default: the suite's own)")
    parser.add_argument("--exposures", metavar="FILE", help="a table of term, step, exposures instead of counting")
    how = "how operands count: by the Pythia paper's rule (default; paper is the same), or as numbers"
    parser.add_argument("--count-as", choices=["pythia", "paper", "number"], default="pythia", help=how)
    parser.add_argument("--last", type=int, metavar="N", help="also compare with exposures in the last N steps")
    parser.add_argument("--trajectory", nargs="+", default=[], metavar="TERM", help="terms to draw over training")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenizer.json or its folder (default: the suite's own)")
    parser.add_argument("--results", metavar="PATH", help="with SUITE `stored`: the evals folder, archive or file")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    return _stored(args) if args.suite == "stored" else _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from pythia_tools.analyses import term_frequency
    from pythia_tools.analysis import sweep
    from pythia_tools.cli import term_frequency_tasks as build
    from pythia_tools.core import progress
    from pythia_tools.core.results import RunFolder
    from pythia_tools.suites import load_suite

    suite = load_suite(args.suite)
    checkpoints = suite.checkpoints(models=args.models, steps=args.steps, allow_defective=args.allow_defective)
    tokenizer = build.suite_tokenizer(suite, checkpoints, args.tokenizer)
    asked = build.tasks(args, suite, tokenizer)
    if args.dry_run:
        more = build.counting(checkpoints, asked, build.order_of(args, suite))
        return planning.show(args, checkpoints, [a.task for a in asked], ids=build.ids(asked), more=more)
    known = {term for a in asked for term in a.patterns} or {e.item.term for a in asked for e in a.task.items}
    unknown_terms = [t for t in args.trajectory if t not in known]
    if unknown_terms:
        raise errors.unknown("term", unknown_terms[0], sorted(known))
    start = time.perf_counter()
    folder = RunFolder(require_out(args), recorded("term-frequency", args))
    seen, order = build.exposures(args, suite, checkpoints, asked, tokenizer, folder.cells)
    counted = time.perf_counter()
    result = sweep(
        checkpoints, [a.task for a in asked], cells=folder.cells, device=args.device, dtype=args.dtype, shard=args.shard,
        allow_defective=args.allow_defective,
    )
    items = term_frequency.gather(result, [a.task for a in asked])
    timings = {"count": counted - start, "measure": time.perf_counter() - counted}
    controls = build.controls(asked, tokenizer)
    summary = analyse(items, seen, folder.figures, last=args.last, trajectories=args.trajectory, controls=controls)
    joined = items.merge(seen, on=["term", "step"], how="left", validate="many_to_one")
    extra = {"tasks": {a.task.name: a.task.digest for a in asked}, "cells": {"computed": result.computed, "reused": result.reused}}
    data = getattr(order, "fingerprint", None) if order is not None else {"exposures": args.exposures}
    folder.finish(joined, summary, weights=result.weights, data=data, timings=timings, extra=extra)
    progress.note(f"{folder.path}: {len(items)} answers over {len(checkpoints)} checkpoints")
    emit(summary if args.json else _shown(summary), as_json=args.json)
    return 0


def _stored(args: argparse.Namespace) -> int:
    from pythia_tools import plots
    from pythia_tools.analyses import term_frequency
    from pythia_tools.core import files, progress, tables
    from pythia_tools.core.results import RunFolder
    from pythia_tools.core.statistics import mean

    if not args.results:
        raise RequestError("SUITE stored reads public results: give --results PATH (evals/ of EleutherAI/pythia, or an archive of it)")
    table = term_frequency.read_stored(args.results)
    if args.models:
        table = table[table["model"].isin(args.models)]
        if table.empty:
            raise RequestError(f"none of {', '.join(args.models)} is in the stored results")
    folder = RunFolder(require_out(args), recorded("term-frequency", args))
    if args.exposures:
        summary = analyse(table, read_exposures(args.exposures), folder.figures, last=args.last, trajectories=args.trajectory, controls={})
    else:
        progress.note(
            "accuracy against frequency and the gap (the paper's figure 5 and table 4) need --exposures, which were not published; "
            "count them with `pythia-tools count @keys.txt --order pile-deduped-preshuffled --steps ...`, keys pythia:0 to pythia:99"
        )
        means = table.groupby([*tables.IDENTITY, "task"], sort=False, dropna=False)["accuracy"]
        rows = ((dict(zip(tables.IDENTITY, k[:-1], strict=True)), k[-1], mean(v, unit="term")) for k, v in means)
        summary = tables.summary({**i, "group": f"{t}: all", "metric": "accuracy", **e.columns()} for i, t, e in rows)
    for operation, part in table.groupby("operation"):
        plots.save(plots.accuracy_over_training(part), folder.figures, f"accuracy_over_training_{operation}")
        for shots, one in part.groupby("shots"):
            plots.save(plots.accuracy_by_operand(one), folder.figures, f"accuracy_by_operand_{operation}_{shots}shot")
    path = Path(args.results)
    folder.finish(table, summary, data={"results": files.sha256_file(path) if path.is_file() else str(path)})
    emit(summary if args.json else _shown(summary), as_json=args.json)
    return 0


def analyse(
    table: pd.DataFrame, seen: pd.DataFrame, figures: Path, *, last: int | None, trajectories: list[str], controls: dict[str, Any],
) -> pd.DataFrame:
    """Every summary of a table of answers (or of accuracies), and the figures that its numbers allow."""
    from pythia_tools import plots
    from pythia_tools.analyses import term_frequency
    from pythia_tools.core import tables

    parts = [term_frequency.summarize(table, seen, controls=controls), term_frequency.compare_definitions(table, seen, last=last)]
    parts[1] = parts[1][parts[1]["group"].astype(str).str.contains("in total|in the last")]
    terms = term_frequency.by_term(table, seen)
    for task in dict.fromkeys(terms["task"]):
        own = terms[terms["task"] == task]
        edges = term_frequency.paper_figures.PAPER_EDGES if own["exposures"].max() > 1e6 else [0.5 * 2**k for k in range(24)]
        bins = term_frequency.binned_accuracy(own, seen, edges=edges)
        if len(bins):
            plots.save(plots.accuracy_by_frequency(bins), figures, f"accuracy_by_frequency_{task}")
        group = f"{task}: all" if terms["task"].nunique() > 1 else "all"
        plots.save(plots.gap_over_training(parts[0], group=group), figures, f"gap_over_training_{task}")
        for term in trajectories:
            if (own["term"] == term).any():
                path = term_frequency.trajectory(own, seen, term)
                parts.append(path.assign(group=f"{task}: term {term}") if terms["task"].nunique() > 1 else path)
                plots.save(plots.term_trajectory(path), figures, f"trajectory_{task}_{''.join(c if c.isalnum() else '_' for c in term)}")
    plots.save(plots.accuracy_over_training(terms), figures, "accuracy_over_training")
    parts.append(_emergence(table, seen))
    return tables.check_summary(pd.concat([p for p in parts if len(p)], ignore_index=True))


def _emergence(table: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """Emergence as summary rows at each model's last step (`emergence_step`), and at each step (`emergence_params`)."""
    from pythia_tools.analyses import term_frequency
    from pythia_tools.core import tables

    several = "task" in table and table["task"].nunique() > 1
    last = table.sort_values("step").drop_duplicates(["model", "branch"], keep="last").set_index(["model", "branch"])
    rows = []
    for r in term_frequency.emergence_steps(table, seen).to_dict("records"):
        at = last.loc[(r["model"], r["branch"])]
        identity = {"model": r["model"], "branch": r["branch"], **{c: at[c] for c in ("suite", "params", "step", "tokens")}}
        rows.append({**identity, "metric": "emergence_step", "value": r["step"], **_rest(r, several)})
    for r in term_frequency.emergence_sizes(table, seen).to_dict("records"):
        identity = {"suite": r["suite"], "model": pd.NA, "params": pd.NA, "step": r["step"], "tokens": pd.NA, "branch": "main"}
        rows.append({**identity, "metric": "emergence_params", "value": r["params"], **_rest(r, several)})
    return tables.summary({**r, **{c: float("nan") if pd.isna(r[c]) else float(r[c]) for c in ("value", "low", "high")}} for r in rows)


def _rest(row: dict[Any, Any], several: bool) -> dict[str, Any]:
    group = f"{row['task']}: all" if several else "all"
    return {"group": group, "low": row["low"], "high": row["high"], "n": row["n"], "unit": "term", "interval": "bootstrap95"}


def read_exposures(path: str) -> pd.DataFrame:
    """A table of term, step, exposures: .csv, .parquet, or the folder of a `count` run. Terms `pythia:7` are those of operand 7."""
    file = Path(path)
    file = file / "items.parquet" if file.is_dir() else file
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype={"term": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: exposures cannot be read ({error})") from error
    missing = [c for c in ("term", "step", "exposures") if c not in frame]
    if missing:
        raise DataError(f"{file}: columns {', '.join(missing)} are missing; exposures need term, step, exposures")
    try:
        seen = frame[["term", "step", "exposures"]].astype({"term": "string", "step": "int64", "exposures": "int64"})
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: steps and exposures must be whole numbers ({error})") from error
    # `count pythia:7` (once `paper:7`) counts what operand 7 is set against
    seen["term"] = seen["term"].str.replace("^(pythia|paper):", "", regex=True)
    twice = seen[seen.duplicated(["term", "step"])]
    if len(twice):
        raise DataError(f"{file}: term {twice['term'].iloc[0]!r} has two counts at step {twice['step'].iloc[0]}; keep one definition of it")
    return seen


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    """What a person looks at first: every model's last step, the main numbers; the rest is in summary.csv."""
    known = summary[summary["model"].notna()]
    last = known["step"] == known.groupby("model")["step"].transform("max")
    main = known["group"].astype(str).str.contains(r"(?:^|: )all$")
    return known[last & main].drop(columns=["suite", "params", "tokens", "branch", "interval"]).round(4)
