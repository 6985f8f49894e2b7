"""The command as a user types it: plan, run, resume, shards, what is refused; and the tables it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import local_tasks
import numpy as np
import pytest

import pythia_tools as pt
from pythia_tools.analyses import evaluate
from pythia_tools.analyses.evaluate.columns import REQUEST
from pythia_tools.analyses.evaluate.requests import PART, EvaluateTask
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.results import load_run
from pythia_tools.suites import load_suite
from pythia_tools.tokens import open_tokenizer

TASKS = ("lambada_openai", "wikitext", "winogrande", "arc_easy", "short_answers", local_tasks.GROUP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local tasks, gsm8k for models of few positions among them, and one of more documents than a part holds."""
    here = local_tasks.write(tmp_path_factory.mktemp("runs") / "tasks")
    gsm8k = {**local_tasks.definition("gsm8k"), "task": "short_answers", "num_fewshot": 1}
    places = {split: str(here / "data" / f"gsm8k{end}.jsonl") for split, end in (("test", ""), ("train", "_train"))}
    local_tasks.define(here, {**gsm8k, "dataset_kwargs": {"data_files": places}})
    many = [{"text": f"Number {k} is one of the numbers of the {local_tasks.NOUNS[k % 13]}"} for k in range(1100)]
    place = local_tasks.write_lines(here / "data" / "many.jsonl", many)
    local_tasks.define(here, {**local_tasks.definition("lambada_openai"), "task": "many",
                              "dataset_kwargs": {"data_files": {"test": place}}})
    return here


@pytest.fixture(scope="module")
def command(tiny_suite: Path, folder: Path) -> list[str]:
    return ["evaluate", str(tiny_suite), "--models", "xs", "xxs", "--include-path", str(folder), "--device", "cpu",
            "--quiet", "--tasks", *TASKS]


