"""Gender bias over models × steps: measures, interventions against their control, the public results.

examples:
  pythia-tools bias pythia-micro --models m m-swap --out runs/bias
  pythia-tools bias pythia-deduped --models 70m 160m --steps log --measures crows_pairs winobias --out runs/crows
  pythia-tools bias pythia-interventions --steps last --measures crows_pairs --data crows_pairs=crows_pairs_anonymized.csv --out runs/swap
  pythia-tools bias stored --results evals.tar.xz --out runs/public
  pythia-tools bias pythia --models 70m --steps last --lm-eval winogender_gotcha --out runs/harness

SUITE `stored` reads the public results of EleutherAI/pythia's evals/ (folder or archive) and loads no model.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pythia_tools.cli import planning
from pythia_tools.cli.options import add_output, add_sweep, emit, recorded, require_out
from pythia_tools.core.errors import RequestError

MEASURES = ("pronoun_preference", "crows_pairs", "winobias", "winogender", "stereoset", "bbq")


def configure(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("--measures", nargs="+", choices=MEASURES, help="what to measure (default: pronoun_preference)")
    parser.add_argument("--lm-eval", nargs="+", metavar="TASK", help="tasks of lm-evaluation-harness, run on the live model")
    parser.add_argument("--data", nargs="+", default=[], metavar="SET=PATH", help="local files of a set (default: downloaded by manifest)")
    parser.add_argument("--groups", nargs="+", metavar="TYPE", help="only these bias types of CrowS-Pairs and StereoSet (gender, …)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N items of each set (of each file of WinoBias)")
    parser.add_argument(
        "--winobias-methods", nargs="+", default=["pronoun", "referent"], choices=["pronoun", "referent", "generate"],
        help="pronoun: which of two is likelier, with prompts of our own wording (the paper's were never published); referent, generate: "
        "which occupation is meant, by log-probability or generated (default: pronoun referent)",
    )
    parser.add_argument("--templates", metavar="FILE", help="contexts with {occupation}, one a line (pronoun_preference)")
    parser.add_argument("--occupations", metavar="FILE", help="occupation and stereotype (he or she), tab-separated, one a line")
    parser.add_argument("--association", action="store_true", help="also against the corpus' own co-occurrence counts up to each step")
    parser.add_argument("--window", type=int, default=8, metavar="WORDS", help="window of the association (default 8 words)")
    parser.add_argument("--correction", choices=["holm", "bh"], default="holm", help="for many comparisons (default holm)")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenizer.json or its folder (default: the suite's own)")
    parser.add_argument("--results", metavar="PATH", help="with SUITE `stored`: the evals folder or archive")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    return _stored(args) if args.suite == "stored" else _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from pythia_tools.analyses import bias
    from pythia_tools.analysis import sweep
    from pythia_tools.core import progress
    from pythia_tools.core.results import RunFolder
    from pythia_tools.suites import load_suite

    suite = load_suite(args.suite)
    checkpoints = suite.checkpoints(models=args.models, steps=args.steps)
    if args.dry_run:
        return _plan(args, suite, checkpoints)
    out = require_out(args)
    started = time.perf_counter()
    tasks = _tasks(args, suite, checkpoints)
    folder = RunFolder(out, recorded("bias", args))
    result = sweep(
        checkpoints, tasks, cells=folder.cells, device=args.device, dtype=args.dtype, shard=args.shard, allow_defective=args.allow_defective
    )
    items = bias.join(result)
    data = None
    if args.association:
        order = _order(suite)
        data = order.fingerprint
        items = bias.join({"items": items, "association": _association(args, suite, items, order)})
    pairs = {name: info.base for name, info in suite.models.items() if info.base}
    summary = bias.summarize(items, pairs=pairs or None, correction=args.correction)
    comparison = bias.compare(items, pairs=pairs or None, correction=args.correction)
    sentences = bias.verdicts(comparison)
    _figures(folder.figures, summary, pairs)
    _agreement(folder, summary)
    _keep_json(folder.path, items)
    extra = {
        "sentences": sentences, "tasks": {t.name: t.digest for t in tasks},
        "cells": {"computed": result.computed, "reused": result.reused},
    }
    folder.finish(items, summary, weights=result.weights, data=data, timings={"all": time.perf_counter() - started}, extra=extra)
    for line in sentences:
        progress.note(line)
    emit(summary if args.json else _last(summary), as_json=args.json)
    return 0


def _last(summary: Any) -> Any:
    """What a person looks at first: every model's last step, all items; the rest is in summary.csv."""
    last = summary["step"] == summary.groupby("model")["step"].transform("max")
    main = (summary["group"] == "all") | ~summary["group"].astype(str).str.contains("/|=")
    return summary[last & main].drop(columns=["suite", "params", "tokens", "interval"])


