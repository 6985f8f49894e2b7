"""Every number of tasks of all kinds equals what lm-eval's own model gives for the exported folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import local_tasks
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, GPTNeoXForCausalLM

import pythia_tools as pt
from pythia_tools.analyses import evaluate
from pythia_tools.models import load
from pythia_tools.suites import load_suite
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo


def exported(folder: Path, shape: str) -> Checkpoint:
    local_tasks.save_model(folder, len(shape), shape)
    return Checkpoint("random", ModelInfo(shape, None, None), 1, None, "step1", Folder(folder), "float32")


@pytest.fixture(scope="module", params=[
    ("short", local_tasks.ZERO_SHOT, None), ("short", local_tasks.FEW_SHOT, 5),
    ("14m", ("lambada_openai", "winogrande", "arc_easy", "gsm8k", local_tasks.GROUP), None),
], ids=lambda p: f"{p[0]}-{p[2]}")
def both(request, local, tmp_path_factory):
    """The asked tasks, our items and our summary, and lm-eval's result."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    shape, tasks, shots = request.param
    folder = tmp_path_factory.mktemp(shape)
    checkpoint = exported(folder, shape)
    theirs = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(folder), "dtype": "float32"}, tasks=list(tasks), num_fewshot=shots,
        device="cpu", batch_size=1, bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_path=str(local), include_defaults=False),
    )
    items = pt.evaluate([checkpoint], tasks, num_fewshot=shots, include_path=str(local), device="cpu")
    asked = evaluate.ask(evaluate.Wanted(tuple(tasks), shots, str(local)))
    return asked, items, evaluate.summarize(items, asked), theirs


def test_log_likelihoods_and_texts_are_the_same(both):
    asked, items, _, theirs = both
    for name, task in asked.tasks.items():
        own = items[items["task"] == name]
        samples = {s["doc_id"]: s["resps"] for s in theirs["samples"][name]}
        for doc, rows in own.groupby("doc_id"):
            expected = [first for (first, *_) in samples[doc]]
            assert len(rows) == len(expected)
            if task.kind == "generate_until":
                assert rows["text"].tolist() == expected
            elif task.kind == "loglikelihood_rolling":
                np.testing.assert_allclose(rows["ll"], expected, rtol=1e-6, atol=1e-4)
            else:
                np.testing.assert_allclose(rows["ll"], [ll for ll, _ in expected], rtol=0, atol=1e-4)
                assert rows["is_greedy"].tolist() == [greedy for _, greedy in expected]
        assert set(own["doc_id"]) == set(samples)
        assert set(own["shots"]) == {theirs["n-shot"][name]}


def test_every_metric_is_the_same(both):
    asked, _, summary, theirs = both
    told = summary.set_index(["task", "subset", "metric"])["value"]
    seen = 0
    for name, numbers in theirs["results"].items():
        for key, value in numbers.items():
            metric, comma, filter = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                own = told[name, "all" if filter == "none" else filter, metric]
                counted = isinstance(value, float) and metric in ("acc", "acc_norm", "acc_bytes", "exact_match",
                                                                  "acc_mutual_info", "pct_stereotype", "mcc")
                assert own == value if counted else math.isclose(own, value, rel_tol=1e-5), (name, key)
                seen += 1
    assert seen >= len(asked.tasks)


def test_what_is_derived_equals_the_tasks_own_metrics(both):
    """Accuracies and the Brier score read off the columns, beside lm-eval's code on the same answers."""
    asked, items, _, theirs = both
    table = evaluate.documents(items)
    for name, task in asked.tasks.items():
        numbers = theirs["results"][name]
        own = table[table["task"] == name]
        for metric, column in (("acc", "right"), ("acc_norm", "right_norm"), ("acc_bytes", "right_bytes"),
                               ("pct_stereotype", "right"), ("brier_score", "brier")):
            if f"{metric},none" in numbers:
                expected = numbers[f"{metric},none"]
                assert own[column].astype(float).mean() == pytest.approx(expected, rel=1e-5), (name, metric)
        if task.kind == "loglikelihood":
            assert (own["margin"] >= 0).all() and own["right"].notna().all()


