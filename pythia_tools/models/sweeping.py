"""Tasks over checkpoints: each checkpoint is loaded once, every task runs on it, every finished cell is kept.

A cell is one part of one task on one set of weights. Its key is the digest of the weights, the task's name and digest,
the number format and the part: never a step or a branch. So a killed sweep goes on at the next cell, equal weights under
two names (step 0 and step 1 of Pythia) are computed once, a changed file under the same name is computed anew, and a
checkpoint whose cells all exist is not loaded.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import nn

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.core.tables import IDENTITY, check_items
from pythia_tools.models.devices import choose_device, choose_dtype, dtype_name, named_dtype
from pythia_tools.models.digest import WeightsRecord, known_record
from pythia_tools.models.streaming import LiveModules, Prepared, prepare
from pythia_tools.suites import Checkpoint, HubRevision, check_defects


class Task(Protocol):
    """What a sweep runs. Build it once; it is run on every checkpoint.

    `digest` covers its inputs and parameters; `parts` is the number of units of resume. `run` returns one row per item,
    without identity columns. A task whose items depend on the checkpoint (the rows it has just seen) also has a method
    `key(checkpoint)` whose JSON-able value then belongs to the cell's key; None means: nothing to do there.
    """

    name: str
    digest: str
    parts: int

    def run(self, model: nn.Module, part: int) -> pd.DataFrame: ...


class SweepResult(Mapping[str, pd.DataFrame]):
    """Task name → item table; `weights`: str(checkpoint) → digest of its weights, for provenance.

    `computed` and `reused` count cells.
    """

    def __init__(self, tables: dict[str, pd.DataFrame], weights: dict[str, str], computed: int, reused: int):
        self._tables = tables
        self.weights = weights
        self.computed = computed
        self.reused = reused

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def sweep(
    checkpoints: Iterable[Checkpoint], tasks: Sequence[Task], *, cells: CellStore | None = None, device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None, shard: tuple[int, int] | None = None, prefetch: bool = True, allow_defective: bool = False,
) -> SweepResult:
    """Run every task on every checkpoint and return one item table per task, in the order of the checkpoints.

    `cells`: where finished cells are kept and found again. `shard` (i, n): compute the i-th of n parts only (0-based);
    the n results together are the whole. Interrupting at any moment loses at most the cell in progress.
    Raises: RequestError for two tasks of one name or no checkpoints; else what `stream` and the tasks raise.
    """
    listed, tasks = list(checkpoints), list(tasks)
    _check(listed, tasks)
    check_defects(listed, allow_defective=allow_defective)
    mine = plan_shard(len(listed), sum(t.parts for t in tasks), shard)
    wanted = [c for number, c in enumerate(listed) if mine[number]]
    units = [mine[number] for number in range(len(listed)) if mine[number]]
    work = _Work(tasks, cells, choose_device(device), dtype, wanted, units)
    ready = prepare(wanted, prefetch=prefetch, wanted=work.lacks if cells is not None else None)
    with contextlib.closing(ready), progress.bar(sum(map(len, units)), "cells", "cell") as bar:
        for prepared, numbers in zip(ready, units, strict=True):
            work.checkpoint(prepared, numbers, bar)
    return work.result()


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do: cells in all, cells found done, bytes to download, the disk's peak, what the hub lacks.

    Checkpoints whose weights were never seen on this machine count as not done (`unseen` of them). `files` are to be
    downloaded. `flop`: floating-point operations at least, None where the ids per checkpoint or a model's size are not known.
    """

    checkpoints: int
    cells: int
    done: int
    unseen: int
    download_bytes: int
    disk_peak_bytes: int
    problems: tuple[str, ...]
    files: int = 0
    flop: float | None = None


def plan(
    checkpoints: Iterable[Checkpoint], tasks: Sequence[Task], *, cells: CellStore | None = None, device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None, shard: tuple[int, int] | None = None, ids: int | None = None,
) -> SweepPlan:
    """The plan of `sweep` with the same arguments, for --dry-run: nothing is loaded, fetched or computed.

    Without tasks it is the plan of fetching the checkpoints. `ids`: token ids that all tasks together pass through a model.
    Cost: one request per hub repository and commit that was not listed before.
    """
    listed, tasks = list(checkpoints), list(tasks)
    _check(listed, tasks)
    mine = plan_shard(len(listed), sum(t.parts for t in tasks), shard)
    wanted = [(c, numbers) for c, numbers in zip(listed, mine, strict=True) if numbers or not tasks]
    work = _Work(tasks, cells, choose_device(device), dtype, [c for c, _ in wanted], [n for _, n in wanted])
    total = done = unseen = 0
    missing: list[tuple[Checkpoint, float]] = []
    for checkpoint, numbers in wanted:
        keyed = [task for task, _ in (work.units[n] for n in numbers) if work.applies(task, checkpoint)]
        record = known_record(checkpoint)
        lacking = len(keyed) if record is None else work.lacking(checkpoint, record, numbers)
        total, done, unseen = total + len(keyed), done + len(keyed) - lacking, unseen + (record is None)
        if lacking or not tasks:
            missing.append((checkpoint, lacking / max(1, len(work.units))))
    remote = [c for c, _ in missing if isinstance(c.location, HubRevision)]
    flop = _flop(missing, ids)
    if not remote:
        return SweepPlan(len(wanted), total, done, unseen, 0, 0, (), flop=flop)
    from pythia_tools import hub

    download = hub.plan(remote)
    peak = download.disk_peak if (budget := hub.default_budget()) is None else min(budget, download.disk_peak)
    return SweepPlan(len(wanted), total, done, unseen, download.bytes, peak, tuple(download.problems), len(download.missing), flop)