@pytest.fixture(scope="module")
def run(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_items_have_the_documented_columns_and_one_row_per_choice(run: Path) -> None:
    items = load_run(run).items
    assert list(items.columns) == [*tables.IDENTITY, *REQUEST]
    assert {c: str(t) for c, t in items.dtypes.items() if c in REQUEST} == {c: k.dtype for c, k in REQUEST.items()}
    assert not items.duplicated([*tables.IDENTITY, "task", "doc_id", "choice"]).any()
    arc = items[items["task"] == "arc_easy"]
    assert (arc.groupby(["model", "step", "doc_id"]).size() == 3).all()
    assert (arc.groupby(["model", "step", "doc_id"])["gold"].sum() == 1).all()
    assert set(items.loc[items["kind"] == "multiple_choice", "gold"].unique()) == {True, False}
    assert items.loc[items["kind"] == "generate_until", "text"].notna().all()


def test_margins_are_of_the_documents_other_choices(run: Path) -> None:
    items = load_run(run).items
    for _, rows in items[items["task"] == "sciq"].groupby(["model", "step", "doc_id"]):
        lls = rows["ll"].to_numpy()
        assert rows["margin"].to_numpy() == pytest.approx([ll - max(np.delete(lls, k)) for k, ll in enumerate(lls)])
    assert items.loc[items["kind"] != "multiple_choice", "margin"].isna().all()


def test_the_summary_tells_every_task_group_and_filter(run: Path) -> None:
    summary = load_run(run).summary
    last = summary[(summary["model"] == "xs") & (summary["step"] == summary["step"].max())]
    told = set(zip(last["task"], last["subset"], last["metric"], strict=True))
    assert told >= {
        ("piqa", "all", "acc"), ("piqa", "all", "acc_norm"), ("piqa", "all", "acc_bytes"), ("piqa", "all", "brier"),
        ("lambada_openai", "all", "perplexity"), ("wikitext", "all", "bits_per_byte"), ("winogrande", "all", "acc"),
        ("short_answers", "strict-match", "exact_match"), ("short_answers", "flexible-extract", "exact_match"),
        (local_tasks.GROUP, "all", "acc"), (local_tasks.GROUP, "all", "acc_norm"),
    }
    assert ("winogrande", "all", "acc_norm") not in told  # its choices are not what is scored
    group = last[(last["task"] == local_tasks.GROUP) & (last["metric"] == "acc")].iloc[0]
    members = last[last["task"].isin(["piqa", "sciq"]) & (last["metric"] == "acc")]
    assert group["n"] == members["n"].sum() and group["interval"] == "wilson95"
    assert group["value"] == pytest.approx(np.average(members["value"], weights=members["n"].astype(float)))
    assert (summary.loc[summary["low"].notna(), "low"] <= summary.loc[summary["low"].notna(), "value"] + 1e-9).all()


def test_bounds_of_perplexities_follow_those_of_the_mean(run: Path) -> None:
    items, summary = load_run(run).items, load_run(run).summary
    row = summary[(summary["task"] == "lambada_openai") & (summary["metric"] == "perplexity")].iloc[0]
    lls = items[(items["task"] == "lambada_openai") & (items["model"] == row["model"]) & (items["step"] == row["step"])]
    mean = pt.statistics.mean(-lls["ll"], unit="document")
    assert [row["value"], row["low"], row["high"]] == pytest.approx(np.exp([mean.value, mean.low, mean.high]))


def test_consistency_is_that_of_predictions_with_the_last_step(run: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    items, summary = load_run(run).items, load_run(run).summary
    table = evaluate.documents(items)
    told = summary[summary["metric"].isin(["self_consistency", "self_consistency_weighted"])]
    assert len(told) and not (told["step"] == items["step"].max()).any()
    for row in told[told["value"].notna()].itertuples():
        own = table[(table["model"] == row.model) & (table["task"] == row.task)].set_index("doc_id")["predicted"]
        at = table[(table["model"] == row.model) & (table["task"] == row.task)]["step"].to_numpy()
        here, last = own[at == row.step], own[at == items["step"].max()]
        weights = "linear" if row.metric.endswith("weighted") else None
        labels = list(range(1 + int(max(here.max(), last.max()))))
        expected = metrics.cohen_kappa_score(here.sort_index(), last.sort_index(), weights=weights, labels=labels)
        assert row.value == pytest.approx(expected)


def test_a_plan_counts_parts_and_ids_and_writes_nothing(command: list[str], run: Path, tmp_path: Path, capsys) -> None:
    assert main([*command, "--out", str(tmp_path / "none"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cells"] == 7 * len(load_run(run).record["weights"]) and plan["cells_done"] == 0
    assert plan["seconds_computing_about"] > 0 and not (tmp_path / "none").exists()


def test_a_second_run_reuses_every_answer_and_a_changed_task_none_of_its_own(
    command: list[str], run: Path, folder: Path, tmp_path: Path, tiny_suite: Path
) -> None:
    out = tmp_path / "again"
    (out / "cells").mkdir(parents=True)
    for cell in (run / "cells").iterdir():
        os.link(cell, out / "cells" / cell.name)
    other = [w if w != str(folder) else str(local_tasks.write(tmp_path / "tasks")) for w in command]
    other = other[: other.index("short_answers")]
    define = {**local_tasks.definition("lambada_openai"), "doc_to_text": "{{text.split(' ')[1:-1]|join(' ')}}"}
    places = {"test": str(tmp_path / "tasks" / "data" / "lambada_openai.jsonl")}
    local_tasks.define(tmp_path / "tasks", {**define, "dataset_kwargs": {"data_files": places}})
    assert main([*other, "--out", str(out)]) == 0
    cells, checkpoints = load_run(out).record["cells"], len(load_run(out).record["weights"])
    distinct = checkpoints - 2  # step 0 and step 1 of both models have the same weights
    assert cells == {"computed": distinct, "reused": 4 * checkpoints - distinct}  # the same documents elsewhere


def test_killed_it_loses_one_part(tiny_suite: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = ["evaluate", str(tiny_suite), "--models", "xs", "--steps", "last", "--tasks", "many", "--include-path",
               str(folder), "--device", "cpu", "--quiet", "--out", str(out)]
    code = (
        "import sys, time; from pythia_tools.cli.main import main\n"
        "from pythia_tools.analyses.evaluate.requests import EvaluateTask as T; run = T.run\n"
        "T.run = lambda *a: (time.sleep(a[-1] and 2), run(*a))[1]\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *command], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and not list((out / "cells").glob("*.parquet")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list((out / "cells").glob("*.parquet")))
    assert not (out / "run.json").exists() and kept >= 1
    assert main(command) == 0
    found = load_run(out)
    assert found.record["cells"] == {"computed": 3 - kept, "reused": kept}
    assert len(found.items) == 1100 and found.items["doc_id"].tolist() == list(range(1100))


def test_parts_hold_whole_documents(folder: Path, tiny_suite: Path) -> None:
    asked = evaluate.ask(evaluate.Wanted(("many",), include_path=str(folder))).tasks["many"]
    task = EvaluateTask(asked, open_tokenizer(load_suite(tiny_suite).folder / "tokenizer"))
    assert task.parts == -(-1100 // PART) and task.ids == sum(task._kinds["loglikelihood"].sizes)
    assert asked.about["lm_eval"] and asked.about["shots"] == 0 and asked.about["version"] == "1.0"


def test_limit_and_shots_are_lm_evals(folder: Path, tiny_suite: Path) -> None:
    checkpoint = load_suite(tiny_suite).checkpoints(models=["xs"], steps="last")
    items = pt.evaluate(
        checkpoint, "piqa", num_fewshot=2, limit=3, include_path=str(folder), device="cpu",
        tokenizer=load_suite(tiny_suite).folder / "tokenizer",
    )
    assert len(items) == 6 and set(items["shots"]) == {2} and items["doc_id"].max() == 2 and (items["cut"] > 0).any()


@pytest.mark.parametrize(("more", "code", "says"), [
    ([], 2, "no lm-eval task was named"),
    (["--tasks", "gsm8k"], 2, "lower max_gen_toks"),
    (["--tasks", "piqa", "--include-path", "nowhere"], 2, "--include-path nowhere: no such folder"),
    (["--tasks", "piqa", "--num-fewshot", "-1"], 2, "--num-fewshot"),
    (["--tasks", "sampling"], 2, "only greedy generation"),
    (["--tasks", "unreadable"], 3, "lm-eval cannot read the data of unreadable"),
    (["--tasks", "wordless"], 2, "without a continuation"),
    (["--tasks", "broken"], 2, "lm-eval does not build broken"),
])
def test_what_cannot_be_asked_is_refused_in_a_line(
    more: list[str], code: int, says: str, tiny_suite: Path, folder: Path, tmp_path: Path, capsys
) -> None:
    piqa = local_tasks.definition("piqa")
    text = {"validation": str(folder / "data" / "piqa.jsonl"), "train": str(folder / "data" / "piqa.jsonl")}
    gsm8k = {**local_tasks.definition("gsm8k"), "num_fewshot": 0,
             "dataset_kwargs": {"data_files": {s: str(folder / "data" / "gsm8k.jsonl") for s in ("test", "train")}}}
    for config in (
        {**gsm8k, "generation_kwargs": {"max_gen_toks": 64}},
        {**gsm8k, "task": "sampling", "generation_kwargs": {"do_sample": True, "temperature": 0.8, "max_gen_toks": 4}},
        {**piqa, "task": "unreadable", "dataset_kwargs": {"data_files": {"validation": str(folder / "none.jsonl")}}},
        {**piqa, "task": "wordless", "target_delimiter": "", "doc_to_choice": ["<|endoftext|>", "a"],
         "doc_to_text": "",
         "dataset_kwargs": {"data_files": text}},
        {**piqa, "dataset_kwargs": {"data_files": text}},
        {**piqa, "task": "broken", "doc_to_text": "{{goal", "dataset_kwargs": {"data_files": text}},
    ):
        (tmp_path / "tasks").mkdir(exist_ok=True)
        local_tasks.define(tmp_path / "tasks", config)
    command = ["evaluate", str(tiny_suite), "--models", "xs", "--steps", "last", "--device", "cpu", "--quiet", "--out",
               str(tmp_path / "out"), "--include-path", str(tmp_path / "tasks"), *more]
    assert main(command) == code
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_missing_lm_eval_is_one_line(tiny_suite: Path, tmp_path: Path) -> None:
    """In an interpreter that finds no such package."""
    code = (
        "import sys, importlib.metadata as m\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'lm_eval': raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from pythia_tools.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["evaluate", str(tiny_suite), "--tasks", "piqa", "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "pip install 'pythia-tools[lm-eval]'" in done.stderr and not (tmp_path / "out" / "config.json").exists()


def test_figures_and_sentences_come_with_the_run(run: Path) -> None:
    found = load_run(run)
    assert {"acc.png", "perplexity.svg", "self_consistency.png"} <= {f.name for f in found.figures}
    assert any(s["text"].startswith("piqa: acc at the last step is") for s in found.record["sentences"])


def test_summaries_leave_out_documents_that_are_not_whole(run: Path, folder: Path) -> None:
    items = load_run(run).items
    asked = evaluate.ask(evaluate.Wanted(TASKS, include_path=str(folder)))
    lost = items["task"].eq("piqa") & items["doc_id"].eq(0) & items["choice"].eq(1)
    fewer = evaluate.summarize(items[~lost].reset_index(drop=True), asked)
    acc = fewer[(fewer["task"] == "piqa") & (fewer["metric"] == "acc")]
    assert (acc["n"] == 11).all()
