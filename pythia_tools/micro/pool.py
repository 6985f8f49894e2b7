"""Worker processes that train several models at once, one thread each, with one progress bar for all.

A thread here minds each process there: it hands it the first run whose starting state is on disk, and reads its lines.
A process that dies ends the whole with one clear line; nothing finished is lost. Processes are started as commands of
their own, since those that `multiprocessing` starts would run the user's script once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from pythia_tools.core import errors, progress
from pythia_tools.micro.loop import Run
from pythia_tools.micro.suite_runs import train_suite_run, update_cost

LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES} | {"TOKENIZERS_PARALLELISM": "false"}
WORKER = (sys.executable, "-m", "pythia_tools.micro.worker")


def train_all(runs: Sequence[Run], workers: int) -> None:
    """Train the runs of one suite; with 0 `workers` in this process, one after the other. Raises what a run raised."""
    meter = Meter(runs)
    with contextlib.closing(meter.bar):
        if workers:
            _train_in_workers(list(runs), min(workers, len(runs)), meter.at)
        for run in () if workers else runs:
            train_suite_run(run, lambda step, run=run: meter.at(run, step))  # type: ignore[misc]


class Meter:
    """One bar over all runs, in shares of the whole work, so that the time left is right although models differ."""

    def __init__(self, runs: Sequence[Run]):
        self._runs, self._steps = runs, {run.name: run.first for run in runs}
        self._lock = threading.Lock()
        self.bar = progress.bar(sum(update_cost(r.recipe, r.spec) * (r.end - r.first) for r in runs), "training")
        self.bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"

    def at(self, run: Run, step: int) -> None:
        """`run` has taken `step` steps (counted from its base's beginning for a branch)."""
        with self._lock:
            more, self._steps[run.name] = step - self._steps[run.name], step
            running = [f"{r.name} {self._steps[r.name]}" for r in self._runs if r.first < self._steps[r.name] < r.end]
            self.bar.set_postfix_str(", ".join(running), refresh=False)
            self.bar.update(more * update_cost(run.recipe, run.spec))


def _train_in_workers(waiting: list[Run], count: int, at: Callable[[Run, int], None]) -> None:
    lock, stopped = threading.Lock(), threading.Event()
    command = [*WORKER, str(waiting[0].folder.parent)]

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, **ONE_THREAD}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def next_run() -> Run | None:
        """The first run that can begin; waits for one, and gives None when all have begun."""
        while not stopped.is_set():
            with lock:
                if not waiting:
                    return None
                for run in waiting:
                    if run.start is None or run.start[0].path(run.start[1]).is_file():
                        waiting.remove(run)
                        return run
            stopped.wait(0.5)
        return None

    def mind(child: subprocess.Popen[str]) -> None:
        while (run := next_run()) is not None:
            _train_in(child, run, at)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(count) as threads:
        children = [stack.enter_context(start()) for _ in range(count)]
        try:
            for done in as_completed([threads.submit(mind, child) for child in children]):
                done.result()
        finally:
            stopped.set()
            for child in children:
                child.kill()  # idle, or in a run that resumes from its last state


def _train_in(child: subprocess.Popen[str], run: Run, at: Callable[[Run, int], None]) -> None:
    """Have one child train a run. Raises what it says went wrong, or EnvironmentFailure when it ends."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended, which is told below
        os.write(child.stdin.fileno(), f"{run.name}\n".encode())
    for line in child.stdout:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "done":
            return
        if word == "failed":
            raise _error(**json.loads(rest))
        at(run, int(rest))
    code = child.wait()
    why = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
    raise errors.EnvironmentFailure(
        f"the process that trained {run.name} {why}; run the same command again to resume"
    )


def _error(kind: str, message: str) -> Exception:
    known = getattr(errors, kind, None)
    return known(message) if known else RuntimeError(f"a training process failed:\n{message}")
