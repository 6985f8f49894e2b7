"""Worker processes that train several models at once, one thread each, with one progress bar for all.

Each process trains its share of the models, every model's branch after it, and all of them write what they have done
into one pipe, a line at a time. A process that dies ends the whole with one clear line; nothing finished is lost.
Processes are started as commands of their own, since those that `multiprocessing` starts would run the user's script
once more.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pythia_tools.core import errors, progress
from pythia_tools.micro.loop import Run
from pythia_tools.micro.suite_runs import suite_runs, train_suite_run, update_cost

LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES} | {"TOKENIZERS_PARALLELISM": "false"}
WORKER = (sys.executable, "-c", "import sys; from pythia_tools.micro import pool; pool.work(*sys.argv[1:])")


def train_all(runs: Sequence[Run], workers: int) -> None:
    """Train the runs of one suite; with 0 `workers` in this process, one after the other. Raises what a run raised."""
    meter = Meter(runs)
    with contextlib.closing(meter.bar):
        if workers:
            _train_in_workers(runs, workers, meter)
        for run in () if workers else runs:
            train_suite_run(run, partial(meter.at, run.name))


class Meter:
    """One bar over all runs, in shares of the whole work, so that the time left is right although models differ."""

    def __init__(self, runs: Sequence[Run]):
        self._runs, self._steps = {run.name: run for run in runs}, {run.name: run.first for run in runs}
        self.bar = progress.bar(sum(update_cost(r.recipe, r.spec) * (r.end - r.first) for r in runs), "training")
        self.bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"

    def at(self, name: str, step: int) -> None:
        """The run has taken `step` steps (counted from its base's beginning for a branch)."""
        more, self._steps[name] = step - self._steps[name], step
        running = [f"{n} {self._steps[n]}" for n, r in self._runs.items() if r.first < self._steps[n] < r.end]
        self.bar.set_postfix_str(", ".join(running), refresh=False)
        self.bar.update(more * update_cost(self._runs[name].recipe, self._runs[name].spec))


def _train_in_workers(runs: Sequence[Run], workers: int, meter: Meter) -> None:
    """Train the runs in their order, each process a share of the models."""
    models = [run.name for run in runs if run.start is None]
    shares = [models[k::workers] for k in range(min(workers, len(models)))]
    command, environment = [*WORKER, str(runs[0].suite)], {**os.environ, **ONE_THREAD}
    source, sink = os.pipe()
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(open(source, encoding="utf-8"))
        with open(sink, "wb") as pipe:
            children = [
                stack.enter_context(subprocess.Popen([*command, *share], stdout=pipe, env=environment))
                for share in shares
            ]
        for child in children:
            stack.callback(child.kill)  # in a run that resumes from its last state, or at its end
        for line in lines:
            name, first, *rest = line.split()
            if name == "failed":
                raise getattr(errors, first)(" ".join(rest))
            meter.at(name, int(first))
            _check([child.poll() for child in children], shares)
        _check([child.wait() for child in children], shares)


def _check(codes: Sequence[int | None], shares: Sequence[list[str]]) -> None:
    """Raises what a process that has ended says of itself."""
    for code, share in zip(codes, shares, strict=True):
        if code:
            who = f"the process that trained {', '.join(share)}"
            if code > 0:
                raise RuntimeError(f"{who} ended with code {code}; what went wrong stands above")
            why = f"was killed by signal {-code} (out of memory?)"
            raise errors.EnvironmentFailure(f"{who} {why}; run the same command again to resume")


def work(folder: str, *models: str) -> None:
    """A worker process: trains the models' runs, and tells its parent on stdout: `RUN STEP`, or `failed KIND MESSAGE`.

    When its parent is gone its next line fails, so no orphan goes on training. A bug's traceback goes to stderr.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it and ends us
    parent = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the lines

    def say(*words: object) -> None:
        try:
            print(*words, file=parent)
        except BrokenPipeError:
            os._exit(1)

    runs = suite_runs(Path(folder))
    try:
        for run in (run for model in models for run in runs if run.spec.name == model):
            train_suite_run(run, partial(say, run.name))
    except errors.PythiaToolsError as error:
        say("failed", type(error).__name__, *str(error).split())
    except OSError as error:
        say("failed", "EnvironmentFailure", *str(error).split())
