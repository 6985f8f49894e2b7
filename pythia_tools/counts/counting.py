"""Exposures of patterns up to each step: one resumable pass over an order, in parallel, on one machine or many.

A checkpoint at step N has consumed batches 0 … N-1, so its exposures are the occurrences in those rows; at step 0 they are 0.
Every occurrence in a row of seq_length + 1 tokens counts, the last one, which is only ever a label, included; neighbouring
rows of a packed stream share one token, so a single-token pattern in it counts once in each row, as training met it.
`inputs_only=True` leaves that last token out. Nothing is counted across two rows.

Cost: 3 to 5 ns per token and core for 1,000 n-grams; memory is a block of rows per worker and one number per pattern and
requested step, whatever the order's length.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.core.parallel import MOST_SCANNING, map_ahead, worker_count
from pythia_tools.core.results import CellStore
from pythia_tools.counts.ngram_scan import token_ids
from pythia_tools.counts.patterns import Pattern, as_patterns
from pythia_tools.counts.plan import Plan, make_plan
from pythia_tools.counts.reading import reader

BLOCK_TOKENS = 1 << 21
"""Tokens a worker reads and counts at a time (4 MB of uint16)."""
PART_TOKENS = 1 << 27
"""Tokens between two saved parts: what a killed pass can lose."""


@dataclass(frozen=True)
class Counts:
    """Occurrences of each pattern between each two requested steps, over the batches that were read.

    `new[k, p]`: in batches [steps[k-1], steps[k]) (from 0 for the first). `batches`: the disjoint ranges read, ascending.
    """

    terms: tuple[str, ...]
    steps: tuple[int, ...]
    new: np.ndarray
    batches: tuple[tuple[int, int], ...]
    digest: str = field(repr=False)
    """of the patterns, the tokenizer, the order and the steps: only equal ones merge"""

    @property
    def complete(self) -> bool:
        """Whether all batches before the last step were read."""
        return self.steps[-1] == 0 or self.batches == ((0, self.steps[-1]),)

    def matrix(self) -> np.ndarray:
        """(patterns, steps) int64: exposures up to each step. Raises RequestError while batches are missing."""
        if not self.complete:
            read = ", ".join(f"{a}-{b - 1}" for a, b in self.batches) or "none"
            last = self.steps[-1]
            raise RequestError(f"exposures up to step {last} need batches 0-{last - 1}; read so far: {read}. Count and merge the others")
        return np.cumsum(self.new, axis=0).T

    def frame(self) -> pd.DataFrame:
        """Long: term (str), step (int64), exposures (int64); terms in the order given, steps ascending."""
        n = len(self.steps)
        return pd.DataFrame({
            "term": np.repeat(np.array(self.terms, dtype=object), n),
            "step": np.tile(np.array(self.steps, dtype=np.int64), len(self.terms)),
            "exposures": self.matrix().reshape(-1),
        }).astype({"term": "string"})

    def merge(self, other: Counts) -> Counts:
        """The sum of two passes over disjoint batches. Raises RequestError when they differ in anything else, or overlap."""
        if self.digest != other.digest or self.terms != other.terms:
            raise RequestError("counts of different patterns, orders, steps or tokenizers cannot be merged; repeat the same request")
        return replace(self, new=self.new + other.new, batches=_join([*self.batches, *other.batches]))


def count_terms(
    order: Any, terms: Iterable[Any], steps: Iterable[int], *, tokenizer: Any = None, inputs_only: bool = False,
    workers: int | None = None, cells: CellStore | None = None,
) -> pd.DataFrame:
    """Exposures of each term up to each step, as a long table: term, step, exposures.

    Args:
        order: a DataOrder, or anything with `rows(a, b)`, `batch_rows` and `n_rows` (`ArrayOrder` for an array of rows).
        terms: patterns; a string is a `Text`, an int a `Number`, a sequence of ints an `Ngram` of token ids.
        steps: checkpoints, in any order; 0 gives 0.
        tokenizer: for everything that is text: a tokenizer.json, its folder, or a fast tokenizer; by default the order's own.
        inputs_only: leave out each row's last token, which is only a label.
        workers: threads (default: the cores this process may use, or $PYTHIA_TOOLS_THREADS).
        cells: where finished parts are kept, so that a killed pass resumes.

    Raises: RequestError for an unknown step or pattern, DataError for rows that cannot be read.
    """
    return count(order, terms, steps, tokenizer=tokenizer, inputs_only=inputs_only, workers=workers, cells=cells).frame()


def count(
    order: Any, terms: Iterable[Any], steps: Iterable[int], *, tokenizer: Any = None, inputs_only: bool = False,
    workers: int | None = None, cells: CellStore | None = None, batches: tuple[int, int] | None = None,
    shard: tuple[int, int] | None = None,
) -> Counts:
    """As `count_terms`, as a `Counts`, which can be a part of the whole, to be merged with the others.

    `batches` (first, stop): read that range only. `shard` (i, n): the i-th (0-based) of n equal shares of the pass's parts.
    """
    patterns = as_patterns(terms)
    wanted = _steps(steps, order)
    plan = make_plan(patterns, ids=token_ids(order), tokenizer=tokenizer if tokenizer is not None else order_tokenizer(order))
    first, stop = _range(batches, wanted[-1])
    key = digest([plan.digest, _fingerprint(order), wanted, inputs_only])
    new = np.zeros((len(wanted), len(patterns)), dtype=np.int64)
    mine = plan_parts(order, first, stop, shard)
    width = order.batch_rows * (order.seq_length + 1)
    with progress.bar(sum(b - a for a, b in mine) * width, "counting", "tok") as bar:
        for a, b in mine:
            _part(order, plan, wanted, a, b, inputs_only, worker_count(workers, MOST_SCANNING), cells, key, new)
            bar.update((b - a) * width)
    return Counts(tuple(p.name for p in patterns), tuple(wanted), new, _join(mine), key)


class ArrayOrder:
    """An array of rows as an order: batch b is rows [batch_rows·b, batch_rows·(b+1))."""

    def __init__(self, rows: Any, batch_rows: int = 1, tokenizer: Any = None):
        self.array = np.asarray(rows)
        if self.array.ndim != 2 or self.array.dtype.kind not in "ui" or batch_rows < 1:
            got = f"{self.array.dtype} {self.array.shape}, {batch_rows}"
            raise RequestError(f"rows must be a 2-D array of token ids and batch_rows positive; got {got}")
        if self.array.dtype.kind == "i" and self.array.size and self.array.min() < 0:
            raise RequestError(f"token ids must not be negative; the smallest is {self.array.min()}")
        self.batch_rows, self.n_rows, self.steps = batch_rows, len(self.array), len(self.array) // batch_rows
        self.seq_length, self.tokenizer = self.array.shape[1] - 1, tokenizer

    @property
    def fingerprint(self) -> str:
        content = hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest()
        return digest([self.array.shape, str(self.array.dtype), content, self.batch_rows])

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


def order_tokenizer(order: Any) -> Any:
    """The tokenizer an order says it was written with, or None."""
    found = getattr(order, "tokenizer", None)
    return found if found is not None else getattr(getattr(order, "manifest", None), "tokenizer", None)


def _steps(steps: Iterable[int], order: Any) -> list[int]:
    wanted = sorted({int(s) for s in steps})
    if not wanted:
        raise RequestError("no steps were given; give at least one")
    if wanted[0] < 0 or wanted[-1] > order.steps:
        bad = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise RequestError(f"step {bad}: this order has steps 0 to {order.steps}")
    return wanted


def _range(batches: tuple[int, int] | None, last: int) -> tuple[int, int]:
    if batches is None:
        return 0, last
    first, stop = batches
    if not 0 <= first < stop <= last:
        raise RequestError(f"batches {first} to {stop - 1}: the steps asked for need batches 0 to {last - 1}")
    return first, stop


def _fingerprint(order: Any) -> Any:
    return getattr(order, "fingerprint", None)


def plan_parts(order: Any, first: int, stop: int, shard: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """The ranges of batches that a pass saves one by one, or those of one shard. Their edges do not depend on the request."""
    per_part = max(1, PART_TOKENS // (order.batch_rows * (order.seq_length + 1)))
    edges = [first, *range((first // per_part + 1) * per_part, stop, per_part), stop]
    parts = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    if shard is None:
        return parts
    i, n = shard
    return parts[i * len(parts) // n:(i + 1) * len(parts) // n]


def _part(
    order: Any, plan: Plan, steps: list[int], a: int, b: int, inputs_only: bool, workers: int, cells: CellStore | None, key: str,
    new: np.ndarray,
) -> None:
    """Add the counts of batches [a, b) to `new` (steps, patterns), from a cell where there is one."""
    low, high = (bisect.bisect_right(steps, batch) for batch in (a, b - 1))
    edges = np.array(steps[low:high + 1], dtype=np.int64)
    if cells is None:
        for at, block in _blocks(order, plan, edges, a, b, inputs_only, workers):
            new[low + at:low + at + len(block)] += block
        return
    cell = ["counts", key, a, b]
    kept = cells.get(cell)
    if kept is None:
        found = np.zeros((high - low + 1, len(plan.patterns)), dtype=np.int64)
        for at, block in _blocks(order, plan, edges, a, b, inputs_only, workers):
            found[at:at + len(block)] += block
        k, p = np.nonzero(found)
        kept = pd.DataFrame({"interval": k.astype(np.int32), "pattern": p.astype(np.int32), "count": found[k, p]})
        cells.put(cell, kept)
    np.add.at(new, (low + kept["interval"].to_numpy(), kept["pattern"].to_numpy()), kept["count"].to_numpy())


def _blocks(order: Any, plan: Plan, edges: np.ndarray, a: int, b: int, inputs_only: bool, workers: int) -> Iterator[tuple[int, np.ndarray]]:
    """Counts of each block of rows of batches [a, b), by `workers` threads, at most two blocks in flight for each."""
    size = max(1, BLOCK_TOKENS // (order.seq_length + 1))
    begin, end = a * order.batch_rows, b * order.batch_rows
    spans = ((r, min(end, r + size)) for r in range(begin, end, size))
    read = reader(order, size)

    def work(span: tuple[int, int]) -> tuple[int, np.ndarray]:
        rows = read(*span)
        group = np.searchsorted(edges, np.arange(*span) // order.batch_rows, side="right")
        low = int(group[0])
        return low, plan.count(rows[:, :-1] if inputs_only else rows, group - low, int(group[-1]) - low + 1)

    return map(work, spans) if workers == 1 else map_ahead(work, spans, workers, 2 * workers)


def _join(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for a, b in sorted(ranges):
        if joined and a < joined[-1][1]:
            raise RequestError(f"batches {a} to {min(b, joined[-1][1]) - 1} were counted twice; merge passes over different batches")
        if joined and a == joined[-1][1]:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    return tuple(joined)


__all__ = ["ArrayOrder", "Counts", "Pattern", "count", "count_terms", "order_tokenizer"]
