"""What an overlay's rule is, and the rules that change words inside a row.

A rule gets row numbers and a way to read the rows beneath it, and returns rows of the same length together with an
account of what it did. Length: when replacements make a row longer, its end is cut; when they make it shorter, padding
ids are added at its end. Both are in the receipt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.overlays.receipts import CHANGED, CUT, MISSED, Lengths, Occurrence
from pythia_tools.overlays.words import FormFinder, Hit, Spelling, same_case
from pythia_tools.tokens import Openable

Below = Callable[[np.ndarray], np.ndarray]
"""Reads rows of the layer beneath: numbers (n,) → (n, W)."""


class Applied(NamedTuple):
    """Rows after a rule, and what it did."""

    rows: np.ndarray
    occurrences: list[Occurrence]
    lengths: list[Lengths]


@dataclass(frozen=True)
class Chosen:
    """The rows an overlay may touch: those of its steps, in order."""

    steps: np.ndarray
    batch_rows: int
    n_rows: int

    def has(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) bool: the row belongs to a chosen step."""
        if not self.steps.size:
            return np.zeros(len(numbers), dtype=bool)
        step = np.asarray(numbers) // self.batch_rows
        at = np.minimum(np.searchsorted(self.steps, step), self.steps.size - 1)
        return np.asarray(self.steps[at] == step)

    def numbers(self) -> np.ndarray:
        """All chosen row numbers, int64."""
        return (self.steps[:, None] * self.batch_rows + np.arange(self.batch_rows)).reshape(-1)


def read_split(numbers: np.ndarray, inside: np.ndarray, yes: Below, no: Below) -> np.ndarray:
    """Rows by number: those marked `inside` (n,) bool read by `yes`, the others by `no`."""
    if not inside.any():
        return no(numbers)
    some = yes(numbers[inside])
    if inside.all():
        return some
    others = no(numbers[~inside])
    rows = np.empty((len(numbers), others.shape[1]), dtype=others.dtype)
    rows[inside], rows[~inside] = some, others
    return rows


class BoundRule(NamedTuple):
    """A rule that knows its rows."""

    name: str
    """in receipts"""
    config: dict[str, Any]
    """in fingerprints: JSON-able"""
    apply: Callable[[np.ndarray, Below], Applied]
    """rows by number, all of them chosen, after this rule; it reads those beneath"""


class Rule(Protocol):
    """What an overlay is given."""

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        """The rule for the rows of these steps."""


class WordRule(ABC):
    """Base of rules that look at whole words: subclasses say which forms, and what becomes of each."""

    name = "words"

    def __init__(self, tokenizer: Openable | Spelling, forms: Iterable[str]):
        self.spelling = Spelling.of(tokenizer)
        self.finder = FormFinder(self.spelling, forms)

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "tokenizer": self.spelling.digest, "pad_id": self.spelling.pad_id, **self.options()}

    def options(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def decide(self, form: str, left: str, right: str) -> tuple[str | None, str]:
        """The replacement for a form between two texts (in the case of `form`), or None with the reason to leave it."""

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        return BoundRule(self.name, self.config, lambda numbers, below: self.edit(below(numbers), numbers))

    def edit(self, rows: np.ndarray, numbers: np.ndarray | None = None) -> Applied:
        """(n, W) rows of ids with this rule applied; `numbers` (n,) are the row numbers the account will name."""
        numbers = np.arange(len(rows)) if numbers is None else numbers
        done = Applied(rows.copy(), [], [])
        at, positions = self.finder.candidates(rows)
        ends = np.flatnonzero(np.diff(at, prepend=-1, append=-1))
        for first, last in pairwise(ends.tolist()):
            self._edit_row(done, int(at[first]), positions[first:last], int(numbers[at[first]]))
        return done

    def _edit_row(self, done: Applied, index: int, positions: np.ndarray, number: int) -> None:
        """One row, changed in place, with its account; `positions` are where a form may begin."""
        ids = done.rows[index].tolist()
        found: list[Occurrence] = []
        free = 0
        for position in positions.tolist():
            hit = self.finder.hit(ids, position) if position >= free else None
            if hit is None:
                continue
            free = position + hit.length
            put, reason = self.decide(hit.form, *self.finder.context(ids, hit))
            status, placed = MISSED, tuple(ids[position:free])
            if put is not None:
                status = CHANGED
                position, placed = self._place(ids, hit, put)
            removed = tuple(ids[position:free])
            found.append(Occurrence(
                self.name, number, position, position, hit.form, put or hit.form, status, reason, removed, placed,
            ))
        whole, landed = _splice(ids, found)
        padded, tail = max(0, len(ids) - len(whole)), tuple(whole[len(ids) :])
        done.rows[index] = (whole + [self.spelling.pad_id] * padded)[: len(ids)]
        done.occurrences.extend(landed)
        if tail or padded:
            done.lengths.append(Lengths(self.name, number, len(tail), padded, tail))

    def _place(self, ids: list[int], hit: Hit, put: str) -> tuple[int, tuple[int, ...]]:
        """Where to put a replacement, as the tokenizer would write it: after a bare apostrophe `she` is `'s` + `he`."""
        placed = self.spelling.encode(hit.lead + put)
        if hit.lead or not hit.position or self.spelling.bytes[ids[hit.position - 1]] != b"'":
            return hit.position, placed
        joined = self.spelling.encode("'" + put)
        return (hit.position, placed) if joined[1:] == placed else (hit.position - 1, joined)


def _splice(ids: list[int], found: list[Occurrence]) -> tuple[list[int], list[Occurrence]]:
    """A row's ids with each occurrence's `placed` for its `removed`, and where it landed; beyond the row it was cut."""
    whole: list[int] = []
    landed: list[Occurrence] = []
    done = 0
    for item in found:
        whole += ids[done : item.position]
        place = len(whole)
        whole += item.placed
        done = item.position + len(item.removed)
        if len(whole) > len(ids):
            status = CUT if item.status == CHANGED else MISSED
            landed.append(item._replace(landed=-1, status=status, reason="cut off the row's end"))
        else:
            landed.append(item._replace(landed=place))
    return whole + ids[done:], landed


class ReplaceTerms(WordRule):
    """Whole terms replaced by others, case kept: {"doctor": "nurse", "construction worker": "housekeeper"}.

    A term is a word or a short phrase; it is replaced only between word boundaries.
    """

    name = "replace_terms"

    def __init__(self, tokenizer: Openable | Spelling, terms: Mapping[str, str]):
        empty = [t for t, r in terms.items() if not t.strip() or not r.strip()]
        if not terms or empty:
            raise RequestError(f"terms to replace and their replacements must be words; got {dict(terms)!r}")
        self.terms = {t.strip().lower(): r.strip() for t, r in terms.items()}
        if len(self.terms) < len(terms):
            raise RequestError("two terms differ in case alone; give one, in lower case: it is found in every case")
        super().__init__(tokenizer, self.terms)

    def options(self) -> dict[str, Any]:
        return {"terms": dict(sorted(self.terms.items()))}

    def decide(self, form: str, left: str, right: str) -> tuple[str | None, str]:
        return same_case(form, self.terms[form.lower()]), ""

    def inverse(self) -> ReplaceTerms:
        """The terms exchanged. Raises RequestError when two terms have the same replacement."""
        back = {r: t for t, r in self.terms.items()}
        if len(back) < len(self.terms):
            raise RequestError("two terms have the same replacement, so the rule has no inverse")
        return ReplaceTerms(self.spelling, back)
