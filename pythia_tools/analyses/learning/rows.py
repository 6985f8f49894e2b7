"""The rows of the batches before and after a checkpoint.

A checkpoint at step N has consumed batches 0 … N−1. `before` are rows of batches N−k … N−1, `after` rows of batches
N … N+k−1: alike in every way but that the model was trained on the former, so the gap between their losses is what a
pass over a batch leaves behind on top of what was learned in general.

Cost: 2 × rows rows of the order per step, read once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.order import Rows
from pythia_tools.suites import Checkpoint

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class RowsByStep:
    """Rows that differ from step to step: `rows[step]` is (n, L + 1), `ids[step]` their (n,) numbers in the order."""

    rows: dict[int, np.ndarray]
    ids: dict[int, np.ndarray]


def before_and_after(
    order: Rows, checkpoints: Iterable[Checkpoint], *, batches: int = 1, rows: int = 128, seed: int = 0,
    leave_out: Sequence[int] | np.ndarray = (),
) -> dict[str, RowsByStep]:
    """Rows of the batches `before` and `after` every checkpoint's step, at most one of a document on either side.

    `batches`: how many on either side. `rows`: at most so many on a side, drawn at random without replacement (by
    `seed` and step) when the batches hold more. `leave_out`: numbers of rows that are not taken. A step with nothing on
    a side (0 has consumed nothing, after the last comes nothing) is left out there.
    Raises: RequestError when a step lies beyond the order.
    """
    if batches < 1 or rows < 1:
        raise RequestError(f"batches={batches}, rows={rows}: both must be positive")
    steps = sorted({c.step for c in checkpoints})
    last = int(order.steps)
    beyond = [s for s in steps if s > last]
    if beyond:
        raise RequestError(
            f"step {beyond[0]} lies beyond the order ({last} batches); choose the order that this run consumed"
        )
    spans = {
        BEFORE: {s: (max(0, s - batches), s) for s in steps}, AFTER: {s: (s, min(last, s + batches)) for s in steps}
    }
    taken: dict[str, dict[int, np.ndarray]] = {BEFORE: {}, AFTER: {}}
    for side, of_steps in spans.items():
        for step, (first, stop) in of_steps.items():
            numbers = np.setdiff1d(np.arange(first * order.batch_rows, stop * order.batch_rows), leave_out)
            numbers = numbers[order.apart(numbers)]
            if len(numbers) > rows:
                numbers = np.sort(np.random.default_rng([seed, step]).choice(numbers, rows, replace=False))
            if len(numbers):
                taken[side][step] = numbers
    return {side: _read(order, ids) for side, ids in taken.items()}


def _read(order: Rows, ids: dict[int, np.ndarray]) -> RowsByStep:
    return RowsByStep({step: np.asarray(order.take(numbers)) for step, numbers in ids.items()}, ids)
