"""What can be counted: token n-grams, text, numbers, pairs in a window, sets that share a row, the Pythia paper's rule.

A pattern is a small frozen value with a `name` (its row in the tables). Plain Python values are read as
patterns too: a string is a `Text`, an int a `Number`, a sequence of ints an `Ngram` of token ids.

Every definition is per row: a row is the seq_length + 1 token ids of the order, and nothing is counted
across the end of one row and the start of the next, because training never showed it.

`version` of a pattern is part of the key of kept counts: raise it when its definition or its kernel changes a number.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from pythia_tools.core.errors import RequestError, unknown

UNITS = ("words", "tokens")
WHOLE = (int, np.integer)
TIME_UNITS = ("minute", "hour", "day", "week", "month", "year", "decade")


class _Named:
    """What all patterns share. No ABC: `isinstance` takes five times as long for one, and lists of pairs are long."""

    label: str
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Its row in the tables: the label, or what it says itself."""
        return self.label or self.plain_name()

    def plain_name(self) -> str:
        """Its name without a label."""
        raise NotImplementedError


@dataclass(frozen=True)
class Ngram(_Named):
    """Token ids in a row, counted at every position at which they stand whole."""

    ids: tuple[int, ...]
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(int(i) for i in self.ids))
        if not self.ids or min(self.ids) < 0:
            raise RequestError(f"an n-gram needs at least one token id, none negative; got {list(self.ids)}")

    def plain_name(self) -> str:
        return " ".join(map(str, self.ids))


@dataclass(frozen=True)
class Text(_Named):
    """A string in the decoded row, whatever tokens spell it; every position counts, overlaps included.

    whole_word: not next to a word character, as `(?<!\\w)…(?!\\w)`.
    """

    text: str
    whole_word: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        if not self.text:
            raise RequestError("a text term must not be empty")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"text term {self.text!r} is not valid Unicode ({error.reason})") from error
        if "�" in self.text:
            raise RequestError(
                f"text term {self.text!r} holds the replacement character, which stands for bytes that are not text"
            )

    def plain_name(self) -> str:
        return self.text


@dataclass(frozen=True)
class Number(_Named):
    """A whole run of digits 0-9 that reads exactly so: `Number(23)` is neither in 123 nor in 230, and 007 is not 7."""

    digits: str
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digits", str(self.digits))
        if not re.fullmatch("[0-9]+", self.digits):
            raise RequestError(f"a number is a run of digits 0-9; got {self.digits!r}")

    def plain_name(self) -> str:
        return self.digits


Leaf: TypeAlias = Ngram | Text | Number
Term: TypeAlias = Leaf | str | int | Sequence[int] | np.ndarray
"""A leaf, or what is read as one."""


@dataclass(frozen=True)
class Pair(_Named):
    """Two terms at most `window` words (or tokens) apart: the number of (occurrence, occurrence) pairs in rows.

    The distance is the difference of the numbers of the words (runs without white space, as `str.split`) or tokens in
    which the two occurrences begin, their leading white space left out; 0 is the same word. Token ids begin in their
    first token when the window is of tokens. The order of the two does not matter; a term paired with itself counts
    each two different occurrences once.
    """

    first: Term
    second: Term
    window: int = 5
    unit: Literal["words", "tokens"] = "words"
    label: str = ""
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", as_leaf(self.first))
        object.__setattr__(self, "second", as_leaf(self.second))
        if self.unit not in UNITS:
            raise unknown("unit of a pair's window", self.unit, UNITS)
        if self.window < 0:
            raise RequestError(f"a pair's window must be 0 or more {self.unit}; got {self.window}")

    @property
    def leaves(self) -> tuple[Leaf, Leaf]:
        """Both terms."""
        return self.first, self.second  # type: ignore[return-value]  # __post_init__ made them so

    def plain_name(self) -> str:
        first, second = self.leaves
        return f"{first.name} & {second.name} within {self.window} {self.unit}"


