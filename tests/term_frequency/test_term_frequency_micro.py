"""On pythia-micro: exposures are what the truth manifest planted, and accuracy rises with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythia_tools import counts, load_order, load_suite, micro
from pythia_tools.analyses import term_frequency as tf


def assert_exposures_equal_the_truth(folder: Path, steps: list[int]) -> None:
    truth, order = micro.load_truth(folder), load_order(str(folder / "order.yaml"))
    canaries = zip(truth.canaries["canary"], truth.canaries["tokens"], strict=True)
    by_ids = {"canaries": [counts.Ngram(tuple(t), label=str(c)) for c, t in canaries]}
    by_text = {
        "facts": [counts.Text(t) for t in truth.facts["term"]], "sums": [counts.Text(p) for p in truth.sums["prompt"]]
    }
    for table, patterns in {**by_ids, **by_text}.items():
        got = counts.count(order, patterns, steps).matrix()
        for k, step in enumerate(steps):
            np.testing.assert_array_equal(got[:, k], truth.exposures(table, step), err_msg=f"{table} at step {step}")


def test_exposures_equal_the_truth_of_a_tiny_suite(tiny_suite: Path) -> None:
    suite = load_suite(str(tiny_suite))
    steps = sorted({s for m in suite.models for s in suite.steps(m)})
    assert_exposures_equal_the_truth(tiny_suite, steps)


@pytest.mark.trained
def test_exposures_equal_the_truth_of_the_trained_suite(micro_suite: Path) -> None:
    assert_exposures_equal_the_truth(micro_suite, [0, 1, 64, 750, 1500])


@pytest.mark.trained
def test_accuracy_rises_with_exposures(micro_suite: Path) -> None:
    """Facts with closed answer sets, at the last checkpoint of every size: the relation is there, and not at step 0."""
    suite, truth, order = load_suite(str(micro_suite)), micro.load_truth(micro_suite), load_order(
        str(micro_suite / "order.yaml")
    )
    facts = truth.facts.assign(name=truth.facts["fact"].astype(str))
    items = tf.fact_items(facts, {r: truth.candidates(r) for r in facts["relation"].unique()})
    last = max(suite.steps("m"))
    checkpoints = suite.checkpoints(models=["xs", "s", "m"], steps=[0, last])
    table = tf.measure(checkpoints, tf.ClosedTask(items, micro_suite / "tokenizer"), device="cpu")
    exposures = counts.count_terms(order, [counts.Text(t) for t in facts["term"]], [0, last])
    summary = tf.summarize(table, exposures)
    summary = summary[summary["exposures_low"].isna()].set_index(["step", "model", "metric"])
    for model in ("xs", "s", "m"):
        assert summary.loc[(last, model, "spearman"), "value"] > 0.1 and summary.loc[(last, model, "gap"), "value"] > 30
        assert summary.loc[(last, model, "monotone_rise_p"), "value"] < 0.05, "permuted within relations"
        assert np.isnan(summary.loc[(last, model, "spearman"), "low"]), "three relations are too few for an interval"
        assert np.isnan(summary.loc[(0, model, "spearman"), "value"])
        assert summary.loc[(0, model, "accuracy"), "value"] < 0.2
