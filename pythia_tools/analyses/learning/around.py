"""The rows a run consumed just before a checkpoint, and those it consumed just after.

A checkpoint at step N has consumed batches 0 … N−1. `just_seen` are rows of batches N−k … N−1, `next_up` rows of batches
N … N+k−1: alike in every way but that the model was trained on the former, so the gap between their losses is what a
pass over a batch leaves behind on top of what was learned in general.

Cost: 2 × rows rows of the order per step, read once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.suites.checkpoint import Checkpoint


@dataclass(frozen=True)
class RowsByStep:
    """Rows that differ from step to step: `rows[step]` is (n, L + 1), `ids[step]` their (n,) numbers in the order."""

    rows: dict[int, np.ndarray]
    ids: dict[int, np.ndarray]


def around(
    order: Any, checkpoints: Iterable[Checkpoint], *, batches: int = 1, rows: int = 128, seed: int = 0
) -> dict[str, RowsByStep]:
    """`just_seen` and `next_up` rows of `order` for every step of `checkpoints`.

    `batches`: how many batches on either side. `rows`: at most so many on a side, drawn at random without replacement
    (by `seed` and step) when the batches hold more. A step with nothing on a side (0 has seen nothing, the last has
    nothing to come) is left out there.
    Raises: RequestError when a step lies beyond the order.
    """
    if batches < 1 or rows < 1:
        raise RequestError(f"batches={batches}, rows={rows}: both must be positive")
    steps = sorted({c.step for c in checkpoints})
    last = int(order.steps)
    beyond = [s for s in steps if s > last]
    if beyond:
        raise RequestError(f"step {beyond[0]} lies beyond the order ({last} batches); choose the order that this run consumed")
    sides = {"just_seen": {s: (max(0, s - batches), s) for s in steps}, "next_up": {s: (s, min(last, s + batches)) for s in steps}}
    return {name: _read(order, spans, rows, seed) for name, spans in sides.items()}


def _read(order: Any, spans: dict[int, tuple[int, int]], rows: int, seed: int) -> RowsByStep:
    ids = {}
    for step, (first, stop) in spans.items():
        low, high = first * order.batch_rows, stop * order.batch_rows
        if high - low > rows:
            ids[step] = low + np.sort(np.random.default_rng([seed, step]).choice(high - low, rows, replace=False))
        elif high > low:
            ids[step] = np.arange(low, high)
    return RowsByStep({step: np.asarray(order.take(numbers)) for step, numbers in ids.items()}, ids)
