"""Rules that decide which row stands in a place: remove, repeat, insert text, deduplicate. Nothing ever shifts.

A removed row's place is taken by a row of a reserve, so that every other row is consumed at the step it always was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.order.rows import Rows
from pythia_tools.overlays.receipts import CHANGED, Lengths, Occurrence
from pythia_tools.overlays.rules import Applied, Below, BoundRule, Chosen, read_split
from pythia_tools.overlays.words import Spelling
from pythia_tools.tokens import Openable

RowNumbers = Sequence[int] | np.ndarray | range
_HASH_ROWS = 8192


def _numbers(rows: RowNumbers) -> np.ndarray:
    return np.asarray(rows, dtype=np.int64).reshape(-1)


def _existing(rows: RowNumbers, chosen: Chosen, what: str) -> np.ndarray:
    """Row numbers of the order. Raises RequestError for one that it does not have."""
    numbers = _numbers(rows)
    beyond = numbers[(numbers < 0) | (numbers >= chosen.n_rows)]
    if beyond.size:
        raise RequestError(f"{what} row {beyond[0]}: the order has rows 0 to {chosen.n_rows - 1}")
    return numbers


def _touched(rows: RowNumbers, chosen: Chosen, what: str) -> np.ndarray:
    """Those rows that lie in the chosen steps, ascending. Raises RequestError when rows were given and none does."""
    numbers = np.unique(_existing(rows, chosen, what))
    inside = numbers[chosen.has(numbers)]
    if numbers.size and not inside.size:
        raise RequestError(f"none of the {numbers.size} rows to {what} is in the chosen steps (row {numbers[0]}, …)")
    return inside


def _drawn(copies: int, among: np.ndarray, seed: int) -> np.ndarray:
    """Places drawn without replacement. Raises RequestError for less than one, or more than there are."""
    if copies < 1:
        raise RequestError(f"{copies} copies: at least 1 is needed")
    if copies > among.size:
        few = f"the chosen steps have {among.size}; choose more steps or fewer copies"
        raise RequestError(f"{copies} copies need {copies} places, {few}")
    return np.random.default_rng(seed).choice(among, copies, replace=False)


@dataclass(frozen=True)
class Reserve:
    """Rows that stand in for removed ones, used front to back: numbers of the order's rows, or of another order's."""

    rows: RowNumbers
    order: Rows | None = None

    @property
    def config(self) -> dict[str, Any]:
        fingerprint = None if self.order is None else self.order.fingerprint
        return {"rows": digest(_numbers(self.rows).tolist()), "n": len(self.rows), "order": fingerprint}

    def take(self, numbers: np.ndarray, below: Below) -> np.ndarray:
        return below(numbers) if self.order is None else self.order.take(numbers)

    def check(self, need: int, chosen: Chosen) -> None:
        """Raises RequestError when the reserve cannot stand in for `need` chosen rows."""
        used = _numbers(self.rows)[:need]
        there = chosen.n_rows if self.order is None else self.order.n_rows
        if len(used) < need:
            raise RequestError(f"{need} rows are to be replaced, the reserve has {len(used)}; give at least that many")
        if used.size and (used.min() < 0 or used.max() >= there):
            named = f"rows {used.min()} to {used.max()}"
            raise RequestError(f"the reserve names {named}, it can have rows 0 to {there - 1}")
        if len(np.unique(used)) < need:
            raise RequestError("the reserve names a row twice, which would be seen twice")
        if self.order is None and chosen.has(used).any():
            raise RequestError("the reserve holds chosen rows, which would be seen twice; take rows beyond those steps")


def _substituted(
    rule: RemoveRows | Deduplicate | RepeatRows, places: np.ndarray, reserve: Reserve, reason: str = "",
) -> BoundRule:
    """A rule bound to its rows: in the place `places[k]` (ascending) stands the k-th row of the reserve."""
    def apply(numbers: np.ndarray, below: Below) -> Applied:
        inside = np.isin(numbers, places)
        taken = numbers[inside]
        sources = _numbers(reserve.rows)[np.searchsorted(places, taken)]
        rows = read_split(numbers, inside, lambda _: reserve.take(sources, below), below)
        kind = "row" if reserve.order is None else "reserve row"
        return Applied(rows, [
            Occurrence(rule.name, place, 0, 0, f"row {place}", f"{kind} {source}", CHANGED, reason)
            for place, source in zip(taken.tolist(), sources.tolist(), strict=True)
        ], [])

    return BoundRule(rule.name, rule.config, apply)


@dataclass(frozen=True)
class RemoveRows:
    """Chosen rows replaced by rows of a reserve: the k-th removed row (by row number) by the k-th reserve row."""

    rows: RowNumbers
    reserve: Reserve
    name: str = "remove_rows"

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "rows": digest(_numbers(self.rows).tolist()), "reserve": self.reserve.config}

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        """Raises: RequestError for rows that do not exist, and for a reserve that will not do."""
        removed = _touched(self.rows, chosen, "remove")
        self.reserve.check(len(removed), chosen)
        return _substituted(self, removed, self.reserve)


@dataclass(frozen=True)
class Deduplicate:
    """Rows whose content stood at an earlier chosen row, replaced from a reserve; the first of equals stays.

    Equal are equal ids (128-bit digests; one read of all chosen rows and of the reserve); near-duplicates that a
    deduplication dropped are for `RemoveRows`. Reserve rows whose content stands among the chosen rows, or earlier in
    the reserve, are passed over.
    """

    reserve: Reserve
    name: str = "deduplicate"

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "reserve": self.reserve.config}

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        reserve, numbers = self.reserve, chosen.numbers()
        contents, first = np.unique(_keys(numbers, below), return_index=True)
        removed = np.delete(numbers, first)
        reserve.check(len(removed), chosen)  # before its rows are read
        keys = _keys(_numbers(reserve.rows), lambda numbers: reserve.take(numbers, below))
        fresh = np.unique(keys, return_index=True)[1]
        fresh = np.sort(fresh[~np.isin(keys[fresh], contents)])
        reserve = Reserve(_numbers(reserve.rows)[fresh], reserve.order)
        reserve.check(len(removed), chosen)
        return _substituted(self, removed, reserve, "duplicate")


def _keys(numbers: np.ndarray, take: Below) -> np.ndarray:
    """(n,) S16: a digest of each row's content."""
    keys = np.empty(len(numbers), dtype="S16")
    for start in range(0, len(numbers), _HASH_ROWS):
        rows = np.ascontiguousarray(take(numbers[start : start + _HASH_ROWS]))
        keys[start : start + len(rows)] = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    return keys


