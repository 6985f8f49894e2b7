"""The scripts as a user runs them, on a suite of two sizes trained in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import micro
from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run

SCRIPTS = Path(__file__).parents[2] / "scripts"


def _run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    return int(done.value.code or 0)


def test_effects_of_a_folder(tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = sorted(p.name for p in tiny_suite.iterdir() if (p / "step0").is_dir())[:1]
    common = ["memorization-effects", str(tiny_suite), "--device", "cpu", "--models", *models, "--per-cohort", "4"]
    assert main([*common, "--controls", "8", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "rows drawn share at most" in said and "there are no causal profiles and no membership test" in said
    run = load_run(tmp_path / "run")
    assert set(run.summary["metric"]) == {"nll_after_exposure"} and (run.summary["unit"] == "row").all()
    assert any(p.name == "forgetting.png" for p in run.figures) and run.items["zlib_bytes"].min() > 0
    shards = [str(tmp_path / f"shard{i}") for i in range(2)]
    for i, folder in enumerate(shards):
        assert main([*common, "--controls", "8", "--out", folder, "--shard", f"{i}/2", "--quiet"]) == 0
    assert main(["merge", *shards, "--out", str(tmp_path / "joined"), "--quiet"]) == 0
    pd.testing.assert_frame_equal(load_run(tmp_path / "joined").summary, run.summary)
    assert main([*common, "--steps", "last", "--out", str(tmp_path / "one"), "--quiet"]) == 2


def test_counterfactual_runs(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = micro.recipe_of(tiny_suite).models[0].name
    options = [
        "--suite", str(tiny_suite), "--model", model, "--runs", "2", "--out", str(tmp_path / "runs"), "--device", "cpu",
        "--quiet"
    ]
    assert _run(monkeypatch, "counterfactual_study.py", *options) == 0
    found = pd.read_parquet(tmp_path / "runs" / "counterfactual.parquet")
    canaries = micro.load_truth(tiny_suite).canaries
    assert found["canary"].tolist() == canaries.loc[canaries["copies"] > 0, "canary"].tolist()
    assert (found["runs_with"] + found["runs_without"] == 2).all()
    split = found["runs_with"] == 1
    assert np.isfinite(found.loc[split, "memorization"]).all() and found.loc[~split, "memorization"].isna().all()
    assert "copies" in capsys.readouterr().out
