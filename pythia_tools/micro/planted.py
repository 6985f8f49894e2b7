"""The generated part: facts, two-digit sums and pronoun sentences, packed into documents of exactly one row's length.

A document is a newline and whole sentences, one to a line; what is left of the row is filled with real text. Every
sentence keeps its item's number and its offset, so that each exposure can be found again in the packed rows.
The fields of an item are its columns in the truth tables.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.micro import words
from pythia_tools.micro.recipe import Recipe

Sentence = tuple[int, str]
"""An item's number, and a line of text with its line break."""


@dataclass(frozen=True)
class Canary:
    """A held-out window planted `copies` times; `burst` is the checkpoint its burst precedes (None: spread evenly)."""

    canary: int
    copies: int
    burst: int | None
    text: str
    tokens: np.ndarray


@dataclass(frozen=True)
class Fact:
    """An invented fact: `prompt` and `answer` as texts, `mentions` planted, `term` what to count for its exposures."""

    fact: int
    relation: str
    entity: str
    prompt: str
    answer: str
    term: str
    mentions: int


@dataclass(frozen=True)
class Sum:
    """a + b, planted `mentions` times; `operand_mentions` counts all sums with first operand a, `term` finds them."""

    sum: int
    a: int
    b: int
    prompt: str
    answer: str
    term: str
    operand_mentions: int
    mentions: int


@dataclass(frozen=True)
class Occupation:
    """An occupation with how many sentences were planted with each pronoun."""

    occupation: str
    stereotype: str
    term: str
    he_count: int
    she_count: int


@dataclass(frozen=True)
class Items:
    """What is planted besides canaries: the items, and the sentences with occupations and pronouns."""

    facts: list[Fact]
    sums: list[Sum]
    occupations: list[Occupation]
    pronoun_sentences: list[Sentence]

    def sentences(self) -> dict[str, list[Sentence]]:
        """Kind → every sentence to plant, as often as it is planted."""
        return {
            "fact": [(f.fact, f"{f.prompt[1:]}{f.answer}.\n") for f in self.facts for _ in range(f.mentions)],
            "sum": [(s.sum, f"{s.prompt[1:]}{s.answer}\n") for s in self.sums for _ in range(s.mentions)],
            "pronoun": self.pronoun_sentences,
        }


@dataclass
class Document:
    """Tokens of one row's length, and where in it each item stands: (kind, item, offset, length)."""

    tokens: np.ndarray
    items: list[tuple[str, int, int, int]] = field(default_factory=list)


def zipf_counts(n: int, top: int, exponent: float) -> list[int]:
    """Mentions by rank: round(top / rank^exponent), at least 1."""
    return [max(1, round(top / rank**exponent)) for rank in range(1, n + 1)]


def make_facts(recipe: Recipe, rng: np.random.Generator) -> list[Fact]:
    """Facts of every relation; answers go round the closed set in fresh random orders: each is right equally often."""
    spec = recipe.facts
    pool = words.names()
    if spec.relations > len(words.RELATIONS) or spec.relations * spec.entities > len(pool):
        allowed = f"{len(words.RELATIONS)} relations, {len(pool)} entities in all"
        raise RequestError(f"recipe: facts: {spec.relations} relations × {spec.entities} entities; allowed: {allowed}")
    entities = iter([pool[i] for i in rng.permutation(len(pool))])
    facts: list[Fact] = []
    for relation, frame, answers in words.RELATIONS[: spec.relations]:
        rounds = -(-spec.entities // len(answers))
        order = np.concatenate([rng.permutation(len(answers)) for _ in range(rounds)])
        for answer, mentions in zip(order, zipf_counts(spec.entities, spec.top, spec.exponent), strict=False):
            entity = next(entities)
            prompt = "\n" + frame.partition("{answer}")[0].format(entity=f" {entity}")
            facts.append(Fact(len(facts), relation, entity, prompt, f" {answers[answer]}", f" {entity}", mentions))
    return facts


def make_sums(recipe: Recipe, rng: np.random.Generator) -> list[Sum]:
    """Nine sums for each operand; partners of one operand are planted equally often, give or take one."""
    spec = recipe.sums
    operands = 10 + rng.permutation(80)[: spec.operands]
    sums: list[Sum] = []
    for a, total in zip(operands.tolist(), zipf_counts(spec.operands, spec.top, 1.0), strict=True):
        each = np.full(9, total // 9) + (rng.permutation(9) < total % 9)
        for b, mentions in enumerate(each.tolist(), start=1):
            sums.append(Sum(len(sums), a, b, f"\n{a}+{b}=", str(a + b), f"\n{a}+", total, mentions))
    return sums


def make_pronouns(recipe: Recipe, rng: np.random.Generator) -> tuple[list[Occupation], list[Sentence]]:
    """Occupations with their counts, and (occupation number, sentence) pairs, one for each planted sentence."""
    spec = recipe.pronouns
    occupations, sentences = [], []
    each = spec.sentences // len(words.OCCUPATIONS)
    for i, (name, stereotype) in enumerate(words.OCCUPATIONS):
        follow = round(each * spec.skew)
        he = follow if stereotype == "he" else each - follow
        occupations.append(Occupation(name, stereotype, f" {name}", he, each - he))
        templates = np.resize(rng.permutation(len(words.TRAINING_TEMPLATES)), each)
        pronouns = rng.permutation(np.array(["he"] * he + ["she"] * (each - he)))
        for t, pronoun in zip(templates, pronouns, strict=True):
            text = words.TRAINING_TEMPLATES[t].format(occupation=name, **words.PRONOUNS[str(pronoun)])
            sentences.append((i, text + "\n"))
    return occupations, sentences


def pack(
    kind: str, sentences: Sequence[tuple[int, list[int]]], length: int, newline: int, filler: Iterator[int],
    rng: np.random.Generator,
) -> list[Document]:
    """Sentences (item number, ids) in random order into documents of `length` tokens, whole and one to a line.

    `filler` gives the tokens of real text that fill a document. A sentence that would bring an item twice into one
    document waits for the next. Raises: RequestError when a sentence is longer than a document.
    """
    longest = max((len(ids) for _, ids in sentences), default=0)
    if longest + 1 > length:
        raise RequestError(f"recipe: seq_length is {length}, too short for a planted sentence of {longest} tokens")
    waiting = [sentences[i] for i in rng.permutation(len(sentences))][::-1]
    documents = []
    while waiting:
        tokens, items = _fill_one(kind, waiting, length, newline)
        tokens += islice(filler, length - len(tokens))
        documents.append(Document(np.array(tokens, dtype=np.uint16), items))
    return documents


def _fill_one(
    kind: str, waiting: list[tuple[int, list[int]]], length: int, newline: int,
) -> tuple[list[int], list[tuple[str, int, int, int]]]:
    """Tokens and items of one document, from the end of `waiting`; looks a few sentences ahead for one that fits."""
    tokens, items, inside = [newline], [], set()
    position = len(waiting) - 1
    while position >= 0 and len(waiting) - position < 12:
        item, ids = waiting[position]
        if len(tokens) + len(ids) <= length and item not in inside:
            items.append((kind, item, len(tokens), len(ids)))
            tokens += ids
            inside.add(item)
            waiting.pop(position)
        position -= 1
    return tokens, items
