"""Running tasks over checkpoints: each task is built once, each checkpoint loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from pythia_tools.core.results import CellStore

if TYPE_CHECKING:
    from pythia_tools.suites.checkpoint import Checkpoint


def measure(
    checkpoints: Iterable[Checkpoint], task: Any, *, cells: CellStore | None = None, device: Any = "auto", dtype: Any = None,
    shard: tuple[int, int] | None = None, allow_defective: bool = False,
) -> pd.DataFrame:
    """One row per checkpoint × item: identity columns, task, item, term, correct, and what the task adds (`ClosedTask`, `GreedyTask`).

    `task`: one task or several of the same kind. `cells`: where finished parts are kept, so that a killed run resumes.
    """
    from pythia_tools.analysis import sweep

    tasks = list(task) if isinstance(task, Sequence) else [task]
    found = sweep(checkpoints, tasks, cells=cells, device=device, dtype=dtype, shard=shard, allow_defective=allow_defective)
    return gather(found, tasks)


def gather(found: Any, tasks: Sequence[Any]) -> pd.DataFrame:
    """One item table from a sweep's tables of these tasks, with a `task` column after the identity columns."""
    from pythia_tools.core.tables import IDENTITY, check_items

    frames = []
    for task in tasks:
        frame = found[task.name].copy(deep=False)
        frame.insert(len(IDENTITY), "task", pd.array([task.name] * len(frame), dtype="string"))
        frames.append(frame)
    return check_items(pd.concat(frames, ignore_index=True))