def _flop(missing: Sequence[tuple[Checkpoint, float]], ids: int | None) -> float | None:
    """Twice the parameters per id (embedding rows are looked up, not multiplied), over the shares that are missing."""
    sizes = [c.model.non_embedding or c.model.params for c, _ in missing]
    if ids is None or None in sizes:
        return None
    return float(sum(2 * size * ids * share for size, (_, share) in zip(sizes, missing, strict=True) if size))


def plan_shard(checkpoints: int, parts: int, shard: tuple[int, int] | None) -> list[list[int]]:
    """Which parts (numbered over all tasks) of which checkpoint are this shard's: a list of part numbers per checkpoint.

    Whole checkpoints are dealt out in turn, so that each shard gets its share of every model; the checkpoints left over are
    divided by parts. Every part of every checkpoint is in exactly one shard.
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


class _Work:
    """One sweep under way: live modules, the tables so far, counts."""

    def __init__(
        self, tasks: Sequence[Task], cells: CellStore | None, device: torch.device, dtype: str | torch.dtype | None,
        checkpoints: Sequence[Checkpoint], numbers: Sequence[list[int]],
    ):
        self.tasks, self.cells, self.device, self.dtype = tasks, cells, device, dtype
        self.units = [(task, part) for task in tasks for part in range(task.parts)]
        self.live = LiveModules(device, dtype, checkpoints)
        self.frames: dict[str, list[pd.DataFrame]] = {task.name: [] for task in tasks}
        self.weights: dict[str, str] = {}
        self.computed = self.reused = 0
        self._numbers = dict(zip(map(id, checkpoints), numbers, strict=True))

    def lacks(self, checkpoint: Checkpoint, record: WeightsRecord) -> bool:
        """Whether a cell of these weights is still to be computed."""
        return self.lacking(checkpoint, record, self._numbers[id(checkpoint)]) > 0

    def lacking(self, checkpoint: Checkpoint, record: WeightsRecord, numbers: Sequence[int]) -> int:
        """How many cells of these weights are still to be computed."""
        keys = [self._key(checkpoint, record, *self.units[number]) for number in numbers]
        return sum(key is not None and (self.cells is None or not self.cells.path(key).exists()) for key in keys)

    def applies(self, task: Task, checkpoint: Checkpoint) -> bool:
        """Whether the task has items at this checkpoint."""
        return not hasattr(task, "key") or task.key(checkpoint) is not None

    def checkpoint(self, prepared: Prepared, numbers: list[int], bar: Any) -> None:
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
                self._keep(task, checkpoint, frame)
            bar.update(1)
        if model is None:
            self.live.skip(checkpoint)

    def _compute(self, task: Task, part: int, model: nn.Module, key: Any) -> pd.DataFrame:
        frame = task.run(model, part)
        self.computed += 1
        if self.cells is not None:
            self.cells.put(key, frame)
        return _as_stored(frame)

    def _key(self, checkpoint: Checkpoint, record: WeightsRecord, task: Task, part: int) -> list[Any] | None:
        """The cell's key; None when the task has nothing to do at this checkpoint."""
        dtype = dtype_name(choose_dtype(checkpoint, self.dtype, self.device, named_dtype(record.stored)))
        key = [record.digest, task.name, task.digest, dtype, part]
        if not hasattr(task, "key"):
            return key
        own = task.key(checkpoint)
        return None if own is None else [*key, own]

    def _keep(self, task: Task, checkpoint: Checkpoint, frame: pd.DataFrame) -> None:
        named = frame.copy(deep=False)
        for position, (column, value) in enumerate(checkpoint.identity.items()):
            named.insert(position, column, pd.NA if value is None else value)  # type: ignore[arg-type]
        if len(named):
            self.frames[task.name].append(check_items(named))

    def result(self) -> SweepResult:
        tables = {name: pd.concat(frames, ignore_index=True) if frames else _no_items() for name, frames in self.frames.items()}
        return SweepResult(tables, self.weights, self.computed, self.reused)


def _as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as it would be read back: a resumed sweep and an uninterrupted one return equal tables."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return pd.read_parquet(io.BytesIO(buffer.getvalue()))


def _no_items() -> pd.DataFrame:
    return check_items(pd.DataFrame(columns=IDENTITY))


def _check(checkpoints: Sequence[Checkpoint], tasks: Sequence[Task]) -> None:
    if not checkpoints:
        raise RequestError("no checkpoints to work on; choose some with --models and --steps")
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"two tasks are called {twice[0]!r}; give each its own name")