def _plan(args: argparse.Namespace, suite: Any, checkpoints: Any) -> int:
    """The plan of the sweep. A tokenizer or set that would first have to be downloaded leaves the cells and the time
    open.
    """
    from pythia_tools.core.errors import DataError, EnvironmentFailure
    from pythia_tools.suites import Folder

    measures = args.measures or ([] if args.lm_eval else ["pronoun_preference"])
    more: dict[str, Any] = {"measures": measures, "lm_eval": args.lm_eval or []}
    here = args.tokenizer or suite.tokenizer or isinstance(checkpoints[0].location, Folder)
    try:
        tasks = _tasks(args, suite, checkpoints) if here else []
    except (DataError, EnvironmentFailure) as error:
        tasks, more["open"] = [], str(error)
    if not tasks:
        more["cells_at_least"] = len(checkpoints) * (len(measures) + bool(args.lm_eval))
    return planning.show(args, checkpoints, tasks, ids=_ids(tasks), more=more)


def _ids(tasks: list[Any]) -> int | None:
    """Ids that pass through a model at most (texts that begin alike share them); None when a task does not know
    beforehand.
    """
    total = 0
    for task in tasks:
        scorers = [s for value in vars(task).values() for s in _scorers(value)]
        if not scorers:
            return None
        total += sum(len(r.context) + len(r.continuation) for s in scorers for r in s.requests)
    return total if tasks else None


def _scorers(value: Any) -> list[Any]:
    """The scorers in a value of a task: itself, one within a choice scorer, or those in a list."""
    if isinstance(value, list | tuple):
        return [s for v in value for s in _scorers(v)]
    value = getattr(value, "_scorer", value)
    return [value] if hasattr(value, "requests") else []


def _tasks(args: argparse.Namespace, suite: Any, checkpoints: Any) -> list[Any]:
    from pythia_tools.analyses import bias

    tokenizer = bias.load_tokenizer(args.tokenizer) if args.tokenizer else bias.suite_tokenizer(suite, checkpoints)
    local = _local(args.data)
    wanted = args.measures or ([] if args.lm_eval else ["pronoun_preference"])
    size = args.batch_size
    tasks: list[Any] = []
    for name in dict.fromkeys(wanted):
        if name == "pronoun_preference":
            items, he, she = _pronoun_items(args, suite)
            tasks.append(bias.PronounTask(tokenizer, items[: args.limit], he=he, she=she, batch_size=size))
        elif name == "winobias":
            sentences = [s for s in bias.read_sentences(local.get(name)) if args.limit is None or s.number <= args.limit]
            tasks.append(bias.WinoBias(tokenizer, sentences, methods=args.winobias_methods, batch_size=size))
        else:
            reader, make = {
                "crows_pairs": (bias.read_pairs, bias.CrowsPairs), "winogender": (bias.read_winogender, bias.Winogender),
                "stereoset": (bias.read_stereoset, bias.StereoSet), "bbq": (bias.read_bbq, bias.BBQ),
            }[name]
            tasks.append(make(tokenizer, _chosen(reader(local.get(name)), args), batch_size=size))  # type: ignore[operator]
    if args.lm_eval:
        tasks.append(bias.HarnessTask(tokenizer, args.lm_eval, limit=args.limit, batch_size=size or 32))
    return tasks


