"""Threads for kernels that let go of the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pythia_tools.core.errors import RequestError

T = TypeVar("T")


def worker_count(workers: int | None) -> int:
    """Threads to use: as asked, else one per processor this process may use."""
    if workers is not None and workers < 1:
        raise RequestError(f"workers is {workers}; it must be at least 1")
    if workers is not None:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_threads(work: Callable[[T], object], items: Sequence[T], threads: int) -> None:
    """Run `work` on each item; in this thread when one is enough."""
    if threads == 1 or len(items) <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
