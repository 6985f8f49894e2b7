"""Rules that decide which row stands in a place: remove, repeat, insert text, deduplicate. Nothing ever shifts.

A removed row's place is taken by a row of a reserve, so that every other row is consumed at the step it always was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.order.rows import Rows
from pythia_tools.overlays.receipts import CHANGED, CUT, MISSED, Lengths, Occurrence
from pythia_tools.overlays.rules import Applied, Below, Chosen
from pythia_tools.overlays.words import Spelling

_HASH_ROWS = 8192


def _numbers(rows: Iterable[int] | np.ndarray) -> np.ndarray:
    return np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows, dtype=np.int64).reshape(-1)


def _existing(rows: Iterable[int] | np.ndarray, chosen: Chosen, what: str) -> np.ndarray:
    """Row numbers of the order. Raises RequestError for one that it does not have."""
    numbers = _numbers(rows)
    beyond = numbers[(numbers < 0) | (numbers >= chosen.n_rows)]
    if beyond.size:
        raise RequestError(f"{what} row {beyond[0]}: the order has rows 0 to {chosen.n_rows - 1}")
    return numbers


def _touched(rows: Iterable[int] | np.ndarray, chosen: Chosen, what: str) -> np.ndarray:
    """Those of some existing rows that lie in the chosen steps. Raises RequestError when rows were given and none does."""
    numbers = np.unique(_existing(rows, chosen, what))
    inside = numbers[chosen.has(numbers)]
    if numbers.size and not inside.size:
        raise RequestError(f"none of the {numbers.size} rows to {what} lies in the chosen steps (row {numbers[0]}, for one, does not)")
    return inside


def _at_least_one(copies: int) -> None:
    if copies < 1:
        raise RequestError(f"copies={copies}: at least 1 is needed")


@dataclass(frozen=True)
class Reserve:
    """Rows that stand in for removed ones, used front to back: row numbers of the order itself, or rows of another order."""

    rows: Sequence[int] | np.ndarray | range
    order: Rows | None = None

    @property
    def config(self) -> dict[str, Any]:
        rows = np.asarray(self.rows, dtype=np.int64)
        return {"rows": digest(rows.tolist()), "n": len(rows), "order": None if self.order is None else self.order.fingerprint}

    def take(self, which: np.ndarray, below: Below) -> np.ndarray:
        numbers = np.asarray(self.rows, dtype=np.int64)[which]
        return self.order.take(numbers) if self.order is not None else below(numbers)


@dataclass(frozen=True)
class RemoveRows:
    """Chosen rows replaced by rows of a reserve: the k-th removed row (by row number) by the k-th reserve row."""

    rows: Sequence[int] | np.ndarray
    reserve: Reserve
    name: str = "remove_rows"
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "rows": digest(_numbers(self.rows).tolist()), "reserve": self.reserve.config}

    def bind(self, chosen: Chosen, below: Below) -> RemoveRows:
        """Raises: RequestError for rows that do not exist, or a reserve too small, or one with rows that are chosen or named twice."""
        removed = _touched(self.rows, chosen, "remove")
        _check_reserve(self.reserve, removed, chosen)
        return replace(self, removed=removed)

    def apply(self, numbers: np.ndarray, below: Below) -> Applied:
        return _stand_in(self.name, numbers, self.removed, self.reserve, below, "")


@dataclass(frozen=True)
class Deduplicate:
    """Rows whose content stood at an earlier chosen row, replaced from a reserve; the first of equals stays.

    Exact by default: equal ids (128-bit digests, compared over all chosen rows: one read of them). Near-duplicates come
    from `duplicates`: the row numbers that a deduplication dropped. In the exact mode, reserve rows whose content stands among
    the chosen rows, or earlier in the reserve, are passed over.
    """

    reserve: Reserve
    duplicates: Sequence[int] | np.ndarray | None = None
    name: str = "deduplicate"
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)
    fresh: Reserve | None = field(default=None, compare=False)

    @property
    def config(self) -> dict[str, Any]:
        given = None if self.duplicates is None else digest(_numbers(self.duplicates).tolist())
        return {"rule": self.name, "duplicates": given, "reserve": self.reserve.config}

    def bind(self, chosen: Chosen, below: Below) -> Deduplicate:
        if self.duplicates is not None:
            removed = np.unique(_existing(self.duplicates, chosen, "duplicate"))
            removed = removed[chosen.has(removed)]
            _check_reserve(self.reserve, removed, chosen)
            return replace(self, removed=removed)
        numbers = chosen.numbers()
        contents, first = np.unique(_all_keys(numbers, below), return_index=True)
        removed = np.delete(numbers, first)
        _check_reserve(self.reserve, removed, chosen)
        reserve = self._fresh(contents, len(removed), below)
        _check_reserve(reserve, removed, chosen)
        return replace(self, removed=removed, fresh=reserve)

    def _fresh(self, contents: np.ndarray, need: int, below: Below) -> Reserve:
        """The reserve's rows whose content is neither among `contents` (sorted keys) nor earlier in it; as many as needed, or all."""
        rows = np.asarray(self.reserve.rows, dtype=np.int64)
        kept: dict[bytes, int] = {}
        for start in range(0, len(rows), _HASH_ROWS):
            if len(kept) >= need:
                break
            which = np.arange(start, min(len(rows), start + _HASH_ROWS))
            keys = _keys(self.reserve.take(which, below))
            for key, row, there in zip(keys.tolist(), rows[which].tolist(), np.isin(keys, contents).tolist(), strict=True):
                if not there:
                    kept.setdefault(key, row)
        return replace(self.reserve, rows=list(kept.values()))

    def apply(self, numbers: np.ndarray, below: Below) -> Applied:
        return _stand_in(self.name, numbers, self.removed, self.fresh or self.reserve, below, "duplicate")


