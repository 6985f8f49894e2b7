"""How many cores there are, and loops on several of them: plain threads, for work that releases the interpreter lock.

Not numba's own parallel loops: their OpenMP workers spin when another process wants the cores, and a process that forks
after using them (a data loader's workers) is killed. Threads here sleep when idle and are made anew after a fork.
Cost: tens of microseconds per loop; `parallel_for` keeps its threads, the other two start theirs for each call.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

from pythia_tools.core.errors import RequestError

T = TypeVar("T")
R = TypeVar("R")

MOST_SCANNING = 16  # threads that copy or scan rows; more only wait for memory
_pool: ThreadPoolExecutor | None = None


def core_count() -> int:
    """$PYTHIA_TOOLS_THREADS if set, else the cores this process is allowed to run on."""
    asked = os.environ.get("PYTHIA_TOOLS_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(workers: int | None, most: int | None = None) -> int:
    """`workers` if given, else one per core, at most `most`. Raises RequestError below 1."""
    if workers is None:
        return min(core_count(), most or core_count())
    if workers < 1:
        raise RequestError(f"workers is {workers}; it must be at least 1")
    return workers


def parallel_for(count: int, work: Callable[[int, int], None], *, pieces: int | None = None) -> None:
    """Call `work(a, b)` on consecutive pieces of [0, count), one per core by default; a single piece runs in this
    thread.
    """
    global _pool
    pieces = min(count, worker_count(None, MOST_SCANNING) if pieces is None else pieces)
    if pieces <= 1:
        work(0, count)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(worker_count(None, MOST_SCANNING), thread_name_prefix="pythia-tools")
    cuts = [count * k // pieces for k in range(pieces + 1)]
    waiting = [_pool.submit(work, a, b) for a, b in pairwise(cuts[1:])]
    work(cuts[0], cuts[1])
    for future in waiting:
        future.result()


def map_threads(work: Callable[[T], object], items: Sequence[T], threads: int) -> None:
    """Run `work` on each item, whichever thread is free; in this thread when one is enough."""
    for _ in map_ahead(work, items, threads, ahead=1 if threads == 1 else len(items)):
        pass


def map_ahead(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """Results in the order of the items, which are taken in this thread, at most `ahead` of them at a time; work on one
    at a time (`ahead` of 1) is done in this thread too.
    """
    if ahead == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
