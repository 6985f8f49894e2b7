"""Bias measures over checkpoints: tasks built once, run on every live model, one item table, one summary.

Item columns after the identity: measure, group, item, score (the item's number that interventions are compared by),
outcome (1 or 0 where the item is a choice), kept (whether it counts), and what the measure adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pythia_tools.analyses.bias.statistics import compare, comparison_summary
from pythia_tools.analyses.bias.summaries import summarize_measure
from pythia_tools.analysis import Task, sweep
from pythia_tools.core import tables
from pythia_tools.core.results import CellStore
from pythia_tools.suites.checkpoint import Checkpoint

ITEMS = [*tables.IDENTITY, "measure", "group", "item", "score", "outcome", "kept"]


def measure(
    checkpoints: Iterable[Checkpoint], tasks: Task | Sequence[Task], *, cells: CellStore | None = None, device: Any = "auto",
    dtype: Any = None, shard: tuple[int, int] | None = None, allow_defective: bool = False,
) -> pd.DataFrame:
    """One item table of every task on every checkpoint: models are streamed once, all tasks run on each.

    `cells` keeps finished cells, so that a killed measurement resumes. Raises what `analysis.sweep` raises.
    """
    listed = list(tasks) if isinstance(tasks, Sequence) else [tasks]
    result = sweep(checkpoints, listed, cells=cells, device=device, dtype=dtype, shard=shard, allow_defective=allow_defective)
    return join(result)


def join(result: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of a sweep's bias tasks (a SweepResult, or any tables by name) as one item table."""
    frames = [frame for frame in result.values() if len(frame)]
    if not frames:
        return tables.check_items(pd.DataFrame(columns=ITEMS))
    return tables.check_items(pd.concat(frames, ignore_index=True))


def summarize(
    items: pd.DataFrame, *, pairs: dict[str, str] | None = None, control: str = "main", correction: str = "holm", level: float = 0.95
) -> pd.DataFrame:
    """The summary of an item table: each measure's metrics with intervals over items, and branches against their control.

    The comparison is paired by item at each step that both have, on `score` and on `outcome`; see `statistics.compare`.
    """
    rows: list[dict[str, Any]] = []
    for (*_, measure_name), frame in items.groupby([*tables.IDENTITY, "measure"], dropna=False, sort=False):
        rows += summarize_measure(str(measure_name), frame, level)
    parts = [tables.summary(rows)]
    for quantity in ("score", "outcome"):
        found = compare(items, quantity, pairs=pairs, control=control, correction=correction, level=level)
        if len(found):
            parts.append(comparison_summary(found))
    return tables.check_summary(pd.concat(parts, ignore_index=True))
