"""What `pythia-tools term-frequency` asks and counts: tasks from options, their exposures, and the plan of a dry run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools import counts
from pythia_tools.analyses import term_frequency
from pythia_tools.cli.term_frequency import CONVERSIONS, FROM_FILE, OPERATIONS, read_exposures
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import CellStore

CLOSED_PASSES, GREEDY_PASSES = 1, 4


@dataclass(frozen=True)
class Asked:
    """A task and, per term, the pattern whose exposures its accuracy is set against."""

    task: Any
    patterns: dict[str, counts.Pattern]
    numeric: bool = False


def tasks(args: argparse.Namespace, suite: Any, tokenizer: Any) -> list[Asked]:
    """The tasks that the options name, in their order."""
    planted = suite.folder is not None and (suite.folder / "truth" / "truth.json").exists()
    names = list(dict.fromkeys(args.task or (["planted"] if planted else ["multiplication"])))
    options = {"batch_size": args.batch_size, "vocabulary": _vocabulary(tokenizer)}
    made: list[Asked] = []
    for name in names:
        if name == "planted":
            made += _planted(suite, tokenizer, options)
        elif name in FROM_FILE:
            made += _from_file(name, args, tokenizer, options)
        else:
            made += [_numeric(name, shots, args, tokenizer, options) for shots in args.shots]
    return made


def _numeric(name: str, shots: int, args: argparse.Namespace, tokenizer: Any, options: dict[str, Any]) -> Asked:
    operands = range(args.operands)
    if name in OPERATIONS:
        items = term_frequency.arithmetic_items(name, shots, operands=operands, second=range(1, args.second + 1), seed=args.seed)
    else:
        assert name in CONVERSIONS
        items = term_frequency.time_unit_items(name, shots, operands=operands, seed=args.seed)
    task = term_frequency.GreedyTask(items, tokenizer, name=f"{name}-{shots}shot", **options)
    pattern = counts.Number if args.count_as == "number" else counts.PythiaRule
    return Asked(task, {str(x): pattern(str(x), label=str(x)) for x in operands}, numeric=True)


def _planted(suite: Any, tokenizer: Any, options: dict[str, Any]) -> list[Asked]:
    from pythia_tools.micro import load_truth

    if suite.folder is None:
        raise RequestError(f"{suite.name} has no truth manifest; the task planted is for suites that `pythia-tools train` made")
    truth = load_truth(suite.folder)
    facts = truth.facts.assign(name=truth.facts["fact"].astype(str))
    sums = truth.sums.assign(name=truth.sums["sum"].astype(str))
    asked = []
    for name, table, candidates in (
        ("facts", facts, {r: truth.candidates(r) for r in facts["relation"].unique()}), ("sums", sums, truth.candidates("sums")),
    ):
        items = term_frequency.fact_items(table, candidates)
        patterns: dict[str, counts.Pattern] = {t: counts.Text(t) for t in dict.fromkeys(table["term"])}
        asked.append(Asked(term_frequency.ClosedTask(items, tokenizer, name=name, **options), patterns))
    return asked


def _from_file(name: str, args: argparse.Namespace, tokenizer: Any, options: dict[str, Any]) -> list[Asked]:
    if not args.file:
        raise RequestError(f"--task {name} needs --file FILE")
    if name == "questions":
        return _questions(args, tokenizer, options)
    if name == "template" and not (args.template and args.answer and args.term):
        raise RequestError("--task template needs --template, --answer and --term, with {columns} of --file")
    table = _read_table(args.file)
    if name == "template":
        items = term_frequency.template_items(args.template, table, answer=args.answer, term=args.term)
    else:
        items = term_frequency.fact_items(table)
    patterns: dict[str, counts.Pattern] = {i.term: counts.Text(i.term) for i in items}
    if args.open:
        return [Asked(term_frequency.GreedyTask(items, tokenizer, name=name, rule="exact", **options), patterns)]
    answers = tuple(dict.fromkeys(i.answers[0] for i in items))
    closed = [term_frequency.Item(i.prompt, i.answers, i.term, i.name, answers) for i in items]
    return [Asked(term_frequency.ClosedTask(closed, tokenizer, name=name, **options), patterns)]


def _questions(args: argparse.Namespace, tokenizer: Any, options: dict[str, Any]) -> list[Asked]:
    questions = term_frequency.read_questions(args.file)
    examples = term_frequency.read_questions(args.examples) if args.examples else []
    patterns: dict[str, counts.Pattern] = {}
    if not args.exposures:
        patterns = {p.name: p for p in term_frequency.question_patterns(questions)}
    return [
        Asked(term_frequency.GreedyTask(
            term_frequency.question_items(questions, shots, examples=examples, seed=args.seed), tokenizer,
            name=f"questions-{shots}shot", rule="normalized", **options,
        ), patterns)
        for shots in args.shots
    ]


def exposures(
    args: argparse.Namespace, suite: Any, checkpoints: Sequence[Any], asked: Sequence[Asked], tokenizer: Any, cells: CellStore,
) -> tuple[pd.DataFrame, Any]:
    """term, step, exposures at every checkpoint (and `--last` steps before), counted or read; and the order, where there is one.

    Rows that lie here are also counted to the end of training, for the totals; remote ones only to the last checkpoint asked for.
    """
    steps = sorted({c.step for c in checkpoints})
    if args.exposures:
        return read_exposures(args.exposures), None
    order = order_of(args, suite)
    if order is None:
        raise RequestError(f"{suite.name} names no data order; give --order, or --exposures with counts made elsewhere")
    patterns = {term: p for a in asked for term, p in a.patterns.items()}
    end = None if getattr(order, "remote", False) else min(order.steps, max(s for m in suite.models for s in suite.steps(m)))
    wanted = term_frequency.steps_to_count(steps, args.last, end=end)
    frame = counts.count_terms(order, patterns.values(), wanted, tokenizer=tokenizer, cells=cells)
    names = {p.name: term for term, p in patterns.items()}
    return frame.assign(term=frame["term"].map(names).astype("string")), order


def order_of(args: argparse.Namespace, suite: Any) -> Any:
    from pythia_tools.order import load_order

    name = args.order or suite.order
    return load_order(name) if name else None


def controls(asked: Sequence[Asked], tokenizer: Any) -> dict[str, Any]:
    """Token length and magnitude, when every term is a number."""
    if not asked or not all(a.numeric for a in asked):
        return {}
    return term_frequency.number_controls(list(dict.fromkeys(t for a in asked for t in a.patterns)), tokenizer)


def suite_tokenizer(suite: Any, checkpoints: Sequence[Any], given: str | None) -> Any:
    """--tokenizer, or the suite's, or the one that lies with its first checkpoint."""
    from pythia_tools.counts.vocabulary import load_tokenizer
    from pythia_tools.suites.checkpoint import Folder

    if given:
        return load_tokenizer(given)
    own = suite.folder / "tokenizer" if suite.folder else None
    if own is not None and own.exists():
        return load_tokenizer(own)
    if suite.tokenizer:
        return load_tokenizer(suite.tokenizer)
    location = checkpoints[0].location
    if isinstance(location, Folder) and (location.path / "tokenizer.json").exists():
        return load_tokenizer(location.path)
    raise RequestError(f"{suite.name} names no tokenizer; give --tokenizer PATH")


def counting(checkpoints: Sequence[Any], asked: Sequence[Asked], order: Any) -> dict[str, Any]:
    """What a run would ask and count: questions per task, terms, tokens of the order to scan."""
    last = max(c.step for c in checkpoints)
    tokens = last * order.batch_rows * (order.seq_length + 1) if order is not None else 0
    return {"tasks": {a.task.name: len(a.task.items) for a in asked}, "terms": len({t for a in asked for t in a.patterns}),
            "tokens_to_scan": tokens}


def ids(asked: Sequence[Asked]) -> int:
    """Ids that pass through a model at least: prompts and candidates (decoded answers are not known before)."""
    return sum(len(e.prompt) + sum(map(len, e.candidates)) for a in asked for e in a.task.items)


def _vocabulary(tokenizer: Any) -> int:
    """Ids that the tokenizer has; models pad more, which must not compete."""
    return int(tokenizer.get_vocab_size(with_added_tokens=True))


def _read_table(path: str) -> pd.DataFrame:
    file = Path(path)
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
