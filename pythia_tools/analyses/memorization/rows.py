"""Which rows to ask about: a range, the rows of some steps, a seeded random sample, or cohorts by time of exposure.

Cost: none until the rows are read. Row i of an order is consumed by batch i // batch_rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError


@dataclass(frozen=True)
class Selection:
    """rows (n,) int64 order row numbers, ascending; groups (n,) str or None: each row's cohort."""

    rows: np.ndarray
    groups: np.ndarray | None = None


def select_rows(
    order: Any, *, rows: tuple[int, int] | None = None, steps: tuple[int, int] | None = None, sample: int | None = None,
    cohorts: Sequence[int] | None = None, seed: int = 0,
) -> Selection:
    """Rows of an order.

    rows (a, b): rows a … b − 1. steps (a, b): the rows of batches a … b − 1, that is what training consumed from checkpoint a to
    checkpoint b. Neither: all rows the run consumed. sample: that many of them at random, without repeats (of each cohort,
    if cohorts are given).
    cohorts: ascending steps s0, s1, …: rows of batches [s0, s1) form the group `cohort=s1`, and so on.
    Raises RequestError for ranges outside the order, both ranges at once, or a sample larger than what is there.
    """
    if rows is not None and steps is not None:
        raise RequestError("give rows or steps, not both")
    size = order.batch_rows
    if cohorts is not None:
        edges = [int(c) for c in cohorts]
        if len(edges) < 2 or edges != sorted(set(edges)):
            raise RequestError(f"cohorts {edges} must be at least two ascending steps")
        rng = np.random.default_rng(seed)
        parts = [_pick(_span(order, a * size, b * size), sample, rng) for a, b in pairwise(edges)]
        groups = np.repeat([f"cohort={b}" for b in edges[1:]], [len(p) for p in parts])
        return Selection(np.concatenate(parts), groups)
    if steps is not None:
        rows = (steps[0] * size, steps[1] * size)
    low, high = rows if rows is not None else (0, order.steps * size)
    return Selection(_pick(_span(order, low, high), sample, np.random.default_rng(seed)))


def parse_rows(text: str) -> dict[str, Any]:
    """Command-line spelling of `select_rows`: `0:512`, `steps=0:10,sample=1000`, `cohorts=0:1000:100,sample=50`.

    `cohorts=a:b:c` has edges a, a + c, … up to b. Raises RequestError for anything else.
    """
    chosen: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        try:
            numbers = [int(v) for v in value.split(":")]
        except ValueError:
            raise _unreadable(text) from None
        if name in ("", "rows", "steps") and len(numbers) == 2:
            chosen[name or "rows"] = (numbers[0], numbers[1])
        elif name == "sample" and len(numbers) == 1:
            chosen["sample"] = numbers[0]
        elif name == "cohorts" and len(numbers) == 3 and numbers[2] > 0:
            chosen["cohorts"] = list(range(numbers[0], numbers[1] + 1, numbers[2]))
        else:
            raise _unreadable(text)
    return chosen


def _unreadable(text: str) -> RequestError:
    return RequestError(
        f"rows {text!r} cannot be read; give a range 0:512, or any of steps=0:10, sample=1000, cohorts=0:1000:100, joined by commas"
    )


def _span(order: Any, low: int, high: int) -> np.ndarray:
    if not 0 <= low < high <= order.n_rows:
        raise RequestError(
            f"rows {low}:{high} (steps {low // order.batch_rows}:{-(-high // order.batch_rows)}) are not in order {order.name}, "
            f"which has rows 0:{order.n_rows}"
        )
    return np.array([low, high], dtype=np.int64)


def _pick(span: np.ndarray, sample: int | None, rng: np.random.Generator) -> np.ndarray:
    low, high = int(span[0]), int(span[1])
    if sample is None:
        return np.arange(low, high, dtype=np.int64)
    if sample > high - low:
        raise RequestError(f"a sample of {sample} rows was asked for, rows {low}:{high} are {high - low}")
    return np.sort(low + rng.choice(high - low, sample, replace=False))
