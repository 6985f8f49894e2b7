"""Cohen's kappa against scikit-learn, and what runs of several seeds say about each other."""

from __future__ import annotations

import doctest
import math

import local_tasks
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pythia_tools as pt
from pythia_tools.analyses import evaluate
from pythia_tools.analyses.evaluate import agreement
from pythia_tools.core.errors import RequestError
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60),
       st.sampled_from(["none", "linear", "quadratic"]))
def test_kappa_is_scikit_learns(pairs, weights) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = np.array(pairs).T
    found = evaluate.kappa(first, second, weights)
    if len({*first, *second}) == 1:  # nothing to agree about
        assert math.isnan(found)
        return
    labels = list(range(5))  # distances of the predictions themselves, whichever of them occur
    assert found == pytest.approx(
        metrics.cohen_kappa_score(first, second, weights=None if weights == "none" else weights, labels=labels)
    )


def test_kappa_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(RequestError, match="as many of both"):
        evaluate.kappa([0, 1], [0])
    with pytest.raises(RequestError, match="allowed: none, linear, quadratic"):
        evaluate.kappa([0, 1], [0, 1], "cubic")


def test_its_interval_is_that_of_resampled_documents() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 200)
    second = np.where(rng.random(200) < 0.7, first, rng.integers(0, 3, 200))
    found = agreement.estimate(first, second)
    picks = rng.integers(0, 200, (2000, 200))
    low, high = np.quantile([evaluate.kappa(first[p], second[p]) for p in picks], [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.015)
    assert found.n == 200 and found.unit == "document" and math.isnan(agreement.estimate([0, 1], [0, 1]).low)


def test_seeds_are_compared_with_the_first_run_at_equal_steps(local, tmp_path) -> None:
    """Three random models of one size, of which two are the same."""
    made = []
    for name, seed, weights in (("t", 1234, 0), ("t-seed1", 1, 5), ("t-seed2", 2, 0)):
        folder = tmp_path / name
        local_tasks.save_model(folder, weights)
        info = ModelInfo(name, 30_000, None, seed=seed)
        made += [Checkpoint("seeds", info, 1, None, "step1", Folder(folder), "float32")]
    asked = evaluate.ask(evaluate.Wanted(("winogrande", "lambada_openai"), include_path=str(local)))
    items = pt.evaluate(made, ["winogrande", "lambada_openai"], include_path=str(local), device="cpu")
    summary = evaluate.summarize(items, asked)
    told = summary[(summary["metric"] == "seed_agreement") & (summary["task"] == "winogrande")].set_index("model")
    assert set(told["reference"]) == {"t"} and told.loc["t-seed2", "value"] == 1
    table = evaluate.documents(items)
    predicted = table[table["task"] == "winogrande"].pivot(index="doc_id", columns="model")["predicted"]
    assert told.loc["t-seed1", "value"] == pytest.approx(evaluate.kappa(predicted["t"], predicted["t-seed1"]))
    one_seed = items.assign(seed=pd.array([7] * len(items), dtype="Int64"))  # they differ in something else
    assert not evaluate.summarize(one_seed, asked)["metric"].str.startswith("seed").any()


def test_examples_of_the_docstrings() -> None:
    found = doctest.testmod(agreement)
    assert found.attempted >= 2 and not found.failed
