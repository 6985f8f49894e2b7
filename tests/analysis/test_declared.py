"""A declaration of forty lines from outside gets every door: command, plan, shards, merge, rerun, study, report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import local_tasks
import pandas as pd
import pytest
import torch
from weight_norms import NormTask, WeightNorms

from pythia_tools import analyses
from pythia_tools.analysis import Analysis, Context, Options, measure, option, prepare
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import from_mapping
from pythia_tools.core.results import load_run
from pythia_tools.models import load
from pythia_tools.suites import load_suite

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _registered():
    analyses.register(WeightNorms)
    yield
    analyses._registered.pop("weight-norms", None)


@pytest.fixture(scope="module")
def whole(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("norms") / "whole"
    analyses.register(WeightNorms)
    assert main(["weight-norms", str(tiny_suite), "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    return out


def test_the_command_has_help_with_its_flags_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["weight-norms", "--help"])
    shown = capsys.readouterr().out
    assert done.value.code == 0
    assert "--matrices" in shown and "glob over tensor names (default *)" in shown
    assert "pythia-tools weight-norms pythia-micro" in shown and "--shard" in shown
    assert main([]) == 0
    assert "weight-norms" in capsys.readouterr().out


def test_the_numbers_are_those_of_the_weights(whole: Path, tiny_suite: Path) -> None:
    run = load_run(whole)
    suite = load_suite(tiny_suite)
    model = next(iter(suite.models))
    step = suite.steps(model)[-1]
    module = load(suite.checkpoint(model, step), device="cpu")
    items = run.items[(run.items["model"] == model) & (run.items["step"] == step)].set_index("tensor")["norm"]
    expected = {n: float(torch.linalg.norm(p.detach().double())) for n, p in module.named_parameters() if p.ndim == 2}
    assert items.to_dict() == pytest.approx(expected, rel=1e-5)
    assert run.record["analysis"] == "weight-norms" and run.record["version"] == 1
    assert run.record["method"] == "The Frobenius norm of every matrix that matches *."
    (sentence,) = run.record["sentences"]
    read = run.summary.iloc[sentence["rows"]]
    assert f"{read['value'].iloc[0]:.3f}" in sentence["text"]
    assert (run.summary["metric_unit"] == "1").all() and (run.summary["analysis"] == "weight-norms").all()


def test_the_plan_counts_cells_and_computes_nothing(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "planned"
    assert main(["weight-norms", str(tiny_suite), "--out", str(out), "--dry-run", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cells"] == len(load_suite(tiny_suite).checkpoints()) and found["download_bytes"] == 0
    assert not out.exists()


def test_shards_merge_to_the_whole(whole: Path, tiny_suite: Path, tmp_path: Path) -> None:
    for i in range(2):
        out = str(tmp_path / f"shard{i}")
        command = ["weight-norms", str(tiny_suite), "--out", out, "--shard", f"{i}/2", "--quiet", "--device", "cpu"]
        assert main(command) == 0
    merged = tmp_path / "merged"
    assert main(["merge", str(tmp_path / "shard0"), str(tmp_path / "shard1"), "--out", str(merged), "--quiet"]) == 0
    pd.testing.assert_frame_equal(load_run(merged).items, load_run(whole).items)
    pd.testing.assert_frame_equal(load_run(merged).summary, load_run(whole).summary)
    assert load_run(merged).record["cells"]["computed"] == 0


@pytest.mark.parametrize("name", sorted(analyses.BUILT_IN))
def test_shards_and_rerun_of_every_analysis_give_the_whole(name: str, tiny_suite: Path, tmp_path: Path) -> None:
    command = [name, str(tiny_suite), "--steps", "first,last", "--quiet", "--device", "cpu", *_needed(name, tmp_path)]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    whole = load_run(tmp_path / "whole")
    shards = [str(tmp_path / f"shard{i}") for i in range(3)]
    for i, out in enumerate(shards):
        assert main([*command, "--out", out, "--shard", f"{i}/3"]) == 0
    assert main(["merge", *shards, "--out", str(tmp_path / "merged"), "--quiet"]) == 0
    merged = load_run(tmp_path / "merged")
    pd.testing.assert_frame_equal(merged.items, whole.items)
    pd.testing.assert_frame_equal(merged.summary, whole.summary)
    assert merged.record["sentences"] == whole.record["sentences"]
    assert main(["rerun", str(tmp_path / "whole"), "--out", str(tmp_path / "again"), "--quiet", "--device", "cpu"]) == 0


def _needed(name: str, folder: Path) -> list[str]:
    """Options without which an analysis asks nothing."""
    if name != "evaluate":
        return []
    pytest.importorskip("lm_eval")
    return ["--tasks", "piqa", "lambada_openai", "--include-path", str(local_tasks.write(folder / "tasks"))]


def test_rerun_repeats_it(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", str(whole), "--out", str(tmp_path / "again"), "--json", "--quiet", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["same"]


def test_killed_it_resumes_with_the_same_tables(whole: Path, tiny_suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import weight_norms; from pythia_tools import analyses\n"
        "from pythia_tools.cli.main import main; analyses.register(weight_norms.WeightNorms)\n"
        "run = weight_norms.NormTask.run\n"
        "weight_norms.NormTask.run = lambda *a: (time.sleep(0.2), run(*a))[1]\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    command = ["weight-norms", str(tiny_suite), "--out", str(out), "--quiet", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(HERE), *command], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and len(list((out / "cells").glob("*.parquet"))) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "run.json").exists()
    assert main(command) == 0
    resumed = load_run(out)
    assert resumed.record["cells"]["reused"] >= 3
    pd.testing.assert_frame_equal(resumed.summary, load_run(whole).summary)


def test_it_is_a_section_of_the_study_and_of_the_report(tiny_suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = ["study", str(tiny_suite), "--analyses", "weight-norms", "losses", "--steps", "last", "--out", str(out)]
    assert main([*command, "--quiet", "--device", "cpu"]) == 0
    page = (out / "report.html").read_text()
    assert "Norm of every weight matrix over training" in page and "The mean norm ends at" in page
    assert "Mean norm over training." in page
    assert load_run(out / "weight-norms").config["arguments"]["matrices"] == "*"
    alone = tmp_path / "alone.html"
    assert main(["report", str(out / "weight-norms"), "--out", str(alone)]) == 0
    assert "The mean norm ends at" in alone.read_text()


def test_a_study_in_shards_merges_to_the_whole_and_is_rerun(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", str(tiny_suite), "--analyses", "weight-norms", "--steps", "last", "--quiet", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    for i in range(2):
        assert main([*command, "--out", str(tmp_path / f"shard{i}"), "--shard", f"{i}/2"]) == 0
    shards = [str(tmp_path / f"shard{i}") for i in range(2)]
    assert main(["merge", *shards, "--out", str(tmp_path / "merged"), "--quiet"]) == 0
    pd.testing.assert_frame_equal(load_run(tmp_path / "merged").summary, load_run(tmp_path / "whole").summary)
    for run in (tmp_path / "whole", tmp_path / "whole" / "weight-norms"):
        capsys.readouterr()
        assert main(["rerun", str(run), "--out", str(tmp_path / f"{run.name}-again"), "--json", "--quiet"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["same"]


def test_merge_refuses_by_name_what_is_missing_or_foreign(
    whole: Path, tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, matrices in (("a", "*mlp*"), ("b", "*attention*")):
        command = ["weight-norms", str(tiny_suite), "--steps", "last", "--matrices", matrices, "--device", "cpu"]
        shard = "0/2" if name == "a" else "1/2"
        assert main([*command, "--shard", shard, "--out", str(tmp_path / name), "--quiet"]) == 0
    for runs, code, says in (
        (["a"], 2, "shards 1/2 are missing; give all 2 folders"), (["a", "b"], 2, "no shard of the run of"),
        ([str(whole)], 2, "is not a shard"), (["none"], 2, "is not a run's folder"),
    ):
        assert main(["merge", *(str(tmp_path / r) for r in runs), "--out", str(tmp_path / "m"), "--quiet"]) == code
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_run_without_an_option_that_came_later_is_rerun_with_its_default(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "old")
    record = json.loads((tmp_path / "old" / "run.json").read_text())
    del record["config"]["arguments"]["matrices"], record["config"]["arguments"]["tokenizer"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    assert main(["rerun", str(tmp_path / "old"), "--json", "--quiet", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["same"]


def test_python_measures_it_with_the_same_options(tiny_suite: Path) -> None:
    checkpoints = load_suite(tiny_suite).checkpoints(steps="last")
    items = measure(WeightNorms(), checkpoints, matrices="*mlp*", device="cpu")
    assert items["tensor"].str.contains("mlp").all() and len(items)
    with pytest.raises(RequestError, match="unknown option of weight-norms 'matrixes'; did you mean 'matrices'"):
        measure(WeightNorms(), checkpoints, matrixes="*")


def test_a_newer_version_of_a_task_reuses_no_cell(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "weight-norms", str(tiny_suite), "--steps", "last", "--quiet", "--device", "cpu", "--out", str(tmp_path / "r")
    ]
    assert main(command) == 0
    monkeypatch.setattr(NormTask, "version", 2)
    (tmp_path / "r" / "run.json").unlink()
    assert main(command) == 0
    assert load_run(tmp_path / "r").record["cells"]["reused"] == 0


def test_wrong_options_are_one_line_and_leave_nothing(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    assert main(["losses", str(tiny_suite), "--rows", "0", "--out", str(out)]) == 2
    assert "at least 1" in capsys.readouterr().err and not out.exists()
    assert main(["losses", str(tiny_suite), "--rows", "many", "--out", str(out)]) == 2
    assert "invalid int value: 'many'" in capsys.readouterr().err and not out.exists()


def test_options_are_checked_by_type_choice_and_minimum() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Several(Options):
        names: tuple[str, ...] = option(("a",), "names", choices=("a", "b"))
        share: float | None = option(None, "a share")
        fast: bool = option(False, "a switch")

    assert from_mapping(Several, {"names": ["b", "a"], "share": 1, "other": 3}) == Several(("b", "a"), 1.0, False)
    for wrong in ({"names": "a"}, {"names": ["c"]}, {"fast": 1}, {"share": "x"}):
        with pytest.raises(RequestError):
            from_mapping(Several, wrong)
    with pytest.raises(RequestError, match="--names: 'z' is not known; allowed: a, b"):
        from_mapping(Several, {"names": ("z",)})


def test_a_number_named_twice_or_undeclared_is_the_analysis_fault(tiny_suite: Path) -> None:
    from pythia_tools.analysis.perform import checked

    row = {"suite": "s", "model": "m", "step": 1, "metric": "mean_norm", "value": 1.0}
    with pytest.raises(AssertionError, match="two numbers are called"):
        checked(WeightNorms(), tables.summary([row, row]))
    with pytest.raises(KeyError):
        checked(WeightNorms(), tables.summary([{**row, "metric": "norm"}]))


def test_names_are_taken_once() -> None:
    class Again(WeightNorms):
        """Another analysis of the same name."""

    with pytest.raises(RequestError, match="exists already"):
        analyses.register(Again)
    with pytest.raises(RequestError, match="unknown analysis 'weight-nroms'; did you mean 'weight-norms'"):
        analyses.get("weight-nroms")


def test_every_built_in_analysis_documents_itself() -> None:
    for name in analyses.BUILT_IN:
        analysis = analyses.get(name)
        assert isinstance(analysis, Analysis) and analysis.name == name and analysis.version >= 1
        assert analysis.metrics and analysis.columns and analysis.methods
        assert "pythia-tools" in analysis.examples()
        assert analysis.method_text(analysis.Options())


def test_a_context_without_an_order_or_tokenizer_says_what_to_do(tmp_path: Path, tiny_suite: Path) -> None:
    checkpoints = load_suite(tiny_suite).checkpoints(steps="last")
    alone = Context([replace(c, model=replace(c.model, order=None, tokenizer=None)) for c in checkpoints])
    with pytest.raises(RequestError, match="names no data order; give one with --order"):
        prepare(analyses.get("losses"), alone)
    assert len(alone.tokenizer)  # the tokenizer files beside the first checkpoint
