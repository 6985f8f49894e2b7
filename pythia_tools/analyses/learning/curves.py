"""Mean loss per row over checkpoints, and its curve with intervals; the rows of the batches before and after one.

A checkpoint at step N has consumed batches 0 … N−1. `before` are rows of batches N−k … N−1, `after` rows of batches
N … N+k−1: alike in every way but that the model was trained on the former, so the gap between their losses is what a
pass over a batch leaves behind on top of what was learned in general.

Item table: one line per checkpoint × subset × row. Summary: `nll` per subset, bootstrapped over rows; where a
checkpoint has both sides, `nll_gap` of subset `after` with reference `before`: how much lower the loss is on rows just
trained on.

Cost: one forward pass per row and checkpoint; 2 × rows rows of the order per step, read once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analysis import Context, ScoreTask, Task
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import RESAMPLES, difference_of_means, mean
from pythia_tools.core.tables import Column, Metric
from pythia_tools.models import checkpoint_of
from pythia_tools.order import Rows
from pythia_tools.suites import Checkpoint

NAME = "learning"
BEFORE, AFTER = "before", "after"
ALWAYS = -1
"""The step of rows that every checkpoint is measured on."""
METRICS = {
    "nll": Metric("nats per token", "mean negative log-likelihood of a row's tokens"),
    "nll_gap": Metric(
        "nats per token", "loss on rows of the batch after a checkpoint minus that on rows of the batch before it"
    )
}
COLUMNS = {
    "subset": Column("string", "`heldout`, or the batches `before` and `after` the checkpoint"),
    "row": Column("int64", "the row's number in the order (its place, for held-out rows)"),
    "nll": Column("float64", "mean negative log-likelihood over the row's positions, nats per token"),
    "n": Column("int64", "positions with a finite loss"),
}


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


class LossTask(Task):
    """Mean loss of one subset's rows (n, L + 1), in parts of 256; rows fixed, or by the checkpoint's step."""

    def __init__(self, subset: str, rows: npt.ArrayLike | RowsByStep, *, vocabulary: int | None = None):
        self.subset, self.name = subset, f"{NAME}/{subset}"
        given = rows if isinstance(rows, RowsByStep) else RowsByStep({ALWAYS: np.asarray(rows)}, {})
        self._scores = {
            step: ScoreTask(some, aggregate="row", row_ids=given.ids.get(step), vocabulary=vocabulary)
            for step, some in given.rows.items()
        }
        self.parts = max((scores.parts for scores in self._scores.values()), default=0)
        self.ids = max((scores.rows.size for scores in self._scores.values()), default=0)
        self.digest = self._scores[ALWAYS].digest if ALWAYS in self._scores else "by step"

    def _at(self, step: int) -> ScoreTask | None:
        return self._scores.get(ALWAYS, self._scores.get(step))

    def key(self, checkpoint: Checkpoint) -> str | None:
        """The rows this checkpoint is measured on; None when there are none at its step."""
        scores = self._at(checkpoint.step)
        return None if scores is None else scores.digest

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        scores = self._at(checkpoint_of(model).step)
        assert scores is not None, "a sweep asks only where there is a key"
        found = scores.run(context, model, part)[["row", "nll", "n"]]
        found.insert(0, "subset", self.subset)
        return found


def summarize(table: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Loss per checkpoint and subset, and the gap between the batches after and before it, as a summary table.

    Rows without a finite loss are left out, and n says how many remain.
    """
    lines = []
    for identity, _, part in tables.by_identity(table):
        values = {str(s): rows["nll"].dropna().to_numpy(float) for s, rows in part.groupby("subset", sort=False)}
        for subset, nll in values.items():
            estimate = mean(nll, unit="row", resamples=resamples, seed=seed)
            lines.append({**identity, "subset": subset, "metric": "nll", **estimate.columns()})
        if {BEFORE, AFTER} <= values.keys():
            gap = difference_of_means(values[AFTER], values[BEFORE], unit="row", resamples=resamples, seed=seed)
            lines.append({**identity, "subset": AFTER, "reference": BEFORE, "metric": "nll_gap", **gap.columns()})
    return tables.summary(lines, analysis=NAME, metrics=METRICS)
