"""The command as a user types it, against numbers that lm-eval itself produced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from verified import STEPS, TASKS, by_lm_eval

import pythia_tools as pt
from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run
from pythia_tools.verification.columns import NEIGHBOUR, NUMBER


@pytest.fixture(scope="module")
def command(tiny_suite: Path, local: Path) -> list[str]:
    return ["verify", str(tiny_suite), "--models", "xs", "--steps", ",".join(map(str, STEPS)), "--include-path",
            str(local), "--device", "cpu", "--quiet", "--tasks", *TASKS]


@pytest.fixture(scope="module")
def clean(command: list[str], published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "clean"
    assert main([*command, "--against", str(published), "--out", str(out)]) == 0
    return out


def test_a_clean_run_is_equal_to_rounding_in_every_number(clean: Path) -> None:
    run = load_run(clean)
    assert run.record["verdict"] == "equal" and (run.items["verdict"] == "equal").all()
    assert list(run.items.columns) == [*pt.tables.IDENTITY, *NUMBER]
    assert set(run.items["task"]) == set(TASKS) and set(run.items["step"]) == set(STEPS)
    assert set(run.items["metric"]) >= {"acc", "acc_norm", "perplexity", "likelihood_diff", "pct_stereotype",
                                        "word_perplexity", "bits_per_byte"}
    assert (run.items["basis"] != "none").all() and run.items["cause"].isna().all()
    told = [s["text"] for s in run.record["sentences"]]
    assert told[0] == f"Of {len(run.items)} published numbers, {len(run.items)} are equal to rounding, 0 within the " \
                      "noise of number formats, and 0 outside."
    counts = run.summary[run.summary["metric"] == "numbers_equal"]
    assert counts.loc[counts["task"] == "all tasks", "value"].sum() == len(run.items)
    assert (run.summary.loc[run.summary["metric"] == "format_difference", "value"] >= 0).all()
    assert {"differences.png", "differences.svg"} == {f.name for f in run.figures}


def test_two_checkpoints_swapped_are_outside_and_the_right_neighbours_are_named(
    tiny_suite: Path, command: list[str], published: Path, tmp_path: Path
) -> None:
    suite = tmp_path / tiny_suite.name
    shutil.copytree(tiny_suite, suite)
    first, second = suite / "xs" / f"step{STEPS[0]}", suite / "xs" / f"step{STEPS[2]}"
    first.rename(suite / "aside")
    second.rename(first)
    (suite / "aside").rename(second)
    swapped = [str(suite) if word == str(tiny_suite) else word for word in command]
    assert main([*swapped, "--against", str(published), "--out", str(tmp_path / "out")]) == 1
    run = load_run(tmp_path / "out")
    by_step = run.items.groupby("step")["verdict"].agg(lambda v: (v == "outside").any())
    assert by_step.to_dict() == {STEPS[0]: True, STEPS[1]: False, STEPS[2]: True}
    for here, there in ((STEPS[0], STEPS[2]), (STEPS[2], STEPS[0])):
        wrong = run.items[(run.items["step"] == here) & (run.items["verdict"] == "outside")]
        assert set(wrong["cause"]) == {"other checkpoint"}
        assert set(wrong["detail"]) == {f"the numbers are those of xs step {there}"}
        assert any(f"at step {here}:" in s["text"] and f"are those of xs step {there}" in s["text"]
                   and f"were the numbers of xs step {there} of this run" in s["text"]
                   for s in run.record["sentences"])
    fits = pd.read_csv(tmp_path / "out" / "neighbours.csv")
    assert list(fits.columns) == [*pt.tables.IDENTITY, *NEIGHBOUR]
    best = fits[~fits["claimed"] & (fits["outside"] == 0)]
    assert set(zip(best["side"], best["step"], best["other_step"], strict=True)) == {
        (side, *pair) for side in ("published", "run") for pair in ((STEPS[0], STEPS[2]), (STEPS[2], STEPS[0]))}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_number_format_is_within_item_noise(
    dtype: str, tiny_suite: Path, local: Path, command: list[str], tmp_path: Path
) -> None:
    folder = tiny_suite / "xs" / f"step{STEPS[-1]}"
    by_lm_eval(folder, tiny_suite / "tokenizer", local, tmp_path / "p", dtype)
    more = ["--against", str(tmp_path / "p"), "--other-dtype", dtype, "--out", str(tmp_path / "out")]
    assert main([*command, *more]) == 0
    run = load_run(tmp_path / "out")
    assert run.record["verdict"] == "within noise"
    assert set(run.items["verdict"]) == {"equal", "within noise"}


def test_the_same_weights_under_two_names_are_the_cause(
    tiny_suite: Path, command: list[str], published: Path, tmp_path: Path
) -> None:
    suite = tmp_path / tiny_suite.name
    shutil.copytree(tiny_suite, suite)
    shutil.rmtree(suite / "xs" / f"step{STEPS[0]}")
    shutil.copytree(suite / "xs" / f"step{STEPS[2]}", suite / "xs" / f"step{STEPS[0]}")
    same = [str(suite) if word == str(tiny_suite) else word for word in command]
    assert main([*same, "--against", str(published), "--sample", "0", "--out", str(tmp_path / "out")]) == 1
    run = load_run(tmp_path / "out")
    wrong = run.items[run.items["verdict"] == "outside"]
    assert set(wrong["step"]) == {STEPS[0]} and set(wrong["cause"]) == {"same weights"}
    assert wrong["detail"].iloc[0] == f"the weights of xs step {STEPS[0]} are those of xs step {STEPS[2]}"


def test_a_run_of_evaluate_is_verified_from_python(
    tiny_suite: Path, local: Path, published: Path, tmp_path: Path, command: list[str]
) -> None:
    evaluate = ["evaluate", *command[1:]]
    assert main([*evaluate, "--out", str(tmp_path / "a")]) == 0
    assert main([*evaluate, "--dtype", "bfloat16", "--limit", "20", "--out", str(tmp_path / "b")]) == 0
    table = pt.published(published)
    found = pt.verify(tmp_path / "a", table, other_format=tmp_path / "b")
    assert found.verdict == "equal" and found.formats is not None and found.formats["doc_id"].max() == 19
    with pytest.raises(pt.errors.RequestError, match="no checkpoint of one name"):
        pt.verify(tmp_path / "a", table.assign(step=7))
    alone = pt.verify(tmp_path / "a", table)
    assert alone.verdict == "equal" and (alone.numbers["basis"] == "none").all()
    assert alone.sentences[-1].text.startswith("Number formats were not compared")


def test_plans_reruns_and_refusals(
    command: list[str], clean: Path, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = [*command, "--against", str(published), "--dry-run", "--json", "--out", str(tmp_path / "none")]
    assert main(plan) == 0
    assert json.loads(capsys.readouterr().out)["checkpoints"] == len(STEPS) and not (tmp_path / "none").exists()
    assert main(["rerun", str(clean), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    capsys.readouterr()
    for words, says in (
        (["verify"], "either SUITE with --against PATH, or --published PATH alone, is needed"),
        (["verify", "pythia"], "--against PATH"),
        ([*command[:-len(TASKS)], "piqa", "--against", str(tmp_path / "no")], "no such folder"),
        ([*command, "--against", str(published), "--models", "xxs"], "none of the 3 checkpoints chosen was published"),
    ):
        assert main([*words, "--out", str(tmp_path / "none")]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1