@dataclass(frozen=True)
class RepeatRows:
    """Copies of some rows put in the place of others.

    `copies` places for each row are drawn among the other chosen rows, without replacement, from `seed`; the rows are
    taken in turn.
    """

    rows: RowNumbers
    copies: int = 1
    seed: int = 0
    name: str = "repeat_rows"

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "rows": _numbers(self.rows).tolist(), "copies": self.copies, "seed": self.seed}

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        rows = _existing(self.rows, chosen, "repeated")
        if not rows.size:
            raise RequestError("no rows to repeat were given")
        places = _drawn(rows.size * self.copies, np.setdiff1d(chosen.numbers(), rows), self.seed)
        by_place = np.argsort(places)
        return _substituted(self, places[by_place], Reserve(np.resize(rows, len(places))[by_place]))


@dataclass(frozen=True)
class InsertText:
    """A text put into rows at a token offset. `push` moves the rest of the row on and cuts its end; `over` overwrites.

    `rows` names the rows, or `copies` draws them among the chosen ones from `seed`. The offset is in tokens, 0 by
    default.
    """

    tokenizer: Openable | Spelling
    text: str
    rows: RowNumbers | None = None
    copies: int = 1
    at: int = 0
    how: str = "push"
    seed: int = 0
    name: str = "insert_text"

    def __post_init__(self) -> None:
        if self.how not in ("push", "over"):
            raise RequestError(f"how={self.how!r}: allowed are push, over")
        if not self.ids:
            raise RequestError("the text to insert is empty")
        if self.at < 0:
            raise RequestError(f"at={self.at}: a token offset is 0 or more")

    @cached_property
    def spelling(self) -> Spelling:
        return Spelling.of(self.tokenizer)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.spelling.encode(self.text)

    @property
    def config(self) -> dict[str, Any]:
        rows = None if self.rows is None else _numbers(self.rows).tolist()
        return {
            "rule": self.name, "ids": list(self.ids), "rows": rows, "copies": self.copies,
            "at": self.at, "how": self.how, "seed": self.seed,
        }

    def bind(self, chosen: Chosen, below: Below) -> BoundRule:
        if self.rows is None:
            into = _drawn(self.copies, chosen.numbers(), self.seed)
        else:
            into = _touched(self.rows, chosen, "insert into")
        return BoundRule(self.name, self.config, partial(self._inserted, into))

    def _inserted(self, into: np.ndarray, numbers: np.ndarray, below: Below) -> Applied:
        rows = below(numbers).copy()
        width, end = rows.shape[1], self.at + len(self.ids)
        if end > width:
            raise RequestError(f"{len(self.ids)} ids at offset {self.at} do not fit a row of {width}")
        done = Applied(rows, [], [])
        for i in np.flatnonzero(np.isin(numbers, into)).tolist():
            old, number = rows[i].copy(), int(numbers[i])
            gone = tuple(old[self.at : end].tolist()) if self.how == "over" else ()
            rows[i, self.at : end] = self.ids
            if self.how == "push":
                rows[i, end:] = old[self.at : width - len(self.ids)]
                tail = tuple(old[width - len(self.ids) :].tolist())
                done.lengths.append(Lengths(self.name, number, len(self.ids), 0, tail))
            done.occurrences.append(Occurrence(
                self.name, number, self.at, self.at, self.spelling.text(gone), self.text, CHANGED, "", gone, self.ids,
            ))
        return done
