"""Tasks over checkpoints: each checkpoint is loaded once, every task runs on it, every finished cell is kept.

A cell is one part of one task on one set of weights. Its key is the digest of the weights, the task's name, version and
digest, the number format and the part: never a step or a branch. So a killed sweep resumes at the next cell, equal
weights under two names (step 0 and step 1 of Pythia) are computed once, a changed file under the same name is computed
anew, and a checkpoint whose cells all exist is not loaded.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, Unpack

import pandas as pd
from torch import nn
from tqdm import tqdm

from pythia_tools.analysis.context import Context, Execution, Where
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results.cells import parsed, stored
from pythia_tools.core.tables import IDENTITY, check_items
from pythia_tools.models.devices import choose_device, choose_dtype, dtype_name, named_dtype
from pythia_tools.models.digest import WeightsRecord
from pythia_tools.models.streaming import LiveModules, Prepared, prepare
from pythia_tools.suites import Checkpoint, check_defects

Key: TypeAlias = "str | int | Sequence[Key] | Mapping[str, Key]"
"""A JSON-able value."""


class Reading(NamedTuple):
    """Data that a task fetches, for plans: `what` tells one reading from another, so that none is counted twice."""

    what: str
    bytes: int
    requests: int


class Task(ABC):
    """A task of a sweep: `run` returns one row per item of a part, without identity columns.

    name: unique in its analysis. digest: covers inputs and parameters. parts: units of resume.
    version: raised when what `run` computes or returns changes, so that no stale cell is taken for a new one.
    ids: token ids that pass through each model, at least, for plans; None when that is not known before.
    """

    name: str
    digest: str
    parts: int = 1
    version: int = 1
    ids: int | None = None

    @abstractmethod
    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame: ...

    def key(self, checkpoint: Checkpoint) -> Key | None:
        """What of the items depends on the checkpoint (the rows it has just seen); None: nothing to do there."""
        return ""

    def received(self, context: Context, checkpoint: Checkpoint, part: int, frame: pd.DataFrame) -> pd.DataFrame:
        """Called with every finished cell, computed or found, checkpoint by checkpoint; what it returns is the part's
        share of the result. A task whose cells are too large to be held together puts them away here.
        """
        return frame

    def readings(self, checkpoint: Checkpoint) -> Iterable[Reading]:
        """What of the data is fetched over the network for it, were nothing cached; weights are not counted here."""
        return ()


class SweepResult(dict[str, pd.DataFrame]):
    """Task name → item table; `weights`: str(checkpoint) → digest of its weights, for provenance.

    `computed` and `reused` count cells.
    """

    def __init__(self, tables: dict[str, pd.DataFrame], weights: dict[str, str], computed: int, reused: int):
        super().__init__(tables)
        self.weights, self.computed, self.reused = weights, computed, reused


def joined(result: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One item table out of the tables of a sweep; the first one where none has rows."""
    frames = [table for table in result.values() if len(table)]
    return check_items(pd.concat(frames, ignore_index=True)) if frames else next(iter(result.values()))


def item_table(checkpoints: Iterable[Checkpoint], task: Task | Sequence[Task], **where: Unpack[Where]) -> pd.DataFrame:
    """One row per checkpoint × item of one task or several: identity columns, then the tasks' own.

    `where`: device, dtype, cells, …, as an `Execution` takes them. Raises what `sweep` raises.
    """
    return joined(sweep(checkpoints, list(task) if isinstance(task, Sequence) else [task], **where))


def sweep(work_on: Context | Iterable[Checkpoint], tasks: Sequence[Task], **where: Unpack[Where]) -> SweepResult:
    """Run every task on every checkpoint; one item table per task, in the order of the checkpoints.

    `work_on`: a context, or checkpoints, computed as `where` says (device, dtype, …; see `Execution`).
    With a shard (i, n), the i-th of n parts only: the n results together are the whole. Interrupting at any moment
    loses at most the cell in progress. Raises: RequestError for two tasks of one name; else what `stream` and the tasks
    raise.
    """
    context = context_of(work_on, where)
    execution = context.execution
    check_defects(context.checkpoints, allow_defective=execution.allow_defective)
    work = Work(context, tasks)
    wanted = None if execution.cells is None else lambda c, record: work.lacking(c, record) > 0
    ready = prepare([c for c, _ in work.todo], prefetch=execution.prefetch, wanted=wanted)
    with contextlib.closing(ready), progress.bar(sum(len(n) for _, n in work.todo), "cells", "cell") as bar:
        for prepared, (_, numbers) in zip(ready, work.todo, strict=True):
            work.checkpoint(prepared, numbers, bar)
    return work.result()


