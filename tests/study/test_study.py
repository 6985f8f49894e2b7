"""The study from end to end on a tiny suite: it agrees with the truth, resumes, repeats, refuses, and reports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from pythia_tools import analyses
from pythia_tools.analysis import Context
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.results import load_run
from pythia_tools.micro import load_truth
from pythia_tools.study import run_study
from pythia_tools.suites import load_suite

FOUR = ["--analyses", "memorization", "term-frequency", "bias", "losses"]


@pytest.fixture(scope="module")
def study(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "run"
    assert main(["study", str(tiny_suite), *FOUR, "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    return out


def test_every_analysis_is_a_finished_run_with_figures(study: Path) -> None:
    for name in ("memorization", "term-frequency", "bias", "losses"):
        run = load_run(study / name)
        assert len(run.items) > 0
        drawable = name != "bias" or run.summary.query("metric == 'log_odds'")["value"].notna().any()
        assert {p.suffix for p in run.figures} == ({".svg", ".png"} if drawable else set())
        assert len(run.record["weights"]) == run.items[["model", "step"]].drop_duplicates().shape[0]
        assert run.record["data"]
    page = (study / "report.html").read_text()
    assert page.count("<img") >= 8
    assert "pythia-tools study" in page


def test_figures_and_sentences_do_without_sizes(study: Path) -> None:
    for name in FOUR[1:]:
        run, analysis = load_run(study / name), analyses.get(name)
        items, summary = (t.assign(params=pd.array([pd.NA] * len(t), "Int64")) for t in (run.items, run.summary))
        told = [s.text for s in analysis.sentences(summary)]
        assert told and not re.search("largest|smallest", " ".join(told))
        drawn = [(figure.name, plt.close(figure.target.figure)) for figure in analysis.figures(items, summary)]
        assert drawn or name == "bias"


def test_exposures_counted_equal_exposures_planted(study: Path, tiny_suite: Path) -> None:
    truth = load_truth(tiny_suite)
    record = {r["table"]: r for r in load_run(study).record["truth"]}
    assert set(record) == {"canaries", "facts", "sums", "pronouns"}
    for name, row in record.items():
        assert row["items that differ"] == 0
        assert row["counted"] == row["planted"] == truth.planted[name]
    items = load_run(study / "memorization").items
    sequences = items[items["task"] == "canaries"]
    for step, part in sequences.groupby("step"):
        one = part.drop_duplicates("row").sort_values("row")
        assert (one["exposures"].to_numpy() == truth.exposures("canaries", int(step))).all()


def test_the_same_cells_give_the_same_tables_and_nothing_is_computed_twice(
    study: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "again"
    shutil.copytree(study, copy)
    for gone in ("run.json", "summary.csv", "report.html", "bias/run.json", "memorization/items.parquet"):
        (copy / gone).unlink()
    before = {p.name: p.stat().st_mtime_ns for p in (copy / "cells").iterdir()}
    assert main(["study", str(tiny_suite), *FOUR, "--out", str(copy), "--quiet", "--device", "cpu"]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (copy / "cells").iterdir()} == before
    pd.testing.assert_frame_equal(load_run(copy).summary, load_run(study).summary)
    pd.testing.assert_frame_equal(load_run(copy).items, load_run(study).items)


def test_killed_at_any_point_it_resumes_with_the_same_tables(study: Path, tiny_suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [
        sys.executable, "-m", "pythia_tools", "study", str(tiny_suite), *FOUR, "--out", str(out), "--quiet", "--device",
        "cpu"
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and len(list((out / "cells").glob("*.parquet"))) < 12:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "run.json").exists()
    assert main(command[3:]) == 0
    pd.testing.assert_frame_equal(load_run(out).summary, load_run(study).summary)


def test_rerun_repeats_from_the_record(study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["rerun", str(study), "--out", str(tmp_path / "rerun"), "--json", "--quiet", "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["same"]
    assert report["weights_same"]
    assert report["rows"] == len(load_run(study).summary)


def test_summaries_have_one_row_per_number(study: Path) -> None:
    summary = load_run(study).summary
    assert not summary.duplicated(tables.KEYS).any()
    assert summary["metric"].nunique() > 10
    bounded = summary.dropna(subset=["value", "low", "high"])
    assert (bounded["low"] <= bounded["high"] + 1e-12).all()


def test_another_config_is_refused_and_loses_nothing(
    study: Path, tiny_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (study / "summary.csv").read_bytes()
    assert main(["study", str(tiny_suite), *FOUR, "--out", str(study), "--models", "xs"]) == 2
    assert "another config" in capsys.readouterr().err
    assert (study / "summary.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("extra", "says"),
    [(["--models", "xl"], "unknown model"), (["--steps", "0,700"], "step 700 lies outside"),
     (["--analyses", "memorisation"], "invalid choice: 'memorisation'")],
)
def test_wrong_requests_are_one_line(
    tiny_suite: Path, tmp_path: Path, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["study", str(tiny_suite), "--out", str(tmp_path / "x"), "--quiet", *extra])
    err = capsys.readouterr().err
    assert code == 2
    assert says in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize("victim", ["xs/step32/model.safetensors", "data/train.bin", "truth/canaries.parquet"])
def test_damaged_files_are_one_line_and_exit_3(
    tiny_suite: Path, tmp_path: Path, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "suite"
    shutil.copytree(tiny_suite, copy)
    path = copy / victim
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["study", str(copy), *FOUR, "--out", str(tmp_path / "out"), "--quiet", "--device", "cpu"]) == 3
    err = capsys.readouterr().err
    assert err.strip().count("\n") == 0
    assert Path(victim).name.split(".")[0] in err
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize(("suite", "says"), [("no-such-suite", "unknown suite"), ("/no/such/folder", "no such")])
def test_unknown_suites_are_one_line(suite: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", suite, "--out", str(tmp_path / "x")]) == 2
    err = capsys.readouterr().err
    assert says in err and err.strip().count("\n") == 0 and not (tmp_path / "x").exists()


def test_a_study_through_the_api_needs_an_analysis(tiny_suite: Path, tmp_path: Path) -> None:
    suite = load_suite(tiny_suite)
    context = Context(suite.checkpoints(), suite=suite)
    with pytest.raises(LookupError, match="unknown analysis 'memorisation'; did you mean 'memorization'"):
        run_study(context, tmp_path / "x", ["memorisation"])


def test_a_suite_without_an_order_leaves_out_what_needs_one(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bare checkpoints: every analysis that cannot be made is named, with its reason; what can be made is."""
    folder = tmp_path / "bare"
    shutil.copytree(next(p.parent.parent for p in sorted(tiny_suite.rglob("model.safetensors"))), folder / "xs")
    assert main(["study", str(folder), "--steps", "last", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "memorization is left out: bare names no data order" in err and "losses is left out" in err
    assert (tmp_path / "out" / "bias" / "run.json").exists()
    named = ["study", str(folder), "--analyses", "losses", "--out", str(tmp_path / "named")]
    assert main(named) == 2 and not (tmp_path / "named").exists()
