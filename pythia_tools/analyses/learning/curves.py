"""Mean loss per row over checkpoints, and its curve with intervals.

Item table: one line per checkpoint × subset × row. Summary: `nll` per subset, bootstrapped over rows; where a
checkpoint has both sides, `nll_gap` of subset `after` with reference `before`: how much lower the loss is on rows just
trained on.

Cost: one forward pass per row and checkpoint.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.learning.rows import AFTER, BEFORE, RowsByStep
from pythia_tools.analysis import Context, ScoreTask, Task
from pythia_tools.core import tables
from pythia_tools.core.statistics import RESAMPLES, difference_of_means, mean
from pythia_tools.core.tables import Column, Metric
from pythia_tools.models import checkpoint_of
from pythia_tools.suites import Checkpoint

NAME = "learning"
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
