"""Where a stage's tasks run: in this process, or on Ray.

A task is a module's function with plain arguments that reads and writes parts; it may run anywhere that sees the same
folder, in any order, and again. So a backend is a way to call functions, and scheduling is Ray's business.
On Ray: `ray start --head` (and `ray start --address=…` on further machines), then `--backend ray`; without a running
cluster one is started here for the run. Needs `pip install 'pythia-tools[ray]'`.
Measured on two cores: Ray costs 4 s to start and 590 MB; it pays from several machines on.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

from pythia_tools.core import progress
from pythia_tools.core.errors import EnvironmentFailure, PythiaToolsError, unknown

Runner: TypeAlias = Callable[[Callable[..., None], Sequence[tuple[Any, ...]], str], None]
"""`run(function, tasks, label)` calls `function(*task)` for every task and returns when all are done."""


@contextlib.contextmanager
def open_backend(name: str, workers: int | None = None) -> Iterator[Runner]:
    """`local`: one task after the other, the kernels inside use the cores. `ray`: tasks of one core each, on a running
    cluster (RAY_ADDRESS or a local one) or one of `workers` cores that is started here.

    Raises: UnknownNameError for another name, EnvironmentFailure when Ray is not installed.
    """
    if name == "local":
        yield _run_here
        return
    if name != "ray":
        raise unknown("backend", name, ["local", "ray"])
    try:
        import ray
    except ImportError as error:
        advice = "pip install 'pythia-tools[ray]', or use --backend local"
        raise EnvironmentFailure(f"backend 'ray' needs Ray; {advice}") from error
    ours = not ray.is_initialized()
    if ours:
        new = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **new)
    try:
        yield partial(_run_on_ray, ray)
    finally:
        if ours:
            ray.shutdown()


def _run_here(function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], label: str) -> None:
    for task in progress.track(tasks, label, unit="task"):
        function(*task)


def _run_on_ray(ray: Any, function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], label: str) -> None:
    remote = ray.remote(num_cpus=1, max_retries=2)(function)
    waiting = [remote.remote(*task) for task in tasks]
    with progress.bar(len(waiting), label, "task") as bar:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                for left in waiting:
                    ray.cancel(left)
                if isinstance(error.cause, PythiaToolsError):
                    raise error.cause from None
                raise
            bar.update(len(done))
