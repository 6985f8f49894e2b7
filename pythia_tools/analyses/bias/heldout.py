"""Held-out loss beside the bias measures: whether an intervention cost the model anything else."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.columns import NAME
from pythia_tools.analysis import Context, ScoreTask, Task


class HeldoutLoss(Task):
    """Mean loss of each of (n, L + 1) held-out rows as items: `score`, in nats per token, is what branches change."""

    measure = "heldout_loss"
    name = f"{NAME}/{measure}"

    def __init__(self, rows: npt.ArrayLike, *, vocabulary: int | None = None):
        self._scores = ScoreTask(np.asarray(rows), aggregate="row", vocabulary=vocabulary)
        self.parts, self.ids, self.digest = self._scores.parts, self._scores.ids, self._scores.digest

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        found = self._scores.run(context, model, part)
        nll = found["nll"].to_numpy(float)
        return pd.DataFrame({
            "task": self.measure, "subset": "all", "item": [f"row {r}" for r in found["row"]], "score": nll,
            "outcome": np.nan, "kept": np.isfinite(nll),
        })
