"""Questions as a model meets them: a prompt, the answer, the term whose exposures matter, and a closed answer set where
there is one; from lists of facts and from templates.

Built once, as text, and encoded once; every checkpoint is then asked exactly the same.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analysis import Task
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.tokens import Openable, open_tokenizer

PART_ITEMS = 512
Candidates = Mapping[str, Sequence[str]] | Sequence[str]


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


def fact_items(facts: pd.DataFrame, candidates: Candidates | None = None) -> list[Item]:
    """Items from a table with the columns prompt, answer, term, and optionally name and relation.

    candidates: the closed answer set, or one for each relation; None decodes greedily. Answers and candidates are the
    texts that follow the prompt, leading space included. Raises RequestError for a missing column or an answer outside
    its set.
    """
    missing = [c for c in ("prompt", "answer", "term") if c not in facts]
    if missing:
        raise RequestError(f"facts need the columns prompt, answer and term; missing: {', '.join(missing)}")
    names = facts["name"] if "name" in facts else range(len(facts))
    relations = facts["relation"] if "relation" in facts else [""] * len(facts)
    return [
        Item(str(p), (str(a),), str(t), str(n), tuple(_set_for(candidates, str(r))), str(r))
        for p, a, t, n, r in zip(facts["prompt"], facts["answer"], facts["term"], names, relations, strict=True)
    ]


def template_items(
    template: str, values: pd.DataFrame, *, answer: str, term: str, candidates: Candidates | None = None,
) -> list[Item]:
    """Items from a template such as `The capital of {country} is`, filled from the columns of `values`.

    answer, term: templates too (`" {capital}"`, `"{country}"`). Raises RequestError for a field that is no column.
    """
    texts = {"prompt": template, "answer": answer, "term": term}
    records = values.to_dict("records")
    try:
        table = pd.DataFrame({name: [text.format_map(r) for r in records] for name, text in texts.items()})
    except (KeyError, IndexError) as error:
        raise unknown("field of a template", error.args[0], list(values.columns)) from None
    except ValueError as error:
        raise RequestError(f"{', '.join(texts.values())}: not templates ({error}); {{column}} is filled in") from None
    if "relation" in values:
        table["relation"] = values["relation"].to_numpy()
    return fact_items(table, candidates)


def _set_for(candidates: Candidates | None, relation: str) -> Sequence[str]:
    if not isinstance(candidates, Mapping):
        return candidates or ()
    if relation not in candidates:
        raise unknown("relation", relation, list(candidates))
    return candidates[relation]


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
