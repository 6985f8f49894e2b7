"""Worker processes: each has its share, failures arrive as the errors they were, no child outlives the training.
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
for name in sys.argv[2:]:
    {body}
    print(name + " 40\\n", end="", flush=True)
"""
TRAINS = """
    with open(folder / "log", "a") as log:
        log.write(name + "\\n")
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


def test_the_longest_comes_first_and_every_model_is_one_process_s(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = suite_runs(suite)
    assert [r.name for r in runs] == ["xs", "xxs", "xxs-swap", "xs-swap"]
    assert [child.args[-1] for child in train_with(monkeypatch, TRAINS, runs)] == ["xs", "xxs"]
    assert sorted((suite / "log").read_text().split()) == ["xs", "xxs"]
    (alone,) = train_with(monkeypatch, TRAINS, runs, workers=1)
    assert alone.args[-2:] == ["xs", "xxs"]


def test_an_error_in_a_child_is_raised_here(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "print('failed DataError train.bin: damaged', flush=True)"
    with pytest.raises(errors.DataError, match=r"train\.bin: damaged"):
        train_with(monkeypatch, said, suite_runs(suite))
    with pytest.raises(RuntimeError, match="trained xs ended with code 1"):
        train_with(monkeypatch, "1 / 0", suite_runs(suite))


def test_a_child_that_is_killed_is_one_clear_line(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.EnvironmentFailure, match=r"trained xs, xxs was killed by signal 9.*resume"):
        train_with(monkeypatch, "import os; os.kill(os.getpid(), 9)", suite_runs(suite), workers=1)


def test_the_bar_ends_at_the_whole(suite: Path) -> None:
    runs = suite_runs(suite)
    meter = pool.Meter(runs)
    for run in runs:
        for step in (run.first, 41, 41, 60):
            meter.at(run.name, step)
    assert meter.bar.n == pytest.approx(meter.bar.total)
    meter.bar.close()