def context_of(work_on: Context | Iterable[Checkpoint], where: Where) -> Context:
    """The context to work on. Raises RequestError when it has no checkpoints."""
    context = work_on if isinstance(work_on, Context) else Context(work_on, Execution(**where))
    if not context.checkpoints:
        raise RequestError("no checkpoints to work on; choose some with --models and --steps")
    return context


def plan_shard(checkpoints: int, parts: int, shard: tuple[int, int] | None) -> list[list[int]]:
    """Which parts (numbered over all tasks) of which checkpoint are this shard's: a list of part numbers per
    checkpoint.

    Whole checkpoints are dealt out in turn, so that each shard gets its share of every model; the checkpoints left over
    are divided by parts. Every part of every checkpoint is in exactly one shard.
    """
    everything = list(range(parts))
    if shard is None:
        return [everything for _ in range(checkpoints)]
    i, n = shard
    if not 0 <= i < n:
        raise RequestError(f"shard {i}/{n}: i must be 0 to n-1")
    whole = checkpoints - checkpoints % n
    rest = (checkpoints - whole) * parts
    low, high = i * rest // n, (i + 1) * rest // n
    dealt = [everything if number % n == i else [] for number in range(whole)]
    shared = [[p for p in everything if low <= number * parts + p < high] for number in range(checkpoints - whole)]
    return dealt + shared


class Work:
    """One sweep under way: what is to do, live modules, the tables so far, counts."""

    def __init__(self, context: Context, tasks: Sequence[Task]):
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RequestError(f"two tasks are called {twice[0]!r}; give each its own name")
        execution = context.execution
        self.context, self.cells, self.dtype = context, execution.cells, execution.dtype
        self.units = [(task, part) for task in tasks for part in range(task.parts)]
        mine = plan_shard(len(context.checkpoints), len(self.units), execution.shard)
        self.todo = [(c, n) for c, n in zip(context.checkpoints, mine, strict=True) if n]
        self.device = choose_device(execution.device)
        self.live = LiveModules(self.device, self.dtype, [c for c, _ in self.todo])
        self.frames: dict[str, list[pd.DataFrame]] = {task.name: [] for task in tasks}
        self.weights: dict[str, str] = {}
        self.computed = self.reused = 0
        self._numbers = {id(c): numbers for c, numbers in self.todo}

    def lacking(self, checkpoint: Checkpoint, record: WeightsRecord) -> int:
        """How many cells of these weights are still to be computed."""
        keys = [self._key(checkpoint, record, *self.units[number]) for number in self._numbers[id(checkpoint)]]
        return sum(key is not None and (self.cells is None or not self.cells.has(key)) for key in keys)

    def checkpoint(self, prepared: Prepared, numbers: list[int], bar: tqdm[None]) -> None:
        checkpoint = prepared.checkpoint
        self.weights[str(checkpoint)] = prepared.record.digest
        model: nn.Module | None = None
        for number in numbers:
            task, part = self.units[number]
            key = self._key(checkpoint, prepared.record, task, part)
            if key is not None:
                frame = self.cells.get(key) if self.cells is not None else None
                if frame is not None:
                    self.reused += 1
                else:
                    model = model if model is not None else self.live.show(prepared)
                    frame = self._compute(task, part, model, key)
                self._keep(task, prepared, task.received(self.context, checkpoint, part, frame))
            bar.update(1)
        if model is None:
            self.live.skip(checkpoint)

    def _compute(self, task: Task, part: int, model: nn.Module, key: Key) -> pd.DataFrame:
        frame = task.run(self.context, model, part)
        self.computed += 1
        return self.cells.put(key, frame) if self.cells is not None else parsed(stored(frame))

    def _key(self, checkpoint: Checkpoint, record: WeightsRecord, task: Task, part: int) -> Key | None:
        """The cell's key; None when the task has nothing to do at this checkpoint."""
        own = task.key(checkpoint)
        if own is None:
            return None
        dtype = dtype_name(choose_dtype(checkpoint, self.dtype, self.device, named_dtype(record.stored)))
        return [record.digest, task.name, task.version, task.digest, dtype, part, own]

    def _keep(self, task: Task, prepared: Prepared, frame: pd.DataFrame) -> None:
        """A size that the suite does not state is that of the weights."""
        if len(frame):
            known = {"params": prepared.record.parameters}
            known |= {c: value for c, value in prepared.checkpoint.identity.items() if value is not None}
            identity = {column: known.get(column, pd.NA) for column in IDENTITY}
            self.frames[task.name].append(check_items(frame.assign(**identity)))  # type: ignore[arg-type]

    def result(self) -> SweepResult:
        empty = check_items(pd.DataFrame(columns=IDENTITY))
        tables = {
            name: pd.concat(frames, ignore_index=True) if frames else empty for name, frames in self.frames.items()
        }
        return SweepResult(tables, self.weights, self.computed, self.reused)
