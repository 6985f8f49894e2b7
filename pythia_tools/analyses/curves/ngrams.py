"""What n-grams of the training rows say of chosen positions: the continuations of each position's last n − 1 ids.

Continuations are counted in the rows consumed so far: labels (ids 1 … L of a row) after the n − 1 ids before them in
the same row; nothing is counted across two rows. Only contexts that some chosen position has are kept, each with the
ids that followed it and how often: what a dense table of n ≥ 3 would hold in terabytes fits in memory.

Surprisal backs off as Chang & Bergen's does (TACL 2024): to n − 1 where the n-gram was never seen, and, at n = 1, to
the rarest id's share. That is no distribution (nothing is taken off what was seen), and nothing is pruned here. An
occurrence in the very row that is measured is not counted for it.

Cost: about a microsecond per token and core, once; memory for the distinct continuations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.core.parallel import MOST_SCANNING, map_ahead, worker_count
from pythia_tools.core.results import CellStore
from pythia_tools.order import Rows

LONGEST = 5
BITS = 16
"""Of an id in a packed context; larger vocabularies take 21, and so one n less."""
BLOCK = 1 << 20
"""Tokens that are looked through at a time."""


@dataclass(frozen=True, eq=False)
class Continuations:
    """The ids that followed each context of n − 1 ids. Context c: ids token[begins[c] : begins[c + 1]], ascending.

    place: (positions,) context of each chosen position, −1 where its row has no n − 1 ids before it.
    """

    n: int
    begins: np.ndarray
    token: np.ndarray
    count: np.ndarray
    place: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """(contexts,) continuations of each context, each as often as it was seen."""
        sums = np.concatenate([[0], np.cumsum(self.count)])
        return np.asarray(sums[self.begins[1:]] - sums[self.begins[:-1]])

    @property
    def seen(self) -> np.ndarray:
        """(positions,) bool: the position's context was seen at all."""
        return (self.place >= 0) & (self.totals[self.place] > 0)

    def of(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions,) how often the true token followed the position's context, and how often anything did."""
        followed, anything = np.zeros(len(tokens), dtype=np.int64), np.zeros(len(tokens), dtype=np.int64)
        have = np.flatnonzero(self.place >= 0)
        context = self.place[have]
        anything[have] = self.totals[context]
        if len(self.token):
            width = int(max(self.token.max(), tokens.max(initial=0))) + 1
            keys = np.repeat(np.arange(len(self.begins) - 1), np.diff(self.begins)) * width + self.token
            wanted = context * width + tokens[have]
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            followed[have] = np.where(keys[at] == wanted, self.count[at], 0)
        return followed, anything


