"""Questions as a model meets them: a prompt, the answer, the term whose exposures matter, and a closed answer set where
there is one.

Built once, as text, and encoded once; every checkpoint is then asked exactly the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd

from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analysis import Task, Where, sweep
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import check_items
from pythia_tools.suites import Checkpoint
from pythia_tools.tokens import Openable, open_tokenizer

PART_ITEMS = 512


@dataclass(frozen=True)
class Item:
    """One question.

    prompt     text, few-shot examples included; the answer follows it directly
    answers    texts that are right (aliases); with candidates, exactly one, and it is among them
    term       whose exposures accuracy is set against (an operand, an entity, a question's number)
    name       of the question, unique within its task
    candidates texts, or empty: then the answer is decoded greedily
    relation   that the fact is of, or empty; facts of one relation are not independent
    """

    prompt: str
    answers: tuple[str, ...]
    term: str
    name: str
    candidates: tuple[str, ...] = ()
    relation: str = ""

    def __post_init__(self) -> None:
        if not self.answers or not all(self.answers):
            raise RequestError(f"item {self.name!r} needs at least one answer, none empty")
        if self.candidates and (len(self.answers) != 1 or self.answers[0] not in self.candidates):
            raise RequestError(
                f"item {self.name!r}: its answer {self.answers!r} is not one of its {len(self.candidates)} candidates"
            )
        if len(set(self.candidates)) != len(self.candidates):
            raise RequestError(f"item {self.name!r} has a candidate twice")


@dataclass(frozen=True)
class Encoded:
    """An item as token ids: prompt and candidates each encoded alone, as the model reads them one after the other."""

    item: Item
    prompt: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]


class TermTask(Task):
    """Items as a sweep's task, in parts of 512: one row per item.

    Columns: task, item, term, relation, correct (nullable bool: <NA> where the model gave NaN), chosen, answer (the
    first right one), and the task's own. `vocabulary`: the first so many ids only (the tokenizer's; models pad more).
    """

    own: tuple[str, ...]

    def __init__(self, items: Sequence[Item], tokenizer: Openable, name: str, vocabulary: int | None):
        self.label, self.name, self.vocabulary = name, f"{NAME}/{name}", vocabulary
        self.tokenizer = open_tokenizer(tokenizer)
        self.items = encode(_distinct(items), self.tokenizer)
        self.parts = -(-len(self.items) // PART_ITEMS)

    def part(self, number: int) -> list[Encoded]:
        return self.items[number * PART_ITEMS : (number + 1) * PART_ITEMS]

    def table(self, items: Sequence[Encoded], judged: Sequence[Sequence[object]]) -> pd.DataFrame:
        """judged: whether each item's answer is right, what was chosen, and the task's own columns."""
        rows = [
            (self.label, e.item.name, e.item.term, e.item.relation, right, chosen, e.item.answers[0], *more)
            for e, (right, chosen, *more) in zip(items, judged, strict=True)
        ]
        columns = ["task", "item", "term", "relation", "correct", "chosen", "answer", *self.own]
        return pd.DataFrame(rows, columns=columns).astype({"correct": "boolean"})


def measure(
    checkpoints: Iterable[Checkpoint], task: TermTask | Sequence[TermTask], **where: Unpack[Where]
) -> pd.DataFrame:
    """One row per checkpoint × item: identity columns, task, item, term, correct, and what the task adds (see COLUMNS).

    `task`: one task or several. `where`: device, dtype, cells, …, as an `Execution` takes them.
    """
    result = sweep(checkpoints, list(task) if isinstance(task, Sequence) else [task], **where)
    return check_items(pd.concat(result.values(), ignore_index=True))


def _distinct(items: Sequence[Item]) -> list[Item]:
    """The items, at least one, names distinct. Raises RequestError."""
    listed = list(items)
    if not listed:
        raise RequestError("a task needs at least one item")
    name, times = Counter(item.name for item in listed).most_common(1)[0]
    if times > 1:
        raise RequestError(f"two items are called {name!r}; item names must differ")
    return listed


def encode(items: Sequence[Item], tokenizer: Openable) -> list[Encoded]:
    """Ids of prompts and candidates; equal texts are encoded once. Raises RequestError for a text of no token."""
    texts = sorted({t for item in items for t in (item.prompt, *item.candidates)})
    ids = {t: tuple(i) for t, i in zip(texts, open_tokenizer(tokenizer).ids(texts), strict=True)}
    for item in items:
        for text in (item.prompt, *item.candidates):
            if not ids[text]:
                needed = "a prompt and every candidate need at least one"
                raise RequestError(f"item {item.name!r}: {text!r} encodes to no token; {needed}")
    return [Encoded(item, ids[item.prompt], tuple(ids[c] for c in item.candidates)) for item in items]
