"""Exposures of patterns up to each step: one resumable pass over an order, in parallel, on one machine or many.

A checkpoint at step N has consumed batches 0 … N-1, so its exposures are the occurrences in those rows; at step 0 they
are 0. Every occurrence in a row of seq_length + 1 tokens counts, the last one, which is only ever a label, included;
neighbouring rows of a packed stream share one token, so a single-token pattern in it counts once in each row, as
training met it. `inputs_only=True` leaves that last token out. Nothing is counted across two rows.

Cost: 3 to 5 ns per token and core for 1,000 n-grams; memory is a block of rows per worker and one number per pattern
and requested step, whatever the order's length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.core.parallel import MOST_SCANNING, map_ahead, worker_count
from pythia_tools.core.results import CellStore
from pythia_tools.counts.ngram_scan import token_ids
from pythia_tools.counts.patterns import Ngram, Pattern, Term, as_patterns
from pythia_tools.counts.plan import Plan, leaves_of, make_plan, reads_text
from pythia_tools.counts.reading import blocks, reader
from pythia_tools.counts.vocabulary import TokenBytes, warn_of_ids, warn_of_tokenizer
from pythia_tools.order import Rows
from pythia_tools.tokens import Openable

PART_TOKENS = 1 << 27
"""Tokens between two saved parts: what a killed pass can lose."""


@dataclass(frozen=True)
class Counts:
    """Occurrences of each pattern between each two requested steps, over the batches [first, stop) that were read.

    `new[k, p]`: in batches [steps[k-1], steps[k]) (from 0 for the first).
    """

    terms: tuple[str, ...]
    steps: tuple[int, ...]
    new: np.ndarray
    batches: tuple[int, int]

    @property
    def complete(self) -> bool:
        """Whether all batches before the last step were read."""
        return self.batches == (0, self.steps[-1])

    def matrix(self) -> np.ndarray:
        """(patterns, steps) int64: exposures up to each step. Raises RequestError while batches are missing."""
        if not self.complete:
            first, stop, last = *self.batches, self.steps[-1]
            raise RequestError(
                f"exposures up to step {last} need batches 0-{last - 1}; only {first}-{stop - 1} were read"
            )
        return np.cumsum(self.new, axis=0).T

    def frame(self) -> pd.DataFrame:
        """Long: term (str), step (int64), exposures (int64); terms in the order given, steps ascending."""
        n = len(self.steps)
        return pd.DataFrame({
            "term": np.repeat(np.array(self.terms, dtype=object), n),
            "step": np.tile(np.array(self.steps, dtype=np.int64), len(self.terms)),
            "exposures": self.matrix().reshape(-1),
        }).astype({"term": "string"})


def count_terms(
    order: Rows, terms: Iterable[Pattern | Term], steps: Iterable[int], *,
    tokenizer: TokenBytes | Openable | None = None, inputs_only: bool = False, workers: int | None = None,
    cells: CellStore | None = None,
) -> pd.DataFrame:
    """Exposures of each term up to each step, as a long table: term, step, exposures.

    Args:
        order: a DataOrder, an overlay, or `order.ArrayRows` for an array of rows.
        terms: patterns; a string is a `Text`, an int a `Number`, a sequence of ints an `Ngram` of token ids.
        steps: checkpoints, in any order; 0 gives 0.
        tokenizer: for everything that is text, as `open_tokenizer` takes it; by default the order's own.
        inputs_only: leave out each row's last token, which is only a label.
        workers: threads (default: the cores this process may use, or $PYTHIA_TOOLS_THREADS).
        cells: where finished parts are kept, so that a killed pass resumes.

    Raises: RequestError for an unknown step or pattern, DataError for rows that cannot be read.
    """
    options = {"tokenizer": tokenizer, "inputs_only": inputs_only, "workers": workers, "cells": cells}
    return count(order, terms, steps, **options).frame()  # type: ignore[arg-type]


def count(
    order: Rows, terms: Iterable[Pattern | Term], steps: Iterable[int], *,
    tokenizer: TokenBytes | Openable | None = None, inputs_only: bool = False, workers: int | None = None,
    cells: CellStore | None = None, batches: tuple[int, int] | None = None,
) -> Counts:
    """As `count_terms`, as a `Counts`; of `batches` (first, stop) alone when given."""
    patterns = as_patterns(terms)
    wanted = _steps(steps, order)
    if any(map(reads_text, patterns)):
        warn_of_tokenizer(order, tokenizer)
    plan = make_plan(patterns, ids=token_ids(order), tokenizer=order.tokenizer if tokenizer is None else tokenizer)
    first, stop = batches or (0, wanted[-1])
    if not 0 <= first <= stop <= wanted[-1]:
        raise RequestError(f"batches {first} to {stop - 1}: the steps asked for need batches 0 to {wanted[-1] - 1}")
    scan = _Scan(order, plan, np.array(wanted), inputs_only, worker_count(workers, MOST_SCANNING))
    key = digest([plan.digest, order.fingerprint, wanted, inputs_only])
    new = np.zeros((len(wanted), len(patterns)), dtype=np.int64)
    width = order.batch_rows * order.row_tokens
    with progress.bar((stop - first) * width, "counting", "tok") as bar:
        for a, b in part_ranges(order, first, stop):
            low, found = scan.part(a, b, key, cells)
            new[low:low + len(found)] += found
            bar.update((b - a) * width)
    if first < stop:
        nowhere = [leaf for p, n in zip(patterns, new.sum(axis=0), strict=True) if not n for leaf in leaves_of(p)]
        warn_of_ids(order, [i for leaf in nowhere if isinstance(leaf, Ngram) for i in leaf.ids], tokenizer)
    return Counts(tuple(p.name for p in patterns), tuple(wanted), new, (first, stop))


def part_ranges(order: Rows, first: int, stop: int) -> list[tuple[int, int]]:
    """The ranges of batches that a pass saves one by one. Their edges do not depend on the request."""
    per_part = max(1, PART_TOKENS // (order.batch_rows * order.row_tokens))
    edges = [first, *range((first // per_part + 1) * per_part, stop, per_part), stop]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def shard_batches(order: Rows, stop: int, shard: tuple[int, int]) -> tuple[int, int]:
    """Batches of shard (i, n), i from 0: whole parts of [0, stop), so that shards and the whole run keep the same."""
    i, n = shard
    edges = [0, *(b for _, b in part_ranges(order, 0, stop))]
    parts = len(edges) - 1
    return edges[i * parts // n], edges[(i + 1) * parts // n]


@dataclass(frozen=True)
class _Scan:
    """One pass: what is counted, over what, up to which steps."""

    order: Rows
    plan: Plan
    steps: np.ndarray
    inputs_only: bool
    workers: int

    def part(self, a: int, b: int, key: str, cells: CellStore | None) -> tuple[int, np.ndarray]:
        """(first, counts) of batches [a, b), from a cell if there is one: counts[k] belongs to interval first + k."""
        low, high = self.interval(np.array([a, b - 1])).tolist()
        found = np.zeros((high - low + 1, len(self.plan.place)), dtype=np.int64)
        kept = None if cells is None else cells.get(["counts", key, a, b])
        if kept is not None:
            found[kept["interval"], kept["pattern"]] = kept["count"]
            return low, found
        read, per = reader(self.order), self.order.batch_rows

        def work(span: tuple[int, int]) -> tuple[int, np.ndarray]:
            rows, group = read(*span), self.interval(self.order.step_of(np.arange(*span)))
            rows = rows[:, :-1] if self.inputs_only else rows
            return int(group[0]), self.plan.count(rows, group - group[0], int(group[-1] - group[0]) + 1)

        for at, block in map_ahead(work, blocks(self.order, a * per, b * per), self.workers, 2 * self.workers - 1):
            found[at - low:at - low + len(block)] += block
        if cells is not None:
            k, p = np.nonzero(found)
            columns = {"interval": k.astype(np.int32), "pattern": p.astype(np.int32), "count": found[k, p]}
            cells.put(["counts", key, a, b], pd.DataFrame(columns))
        return low, found

    def interval(self, batches: np.ndarray) -> np.ndarray:
        """The checkpoint at step N holds batches 0 … N-1, so batch N is the first of the next interval."""
        return np.searchsorted(self.steps, batches, side="right")


def _steps(steps: Iterable[int], order: Rows) -> list[int]:
    wanted = sorted({int(s) for s in steps})
    if not wanted:
        raise RequestError("no steps were given; give at least one")
    if not order.steps:
        raise RequestError(f"nothing to count in order {order.name}: {order.batches_in_words}")
    if wanted[0] < 0 or wanted[-1] > order.steps:
        bad = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise RequestError(f"step {bad}: this order has steps 0 to {order.steps}")
    return wanted
