"""Where a stage's tasks run: in this process, or on Ray.

A task is a module's function with JSON-able arguments that reads and writes parts; it may run anywhere that sees the
same folder, in any order, and again. So a backend is a way to call functions, and scheduling is Ray's business.
On Ray: `ray start --head` (and `ray start --address=…` on further machines), then `--backend ray`; without a running
cluster one is started here for the run. Needs `pip install 'pythia-tools[ray]'`.
Measured on two cores: Ray costs 4 s to start and 590 MB; it pays from several machines on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

from pythia_tools.core import progress
from pythia_tools.core.errors import EnvironmentFailure, PythiaToolsError, unknown


class Backend(Protocol):
    """Runs `function(*task)` for every task and returns when all are done."""

    def __enter__(self) -> Backend: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], label: str) -> None: ...


def open_backend(name: str, workers: int | None = None) -> Backend:
    """`local` or `ray`. Raises UnknownNameError for another, EnvironmentFailure when Ray is not installed."""
    if name == "local":
        return LocalBackend()
    if name == "ray":
        return RayBackend(workers)
    raise unknown("backend", name, ["local", "ray"])


class LocalBackend:
    """One task after the other; the kernels inside use the processors."""

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        return None

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], label: str) -> None:
        for task in progress.track(tasks, label, unit="task"):
            function(*task)


class RayBackend:
    """Tasks as Ray tasks of one processor each; joins a running cluster (RAY_ADDRESS or a local one) or starts one here."""

    def __init__(self, workers: int | None = None):
        try:
            import ray
        except ImportError as error:
            raise EnvironmentFailure("backend 'ray' needs Ray; pip install 'pythia-tools[ray]', or use --backend local") from error
        self._ray, self._workers, self._ours = ray, workers, False

    def __enter__(self) -> RayBackend:
        if not self._ray.is_initialized():
            if os.environ.get("RAY_ADDRESS"):
                self._ray.init(logging_level=logging.ERROR, log_to_driver=False)
            else:
                self._ray.init(num_cpus=self._workers, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
            self._ours = True
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._ours:
            self._ray.shutdown()

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], label: str) -> None:
        remote = self._ray.remote(num_cpus=1, max_retries=2)(function)
        waiting = [remote.remote(*task) for task in tasks]
        with progress.bar(len(waiting), label, "task") as bar:
            while waiting:
                done, waiting = self._ray.wait(waiting, num_returns=1)
                try:
                    self._ray.get(done)
                except self._ray.exceptions.RayTaskError as error:
                    for left in waiting:
                        self._ray.cancel(left)
                    if isinstance(error.cause, PythiaToolsError):
                        raise error.cause from None
                    raise
                bar.update(len(done))