def test_leads_are_those_of_the_logits(local, tmp_path):
    """is_greedy and lead of lambada, from one forward pass over each text."""
    checkpoint = exported(tmp_path, "short")
    items = pt.evaluate([checkpoint], ["lambada_openai"], include_path=str(local), device="cpu")
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), GPTNeoXForCausalLM.from_pretrained(tmp_path)
    asked = evaluate.ask(evaluate.Wanted(("lambada_openai",), include_path=str(local)))
    for row, instance in zip(items.itertuples(), asked.tasks["lambada_openai"].instances, strict=True):
        context, whole = tokenizer.encode(instance.args[0]), tokenizer.encode("".join(instance.args))
        whole = whole[-65:]
        n = row.n_tokens
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([whole[:-1]])).logits[0].double(), -1)[-n:]
        truth = torch.tensor(whole[-n:])
        own = logs.gather(1, truth[:, None])[:, 0]
        others = logs.scatter(1, truth[:, None], -math.inf).max(1).values
        assert row.lead == pytest.approx(float((own - others).min()), abs=1e-4)
        assert row.is_greedy == (row.lead > 0) and row.cut == max(0, len(context) + n - 65)


@pytest.mark.trained
def test_a_trained_checkpoint(local, micro_suite, tmp_path):
    """The last checkpoint of pythia-micro's m, exported: where predictions are far from chance."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = ["piqa", "lambada_openai", "wikitext", "winogrande", "sciq", "arc_easy", "gsm8k"]
    suite = load_suite(micro_suite)
    (checkpoint,) = suite.checkpoints(models=["m"], steps="last")
    load(checkpoint, device="cpu").save_pretrained(tmp_path)
    shutil.copytree(micro_suite / "tokenizer", tmp_path, dirs_exist_ok=True)
    theirs = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(tmp_path), "dtype": "float32"}, device="cpu", tasks=tasks,
        batch_size=1, bootstrap_iters=0, num_fewshot=1,
        task_manager=TaskManager(include_path=str(local), include_defaults=False),
    )
    items = pt.evaluate(
        [checkpoint], tasks, num_fewshot=1, include_path=str(local), device="cpu", tokenizer=micro_suite / "tokenizer"
    )
    asked = evaluate.ask(evaluate.Wanted(tuple(tasks), 1, str(local)))
    test_log_likelihoods_and_texts_are_the_same((asked, items, None, theirs))
    test_every_metric_is_the_same((asked, items, evaluate.summarize(items, asked), theirs))


@pytest.mark.skipif(not local_tasks.CROWS.exists(), reason="the CrowS-Pairs file is not here")
def test_the_published_crows_pairs(local, tmp_path):
    """lm-eval's own definition over the authors' file."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = tmp_path / "tasks"
    pairs = pd.read_csv(local_tasks.CROWS)[["sent_more", "sent_less", "bias_type"]]
    folder.mkdir()
    local_tasks.define(folder, {
        **local_tasks.definition("crows_pairs_english"), "dataset_kwargs": {
            "data_files": {"test": local_tasks.write_lines(folder / "crows.jsonl", pairs.to_dict("records"))},
        },
    })
    checkpoint = exported(tmp_path / "model", "long")
    theirs = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(tmp_path / "model"), "dtype": "float32"}, device="cpu",
        tasks=["crows_pairs_english"], batch_size=32, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )
    items = pt.evaluate([checkpoint], ["crows_pairs_english"], include_path=str(folder), device="cpu")
    expected = [s["resps"][k][0][0] for s in theirs["samples"]["crows_pairs_english"] for k in range(2)]
    np.testing.assert_allclose(items["ll"], expected, rtol=3e-7, atol=1e-4)  # theirs are sums in float32
    share = theirs["results"]["crows_pairs_english"]["pct_stereotype,none"]
    assert evaluate.documents(items)["right"].mean() == share
