"""What --dry-run says, for every analysis: cells, bytes of checkpoints and of data, the disk's peak, time estimated.

Time is estimated, not promised: a model costs two floating-point operations per parameter and id, at half the rate of a
matrix product measured here and now; downloads come at DOWNLOAD_RATE; the two overlap, as they do in a sweep.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Unpack

import torch

from pythia_tools import hub
from pythia_tools.analysis.context import Context, Where
from pythia_tools.analysis.sweep import Task, Work, context_of
from pythia_tools.core.files import human_bytes
from pythia_tools.models import choose_device
from pythia_tools.models.digest import known_record
from pythia_tools.suites import Checkpoint, Folder

DOWNLOAD_RATE = 50e6
"""Bytes per second that a download is taken to come at: 400 Mbit/s."""


def plan(work_on: Context | Iterable[Checkpoint], tasks: Sequence[Task], **where: Unpack[Where]) -> dict[str, object]:
    """The plan of `sweep` with the same arguments: nothing is loaded, fetched or computed, finished cells are left out.

    Checkpoints whose weights were never seen on this machine count as not done. Sizes are there twice, as numbers and
    as people read them; data is what the tasks fetch of it, were nothing cached; seconds and hours are None where the
    ids per checkpoint or a model's size are not known.
    Cost: one request per hub repository and commit not listed before.
    """
    context = context_of(work_on, where)
    work, device = Work(context, tasks), context.execution.device
    cells = done = 0
    missing: list[tuple[Checkpoint, float]] = []
    for checkpoint, numbers in work.todo:
        keyed = [work.units[n] for n in numbers if work.units[n][0].key(checkpoint) is not None]
        record = known_record(checkpoint)
        lacking = len(keyed) if record is None else work.lacking(checkpoint, record)
        cells, done = cells + len(keyed), done + len(keyed) - lacking
        if lacking:
            missing.append((checkpoint, lacking / len(work.units)))
    fetch, budget, flop = hub.plan([c for c, _ in missing]), hub.default_budget(), _flop(missing, tasks)
    peak = min(fetch.disk_peak, fetch.disk_peak if budget is None else budget)
    if all(isinstance(c.location, Folder) for c, _ in missing):
        peak = 0
    computing = None if flop is None else flop / pace(device) if flop else 0.0
    read = {reading for task in tasks for checkpoint, _ in missing for reading in task.readings(checkpoint)}
    data = sum(reading.bytes for reading in read)
    fetching = (fetch.bytes + data) / DOWNLOAD_RATE
    seconds = None if computing is None else _about(max(computing, fetching))
    return {
        "checkpoints": len(work.todo), "cells": cells, "cells_done": done, "files_to_download": len(fetch.missing),
        "download_bytes": fetch.bytes, "download": human_bytes(fetch.bytes),
        "data_bytes": data, "data": human_bytes(data), "data_requests": sum(reading.requests for reading in read),
        "disk_peak_bytes": peak, "disk_peak": human_bytes(peak),
        "seconds_computing_about": None if computing is None else _about(computing),
        "seconds_downloading_about": _about(fetching),
        "seconds_about": seconds, "hours_about": None if seconds is None else _about(seconds / 3600),
        "estimate": f"downloads at {human_bytes(DOWNLOAD_RATE)}/s, computing at the pace measured on {device} just "
                    "now; loading, tables and figures come on top",
        "problems": list(fetch.problems),
    }


def _flop(missing: Sequence[tuple[Checkpoint, float]], tasks: Sequence[Task]) -> float | None:
    """Twice the parameters per id (embedding rows are looked up, not multiplied), over the shares that are missing."""
    ids = [task.ids for task in tasks]
    sizes = [c.model.non_embedding or c.model.params for c, _ in missing]
    if any(i is None for i in ids) or any(s is None for s in sizes):
        return None
    return float(
        sum(2 * (size or 0) * share for size, (_, share) in zip(sizes, missing, strict=True)) * sum(i or 0 for i in ids)
    )


def _about(seconds: float) -> float:
    """Two digits of it: more would be a promise."""
    return float(f"{seconds:.2g}")


def pace(device: str | torch.device) -> float:
    """Floating-point operations per second of a matrix product here, halved for all that is not one."""
    a = torch.randn(1024, 1024, device=choose_device(device))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 1024**3 / best
