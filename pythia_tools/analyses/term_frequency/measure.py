"""Running tasks over checkpoints: each task is built once, each checkpoint loaded once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, Unpack

import pandas as pd

from pythia_tools.analyses.term_frequency.closed import ClosedTask
from pythia_tools.analyses.term_frequency.greedy import GreedyTask
from pythia_tools.analysis import Where, sweep
from pythia_tools.core.tables import IDENTITY, check_items
from pythia_tools.suites import Checkpoint

TermTask: TypeAlias = ClosedTask | GreedyTask


def measure(
    checkpoints: Iterable[Checkpoint], task: TermTask | Sequence[TermTask], **where: Unpack[Where]
) -> pd.DataFrame:
    """One row per checkpoint × item: identity columns, task, item, term, correct, and what the task adds (see COLUMNS).

    `task`: one task or several. `where`: device, dtype, cells, …, as an `Execution` takes them.
    """
    tasks = list(task) if isinstance(task, Sequence) else [task]
    return items(sweep(checkpoints, tasks, **where), tasks)


def items(result: Mapping[str, pd.DataFrame], tasks: Sequence[TermTask]) -> pd.DataFrame:
    """One item table from a sweep's tables of these tasks, with a `task` column after the identity columns."""
    frames = []
    for task in tasks:
        frame = result[task.name].copy(deep=False)
        frame.insert(len(IDENTITY), "task", pd.Series(task.label, index=frame.index, dtype="string"))
        frames.append(frame)
    return check_items(pd.concat(frames, ignore_index=True))