def _chosen(table: Any, args: argparse.Namespace) -> Any:
    if args.groups and "bias_type" in table.columns:
        known = sorted(table["bias_type"].astype(str).unique())
        table = table[table["bias_type"].isin(args.groups)]
        if table.empty:
            raise RequestError(f"--groups {' '.join(args.groups)}: none of these bias types is there; known: {', '.join(known)}")
    return table.head(args.limit) if args.limit else table


def _local(values: list[str]) -> dict[str, str]:
    from pythia_tools.core import manifests
    from pythia_tools.core.errors import unknown

    pairs = [v.partition("=") for v in values]
    for name, sign, path in pairs:
        if not sign or not path:
            raise RequestError(f"--data {name}: give SET=PATH, for example crows_pairs=crows_pairs_anonymized.csv")
        if name not in manifests.names("evaluation_sets"):
            raise unknown("evaluation set", name, manifests.names("evaluation_sets"))
    return {name: path for name, _, path in pairs}


def _pronoun_items(args: argparse.Namespace, suite: Any) -> tuple[list[Any], list[str], list[str]]:
    """Items and the two continuations: given files, else the suite's own truth, else this toolkit's own list."""
    from pythia_tools import micro
    from pythia_tools.analyses import bias
    from pythia_tools.micro import words

    templates, occupations = list(words.HELDOUT_TEMPLATES), [(o, s) for o, s in words.OCCUPATIONS]
    he, she, lead = " he", " she", ""
    if suite.folder is not None and (Path(suite.folder) / "truth" / "truth.json").is_file():
        truth = micro.load_truth(suite.folder)
        templates, lead = truth.templates["heldout"], "\n"
        occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
        he, she = truth.about["pronouns"]["he"], truth.about["pronouns"]["she"]
    if args.templates:
        templates = _lines(args.templates)
    if args.occupations:
        occupations = [_occupation(args.occupations, line) for line in _lines(args.occupations)]
    return bias.pronoun_items(templates, occupations, lead=lead), [he], [she]


