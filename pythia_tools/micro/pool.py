"""Worker processes that train several models at once, one thread each, with one progress bar for all.

Children are started with OMP_NUM_THREADS=1; a job that branches from another run begins as soon as the state it needs is
on disk. A child that dies ends the whole with one clear line; nothing finished is lost.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythia_tools.core import errors, progress
from pythia_tools.micro.jobs import Job, main_states, read_recipe, run_job, update_cost

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")} | {"TOKENIZERS_PARALLELISM": "false"}
WORKER = (sys.executable, "-m", "pythia_tools.micro.worker")


def run_jobs(jobs: list[Job], workers: int) -> None:
    """Do all jobs; `workers` 0 does them in this process, one after the other. Raises what a job raised."""
    meter = Meter(jobs)
    with meter:
        if workers == 0:
            for job in _in_order(jobs):
                run_job(job, lambda step, name=job.name: meter.at(name, step))  # type: ignore[misc]
            return
        pool = Pool(min(workers, len(jobs)), meter.at)
        try:
            pool.run(jobs)
        finally:
            pool.close()


class Meter:
    """One bar over all jobs, in shares of the whole work, so that the time left is right although models differ."""

    def __init__(self, jobs: list[Job]):
        self.cost = {j.name: update_cost(read_recipe(_path(j)), j.model) for j in jobs}
        self.first = {j.name: j.needs[1] if j.needs else 0 for j in jobs}
        self.updates = {j.name: j.updates for j in jobs}
        self.done = {j.name: 0 for j in jobs}
        self.started: set[str] = set()
        self._whole = sum(self.cost[n] * self.updates[n] for n in self.cost)
        self._bar = progress.bar(100.0, "training", unit="%")
        self._bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def share(self) -> float:
        """Per cent of the whole work done."""
        return 100 * sum(self.cost[n] * self.done[n] for n in self.cost) / self._whole

    def at(self, name: str, step: int) -> None:
        """Run `name` has taken `step` steps (counted from its base's beginning for a branch)."""
        taken = max(0, step - self.first[name])
        self.started.add(name)
        before = self.share
        self.done[name] = taken
        running = [f"{n} {self.done[n] + self.first[n]}" for n in self.started if self.done[n] < self.updates[n]]
        self._bar.set_postfix_str(", ".join(running), refresh=False)
        self._bar.update(self.share - before)


class Pool:
    """`count` children; `on_step(name, step)` hears of progress."""

    def __init__(self, count: int, on_step: Callable[[str, int], None]):
        self.on_step = on_step
        self.lines: queue.Queue[tuple[int, str | None]] = queue.Queue()
        environment = {**os.environ, **ONE_THREAD}
        self.children = [
            subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(count)
        ]
        for i, child in enumerate(self.children):
            threading.Thread(target=self._listen, args=(i, child), daemon=True).start()

    def run(self, jobs: list[Job]) -> None:
        """All jobs, each given to the first free child once what it needs is there."""
        waiting = list(jobs)
        busy: dict[int, str] = {}
        free: list[int] = []
        while waiting or busy:
            for job in [j for j in waiting if _ready(j)][: len(free)]:
                child = free.pop()
                busy[child] = job.name
                waiting.remove(job)
                self._give(child, job)
            child, line = self._next(bool(free) and bool(waiting))
            if line == "":
                continue
            if line is None:
                raise errors.EnvironmentFailure(self._dead(child, busy.get(child)))
            word, _, rest = line.partition(" ")
            if word in ("ready", "done"):
                free.append(child)
                busy.pop(child, None)
            elif word == "step":
                name, _, step = rest.partition(" ")
                self.on_step(name, int(step))
            elif word == "failed":
                raise _error(json.loads(rest))

    def close(self) -> None:
        """End the children, politely first."""
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _next(self, look_again: bool) -> tuple[int, str | None]:
        """The next line of any child; "" after half a second if there may be a job to hand out meanwhile."""
        try:
            return self.lines.get(timeout=0.5 if look_again else None)
        except queue.Empty:
            return -1, ""

    def _give(self, child: int, job: Job) -> None:
        pipe = self.children[child].stdin
        assert pipe is not None
        try:
            pipe.write(job.line() + "\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise errors.EnvironmentFailure(self._dead(child, job.name)) from error

    def _listen(self, i: int, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                self.lines.put((i, line.rstrip("\n")))
        except ValueError:
            return  # closed by us
        self.lines.put((i, None))

    def _dead(self, child: int, name: str | None) -> str:
        code = self.children[child].wait()
        why = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
        return f"the process that trained {name or 'a model'} {why}; run the same command again to resume"


def _ready(job: Job) -> bool:
    needs = job.needs
    if needs is None:
        return True
    folder = _path(job)
    return main_states(folder, read_recipe(folder), needs[0]).path(needs[1]).is_file()


def _in_order(jobs: list[Job]) -> list[Job]:
    return sorted(jobs, key=lambda j: j.needs is not None)


def _path(job: Job) -> Path:
    return Path(job.folder)


def _error(said: dict[str, Any]) -> Exception:
    kind = getattr(errors, said["kind"], None)
    if kind is None:
        return RuntimeError(f"a training process failed:\n{said['message']}")
    return kind(said["message"])  # type: ignore[no-any-return]
