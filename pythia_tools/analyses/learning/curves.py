"""Mean loss per row over checkpoints, and its curve with intervals.

Item table: one line per checkpoint × group × row: nll (nats per token, mean over the row's positions), n (positions).
Summary: metric `nll` per group, bootstrapped over rows; where a checkpoint has both sides, metric `nll_gap` of group
`next_up-just_seen`: how much lower the loss is on rows just trained on, bootstrapped over the rows of both sides.

Cost: one forward pass per row and checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pythia_tools.analyses.learning.around import RowsByStep
from pythia_tools.analysis import Context, Task, sweep
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.core.statistics import RESAMPLES, difference_of_means, mean
from pythia_tools.models import rows_digest, score_rows
from pythia_tools.models.score import check_rows
from pythia_tools.suites.checkpoint import Checkpoint

PART_ROWS = 256
PREFIX = "learning:"


class LossTask(Task):
    """Mean loss of one group's rows as a sweep's task, in parts of 256 rows; rows fixed, or by the checkpoint's step."""

    def __init__(self, group: str, rows: Any, *, vocabulary: int | None = None, batch_size: int | None = None):
        self.group = group
        self.name = f"{PREFIX}{group}"
        self.vocabulary, self.batch_size = vocabulary, batch_size
        if isinstance(rows, RowsByStep):
            self._rows = {step: check_rows(r) for step, r in rows.rows.items()}
            self._ids, self._fixed = rows.ids, False
        else:
            fixed = check_rows(rows)
            self._rows, self._ids, self._fixed = {-1: fixed}, {-1: np.arange(len(fixed))}, True
        self.parts = max((-(-len(r) // PART_ROWS) for r in self._rows.values()), default=0)
        self._digests = {step: rows_digest(r) for step, r in self._rows.items()}
        self.digest = files.digest([vocabulary, self._digests[-1] if self._fixed else "by step"])

    def key(self, checkpoint: Checkpoint) -> Any:
        """The rows this checkpoint is measured on; None when there are none at its step."""
        if self._fixed:
            return "fixed"
        step = checkpoint.step
        return [self._digests[step], self._ids[step]] if step in self._rows else None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        checkpoint: Any = model.checkpoint
        step = -1 if self._fixed else checkpoint.step
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        nll = score_rows(model, self._rows[step][here], self.batch_size, vocabulary=self.vocabulary).nll
        good = np.isfinite(nll)
        if not good.all():
            progress.warn(f"{checkpoint}: {int((~good).sum())} positions have NaN or Inf logits; try --dtype float32")
        count = good.sum(1)
        total = np.where(good, nll, 0).sum(1, dtype=np.float64)
        mean = np.divide(total, count, out=np.full(len(nll), np.nan), where=count > 0)
        return pd.DataFrame({"group": self.group, "row": self._ids[step][here], "nll": mean, "n": count})


def tasks(rows_by_group: Mapping[str, Any], *, vocabulary: int | None = None, batch_size: int | None = None) -> list[LossTask]:
    """One task per group: rows of shape (n, L + 1), or `RowsByStep`. For a sweep shared with other analyses."""
    if not rows_by_group:
        raise RequestError("no rows to measure; give at least one group, for example {'heldout': rows}")
    return [LossTask(group, rows, vocabulary=vocabulary, batch_size=batch_size) for group, rows in rows_by_group.items()]


def collect(result: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The item table out of a sweep's result that ran `tasks`."""
    parts = [table for name, table in result.items() if name.startswith(PREFIX) and len(table)]
    if not parts:
        return tables.check_items(pd.DataFrame(columns=[*tables.IDENTITY, "group", "row", "nll", "n"]))
    return pd.concat(parts, ignore_index=True)


def measure(
    checkpoints: Iterable[Checkpoint], rows_by_group: Mapping[str, Any], *, vocabulary: int | None = None, batch_size: int | None = None,
    device: str | torch.device = "auto", dtype: str | torch.dtype | None = None, cells: CellStore | None = None,
    shard: tuple[int, int] | None = None, allow_defective: bool = False,
) -> pd.DataFrame:
    """Mean loss of every row of every group under every checkpoint (see the module's first lines for the columns).

    `rows_by_group`: {"heldout": rows, **around(order, checkpoints)}.
    """
    work = tasks(rows_by_group, vocabulary=vocabulary, batch_size=batch_size)
    return collect(sweep(checkpoints, work, cells=cells, device=device, dtype=dtype, shard=shard, allow_defective=allow_defective))


def summarize(table: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Loss per checkpoint and group, and the gap between `next_up` and `just_seen`, as a summary table.

    Rows without a finite loss are left out, and n says how many remain.
    """
    lines = []
    for identity, part in table.groupby(tables.IDENTITY, sort=False, dropna=False):
        named = dict(zip(tables.IDENTITY, identity, strict=True))
        values = {str(group): rows["nll"].dropna().to_numpy(float) for group, rows in part.groupby("group", sort=False)}
        for group, nll in values.items():
            estimate = mean(nll, unit="row", resamples=resamples, seed=seed)
            lines.append({**named, "group": group, "metric": "nll", **estimate.columns()})
        if {"just_seen", "next_up"} <= values.keys():
            gap = difference_of_means(values["next_up"], values["just_seen"], unit="row", resamples=resamples, seed=seed)
            lines.append({**named, "group": "next_up-just_seen", "metric": "nll_gap", **gap.columns()})
    return tables.summary(lines)
