"""What an analysis of term frequency asks and counts: options, tasks from options, the patterns behind their terms, and
exposures.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd

from pythia_tools import counts
from pythia_tools.analyses.term_frequency import arithmetic
from pythia_tools.analyses.term_frequency.arithmetic import CONVERSIONS, OPERATIONS
from pythia_tools.analyses.term_frequency.definitions import steps_to_count
from pythia_tools.analyses.term_frequency.items import Item, TermTask, fact_items, template_items
from pythia_tools.analyses.term_frequency.questions import question_items, question_patterns, read_questions
from pythia_tools.analyses.term_frequency.tasks import ClosedTask, GreedyTask
from pythia_tools.analysis import Context, Options, option
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.tables import read_table

FROM_FILE = ("questions", "facts", "template")
TASKS = ("planted", *OPERATIONS, *CONVERSIONS, *FROM_FILE)


@dataclass(frozen=True)
class TermFrequencyOptions(Options):
    """Tasks, their questions, and how exposures are counted."""

    task: tuple[str, ...] = option(
        (), "default: planted where there is a truth manifest, else multiplication", choices=TASKS
    )
    shots: tuple[int, ...] = option((16,), "few-shot examples", minimum=0)
    seed: int = option(arithmetic.SEED, "of the draw of examples, 42 as published")
    operands: int = option(100, "first operands 0 to N-1", minimum=1)
    second: int = option(50, "second operands 1 to N", minimum=1)
    file: str | None = option(None, "questions, facts (prompt, answer, term), or the table of a template")
    examples: str | None = option(None, "questions to draw few-shot examples from (default: --file)", metavar="FILE")
    template: str | None = option(None, "a prompt with {columns} of --file")
    answer: str | None = option(None, "the answer behind it, with its leading space, likewise")
    term: str | None = option(None, "the text whose exposures count, likewise")
    open: bool = option(False, "decode greedily instead of choosing among all answers (facts, template)")
    exposures: str | None = option(None, "a table of term, step, exposures instead of counting", metavar="FILE")
    count_as: str = option("pythia", "how operands count: by the Pythia paper's rule, by it in text with cleaned-up "
                           "spaces (as its script of 2023 decoded), or as numbers",
                           choices=("pythia", "paper", "cleaned", "number"))
    last: int | None = option(None, "also compare with exposures in the last N steps", minimum=1)
    trajectory: tuple[str, ...] = option((), "terms to draw over training", metavar="TERM")
    bin_base: int | None = option(
        None, "bins of exposures are powers of this number (default: 2 where terms are planted, else 10)", minimum=2,
    )


@dataclass(frozen=True)
class CountedTask:
    """A task and, per term, the pattern whose exposures its accuracy is set against."""

    task: TermTask
    patterns: dict[str, counts.Pattern]
    numeric: bool = False


@lru_cache(maxsize=4)
def counted_tasks(context: Context, options: TermFrequencyOptions) -> tuple[CountedTask, ...]:
    """The tasks that the options name, in their order; without any, the planted ones, else multiplication.

    Raises RequestError when exposures can neither be counted nor read.
    """
    if not (options.exposures or context.names_order):
        raise RequestError(
            f"{context.name} names no data order; give --order, or --exposures with counts made elsewhere"
        )
    if options.exposures:
        exposures(context, options)  # a table that will not do is refused before anything is computed
    names = options.task or (("planted",) if context.truth is not None else ("multiplication",))
    return tuple(a for name in dict.fromkeys(names) for a in _made_of(name, context, options))


def _made_of(name: str, context: Context, options: TermFrequencyOptions) -> Iterable[CountedTask]:
    if name == "planted":
        return _planted(context)
    if name == "questions":
        return _questions(context, options)
    if name in FROM_FILE:
        return [_from_file(name, context, options)]
    return [_numeric(name, shots, context, options) for shots in options.shots]


def _numeric(name: str, shots: int, context: Context, options: TermFrequencyOptions) -> CountedTask:
    operands = range(options.operands)
    if name in OPERATIONS:
        second = range(1, options.second + 1)
        items = arithmetic.arithmetic_items(name, shots, operands=operands, second=second, seed=options.seed)
    else:
        items = arithmetic.time_unit_items(name, shots, operands=operands, seed=options.seed)
    task = GreedyTask(items, context.tokenizer, name=f"{name}-{shots}shot", vocabulary=context.vocabulary)
    rule = partial(counts.PythiaRule, clean_up=options.count_as == "cleaned")
    pattern = counts.Number if options.count_as == "number" else rule
    return CountedTask(task, {str(x): pattern(str(x), label=str(x)) for x in operands}, numeric=True)


def _planted(context: Context) -> Iterator[CountedTask]:
    truth = context.need_truth("planted terms")
    relations = {r: truth.candidates(r) for r in truth.facts["relation"].unique()}
    facts = fact_items(truth.facts.rename(columns={"fact": "name"}), relations)
    sums = fact_items(truth.sums.rename(columns={"sum": "name"}), truth.candidates("sums"))
    for name, items in (("facts", facts), ("sums", sums)):
        yield CountedTask(_closed(items, name, context), _texts(items))


def _from_file(name: str, context: Context, options: TermFrequencyOptions) -> CountedTask:
    table = read_table(_file(name, options))
    if name == "facts":
        items = fact_items(table)
    elif options.template and options.answer and options.term:
        items = template_items(options.template, table, answer=options.answer, term=options.term)
    else:
        raise RequestError("--task template needs --template, --answer and --term, with {columns} of --file")
    if options.open:
        task = GreedyTask(items, context.tokenizer, name=name, rule="exact", vocabulary=context.vocabulary)
        return CountedTask(task, _texts(items))
    answers = tuple(dict.fromkeys(i.answers[0] for i in items))
    closed = [replace(i, candidates=answers) for i in items]
    return CountedTask(_closed(closed, name, context), _texts(items))


def _questions(context: Context, options: TermFrequencyOptions) -> Iterator[CountedTask]:
    questions = read_questions(_file("questions", options))
    examples = read_questions(options.examples) if options.examples else []
    counted = [] if options.exposures else question_patterns(questions)
    patterns: dict[str, counts.Pattern] = {p.name: p for p in counted}
    for shots in options.shots:
        items = question_items(questions, shots, examples=examples, seed=options.seed)
        name = f"questions-{shots}shot"
        task = GreedyTask(items, context.tokenizer, name=name, rule="normalized", vocabulary=context.vocabulary)
        yield CountedTask(task, patterns)


def _file(name: str, options: TermFrequencyOptions) -> str:
    if not options.file:
        raise RequestError(f"--task {name} needs --file FILE")
    return options.file


def _closed(items: list[Item], name: str, context: Context) -> ClosedTask:
    return ClosedTask(items, context.tokenizer, name=name, vocabulary=context.vocabulary)


def _texts(items: list[Item]) -> dict[str, counts.Pattern]:
    return {i.term: counts.Text(i.term) for i in items}


@lru_cache(maxsize=4)
def exposures(context: Context, options: TermFrequencyOptions) -> pd.DataFrame:
    """term, step, exposures at every checkpoint (and `last` steps before, and in total), counted or read from a file.

    Rows on this machine are also counted to the end of training, for the totals; remote ones only to the last
    checkpoint. Planted pairs are counted in the same pass, under their prompts.
    """
    if options.exposures:
        return read_exposures(options.exposures)
    patterns = {term: p for a in counted_tasks(context, options) for term, p in a.patterns.items()}
    pairs = planted_pairs(context, options)
    patterns |= {pair: counts.Text(pair) for pair in pairs if pair not in patterns}
    end = None if context.order.remote else min(context.order.steps, context.last_step)
    seen = context.exposures(list(patterns.values()), steps_to_count(context.steps, options.last, end=end))
    return seen.assign(term=seen["item"].map(dict(enumerate(patterns))).astype("string"))[["term", "step", "exposures"]]


def planted_pairs(context: Context, options: TermFrequencyOptions) -> list[str]:
    """The prompts of the planted sums, where they are asked about; else none."""
    planted = any(a.task.label == "sums" and not a.numeric for a in counted_tasks(context, options))
    return list(context.truth.sums["prompt"]) if planted and context.truth is not None else []


def read_exposures(path: str) -> pd.DataFrame:
    """A table of term, step, exposures: .csv, .parquet, or the folder of a `count` run.

    Terms `pythia:7` (or `paper:7`, `cleaned:7`) are those of operand 7. Raises DataError naming what is missing or
    there twice.
    """
    file = Path(path)
    file = file / "items.parquet" if file.is_dir() else file
    frame = read_table(file, ("term", "step", "exposures"))
    try:
        seen = frame[["step", "exposures"]].apply(pd.to_numeric).astype("int64")
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: steps and exposures must be whole numbers ({error})") from error
    # `count pythia:7` counts what operand 7 is set against
    seen.insert(0, "term", frame["term"].astype("string").str.replace("^(pythia|paper|cleaned):", "", regex=True))
    twice = seen[seen.duplicated(["term", "step"])]
    if len(twice):
        term, step = twice["term"].iloc[0], twice["step"].iloc[0]
        raise DataError(f"{file}: term {term!r} has two counts at step {step}; keep one definition of it")
    return seen
