"""The rows that losses are measured on, chosen by number and read only when a part of them is computed.

A checkpoint at step N has consumed batches 0 … N−1. `before` are rows of batches N−k … N−1, `after` rows of batches
N … N+k−1: alike in every way but that the model was trained on the former. `training` are rows drawn uniformly from all
that the suite's longest run consumed, the same for every checkpoint, which has consumed some of them already. `heldout`
are rows that no step consumed. No two rows of a set begin in one document, where the order knows where they begin.

Naming rows costs nothing: a set's digest covers the order's fingerprint and what decides the numbers, so a plan of a
public suite reads no row, and an order on the hub is never scanned. Neighbouring rows are one request.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analysis import Context, Reading
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.models.score import check_rows, rows_digest
from pythia_tools.order import Rows, load_order
from pythia_tools.suites import Checkpoint

HELDOUT, BEFORE, AFTER, TRAINING = "heldout", "before", "after", "training"
NAMES = (HELDOUT, BEFORE, AFTER, TRAINING)
FAR = 4
"""From so many times the rows wanted on, they are neighbours: one request for a few of a large batch."""
SPARE = 8
"""Rows drawn from all of training for one that is kept: planted rows and second rows of a document are passed over."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """At most `most` of an order's rows [start, stop), without those of `leave_out`, at most one of a document.

    pick: `first`, as many as are wanted from the start on; `near`, drawn at random, or neighbours beginning at a random
    row where there are FAR times as many as wanted; `uniform`, each of them as likely as another wherever it lies.
    """

    order: Rows
    start: int
    stop: int
    most: int
    pick: str = "first"
    seed: Sequence[int] = (0,)
    leave_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @cached_property
    def numbers(self) -> np.ndarray:
        """(n,) int64, rising. Asks the order in which documents rows begin, which may open it."""
        rng, n = np.random.default_rng(self.seed), self.stop - self.start
        if self.pick == "uniform":
            drawn = rng.permutation(n) if n <= 2 * SPARE * self.most else rng.choice(n, SPARE * self.most, False)
        else:
            drawn = np.arange(n)
        kept = self.start + drawn.astype(np.int64)
        kept = kept[~np.isin(kept, self.leave_out)]
        kept = kept[self.order.apart(kept)]
        if self.pick == "near" and len(kept) >= FAR * self.most:
            kept = kept[int(rng.integers(len(kept) - self.most + 1)) :]
        elif self.pick == "near" and len(kept) > self.most:
            kept = rng.choice(kept, self.most, replace=False)
        return np.sort(kept[: self.most])

    @property
    def size(self) -> int:
        """Rows, at most."""
        return min(self.most, self.stop - self.start)

    @cached_property
    def digest(self) -> str:
        """Hex; covers the order and what decides the numbers, so that naming rows reads none."""
        out = self.leave_out[(self.leave_out >= self.start) & (self.leave_out < self.stop)]
        chosen = [self.start, self.stop, self.most, self.pick, list(self.seed), FAR, SPARE]
        return files.digest([self.order.fingerprint, chosen, out.tolist()])

    def read(self, places: slice) -> tuple[np.ndarray, np.ndarray]:
        """(n,) numbers and (n, L + 1) rows of some of them."""
        numbers = self.numbers[places]
        return numbers, np.asarray(self.order.take(numbers))

    @property
    def readings(self) -> list[Reading]:
        """What reading them fetches, for plans."""
        alone = self.pick == "uniform" or (self.pick == "near" and self.stop - self.start < FAR * self.most)
        opened, rows = self.order.opening, self.order.fetching(self.size, self.size if alone else 1)
        named = ((f"index and maps of {self.order.name}", opened), (self.digest, rows))
        return [Reading(what, *cost) for what, cost in named if any(cost)]


@dataclass(frozen=True, eq=False)
class Given:
    """Rows at hand, (n, L + 1) ids, numbered by their place."""

    array: np.ndarray
    readings: Sequence[Reading] = ()

    @property
    def size(self) -> int:
        return len(self.array)

    @cached_property
    def digest(self) -> str:
        return rows_digest(self.array)

    def read(self, places: slice) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(self.array))[places], self.array[places]


Chosen: TypeAlias = Stretch | Given


@dataclass(frozen=True, eq=False)
class RowSet:
    """Rows under a name: the same for every checkpoint, or by its step (then `fixed` is None).

    consumed: whether checkpoints had consumed them: by their numbers in an order (`batch_rows` of them per step), never
    (False), or not known (None). unordered: models of which it is not known whether they consumed that order; they have
    no rows by step.
    """

    name: str
    fixed: Chosen | None = None
    by_step: Mapping[int, Chosen] = field(default_factory=dict)
    batch_rows: int | None = None
    consumed: bool | None = None
    unordered: frozenset[str] = frozenset()

    def at(self, checkpoint: Checkpoint) -> Chosen | None:
        """The rows of a checkpoint; None when there are none at its step."""
        if self.fixed is not None:
            return self.fixed
        return None if checkpoint.model.name in self.unordered else self.by_step.get(checkpoint.step)

    @property
    def all(self) -> list[Chosen]:
        """Every choice that a checkpoint could be measured on."""
        return [self.fixed] if self.fixed is not None else list(self.by_step.values())

    @property
    def row_tokens(self) -> int:
        """Ids of a row; 0 without rows."""
        return next((c.order.row_tokens if isinstance(c, Stretch) else c.array.shape[1] for c in self.all), 0)

    @property
    def data(self) -> str | None:
        """What says which data they are of: the order's fingerprint, or the digest of the rows; None without rows."""
        return next((c.order.fingerprint if isinstance(c, Stretch) else c.digest for c in self.all), None)

    def was_consumed(self, items: pd.DataFrame) -> pd.Series:
        """(n,) whether the checkpoint of each line (model, step) had consumed its row; <NA> where that is not known."""
        told = pd.Series(self.consumed, index=items.index, dtype="boolean")
        if self.batch_rows is not None:
            told = (items["row"] < items["step"] * self.batch_rows).astype("boolean")
        return told.mask(items["model"].isin(self.unordered))