@dataclass(frozen=True)
class RepeatRows:
    """Copies of some rows put in the place of others.

    `into` names the places (one per copy, sources taken in turn), or `copies` draws that many places per source among the
    chosen rows, without replacement, from `seed`. Sources are never overwritten.
    """

    rows: Sequence[int] | np.ndarray
    into: Sequence[int] | np.ndarray | None = None
    copies: int = 1
    seed: int = 0
    name: str = "repeat_rows"
    sources: dict[int, int] = field(default_factory=dict, compare=False)

    @property
    def config(self) -> dict[str, Any]:
        places = None if self.into is None else _numbers(self.into).tolist()
        return {"rule": self.name, "rows": _numbers(self.rows).tolist(), "into": places, "copies": self.copies, "seed": self.seed}

    def bind(self, chosen: Chosen, below: Below) -> RepeatRows:
        _at_least_one(self.copies)
        rows = _existing(self.rows, chosen, "repeated")
        if not rows.size:
            raise RequestError("no rows to repeat were given")
        places = self._places(rows, chosen)
        if len(np.unique(places)) < len(places):
            raise RequestError("a place is named twice in `into`; every copy needs a place of its own")
        inside = _touched(places, chosen, "overwrite")
        clash = np.intersect1d(places, rows)
        if clash.size:
            raise RequestError(f"row {clash[0]} is both repeated and overwritten; choose other places")
        source = {int(place): int(rows[k % rows.size]) for k, place in enumerate(places)}
        return replace(self, sources={p: source[p] for p in inside.tolist()})

    def _places(self, rows: np.ndarray, chosen: Chosen) -> np.ndarray:
        if self.into is not None:
            return _numbers(self.into)
        free = np.setdiff1d(chosen.numbers(), rows)
        need = rows.size * self.copies
        if need > free.size:
            raise RequestError(f"{need} copies need {need} places, the chosen steps have {free.size}; choose more steps or fewer copies")
        return np.random.default_rng(self.seed).choice(free, need, replace=False)

    def apply(self, numbers: np.ndarray, below: Below) -> Applied:
        source = np.array([self.sources.get(int(n), int(n)) for n in numbers], dtype=np.int64)
        moved = np.flatnonzero(source != numbers)
        found = [Occurrence(self.name, int(numbers[i]), 0, 0, f"row {numbers[i]}", f"row {source[i]}", CHANGED, "") for i in moved]
        return Applied(below(source), found, [])


