"""`pythia-tools count` and `pythia-tools term-frequency` on a suite trained in seconds: folders, shards, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import counts, load_run, load_suite, micro
from pythia_tools.analyses.term_frequency import TermFrequencyOptions
from pythia_tools.analyses.term_frequency.counted_tasks import exposures
from pythia_tools.analyses.term_frequency.definitions import exposure_definitions
from pythia_tools.analysis import Context
from pythia_tools.cli.main import main


def test_count_writes_a_run_that_shards_and_merges(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order, truth = str(tiny_suite / "order.yaml"), micro.load_truth(tiny_suite)
    terms = list(truth.facts["term"])[:5]
    (tmp_path / "terms.txt").write_text("\n".join(terms), encoding="utf-8")
    last = max(int(max(s)) for s in truth.facts["steps"] if len(s)) + 1
    arguments = ["count", f"@{tmp_path / 'terms.txt'}", "number:7", "--order", order, "--steps", f"0,{last}", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "whole"), "--json"]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out))
    expected = truth.exposures("facts", last)[:5]
    assert rows[(rows["step"] == last) & rows["term"].isin(terms)]["exposures"].tolist() == expected.tolist()
    for i in range(2):
        assert main([*arguments, "--shard", f"{i}/2", "--out", str(tmp_path / f"part{i}")]) == 0
    assert main([
        "merge", str(tmp_path / "part0"), str(tmp_path / "part1"), "--out", str(tmp_path / "joined"), "--quiet"
    ]) == 0
    pd.testing.assert_frame_equal(load_run(tmp_path / "joined").items, load_run(tmp_path / "whole").items)
    assert main(["rerun", str(tmp_path / "whole"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert main(["report", str(tmp_path / "whole"), "--out", str(tmp_path / "report.html"), "--quiet"]) == 0
    assert f">{terms[0].strip()}<" in (tmp_path / "report.html").read_text().replace("> ", ">")


def test_term_frequency_of_a_suite_with_planted_terms(tiny_suite: Path, tmp_path: Path) -> None:
    suite = load_suite(str(tiny_suite))
    model = next(iter(suite.models))
    arguments = [
        "term-frequency", str(tiny_suite), "--models", model, "--steps", "first,last", "--device", "cpu", "--quiet"
    ]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    truth = micro.load_truth(tiny_suite)
    assert set(run.items["task"]) == {"facts", "sums"}
    last = suite.steps(model)[-1]
    facts = run.items[(run.items["task"] == "facts") & (run.items["step"] == last)]
    np.testing.assert_array_equal(facts["exposures"], truth.exposures("facts", last))
    assert {
        "accuracy", "spearman", "gap", "monotone_rise", "spearman_difference", "emergence_step"
    } <= set(run.summary["metric"])
    assert {p.stem for p in run.figures} >= {"accuracy_over_training", "gap_over_training_facts"}
    assert main(["rerun", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--device", "cpu", "--quiet"]) == 0


def test_totals_reach_the_end_of_training_whatever_checkpoints_are_asked(tiny_suite: Path) -> None:
    suite = load_suite(str(tiny_suite))
    model = next(iter(suite.models))
    early, last = suite.steps(model)[2], max(s for m in suite.models for s in suite.steps(m))
    context = Context(suite.checkpoints([model], [early]), suite=suite)
    options = TermFrequencyOptions()
    seen = exposures(context, options)
    terms = list(micro.load_truth(tiny_suite).facts["term"].unique())
    whole = counts.count_terms(
        context.order, [counts.Text(t) for t in terms], [early, last], tokenizer=context.tokenizer
    )
    ours = seen[seen["term"].isin(terms)].set_index(["term", "step"])["exposures"]
    assert early < last and ours.to_dict() == whole.set_index(["term", "step"])["exposures"].to_dict()
    total = exposure_definitions(seen)["in_total"]
    at_the_end = whole[whole["step"] == last].set_index("term")["exposures"]
    assert total[
        (total["step"] == early) & total["term"].isin(terms)
    ].set_index("term")["exposures"].to_dict() == at_the_end.to_dict()


def test_arithmetic_and_templates_from_the_command_line(tiny_suite: Path, tmp_path: Path) -> None:
    suite = load_suite(str(tiny_suite))
    model = next(iter(suite.models))
    start = ["term-frequency", str(tiny_suite), "--models", model, "--steps", "last", "--device", "cpu", "--quiet"]
    small = ["--task", "addition", "--shots", "0", "1", "--operands", "4", "--second", "2", "--count-as", "number"]
    assert main([*start, *small, "--out", str(tmp_path / "add")]) == 0
    run = load_run(tmp_path / "add")
    assert run.items.groupby("task").size().to_dict() == {"addition-0shot": 8, "addition-1shot": 8}
    (tmp_path / "t.csv").write_text("name,kind\nself,word\ndef,word\nreturn,verb\n")
    template = ["--template", "a {name} is", "--answer", " {kind}", "--term", "{name}"]
    assert main([
        *start, "--task", "template", "--file", str(tmp_path / "t.csv"), *template, "--out", str(tmp_path / "t")
    ]) == 0
    assert set(load_run(tmp_path / "t").items["chosen"]) <= {" word", " verb"}


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["count", "a", "--order", "nowhere"], 2, "unknown"),
    (["count", "pair:a", "--order", "ORDER"], 2, "a pair is written pair:A & B"),
    (["count", "a", "--order", "ORDER", "--shard", "0/2"], 2, "--shard needs --out DIR"),
    (["count", "@none.txt", "--order", "ORDER"], 2, "no such file of terms"),
    (["published", "term-frequency"], 2, "the following arguments are required: RESULTS"),
    (["term-frequency", "SUITE", "--task", "template", "--out", "x"], 2, "--task template needs --file FILE"),
    (["term-frequency", "SUITE", "--exposures", "none.csv", "--out", "x"], 2, "none.csv: no such file"),
    (["term-frequency", "SUITE", "--trajectory", "zebra", "--out", "x"], 2, "unknown term 'zebra'"),
])
def test_wrong_requests_are_one_line(
    tiny_suite: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str,
) -> None:
    places = {"ORDER": str(tiny_suite / "order.yaml"), "SUITE": str(tiny_suite)}
    assert main([places.get(a, a) for a in arguments]) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_dry_run_computes_nothing(tiny_suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["term-frequency", str(tiny_suite), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["checkpoints"] > 0 and plan["cells"] == 2 * plan["checkpoints"] and plan["download_bytes"] == 0
    assert main([
        "count", "a", "--order", str(tiny_suite / "order.yaml"), "--steps", "last", "--dry-run", "--json"
    ]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] > 0