def _lines(path: str) -> list[str]:
    try:
        return [line.rstrip("\n") for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def _occupation(path: str, line: str) -> tuple[str, str]:
    name, _, stereotype = line.partition("\t")
    if stereotype.strip() not in ("he", "she"):
        raise RequestError(f"{path}: {line!r}: occupation, a tab, then he or she")
    return name.strip(), stereotype.strip()


def _order(suite: Any) -> Any:
    from pythia_tools.order import load_order

    if suite.order is None:
        raise RequestError(f"{suite.name} names no data order, so there are no counts for --association; give its manifest an `order`")
    return load_order(suite.order)


def _association(args: argparse.Namespace, suite: Any, items: Any, order: Any) -> Any:
    """Counts up to each step; a branch called `swap` was trained on the order with feminine pronouns from its branch
    step on.
    """
    from pythia_tools.analyses import bias
    from pythia_tools.counts import tokenizer_of
    from pythia_tools.overlays import Overlay, PronounSwap

    orders = {"main": order}
    starts = {info.branch: info.branch_step for info in suite.models.values() if info.branch == "swap" and info.branch_step is not None}
    for branch, start in starts.items():
        orders[branch] = Overlay(order, PronounSwap(tokenizer_of(order).engine), steps=range(start, order.steps))
    known = items[items["branch"].isin(list(orders))]
    return bias.associate(known, orders, tokenizer=tokenizer_of(order), window=args.window)


MAIN_METRICS = (
    "log_odds", "stereotype_share", "pct_stereotype", "winobias_stereotype_accuracy", "winobias_gap", "winogender_acc", "stereoset_ss",
    "association_spearman",
)


def _agreement(folder: Any, summary: Any) -> None:
    """Whether the measures of this run order its checkpoints alike: agreement.csv and a figure, when there are two or
    more.
    """
    from pythia_tools.analyses import bias
    from pythia_tools.core import files
    from pythia_tools.plots import agreement, save

    whole = summary[summary["group"] == "all"]
    has = [(m, "all") for m in MAIN_METRICS if whole.loc[whole["metric"] == m, "value"].notna().sum() >= 3]
    if len(has) < 2:
        return
    table = bias.agreement(summary, has)
    with files.atomic_write(folder.path / "agreement.csv", "w") as out:
        table.to_csv(out, index=False)
    save(agreement(table), folder.figures, "agreement")


def _keep_json(folder: Path, items: Any) -> None:
    """The harness' own JSON, one file per checkpoint, as it would have written it."""
    from pythia_tools.core import files

    if "json" not in items.columns:
        return
    for row in items[items["json"].fillna("") != ""].itertuples():
        files.write_json(folder / "lm_eval" / f"{row.model}_step{row.step}.json", json.loads(row.json))


def _figures(folder: Path, summary: Any, pairs: dict[str, str]) -> None:
    from pythia_tools.plots import bias as figures
    from pythia_tools.plots import branches_over_training, paired_differences, save

    has = set(summary["metric"])
    drawn = {
        "log_odds": ("log-odds of she over he", 0.0), "stereotype_share": ("share preferring the stereotyped pronoun", 0.5),
        "pct_stereotype": ("CrowS-Pairs: share preferring the stereotyped sentence", 0.5),
        "winobias_stereotype_accuracy": ("WinoBias: share choosing the stereotyped pronoun", 0.5),
        "winobias_gap": ("WinoBias: accuracy, pro − anti", 0.0),
    }
    for metric, (label, reference) in drawn.items():
        if metric in has:
            save(branches_over_training(summary, metric, label=label), folder, f"{metric}_over_training")
            save(figures.interventions(summary, metric, label=label, reference=reference, pairs=pairs), folder, f"{metric}_interventions")
    for metric in ("pct_stereotype", "winogender_acc", "stereoset_ss", "bbq_acc"):
        if metric in has:
            save(figures.by_group(summary, metric, reference=0.5), folder, f"{metric}_by_group")
    if "paired_difference" in has and (summary["group"] == "all").any() and "log_odds" in has:
        save(paired_differences(summary), folder, "paired_difference")


def _stored(args: argparse.Namespace) -> int:
    """The public results as a run: items are its numbers, the summary their intervals, sentences what they show."""
    from pythia_tools.analyses.bias import stored
    from pythia_tools.core import files, progress
    from pythia_tools.core.results import RunFolder
    from pythia_tools.plots import bias as figures
    from pythia_tools.plots import save

    if not args.results:
        raise RequestError("SUITE `stored` needs --results PATH: EleutherAI/pythia's evals folder, or a .tar.xz of it")
    results = stored.read_results(args.results)
    folder = RunFolder(require_out(args), recorded("bias", args))
    summary = stored.to_summary(results)
    public = summary[summary["suite"] == "pythia"]
    swapped = public[public["model"].isin(public.loc[public["branch"].astype(str).str.startswith("swap"), "model"])]
    for metric, group, label, reference in (
        ("pct_stereotype", "crows_pairs_english_gender", "CrowS-Pairs gender: share stereotyped", 0.5),
        ("acc", "lambada_openai", "LAMBADA accuracy", None),
        ("em", "wino_bias_type1_pro+What does p stand for", "WinoBias type 1 pro: exact match", None),
        ("em", "wino_bias_type1_anti+What does p stand for", "WinoBias type 1 anti: exact match", None),
    ):
        drawn = figures.interventions(swapped, metric, group=group, label=label, reference=reference, from_step=113_000)
        save(drawn, folder.figures, f"{metric}_{group.replace('+', '_').replace(' ', '_')}")
    changes = stored.paired_changes(results)
    with files.atomic_write(folder.path / "paired_changes.csv", "w") as out:
        changes.to_csv(out, index=False)
    sentences = stored.stored_verdicts(results)
    folder.finish(results, summary, extra={"sentences": sentences})
    for line in sentences:
        progress.note(line)
    emit(changes, as_json=args.json)
    return 0
