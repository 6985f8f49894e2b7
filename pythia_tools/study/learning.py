"""Learning part: loss on held-out rows, and on the batches just before and just after each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses import learning
from pythia_tools.study.material import Material
from pythia_tools.study.parts import Drawing
from pythia_tools.suites.checkpoint import Checkpoint


class LearningPart:
    """Held-out rows where the suite has some, and rows around each checkpoint."""

    name = "learning"
    method = (
        "Loss is the mean negative log-likelihood in nats per token. `just consumed` are rows of the batches right before a checkpoint, "
        "`about to be consumed` those right after it; they differ only in having been trained on. Intervals are bootstraps over rows."
    )

    def __init__(self, material: Material, checkpoints: Sequence[Checkpoint], *, rows: int = 96):
        groups: dict[str, Any] = {} if material.heldout is None else {"heldout": material.heldout[: 2 * rows]}
        within = [c for c in checkpoints if c.step * material.order.batch_rows <= material.order.n_rows]
        groups |= learning.around(material.order, within, batches=max(1, rows // material.order.batch_rows), rows=rows)
        self._tasks = learning.tasks(groups, vocabulary=material.vocabulary)

    def tasks(self) -> list[Any]:
        return list(self._tasks)

    def counted(self) -> pd.DataFrame | None:
        return None

    def tables(self, result: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
        items = learning.collect(result)
        return items, learning.summarize(items)

    def draw(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Drawing]:
        yield Drawing("loss", plots.learning(summary[summary["branch"] == "main"]),
                      "Loss over training: held-out rows, rows just consumed, rows about to be consumed.")
