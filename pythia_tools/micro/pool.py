"""Worker processes that train several models at once, one thread each, with one progress bar for all.

A thread here hands a run to each process there, once the run's starting state is on disk, and reads its lines.
A process that dies ends the whole with one clear line; nothing finished is lost. Processes are started as commands of
their own, since those that `multiprocessing` starts would run the user's script once more.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE

from pythia_tools.core import errors, progress
from pythia_tools.micro.loop import Run
from pythia_tools.micro.suite_runs import suite_runs, train_suite_run, update_cost

LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES} | {"TOKENIZERS_PARALLELISM": "false"}
WORKER = (sys.executable, "-c", "import sys; from pythia_tools.micro import pool; pool.work(sys.argv[1])")


def train_all(runs: Sequence[Run], workers: int) -> None:
    """Train the runs of one suite; with 0 `workers` in this process, one after the other. Raises what a run raised."""
    meter = Meter(runs)
    with contextlib.closing(meter.bar):
        if workers:
            _train_in_workers(runs, min(workers, len(runs)), meter.at)
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


def _train_in_workers(runs: Sequence[Run], count: int, at: Callable[[Run, int], None]) -> None:
    """Train the runs in their order; a branch comes after its main run, and waits for the state it starts from."""
    stopped = threading.Event()
    idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    command, environment = [*WORKER, str(runs[0].suite)], {**os.environ, **ONE_THREAD}

    def train(run: Run) -> None:
        while run.start is not None and not run.start[0].path(run.start[1]).is_file():
            if stopped.wait(0.5):
                return
        child = idle.get()
        try:
            _train_in(child, run, at)
        finally:
            idle.put(child)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(count) as threads:
        children = [
            stack.enter_context(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment))
            for _ in range(count)
        ]
        for child in children:
            idle.put(child)
        try:
            for done in as_completed([threads.submit(train, run) for run in runs]):
                done.result()
        finally:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
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
            said = json.loads(rest)
            known = getattr(errors, said["kind"], None)
            raise known(said["message"]) if known else RuntimeError(f"a training process failed:\n{said['message']}")
        at(run, int(rest))
    code = child.wait()
    why = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
    raise errors.EnvironmentFailure(f"the process that trained {run.name} {why}; run the same command again to resume")


def work(folder: str) -> None:
    """A worker process: trains the runs named on stdin, one a line, and tells its parent on stdout.

    Lines out: `step N`, `done`, `failed {"kind": …, "message": …}`. It ends with its stdin; when its parent is gone its
    next line fails, so no orphan goes on training.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it and ends us
    parent = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the lines

    def say(word: str, rest: object = "") -> None:
        try:
            print(word, rest, file=parent)
        except BrokenPipeError:
            os._exit(1)

    def failed(kind: str, message: str) -> None:
        say("failed", json.dumps({"kind": kind, "message": message}))

    runs = {run.name: run for run in suite_runs(Path(folder))}
    for line in sys.stdin:
        name = line.strip()
        try:
            train_suite_run(runs[name], partial(say, "step"))
            say("done")
        except errors.PythiaToolsError as error:
            failed(type(error).__name__, str(error))
        except OSError as error:
            failed("EnvironmentFailure", f"{name}: {error}")
        except Exception:  # a bug: the parent raises it with this traceback
            failed("bug", traceback.format_exc())