@dataclass(frozen=True)
class InsertText:
    """A text put into rows at a token offset. `push` moves the rest of the row on and cuts its end; `over` overwrites.

    `rows` names the rows, or `copies` draws them among the chosen ones from `seed`. The offset is in tokens, 0 by default.
    """

    tokenizer: Any
    text: str
    rows: Sequence[int] | np.ndarray | None = None
    copies: int = 1
    at: int = 0
    how: str = "push"
    seed: int = 0
    name: str = "insert_text"
    into: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    def __post_init__(self) -> None:
        if self.how not in ("push", "over"):
            raise RequestError(f"how={self.how!r}: allowed are push, over")
        if not isinstance(self.tokenizer, Spelling):
            object.__setattr__(self, "tokenizer", Spelling(self.tokenizer))
        if not self.ids:
            raise RequestError("the text to insert is empty")
        if self.at < 0:
            raise RequestError(f"at={self.at}: a token offset is 0 or more")
        _at_least_one(self.copies)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.tokenizer.encode(self.text)  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any]:
        rows = None if self.rows is None else _numbers(self.rows).tolist()
        return {
            "rule": self.name, "ids": list(self.ids), "rows": rows, "copies": self.copies,
            "at": self.at, "how": self.how, "seed": self.seed,
        }

    def bind(self, chosen: Chosen, below: Below) -> InsertText:
        if self.rows is not None:
            return replace(self, into=_touched(self.rows, chosen, "insert into"))
        free = chosen.numbers()
        if self.copies > free.size:
            raise RequestError(f"{self.copies} copies need as many rows, the chosen steps have {free.size}")
        return replace(self, into=np.sort(np.random.default_rng(self.seed).choice(free, self.copies, replace=False)))

    def apply(self, numbers: np.ndarray, below: Below) -> Applied:
        rows = below(numbers).copy()
        width = rows.shape[1]
        if self.at + len(self.ids) > width:
            raise RequestError(f"{len(self.ids)} ids at offset {self.at} do not fit a row of {width}")
        found: list[Occurrence] = []
        lengths: list[Lengths] = []
        for i in np.flatnonzero(np.isin(numbers, self.into)).tolist():
            old, end = rows[i].copy(), self.at + len(self.ids)
            rows[i, self.at : end] = self.ids
            number = int(numbers[i])
            gone = tuple(old[self.at : end].tolist())
            if self.how == "push":
                rows[i, end:] = old[self.at : width - len(self.ids)]
                gone = ()
                lengths.append(Lengths(self.name, number, len(self.ids), 0, tuple(old[width - len(self.ids) :].tolist())))
            found.append(Occurrence(self.name, number, self.at, self.at, self.tokenizer.text(gone), self.text, CHANGED, "", gone, self.ids))
        return Applied(rows, found, lengths)


def _check_reserve(reserve: Reserve, removed: np.ndarray, chosen: Chosen) -> None:
    spare = np.asarray(reserve.rows, dtype=np.int64)
    if len(spare) < len(removed):
        raise RequestError(f"{len(removed)} rows are to be replaced, the reserve has {len(spare)}; give a reserve of at least that many")
    used = spare[: len(removed)]
    there = chosen.n_rows if reserve.order is None else int(reserve.order.n_rows)
    if used.size and (used.min() < 0 or used.max() >= there):
        raise RequestError(f"the reserve names rows {used.min()} to {used.max()}, it can have rows 0 to {there - 1}")
    if len(np.unique(used)) < len(used):
        raise RequestError("the reserve names a row twice, which would be seen twice")
    if reserve.order is None and chosen.has(used).any():
        raise RequestError("the reserve holds rows of the chosen steps, which would be seen twice; take it from rows beyond them")


