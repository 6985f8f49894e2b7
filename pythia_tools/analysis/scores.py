"""What every model makes of each token of given rows, as a table; the primitive under curves, profiles and membership
inference.

For a row of L + 1 ids, position t (0 … L−1) is the prediction of id t + 1 from ids 0 … t (see `models.score_rows`).
Cost: one forward pass per row and checkpoint.
"""

from collections.abc import Iterable
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analysis.context import Context, Where
from pythia_tools.analysis.sweep import Task, sweep
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.models.score import Scores, check_rows, rows_digest, score_rows
from pythia_tools.suites import Checkpoint

PART_ROWS = 256


def token_scores(
    checkpoints: Iterable[Checkpoint], rows: npt.ArrayLike, *, aggregate: str | None = None,
    row_ids: npt.ArrayLike | None = None, vocabulary: int | None = None, **where: Unpack[Where],
) -> pd.DataFrame:
    """Token scores of `rows` (n, L + 1) under every checkpoint, as one item table.

    `aggregate`: None, one line per checkpoint × row × position (row, position, nll, rank, entropy); "row", means over
    positions (nll, rank, entropy, top1 = share of rank 0, n = positions that count).
    Positions whose logits held NaN or Inf have <NA> and are warned about; means leave them out.
    `row_ids`: what to call the rows (default 0 … n−1). `where`: device, dtype, cells, …, as an `Execution` takes them.
    """
    task = ScoreTask(rows, aggregate=aggregate, row_ids=row_ids, vocabulary=vocabulary)
    return sweep(checkpoints, [task], **where)[task.name]


class ScoreTask(Task):
    """Token scores in parts of 256 rows."""

    name = "token_scores"

    def __init__(
        self, rows: npt.ArrayLike, *, aggregate: str | None = None, row_ids: npt.ArrayLike | None = None,
        vocabulary: int | None = None,
    ):
        if aggregate not in (None, "row"):
            raise RequestError(f"aggregate {aggregate!r} is not known; use None or 'row'")
        self.rows = check_rows(rows)
        self.aggregate = aggregate
        self.row_ids = np.arange(len(self.rows)) if row_ids is None else np.asarray(row_ids)
        if len(self.row_ids) != len(self.rows):
            raise RequestError(f"{len(self.row_ids)} row_ids for {len(self.rows)} rows; give one for each")
        self.vocabulary = vocabulary
        self.digest = files.digest([rows_digest(self.rows), self.row_ids, aggregate, vocabulary])
        self.parts = -(-len(self.rows) // PART_ROWS)
        self.ids = self.rows.size

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        return frame(scored(context, model, self.rows[here], self.vocabulary), self.row_ids[here], self.aggregate)


def scored(context: Context, model: nn.Module, rows: np.ndarray, vocabulary: int | None = None) -> Scores:
    """Scores of rows (n, L + 1) as the context's execution has it; positions without finite logits are warned about."""
    scores = score_rows(model, rows, context.execution.batch_size, vocabulary=vocabulary)
    lost = int(np.isnan(scores.nll).sum())
    if lost:
        named = getattr(model, "checkpoint", "model")
        progress.warn(f"{named}: {lost} positions have NaN or Inf logits and are <NA>; try --dtype float32")
    return scores


def frame(scores: Scores, row_ids: np.ndarray, aggregate: str | None) -> pd.DataFrame:
    """Scores as a table: long, or averaged over positions ("row")."""
    n, length = scores.nll.shape
    good = ~np.isnan(scores.nll)
    if aggregate is None:
        rank = pd.array(scores.rank.reshape(-1), dtype="Int32")
        rank[~good.reshape(-1)] = pd.NA
        return pd.DataFrame({
            "row": np.repeat(row_ids, length), "position": np.tile(np.arange(length), n),
            "nll": scores.nll.reshape(-1), "rank": rank, "entropy": scores.entropy.reshape(-1),
        })
    means = {name: _mean(values, good) for name, values in
             (("nll", scores.nll), ("rank", scores.rank), ("entropy", scores.entropy), ("top1", scores.rank == 0))}
    return pd.DataFrame({"row": row_ids, **means, "n": good.sum(axis=1)})


def _mean(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(n,) means of (n, p) values over the places that are good; NaN where none is."""
    total, count = np.where(good, values, 0).sum(axis=1, dtype=np.float64), good.sum(axis=1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
