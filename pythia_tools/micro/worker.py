"""A worker process: reads names of runs from stdin, one a line, trains them, and tells its parent on stdout.

    python -m pythia_tools.micro.worker FOLDER     (started by `pythia_tools.micro.pool`, with one thread)

Lines out: `step N`, `done`, `failed {"kind": …, "message": …}`. It ends with its stdin; when its parent is gone its
next line fails, so no orphan goes on training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from pythia_tools.core.errors import PythiaToolsError
from pythia_tools.micro.suite_runs import suite_runs, train_suite_run

EVERY_SECONDS = 0.25


class Parent:
    """The process that reads our lines."""

    def __init__(self) -> None:
        self._told = 0.0
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the lines

    def say(self, line: str) -> None:
        try:
            print(line, file=self._out, flush=True)
        except BrokenPipeError:
            os._exit(1)

    def step(self, step: int) -> None:
        if time.monotonic() - self._told > EVERY_SECONDS:
            self._told = time.monotonic()
            self.say(f"step {step}")

    def failed(self, kind: str, message: str) -> None:
        self.say(f"failed {json.dumps({'kind': kind, 'message': message})}")


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it and ends us
    parent = Parent()
    runs = {run.name: run for run in suite_runs(Path(sys.argv[1]))}
    for line in sys.stdin:
        name = line.strip()
        try:
            train_suite_run(runs[name], parent.step)
            parent.say("done")
        except PythiaToolsError as error:
            parent.failed(type(error).__name__, str(error))
        except OSError as error:
            parent.failed("EnvironmentFailure", f"{name}: {error}")
        except Exception:  # a bug: the parent raises it with this traceback
            parent.failed("bug", traceback.format_exc())
    return 0


if __name__ == "__main__":
    sys.exit(main())