@dataclass(frozen=True)
class CoOccurrence(_Named):
    """Entities that all occur in one row: the number of such rows.

    A member may be a tuple of aliases, any of which will do.
    """

    members: tuple[Term | tuple[Term, ...], ...]
    whole_word: bool = True
    label: str = ""

    def __post_init__(self) -> None:
        groups = tuple(tuple(as_leaf(a, whole_word=self.whole_word) for a in _aliases(m)) for m in self.members)
        if not groups or not all(groups):
            raise RequestError("a set needs at least one member, and each member at least one spelling")
        object.__setattr__(self, "members", groups)

    @property
    def leaves(self) -> tuple[tuple[Leaf, ...], ...]:
        """The aliases of each member."""
        return self.members  # type: ignore[return-value]  # __post_init__ made them so

    def plain_name(self) -> str:
        return " + ".join(group[0].name for group in self.leaves)


@dataclass(frozen=True)
class PythiaRule(_Named):
    """A key of the Pythia paper's counting rule: `23`, `12-23` (the smaller first), or `7-day`; see `pythia_rule`.

    clean_up: count in text as transformers' `clean_up_tokenization_spaces` leaves it, as the script of 2023 did.
    """

    key: str
    label: str = ""
    clean_up: bool = False
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        number, units = "(0|[1-9][0-9]{0,4})", "|".join(TIME_UNITS)
        if not re.fullmatch(f"{number}(-{number}|-({units}))?", self.key):
            raise RequestError(
                f"{self.key!r} is no key of the Pythia rule: a number below 100000, a pair 12-23, or 7-UNIT ({units})"
            )
        parts = self.key.split("-")
        if len(parts) == 2 and parts[1].isdigit() and int(parts[0]) > int(parts[1]):
            raise RequestError(f"pairs of the Pythia rule are sorted: write {parts[1]}-{parts[0]}, not {self.key}")

    def plain_name(self) -> str:
        return f"{'cleaned' if self.clean_up else 'pythia'}:{self.key}"


Pattern: TypeAlias = Ngram | Text | Number | Pair | CoOccurrence | PythiaRule


def as_leaf(value: Term, *, whole_word: bool = False) -> Leaf:
    """A term that can be a member of pairs and sets. Raises RequestError for anything else."""
    if isinstance(value, Leaf):
        return value
    if isinstance(value, str):
        return Text(value, whole_word=whole_word)
    if isinstance(value, WHOLE) and not isinstance(value, bool):
        return Number(str(int(value)))
    if isinstance(value, np.ndarray | Sequence) and len(value) and all(isinstance(i, WHOLE) for i in value):
        return Ngram(tuple(int(i) for i in value))
    raise RequestError(f"{value!r} is not a term; give a string, an int, token ids, or a pattern")


def as_patterns(values: Iterable[Pattern | Term]) -> list[Pattern]:
    """Patterns with distinct names. Raises RequestError when there is none or two share a name."""
    if isinstance(values, str | bytes):
        raise RequestError(f"terms must be a list; got the single string {values!r}, write [{values!r}]")
    patterns = [v if isinstance(v, Pattern) else as_leaf(v) for v in values]
    if not patterns:
        raise RequestError("no terms were given; give at least one")
    seen: dict[str, Pattern] = {}
    for p in patterns:
        name = p.name
        if name in seen:
            other = "the name of two different patterns; give one a label (label:NAME=TERM)"
            raise RequestError(f"term {name!r} is {'given twice' if seen[name] == p else other}")
        seen[name] = p
    return patterns


def _aliases(member: Term | tuple[Term, ...]) -> tuple[Term, ...]:
    several = isinstance(member, tuple | list) and not all(isinstance(m, WHOLE) for m in member)
    return tuple(member) if several else (member,)  # type: ignore[arg-type, return-value]  # ids are one n-gram