def _stand_in(name: str, numbers: np.ndarray, removed: np.ndarray, reserve: Reserve, below: Below, reason: str) -> Applied:
    rows = np.array(below(numbers))
    at = np.flatnonzero(np.isin(numbers, removed))
    if at.size:
        which = np.searchsorted(removed, numbers[at])
        rows[at] = reserve.take(which, below)
    spare = np.asarray(reserve.rows, dtype=np.int64)
    origin = "reserve row" if reserve.order is not None else "row"
    found = [
        Occurrence(name, int(n), 0, 0, f"row {n}", f"{origin} {spare[k]}", CHANGED, reason)
        for n, k in zip(numbers[at].tolist(), np.searchsorted(removed, numbers[at]).tolist(), strict=True)
    ]
    return Applied(rows, found, [])


def _keys(rows: np.ndarray) -> np.ndarray:
    """(n,) S16: a digest of each row's content."""
    found = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(rows)]
    return np.array(found, dtype="S16")


def _all_keys(numbers: np.ndarray, below: Below) -> np.ndarray:
    keys = np.empty(len(numbers), dtype="S16")
    for start in range(0, len(numbers), _HASH_ROWS):
        keys[start : start + _HASH_ROWS] = _keys(below(numbers[start : start + _HASH_ROWS]))
    return keys


@dataclass(frozen=True)
class Restore:
    """The exact undo of a receipt: every changed occurrence gets its own ids back, where it landed.

    What was cut off a row's end comes back from the receipt's tails; a receipt that does not list everything is refused.
    """

    receipt: Any
    name: str = "restore"

    @property
    def config(self) -> dict[str, Any]:
        return {"rule": self.name, "receipt": self.receipt.fingerprint}

    def bind(self, chosen: Chosen, below: Below) -> Restore:
        if self.receipt.matched != len(self.receipt.occurrences):
            raise RequestError("this receipt does not list every occurrence, so it cannot undo them; make one with a larger `keep`")
        if len(self.receipt.rules) != 1:
            raise RequestError(f"this receipt is of {len(self.receipt.rules)} rules; undo them one by one, last first")
        return self

    def apply(self, numbers: np.ndarray, below: Below) -> Applied:
        rows = np.array(below(numbers))
        wanted = {int(n): i for i, n in enumerate(numbers)}
        done: dict[int, list[Occurrence]] = {}
        for item in self.receipt.occurrences:
            if item.row in wanted and (item.placed or item.removed):
                done.setdefault(item.row, []).append(item)
        tails = {length.row: length for length in self.receipt.lengths}
        found: list[Occurrence] = []
        for number, items in done.items():
            i = wanted[number]
            rows[i], account = _undo(self.name, rows[i], items, tails.get(number))
            found += account
        return Applied(rows, found, [])


def _undo(name: str, row: np.ndarray, items: list[Occurrence], length: Lengths | None) -> tuple[np.ndarray, list[Occurrence]]:
    """One row with its receipt's items undone; the tail the receipt kept is put back first."""
    width = len(row)
    ids = row.tolist()
    if length is not None:
        ids = ids[: width - length.padded] + list(length.tail)
    account = []
    shift = sum(len(i.placed) - len(i.removed) for i in items if i.status in (CHANGED, CUT))
    for item in reversed(items):
        if item.status == MISSED:
            continue
        shift -= len(item.placed) - len(item.removed)
        place = item.position + shift
        if tuple(ids[place : place + len(item.placed)]) != item.placed:
            account.append(Occurrence(name, item.row, place, place, item.put, item.put, MISSED, "changed since"))
            continue
        ids[place : place + len(item.placed)] = item.removed
        account.append(Occurrence(name, item.row, place, item.position, item.put, item.found, CHANGED, "", item.placed, item.removed))
    return np.array(ids[:width], dtype=row.dtype), account[::-1]
