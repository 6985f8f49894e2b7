"""lm-eval's results files out of stored answers are those of its own command line on the exported folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import local_tasks
import numpy as np
import pytest

from pythia_tools.analyses.evaluate import resampled
from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run
from pythia_tools.hub import fetch
from pythia_tools.suites import load_suite

TASKS = ("arc_easy", "lambada_openai", "wikitext", "crows_pairs_english", "short_answers", local_tasks.GROUP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = local_tasks.write(tmp_path_factory.mktemp("json") / "tasks")
    places = {split: str(here / "data" / f"gsm8k{end}.jsonl") for split, end in (("test", ""), ("train", "_train"))}
    local_tasks.define(here, {**local_tasks.definition("gsm8k"), "task": "short_answers", "num_fewshot": 0,
                              "dataset_kwargs": {"data_files": places}})
    return here


@pytest.fixture(scope="module")
def exported(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of the suite as a folder of its own, with the suite's tokenizer."""
    made = tmp_path_factory.mktemp("exported") / "model"
    made.mkdir()
    suite = load_suite(tiny_suite)
    (checkpoint,) = suite.checkpoints(models=["xs"], steps="last")
    for source in (fetch(checkpoint), suite.folder / "tokenizer"):
        for file in Path(source).iterdir():
            if file.is_file():
                (made / file.name).write_bytes(file.read_bytes())
    return made


@pytest.fixture(scope="module")
def theirs(exported: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("theirs")
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={exported}", "--device",
        "cpu", "--batch_size", "8", "--include_path", str(folder), "--output_path", str(out), "--log_samples",
        "--tasks", *TASKS,
    ]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def ours(tiny_suite: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ours") / "run"
    command = ["evaluate", str(tiny_suite), "--models", "xs", "--steps", "first,last", "--device", "cpu", "--quiet",
               "--include-path", str(folder), "--out", str(out), "--lm-eval-json", "--lm-eval-samples", "--tasks"]
    assert main([*command, *TASKS]) == 0
    last = load_suite(tiny_suite).steps("xs")[-1]
    assert len(list((out / "lm-eval" / "xs").iterdir())) == 2
    return out / "lm-eval" / "xs" / f"step{last}"


def read(folder: Path, pattern: str) -> dict[str, Any]:
    (file,) = folder.glob(pattern)
    return json.loads(file.read_text())


def assert_same(found: Any, expected: Any, where: str) -> None:
    """Structures and texts alike, numbers to the rounding of sums in float32."""
    if isinstance(expected, dict):
        assert list(found) == list(expected) or set(found) == set(expected), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for n, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}/{n}")
    elif isinstance(expected, float) and not isinstance(expected, bool):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True), where
    else:
        assert found == expected, where


def test_every_number_is_that_of_the_command_line(ours: Path, theirs: Path) -> None:
    found, expected = read(ours, "results.json"), read(theirs, "results_*.json")
    for key in ("results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert_same(found[key], expected[key], key)
    assert_same(found["task_hashes"], expected["task_hashes"], "task_hashes")
    told = {metric for task in expected["results"].values() for metric in task}
    assert told >= {"acc,none", "acc_norm_stderr,none", "perplexity_stderr,none", "bits_per_byte,none",
                    "exact_match,strict-match", "pct_stereotype,none"}
    assert len({v for v in expected["results"]["arc_easy"].values() if isinstance(v, float)}) > 2


def test_shares_are_exactly_theirs(ours: Path, theirs: Path) -> None:
    found, expected = read(ours, "results.json")["results"], read(theirs, "results_*.json")["results"]
    for task, values in expected.items():
        for metric, value in values.items():
            if metric.split(",")[0] in ("acc", "acc_norm", "exact_match", "pct_stereotype", "acc_stderr"):
                assert found[task][metric] == value, (task, metric)


def test_it_says_how_the_model_was_loaded(ours: Path, theirs: Path, tiny_suite: Path) -> None:
    found, expected = read(ours, "results.json"), read(theirs, "results_*.json")
    assert set(found) <= set(expected)
    shared = {k for k in expected["config"] if k.endswith("_seed") or k in ("model", "limit", "bootstrap_iters")}
    assert {k: found["config"][k] for k in shared} == {k: expected["config"][k] for k in shared}
    (checkpoint,) = load_suite(tiny_suite).checkpoints(models=["xs"], steps="last")
    assert found["model_name"] == str(fetch(checkpoint)) == found["config"]["model_args"]["pretrained"]


@pytest.mark.parametrize("task", ["arc_easy", "lambada_openai", "short_answers", "wikitext", "piqa"])
def test_samples_are_theirs(task: str, ours: Path, theirs: Path) -> None:
    own = [json.loads(line) for line in (ours / f"samples_{task}.jsonl").read_text().splitlines()]
    (file,) = theirs.glob(f"samples_{task}_*.jsonl")
    other = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(own) == len(other) > 3
    for one, expected in zip(own, other, strict=True):
        texts = ("resps", "filtered_resps")
        assert_same({k: v for k, v in one.items() if k not in texts},
                    {k: v for k, v in expected.items() if k not in texts}, task)
        for name in texts:
            assert_same(_numbers(one[name]), _numbers(expected[name]), f"{task}/{name}")


def _numbers(value: Any) -> Any:
    """Responses are written as text; those of log-likelihoods are numbers."""
    if isinstance(value, list):
        return [_numbers(some) for some in value]
    try:
        return float(value)
    except ValueError:
        return value


@pytest.mark.parametrize("name", ["perplexity", "weighted_perplexity", "bits_per_byte", "median"])
@pytest.mark.parametrize("resamples", [2000, 70])
def test_standard_errors_are_lm_evals_draw_by_draw(name: str, resamples: int) -> None:
    from lm_eval.api import metrics

    rng = np.random.default_rng(3)
    lls, lengths = (-rng.gamma(2, 3, 300)).tolist(), rng.integers(1, 90, 300).tolist()
    values = lls if name in ("perplexity", "median") else list(zip(lls, lengths, strict=True))
    f = getattr(metrics, name)
    expected = metrics.sample_stddev(metrics._bootstrap_internal_no_mp(f, values, resamples))
    assert resampled.stderr(f, values, resamples) == pytest.approx(expected, rel=1e-10)


def test_the_run_tells_what_was_asked(ours: Path) -> None:
    run = ours.parents[2]
    told = json.loads((run / "tasks.json").read_text())
    assert set(told) == set(load_run(run).items["task"]) and told["piqa"]["version"] == "1.0"
    assert all(len(told[task][key]) == 64 for task in told for key in ("definition", "documents", "requests"))
    assert told["piqa"]["data"] is None, "local files are covered by the documents' digest"
