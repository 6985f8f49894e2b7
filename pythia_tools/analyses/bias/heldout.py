"""Held-out loss beside the bias measures: whether an intervention cost the model anything else."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.columns import NAME
from pythia_tools.analysis import Context, ScoreTask


class HeldoutLoss(ScoreTask):
    """Mean loss of each of (n, L + 1) held-out rows as items: `score`, in nats per token, is what branches change."""

    name = f"{NAME}/heldout_loss"

    def __init__(self, rows: npt.ArrayLike, *, vocabulary: int | None = None):
        super().__init__(rows, aggregate="row", vocabulary=vocabulary)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        found = super().run(context, model, part)
        return pd.DataFrame({
            "task": "heldout_loss", "subset": "all", "item": [f"row {r}" for r in found["row"]], "score": found["nll"],
            "outcome": np.nan, "kept": np.isfinite(found["nll"]),
        })
