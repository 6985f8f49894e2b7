"""Worker processes: jobs wait for what they need, failures arrive as the errors they were, no child outlives its pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pythia_tools.core import errors
from pythia_tools.micro import pool
from pythia_tools.micro.jobs import Job, suite_jobs, write_recipe
from pythia_tools.micro.recipe import tiny_recipe

CHILD = """
import json, pathlib, sys
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    {body}
    print("done", job["name"], flush=True)
"""
TRAINS = """
    states = pathlib.Path(job["folder"]) / "states" / job["name"]
    states.mkdir(parents=True)
    there = not job["swap"] or (states.parent / job["model"] / "step40.safetensors").exists()
    with open(pathlib.Path(job["folder"]) / "log", "a") as log:
        log.write(job["name"] + (" ok" if there else " early") + "\\n")
    print("step", job["name"], 40, flush=True)
    (states / "step40.safetensors").write_bytes(b"")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_recipe(tmp_path, tiny_recipe())
    return tmp_path


def run_with(monkeypatch: pytest.MonkeyPatch, body: str, jobs: list[Job], workers: int = 2) -> list[subprocess.Popen[str]]:
    """Run the jobs with children that do `body`; returns the children."""
    children: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def started(*args: object, **options: object) -> subprocess.Popen[str]:
        children.append(real(*args, **options))  # type: ignore[call-overload]
        return children[-1]

    monkeypatch.setattr(pool, "WORKER", (sys.executable, "-c", CHILD.replace("{body}", body.strip())))
    monkeypatch.setattr(pool.subprocess, "Popen", started)
    try:
        pool.run_jobs(jobs, workers)
    finally:
        assert children and all(c.poll() is not None for c in children), "every child has ended"
    return children


def test_the_longest_comes_first_and_branches_wait_for_their_state(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = suite_jobs(suite, tiny_recipe())
    assert [j.name for j in jobs] == ["xs", "xxs", "xs-swap", "xxs-swap"]
    run_with(monkeypatch, TRAINS, jobs)
    log = (suite / "log").read_text().split("\n")[:-1]
    assert sorted(log) == ["xs ok", "xs-swap ok", "xxs ok", "xxs-swap ok"]


def test_an_error_in_a_child_is_raised_here(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = """print('failed {"kind": "DataError", "message": "train.bin: damaged"}', flush=True)"""
    with pytest.raises(errors.DataError, match=r"train\.bin: damaged"):
        run_with(monkeypatch, said, suite_jobs(suite, tiny_recipe()))
    bug = """print('failed {"kind": "bug", "message": "Traceback ..."}', flush=True)"""
    with pytest.raises(RuntimeError, match="Traceback"):
        run_with(monkeypatch, bug, suite_jobs(suite, tiny_recipe()))


def test_a_child_that_is_killed_is_one_clear_line(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.EnvironmentFailure, match=r"trained xs was killed by signal 9.*resume"):
        run_with(monkeypatch, "import os; os.kill(os.getpid(), 9)", suite_jobs(suite, tiny_recipe()), workers=1)


def test_the_bar_ends_at_the_whole(suite: Path) -> None:
    jobs = suite_jobs(suite, tiny_recipe())
    meter = pool.Meter(jobs)
    with meter:
        for job in jobs:
            for step in (0, 41, 41, 60):
                meter.at(job.name, step)
        assert meter.share == pytest.approx(100)
