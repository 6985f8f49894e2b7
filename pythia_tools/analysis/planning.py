"""What --dry-run says, for every analysis: cells, bytes, the disk's peak and an estimate of the time.

Time is estimated, not promised: a model costs two floating-point operations per parameter and id, at half the rate of a
matrix product measured here and now; downloads come at DOWNLOAD_RATE; the two overlap, as they do in a sweep.
"""

import time
from collections.abc import Sequence

import torch

from pythia_tools.analysis.context import Context
from pythia_tools.analysis.sweep import plan_sweep
from pythia_tools.analysis.task import Task
from pythia_tools.core.files import human_bytes
from pythia_tools.models import choose_device

DOWNLOAD_RATE = 50e6
"""Bytes per second that a download is taken to come at: 400 Mbit/s."""


def plan(context: Context, tasks: Sequence[Task]) -> dict[str, object]:
    """The plan of these tasks over the context's checkpoints; nothing is fetched or computed, finished cells are left
    out. Sizes are there twice, as numbers and as people read them; seconds are None where they cannot be foreseen.
    """
    found = plan_sweep(context, tasks)
    device = context.execution.device
    computing = None if found.flop is None else found.flop / pace(device) if found.flop else 0.0
    fetching = found.download_bytes / DOWNLOAD_RATE
    return {
        "checkpoints": found.checkpoints, "cells": found.cells, "cells_done": found.done,
        "files_to_download": found.files,
        "download_bytes": found.download_bytes, "download": human_bytes(found.download_bytes),
        "disk_peak_bytes": found.disk_peak_bytes, "disk_peak": human_bytes(found.disk_peak_bytes),
        "seconds_computing_about": None if computing is None else _about(computing),
        "seconds_downloading_about": _about(fetching),
        "seconds_about": None if computing is None else _about(max(computing, fetching)),
        "estimate": f"downloads at {human_bytes(DOWNLOAD_RATE)}/s, computing at the pace measured on {device} just "
                    "now; loading, tables and figures come on top",
        "problems": list(found.problems),
    }


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
