"""A worker process: reads jobs from stdin, a line of JSON each, trains them, and tells its parent on stdout.

    python -m pythia_tools.micro.worker     (started by `pythia_tools.micro.pool`, with one thread)

Lines out: `ready`, `step NAME N`, `done NAME`, `failed {"kind": …, "message": …}`. It ends with its stdin, and when its parent is
gone its next line fails, so no orphan goes on training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from pythia_tools.core import errors

EVERY_SECONDS = 0.25


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it and ends us
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the lines

    def say(line: str) -> None:
        try:
            print(line, file=out, flush=True)
        except (BrokenPipeError, ValueError):
            _leave()

    import torch
    import transformers  # noqa: F401 - loaded before the first job, so that its time is not the job's

    torch.set_num_threads(1)
    say("ready")
    for line in sys.stdin:
        _work(line, say)
    return 0


def _work(line: str, say: Callable[[str], None]) -> None:
    from pythia_tools.micro.jobs import Job, run_job

    job = Job(**json.loads(line))
    told = 0.0

    def on_step(step: int) -> None:
        nonlocal told
        if time.monotonic() - told > EVERY_SECONDS:
            told = time.monotonic()
            say(f"step {job.name} {step}")

    try:
        run_job(job, on_step)
    except errors.PythiaToolsError as error:
        say(f"failed {json.dumps({'kind': type(error).__name__, 'message': str(error)})}")
    except OSError as error:
        say(f"failed {json.dumps({'kind': 'EnvironmentFailure', 'message': f'{job.name}: {error}'})}")
    except Exception:
        say(f"failed {json.dumps({'kind': 'bug', 'message': traceback.format_exc()})}")
    else:
        say(f"done {job.name}")


def _leave() -> NoReturn:
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
