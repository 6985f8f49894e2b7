"""One line of numbers per row and checkpoint: what profiles, forgetting curves and membership inference compare.

From the token scores of a row's first `length` positions: mean and summed negative log-likelihood, share of positions
whose true id no other exceeds, mean entropy, and the two min-k statistics of membership inference:
min_k = mean log-probability of the k % least likely ids; min_k++ = the same of (log p − μ) / σ, where μ and σ are mean
and standard deviation of log p under the model's own distribution at that position.

Cost: one forward pass per row with all its positions unembedded.
Sources: Shi et al. 2023 (min-k %), arXiv:2310.16789; Zhang et al. 2024 (min-k++), arXiv:2404.02936.
"""

from collections.abc import Iterable
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.memorization.extract import NONFINITE, OK, Window, as_rows, cut
from pythia_tools.analysis import Context, Task, Where, sweep
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.models import rows_digest, score_rows
from pythia_tools.models.score import vocabulary_size
from pythia_tools.suites.checkpoint import Checkpoint

PART_ROWS = 1024
MIN_K = 0.2
"""Share of positions in the min-k statistics (20 %, the papers' choice)."""


class RowScoreTask(Task):
    """Per-row scores as a task of a sweep. `length`: ids of each row that are read (default: the shortest row's)."""

    name = "row_scores"
    version = 2

    def __init__(
        self, rows: npt.ArrayLike, *, length: int | None = None, row_ids: npt.ArrayLike | None = None,
        vocabulary: int | None = None,
    ):
        self.rows, self.row_ids = as_rows(rows, row_ids)
        self.length = int(length or min(len(r) for r in self.rows))
        if self.length < 2:
            raise RequestError(f"length {self.length} must be at least 2: an id, and one that follows it")
        self.vocabulary = vocabulary
        self.digest = files.digest([rows_digest(self.rows), self.row_ids, self.length, MIN_K, vocabulary])
        self.parts = -(-len(self.rows) // PART_ROWS)
        self.ids = len(self.rows) * self.length

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        frame = score_model(
            model, self.rows[here], length=self.length, vocabulary=self.vocabulary,
            batch_size=context.execution.batch_size)
        frame["row"] = self.row_ids[here]
        return frame


def row_scores(
    checkpoints: Iterable[Checkpoint], rows: npt.ArrayLike, *, length: int | None = None,
    row_ids: npt.ArrayLike | None = None, vocabulary: int | None = None, **where: Unpack[Where],
) -> pd.DataFrame:
    """Item table, with the columns that `declared.EFFECT_COLUMNS` documents, from `row` to `positions`.

    All but row, status and positions are NaN where the status is not `ok`. `where`: device, dtype, cells, …, as an
    `Execution` takes them.
    """
    task = RowScoreTask(rows, length=length, row_ids=row_ids, vocabulary=vocabulary)
    return sweep(checkpoints, [task], **where)[task.name]


def score_model(
    model: nn.Module, rows: npt.ArrayLike, *, length: int, min_k: float = MIN_K, vocabulary: int | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """The columns of `row_scores` for one live model; `row` is the place in `rows`."""
    size = min(vocabulary or 1 << 62, vocabulary_size(model))
    windows, status = cut(rows, Window(1, length - 1), size)
    usable = np.flatnonzero(status == OK)
    found = score_rows(model, windows[usable], batch_size, vocabulary=size, spread=True)
    log_p, entropy, spread = (np.asarray(v, np.float64) for v in (-found.nll, found.entropy, found.spread))
    with np.errstate(invalid="ignore", divide="ignore"):
        standard = np.where(spread == 0, 0.0, (log_p + entropy) / spread)
    lowest = slice(max(1, int(min_k * (length - 1))))
    values = {
        "nll": -log_p.mean(axis=1), "nll_sum": -log_p.sum(axis=1), "top1": (found.rank == 0).mean(axis=1),
        "entropy": entropy.mean(axis=1), "min_k": np.sort(log_p, axis=1)[:, lowest].mean(axis=1),
        "min_k_plus": np.sort(standard, axis=1)[:, lowest].mean(axis=1),
    }
    lost = np.isnan(log_p).any(axis=1)
    status[usable[lost]] = NONFINITE
    frame = pd.DataFrame({"row": np.arange(len(windows)), "status": status.astype(str)})
    for name, column in values.items():
        frame[name] = np.nan
        frame.loc[usable[~lost], name] = column[~lost]
    return frame.assign(positions=length - 1)