def given(name: str, rows: npt.ArrayLike) -> RowSet:
    """Rows of one's own, (n, L + 1) ids. Raises RequestError for another shape."""
    return RowSet(name, Given(check_rows(rows)))


def before_and_after(
    order: Rows, checkpoints: Iterable[Checkpoint], *, batches: int = 1, rows: int = 128, seed: int = 0,
    leave_out: Sequence[int] | np.ndarray = (),
) -> list[RowSet]:
    """Rows of the batches `before` and `after` every checkpoint's step, at most one of a document on either side.

    `batches`: how many on either side. `rows`: at most so many on a side, drawn by `seed` and step when the batches
    hold more. `leave_out`: numbers of rows that are not taken. A step with nothing on a side (0 has consumed nothing,
    after the last comes nothing) is left out there.
    Raises: RequestError when a step lies beyond the order.
    """
    if batches < 1 or rows < 1:
        raise RequestError(f"batches={batches}, rows={rows}: both must be positive")
    steps, last, size = sorted({c.step for c in checkpoints}), int(order.steps), order.batch_rows
    beyond = [s for s in steps if s > last]
    if beyond:
        raise RequestError(
            f"step {beyond[0]} lies beyond the order ({last} batches); choose the order that this run consumed"
        )
    sides = {
        BEFORE: {s: (max(0, s - batches), s) for s in steps}, AFTER: {s: (s, min(last, s + batches)) for s in steps}
    }
    out = np.unique(np.asarray(leave_out, dtype=np.int64))
    return [
        RowSet(side, by_step={
            step: Stretch(order, first * size, stop * size, rows, "near", (seed, step), out)
            for step, (first, stop) in spans.items() if first < stop
        }, batch_rows=size)
        for side, spans in sides.items()
    ]


def from_training(
    order: Rows, consumed: int, *, rows: int = 128, seed: int = 0, leave_out: Sequence[int] | np.ndarray = ()
) -> RowSet:
    """`rows` rows drawn uniformly from the first `consumed` of an order, the same for every checkpoint.

    >>> from pythia_tools.order import ArrayRows
    >>> drawn = from_training(ArrayRows(np.zeros((1000, 9), int), batch_rows=10), 800, rows=4)
    >>> drawn.fixed.numbers.tolist() == sorted(drawn.fixed.numbers.tolist()), drawn.fixed.size, drawn.row_tokens
    (True, 4, 9)
    """
    out = np.unique(np.asarray(leave_out, dtype=np.int64))
    drawn = Stretch(order, 0, consumed, rows, "uniform", (seed,), out)
    return RowSet(TRAINING, drawn, batch_rows=order.batch_rows)


def named(context: Context, rows: int, heldout: str | None = None) -> list[RowSet]:
    """The sets of NAMES that a context has: `rows` of each, twice as many held out. `heldout`: an order whose rows are
    these. Rows that hold planted items are in none. Raises RequestError when there are none.
    """
    held = _heldout(context, 2 * rows, heldout)
    found = [] if held is None else [held]
    if held is not None and not context.names_order:
        return found
    order = context.order
    known = [c for c in context.checkpoints if context.knows_order_of(c)]
    within = [c for c in known if c.step * order.batch_rows <= order.n_rows]
    if known and not within and held is None:
        raise RequestError(f"no checkpoint of {context.name} lies within its order; choose earlier --steps")
    planted = _planted_rows(context)
    if within:
        batches = max(1, round(rows / order.batch_rows / (1 - len(planted) / order.n_rows)))
        found += before_and_after(order, within, batches=batches, rows=rows, leave_out=planted)
    if context.consumed_rows:
        found.append(from_training(order, context.consumed_rows, rows=rows, leave_out=planted))
    unordered = frozenset(c.model.name for c in context.checkpoints) - {c.model.name for c in known}
    return [replace(one, unordered=unordered) for one in found]


def _heldout(context: Context, rows: int, place: str | None) -> RowSet | None:
    """Rows that no step consumed: those of the order at `place`; else the order's beyond the last step, else the
    suite's own; None without any.
    """
    if place is not None:
        order = load_order(place)
        return RowSet(HELDOUT, Stretch(order, 0, order.n_rows, rows, "uniform"), consumed=False)
    beyond = context.unconsumed_rows
    if beyond is not None:
        return RowSet(HELDOUT, Stretch(context.order, *beyond, rows), consumed=False)
    own = context.heldout
    return None if own is None else RowSet(HELDOUT, Given(own[:rows]), consumed=False)


def _planted_rows(context: Context) -> np.ndarray:
    """Numbers of the order's rows that hold what was planted there and in no held-out row."""
    known = context.truth is not None and context.truth.about["order_fingerprint"] == context.order.fingerprint
    return context.need_truth("planted rows").planted_rows if known else np.empty(0, np.int64)
