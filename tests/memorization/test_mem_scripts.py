"""The scripts as a user runs them, on a suite of two sizes trained in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import micro
from pythia_tools.core.results import load_run

SCRIPTS = Path(__file__).parents[2] / "scripts"


def _run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    return int(done.value.code or 0)


def test_the_study_of_a_folder(tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = sorted(p.name for p in tiny_suite.iterdir() if (p / "step0").is_dir())[:1]
    out = str(tmp_path / "run")
    options = ["--rows", "96", "--block", "16", "--per-cohort", "4", "--controls", "8", "--context", "16", "--continuation", "16"]
    options += ["--out", out, "--quiet", "--device", "cpu", "--models", *models]
    assert _run(monkeypatch, "memorization_study.py", str(tiny_suite), *options) == 0
    run = load_run(out)
    assert {"memorized_share", "nll_after_exposure"} <= set(run.summary["metric"]) and run.record["notes"]
    assert any(p.name == "memorization.png" for p in run.figures)
    assert _run(monkeypatch, "memorization_study.py", str(tiny_suite), "--steps", "last", "--out", str(tmp_path / "one"), "--quiet") == 2


def test_counterfactual_runs(tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = micro.recipe_of(tiny_suite).models[0].name
    options = ["--suite", str(tiny_suite), "--model", model, "--runs", "2", "--out", str(tmp_path / "runs"), "--device", "cpu", "--quiet"]
    assert _run(monkeypatch, "counterfactual_study.py", *options) == 0
    found = pd.read_parquet(tmp_path / "runs" / "counterfactual.parquet")
    canaries = micro.load_truth(tiny_suite).canaries
    assert found["canary"].tolist() == canaries.loc[canaries["copies"] > 0, "canary"].tolist()
    assert (found["runs_with"] + found["runs_without"] == 2).all()
    split = found["runs_with"] == 1
    assert np.isfinite(found.loc[split, "memorization"]).all() and found.loc[~split, "memorization"].isna().all()
    assert "copies" in capsys.readouterr().out
