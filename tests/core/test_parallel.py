"""Cores and loops on several of them."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from pythia_tools.core import parallel
from pythia_tools.core.errors import RequestError


def test_the_variable_decides_then_the_cores_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_THREADS", "40")
    assert (parallel.core_count(), parallel.worker_count(None), parallel.worker_count(None, 16)) == (40, 40, 16)
    assert parallel.worker_count(3) == 3
    monkeypatch.setenv("PYTHIA_TOOLS_THREADS", "none")
    assert parallel.core_count() == len(os.sched_getaffinity(0))
    with pytest.raises(RequestError, match="workers is 0; it must be at least 1"):
        parallel.worker_count(0)


@pytest.mark.parametrize(("count", "pieces"), [(0, None), (1, 8), (10, 3), (1000, 7), (5, 1)])
def test_parallel_for_covers_the_range_once(count: int, pieces: int | None) -> None:
    times = np.zeros(count, int)

    def work(a: int, b: int) -> None:
        times[a:b] += 1

    parallel.parallel_for(count, work, pieces=pieces)
    assert (times == 1).all()


@pytest.mark.parametrize("threads", [1, 4])
def test_map_threads_runs_every_item_and_raises_what_it_raised(threads: int) -> None:
    seen: list[int] = []
    parallel.map_threads(seen.append, range(50), threads)
    assert sorted(seen) == list(range(50))
    with pytest.raises(ZeroDivisionError):
        parallel.map_threads(lambda i: 1 // i, [2, 1, 0], threads)


def test_map_ahead_keeps_the_order_and_takes_no_more_items_than_asked() -> None:
    taken, first = [], threading.Event()

    def items() -> object:
        for i in range(20):
            taken.append(i)
            yield i

    def work(i: int) -> int:
        if i == 0:
            first.wait(5)  # the others finish before it
        else:
            first.set()
        return i * i

    found = parallel.map_ahead(work, items(), 3, ahead=4)
    assert next(found) == 0
    assert taken == [0, 1, 2, 3]
    assert list(found) == [i * i for i in range(1, 20)]


def test_map_ahead_stops_when_the_reader_stops() -> None:
    done: list[int] = []
    found = parallel.map_ahead(done.append, range(1000), 1, ahead=2)
    next(found)
    found.close()
    assert len(done) <= 3
