"""Worker processes: jobs wait for what they need, failures arrive as the errors they were, no child outlives its pool.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pythia_tools.core import errors
from pythia_tools.micro import pool
from pythia_tools.micro.loop import Run
from pythia_tools.micro.recipe import tiny_recipe
from pythia_tools.micro.suite_runs import suite_runs, write_recipe

CHILD = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
for line in sys.stdin:
    name = line.strip()
    {body}
    print("done", flush=True)
"""
TRAINS = """
    states = folder / "states" / name
    states.mkdir(parents=True)
    base = name.removesuffix("-swap")
    there = base == name or (states.parent / base / "step40.safetensors").exists()
    with open(folder / "log", "a") as log:
        log.write(name + (" ok" if there else " early") + "\\n")
    print("step", 40, flush=True)
    (states / "step40.safetensors").write_bytes(b"")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_recipe(tmp_path, tiny_recipe())
    return tmp_path


def train_with(
    monkeypatch: pytest.MonkeyPatch, body: str, runs: list[Run], workers: int = 2
) -> list[subprocess.Popen[str]]:
    """Train the runs with children that do `body`; returns the children."""
    children: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def started(*args: object, **options: object) -> subprocess.Popen[str]:
        children.append(real(*args, **options))  # type: ignore[call-overload]
        return children[-1]

    monkeypatch.setattr(pool, "WORKER", (sys.executable, "-c", CHILD.replace("{body}", body.strip())))
    monkeypatch.setattr(pool.subprocess, "Popen", started)
    try:
        pool.train_all(runs, workers)
    finally:
        assert children and all(c.poll() is not None for c in children), "every child has ended"
    return children


def test_the_longest_comes_first_and_its_branch_last_and_branches_wait_for_their_state(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = suite_runs(suite)
    assert [r.name for r in runs] == ["xs", "xxs", "xxs-swap", "xs-swap"]
    train_with(monkeypatch, TRAINS, runs)
    log = (suite / "log").read_text().split("\n")[:-1]
    assert sorted(log) == ["xs ok", "xs-swap ok", "xxs ok", "xxs-swap ok"]


def test_an_error_in_a_child_is_raised_here(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = """print('failed {"kind": "DataError", "message": "train.bin: damaged"}', flush=True)"""
    with pytest.raises(errors.DataError, match=r"train\.bin: damaged"):
        train_with(monkeypatch, said, suite_runs(suite))
    bug = """print('failed {"kind": "bug", "message": "Traceback ..."}', flush=True)"""
    with pytest.raises(RuntimeError, match="Traceback"):
        train_with(monkeypatch, bug, suite_runs(suite))


def test_a_child_that_is_killed_is_one_clear_line(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.EnvironmentFailure, match=r"trained xs was killed by signal 9.*resume"):
        train_with(monkeypatch, "import os; os.kill(os.getpid(), 9)", suite_runs(suite), workers=1)


def test_the_bar_ends_at_the_whole(suite: Path) -> None:
    runs = suite_runs(suite)
    meter = pool.Meter(runs)
    for run in runs:
        for step in (run.first, 41, 41, 60):
            meter.at(run, step)
    assert meter.bar.n == pytest.approx(meter.bar.total)
    meter.bar.close()
