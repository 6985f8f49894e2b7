"""What --dry-run prints, for every command that sweeps checkpoints: one plan, the same words, the same estimate.

Time is estimated, not promised: a model costs two floating-point operations per parameter and id, at half the rate of a
matrix product measured here and now; downloads come at DOWNLOAD_RATE; the two overlap, as they do in a sweep.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_tools.cli.options import emit
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND
from pythia_tools.core.files import human_bytes

DOWNLOAD_RATE = 50e6
"""Bytes per second that a download is taken to come at: 400 Mbit/s."""


def show(
    args: argparse.Namespace, checkpoints: Sequence[Any], tasks: Sequence[Any], *, ids: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Prints the plan of a sweep and returns the exit code: 1 when the hub lacks a checkpoint, else 0.

    `ids`: token ids that the tasks pass through each model (None: not known, so no time for computing is stated);
    `more`: what else the command would do. Finished cells in --out are left out of the work.
    """
    found = plan(args, checkpoints, tasks, ids)
    emit({**found, **(more or {})}, as_json=args.json)
    return EXIT_FOUND if found["problems"] else EXIT_DONE


def plan(args: argparse.Namespace, checkpoints: Sequence[Any], tasks: Sequence[Any], ids: int | None) -> dict[str, Any]:
    """The plan as a mapping; sizes twice, as numbers and as people read them."""
    from pythia_tools.analysis import plan_sweep
    from pythia_tools.core.results import CellStore

    cells = CellStore(Path(args.out) / "cells", only_look=True) if args.out else None
    for number, task in enumerate(tasks):
        task.ids = ids if number == 0 or ids is None else 0
    found = plan_sweep(checkpoints, tasks, cells=cells, device=args.device, dtype=args.dtype, shard=args.shard)
    computing = None if found.flop is None else found.flop / pace(args.device) if found.flop else 0.0
    fetching = found.download_bytes / DOWNLOAD_RATE
    return {
        "checkpoints": found.checkpoints, "cells": found.cells, "cells_done": found.done,
        "files_to_download": found.files, "download_bytes": found.download_bytes, "download": human_bytes(found.download_bytes),
        "disk_peak_bytes": found.disk_peak_bytes, "disk_peak": human_bytes(found.disk_peak_bytes),
        "seconds_computing_about": None if computing is None else round(computing, 1),
        "seconds_downloading_about": round(fetching, 1),
        "seconds_about": None if computing is None else round(max(computing, fetching), 1),
        "estimate": f"downloads at {human_bytes(DOWNLOAD_RATE)}/s, computing at the pace measured on {args.device} just now; "
                    "loading, tables and figures come on top",
        "problems": list(found.problems),
    }


def pace(device: str) -> float:
    """Floating-point operations per second of a matrix product here, halved for all that is not one."""
    import torch

    from pythia_tools.models import choose_device

    a = torch.randn(1024, 1024, device=choose_device(device))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 1024**3 / best
