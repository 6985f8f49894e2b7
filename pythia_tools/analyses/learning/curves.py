"""Mean loss per row over checkpoints, and its curve with intervals.

Item table: one line per checkpoint × subset × row. Summary: `nll` per subset, bootstrapped over rows; where a
checkpoint has both sides, `nll_gap` of subset `after` with reference `before`: how much lower the loss is on rows just
trained on.

Cost: one forward pass per row and checkpoint.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.learning.rows import AFTER, BEFORE, RowsByStep
from pythia_tools.analysis import Context, Task, Where, sweep
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import RESAMPLES, difference_of_means, mean
from pythia_tools.core.tables import Column, Metric
from pythia_tools.models import checkpoint_of, rows_digest, score_rows
from pythia_tools.models.score import check_rows
from pythia_tools.suites import Checkpoint

NAME = "learning"
PART_ROWS = 256
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


class LossTask(Task):
    """Mean loss of one subset's rows, in parts of 256; rows fixed, or by the checkpoint's step."""

    def __init__(self, subset: str, rows: npt.ArrayLike | RowsByStep, *, vocabulary: int | None = None):
        self.subset = subset
        self.name = f"{NAME}/{subset}"
        self.vocabulary = vocabulary
        self._fixed = not isinstance(rows, RowsByStep)
        if isinstance(rows, RowsByStep):
            self._rows = {step: check_rows(r) for step, r in rows.rows.items()}
            self._ids = rows.ids
        else:
            fixed = check_rows(rows)
            self._rows, self._ids = {-1: fixed}, {-1: np.arange(len(fixed))}
        self.parts = max((-(-len(r) // PART_ROWS) for r in self._rows.values()), default=0)
        self.ids = max((r.size for r in self._rows.values()), default=0)
        self._digests = {step: rows_digest(r) for step, r in self._rows.items()}
        self.digest = files.digest([vocabulary, self._digests[-1] if self._fixed else "by step"])

    def key(self, checkpoint: Checkpoint) -> list[str] | None:
        """The rows this checkpoint is measured on; None when there are none at its step."""
        if self._fixed:
            return []
        step = checkpoint.step
        return [self._digests[step], files.digest(self._ids[step])] if step in self._rows else None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        step = -1 if self._fixed else checkpoint_of(model).step
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        rows = self._rows[step][here]
        nll = score_rows(model, rows, context.execution.batch_size, vocabulary=self.vocabulary).nll
        good = np.isfinite(nll)
        if not good.all():
            lost = int((~good).sum())
            progress.warn(f"{checkpoint_of(model)}: {lost} positions have NaN or Inf logits; try --dtype float32")
        count = good.sum(1)
        total = np.where(good, nll, 0).sum(1, dtype=np.float64)
        means = np.divide(total, count, out=np.full(len(nll), np.nan), where=count > 0)
        return pd.DataFrame({"subset": self.subset, "row": self._ids[step][here], "nll": means, "n": count})


def tasks(subsets: Mapping[str, npt.ArrayLike | RowsByStep], *, vocabulary: int | None = None) -> list[LossTask]:
    """One task per subset: rows of shape (n, L + 1), or `RowsByStep`."""
    if not subsets:
        raise RequestError("no rows to measure; give at least one subset, for example {'heldout': rows}")
    return [LossTask(subset, rows, vocabulary=vocabulary) for subset, rows in subsets.items()]


def items(result: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The item table out of a sweep's result that ran `tasks`."""
    parts = [table for table in result.values() if len(table)]
    if not parts:
        return tables.check_items(pd.DataFrame(columns=[*tables.IDENTITY, *COLUMNS]))
    return pd.concat(parts, ignore_index=True)


def measure(
    checkpoints: Iterable[Checkpoint], subsets: Mapping[str, npt.ArrayLike | RowsByStep], *,
    vocabulary: int | None = None, **where: Unpack[Where]
) -> pd.DataFrame:
    """Mean loss of every row of every subset under every checkpoint; COLUMNS says what the columns hold.

    `subsets`: {"heldout": rows, **before_and_after(order, checkpoints)}; `where` as an `Execution` takes it.
    """
    return items(sweep(checkpoints, tasks(subsets, vocabulary=vocabulary), **where))


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
    return summary(lines)


summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