def continuations(
    order: Rows, contexts: Contexts, stop: int, cells: CellStore | None = None
) -> tuple[Continuations, ...]:
    """Continuations for n = 1 … longest, counted in rows [0, stop) of the order. Finished work is kept in `cells`."""
    key = ["continuations", 1, order.fingerprint, stop, contexts.digest]
    table = cells.get(key) if cells is not None else None
    if table is None:
        table = _scan(order, contexts, stop)
        table = cells.put(key, table) if cells is not None else table
    found = []
    for n, (keys, place) in enumerate(zip(contexts.keys, contexts.place, strict=True), start=1):
        own = table[table["n"] == n]
        begins = np.searchsorted(own["context"].to_numpy(), np.arange(len(keys) + 1))
        found.append(Continuations(n, begins, own["token"].to_numpy(), own["count"].to_numpy(), place))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Contexts:
    """The distinct contexts of chosen positions, per n: packed ids, ascending, and each position's place in them."""

    keys: tuple[np.ndarray, ...]
    place: tuple[np.ndarray, ...]
    bits: int

    @classmethod
    def of(cls, rows: np.ndarray, line: np.ndarray, position: np.ndarray, longest: int) -> Contexts:
        """Of positions (k,) of lines (k,) of rows (n, L + 1): that at t predicts id t + 1 from ids 0 … t.

        Raises RequestError for an n beyond what a vocabulary of this size allows.
        """
        largest = int(rows.max(initial=0))
        bits = BITS if largest < 1 << BITS else 21
        most = 64 // bits + 1
        if not 1 <= longest <= most:
            raise RequestError(f"n-grams up to {longest}: with token ids up to {largest:,}, n is 1 to {most}")
        keys, place = [np.zeros(1, dtype=np.uint64)], [np.zeros(len(line), dtype=np.int64)]
        for length in range(1, longest):
            fits = position + 1 >= length
            packed = np.zeros(int(fits.sum()), dtype=np.uint64)
            for back in range(length - 1, -1, -1):
                packed = packed << np.uint64(bits) | rows[line[fits], position[fits] - back].astype(np.uint64)
            known, where = np.unique(packed, return_inverse=True)
            keys.append(known)
            place.append(np.full(len(line), -1, dtype=np.int64))
            place[-1][fits] = where
        return cls(tuple(keys), tuple(place), bits)

    @property
    def digest(self) -> str:
        return digest([self.bits, [k.tobytes().hex() for k in self.keys]])

    def find(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(n, context, id that follows) of every occurrence in rows (r, L + 1) of a context with n − 1 ids, n > 1."""
        ids = rows.astype(np.uint64)
        line, end = (a.reshape(-1) for a in np.indices((len(rows), rows.shape[1] - 1)))
        packed = np.zeros(len(line), dtype=np.uint64)
        for length in range(1, len(self.keys)):  # a context's end is one of the shorter contexts too
            fits = end + 1 >= length
            line, end, packed = line[fits], end[fits], packed[fits]
            packed = packed | ids[line, end - length + 1] << np.uint64(self.bits * (length - 1))
            keys = self.keys[length]
            if not len(keys):
                return
            at = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
            hit = keys[at] == packed
            line, end, packed = line[hit], end[hit], packed[hit]
            yield length + 1, at[hit], rows[line, end + 1]


def _scan(order: Rows, contexts: Contexts, stop: int) -> pd.DataFrame:
    """Columns n, context, token, count, in this order."""
    width = 1 << 21
    totals: dict[int, _Tally] = {n: _Tally() for n in range(1, len(contexts.keys) + 1)}
    step = max(1, BLOCK // order.row_tokens)

    def work(first: int) -> tuple[int, list[tuple[int, np.ndarray, np.ndarray]]]:
        rows = order.rows(first, min(stop, first + step))
        singles = np.bincount(rows[:, 1:].reshape(-1))
        found = [(1, np.flatnonzero(singles), singles[singles > 0])]
        for n, context, following in contexts.find(rows):
            found.append((n, *np.unique(context * width + following, return_counts=True)))
        return len(rows), found

    workers = worker_count(None, MOST_SCANNING)
    with progress.bar(stop, "n-grams", "row") as bar:
        for rows, found in map_ahead(work, range(0, stop, step), workers, 2 * workers - 1):
            for n, keys, counts in found:
                totals[n].add(keys, counts)
            bar.update(rows)
    parts = []
    for n, tally in totals.items():
        keys, counts = tally.sums()
        context, token = np.divmod(keys, width)
        parts.append(pd.DataFrame({"n": np.int8(n), "context": context, "token": token, "count": counts}))
    return pd.concat(parts, ignore_index=True)


class _Tally:
    """Counts by key, from sorted parts; joined whenever what is loose outgrows what is joined."""

    def __init__(self) -> None:
        self._keys, self._counts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]

    def add(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self._keys.append(keys.astype(np.int64))
        self._counts.append(counts.astype(np.int64))
        if sum(map(len, self._keys[1:])) > max(len(self._keys[0]), 1 << 20):
            self.sums()

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys, ascending, and their counts."""
        keys, place = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, place, np.concatenate(self._counts))
        self._keys, self._counts = [keys], [counts]
        return keys, counts


def surprisals(tables: Sequence[Continuations], tokens: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(positions, n) bits of the true tokens by n-grams of each length, with back-off; see the module's first lines.

    tokens: (positions,) true ids; own: (positions,) 1 where the position's own row was among those counted, else 0.
    """
    found = np.empty((len(tokens), len(tables)))
    for column, table in enumerate(tables):
        followed, anything = table.of(tokens)
        followed, anything = followed - own * (followed > 0), anything - own * (followed > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.log2(anything) - np.log2(followed)
        if column:
            shorter = found[:, column - 1]
        else:
            rarest = np.log2(max(1, int(table.count.sum())) / max(1, int(table.count.min(initial=1))))
            shorter = np.full(len(tokens), rarest)
        found[:, column] = np.where(followed > 0, bits, shorter)
    return found
