"""Statistics against scipy, statsmodels, scikit-learn and hand-made cases; everything within one checkpoint."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from pythia_tools.analyses import term_frequency as tf
from pythia_tools.analyses.term_frequency.definitions import exposure_definitions
from pythia_tools.analyses.term_frequency.emergence import _first_lasting
from pythia_tools.analyses.term_frequency.gap import gap
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import SUMMARY

STEPS = [0, 10, 20, 40]


def results(models: dict[str, int] | None = None, terms: int = 40, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers to 20 questions per term whose chance grows with exposures, from step 20 on only; terms seen at steady
    rates.
    """
    rng = np.random.default_rng(seed)
    rate = rng.permutation(np.logspace(0, 3, terms)).round()
    exposures = pd.DataFrame(
        [(f"t{k}", s, int(rate[k] * s)) for k in range(terms) for s in STEPS], columns=["term", "step", "exposures"]
    )
    rows = []
    for model, params in (models or {"m": 1000}).items():
        for step in STEPS:
            slope = (0.3 if step >= 20 else 0.0) * (params / 1000)
            for k in range(terms):
                chance = min(1.0, 0.05 + slope * np.log10(1 + rate[k]) / 1.5)
                for q in range(20):
                    rows.append((
                        "toy", model, params, "main", None, step, step * 10, f"t{k}q{q}", f"t{k}",
                        bool(rng.random() < chance)
                    ))
    columns = ["suite", "model", "params", "branch", "seed", "step", "tokens", "item", "term", "correct"]
    return pd.DataFrame(rows, columns=columns).astype({"correct": "boolean"}), exposures


def test_summary_is_computed_within_each_checkpoint_over_terms() -> None:
    table, exposures = results()
    summary = tf.summarize(table, exposures)
    assert summary.columns.tolist() == SUMMARY
    for step in STEPS:
        part = table[table["step"] == step].groupby("term")["correct"].mean().astype(float)
        seen = exposures[exposures["step"] == step].set_index("term")["exposures"].loc[part.index]
        got = summary[(summary["step"] == step) & summary["exposures_low"].isna()].set_index("metric")
        assert got.loc["accuracy", "value"] == pytest.approx(part.mean()) and (got["n"] == 40).all()
        if step:
            assert got.loc["spearman", "value"] == pytest.approx(stats.spearmanr(seen, part).statistic)
            order = seen.sort_values(kind="stable").index
            assert got.loc["gap", "value"] == pytest.approx(100 * (part[order[-10:]].mean() - part[order[:10]].mean()))
            assert got.loc["gap", "low"] <= got.loc["gap", "value"] <= got.loc["gap", "high"]
        else:
            assert got.loc[
                ["spearman", "gap", "monotone_rise"], "value"
            ].isna().all(), "nothing was seen at step 0, so nothing follows it"
    late = summary[(summary["step"] == 40) & (summary["metric"] == "spearman")].iloc[0]
    assert late["low"] > 0.3


def test_bins_cover_every_term_once() -> None:
    table, exposures = results()
    summary = tf.summarize(table, exposures)
    bins = summary[(summary["metric"] == "accuracy") & summary["exposures_low"].notna()]
    assert (bins.groupby("step")["n"].sum() == 40).all()
    edges = ["exposures_low", "exposures_high"]
    assert bins[bins["step"] == 0][edges].to_numpy().tolist() == [[0, 0]]
    expected = [[10, 99], [100, 999], [1000, 9999], [10000, 99999]]
    assert bins[bins["step"] == 10][edges].to_numpy().tolist() == expected


def test_answers_that_are_missing_and_exposures_that_are_missing() -> None:
    table, exposures = results(terms=12)
    lost = table.copy()
    lost.loc[lost["term"] == "t0", "correct"] = pd.NA
    summary = tf.summarize(lost, exposures)
    assert (summary[summary["exposures_low"].isna()]["n"] == 11).all()
    with pytest.raises(
        RequestError,
        match=re.escape("exposures of term 't3' up to step 0 are missing (4 term × checkpoint cells in all)")
    ):
        tf.summarize(table, exposures[exposures["term"] != "t3"])


def test_several_tasks_keep_apart() -> None:
    table, exposures = results(terms=12)
    both = pd.concat([table.assign(task="easy"), table.assign(task="hard", correct=False)], ignore_index=True)
    summary = tf.summarize(both, exposures)
    assert summary.loc[summary["metric"] == "spearman", "task"].unique().tolist() == ["easy", "hard"]
    assert (summary[(summary["task"] == "hard") & (summary["metric"] == "accuracy")]["value"] == 0).all()


def test_ties_at_the_edge_of_the_gap_count_in_part() -> None:
    """Exposures 5 5 5 1 1 1, two on each side: any two of the tied three are equally good."""
    y = np.array([0.0, 0.6, 0.9, 0.3, 0.0, 0.0])
    estimate = gap([5, 5, 5, 1, 1, 1], y, top=2)
    assert estimate.value == pytest.approx(100 * (0.5 - 0.1))
    assert np.isnan(gap([4, 4, 4, 4], [0, 1, 0, 1]).value)
    never = gap(range(8), np.zeros(8))
    assert never.value == 0 and never.interval == "none", "eight terms never right are no proof that none ever is"


def test_controls_enter_the_summary() -> None:
    table, exposures = results()
    magnitude = {f"t{k}": float(k) for k in range(40)}
    summary = tf.summarize(table, exposures, controls={"magnitude": magnitude})
    partial = summary[summary["metric"] == "partial_spearman"]
    assert partial["reference"].unique().tolist() == ["magnitude"] and len(partial) == 4
    with pytest.raises(RequestError, match="control 'magnitude' has no value for term 't0'"):
        tf.summarize(table, exposures, controls={"magnitude": {}})


def test_emergence_is_the_first_step_that_lasts() -> None:
    holds = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    assert _first_lasting(holds, np.array([10.0, 20.0, 40.0])).tolist() == [40.0, 20.0, np.inf]


def test_the_relation_emerges_where_it_was_planted() -> None:
    table, exposures = results({"small": 0, "large": 1000})
    found = tf.emergence(table, exposures)
    steps = found[found["metric"] == "emergence_step"].set_index("model")
    shares = found[found["metric"] == "emerged_share"].set_index("model")["value"]
    assert steps.loc["large", ["value", "low", "high"]].tolist() == [20, 20, 20] and shares["large"] == 1
    assert steps.loc["small", ["value", "high"]].isna().all() and shares["small"] < 0.5
    sizes = found[found["metric"] == "emergence_params"].set_index("step")
    assert sizes.loc[40, "value"] == 1000 and pd.isna(sizes.loc[10, "value"])


def test_definitions_of_exposure() -> None:
    exposures = pd.DataFrame({"term": ["a"] * 4 + ["b"] * 4, "step": STEPS * 2, "exposures": [0, 1, 5, 9, 0, 2, 2, 3]})
    definitions = exposure_definitions(exposures, last=10)
    as_rows = {
        name: sorted(map(tuple, f[["term", "step", "exposures"]].to_numpy().tolist()))
        for name, f in definitions.items()
    }
    assert ("a", 10, 9) in as_rows["in_total"] and ("b", 0, 3) in as_rows["in_total"]
    assert as_rows["in_last_steps"] == [
        ("a", 0, 0), ("a", 10, 1), ("a", 20, 4), ("b", 0, 0), ("b", 10, 2), ("b", 20, 0)
    ]
    assert tf.steps_to_count([10, 40], 15, end=50) == [0, 10, 25, 40, 50]
    with pytest.raises(RequestError, match=r"count at steps_to_count\(steps, 7\)"):
        exposure_definitions(exposures, last=7)


def test_definitions_are_compared_in_pairs() -> None:
    table, exposures = results()
    shuffled = exposures.copy()
    last = shuffled["step"] == 40
    # the total says little about step 20
    shuffled.loc[last, "exposures"] = shuffled.loc[last, "exposures"].to_numpy()[::-1] + 50_000
    summary = tf.compare_definitions(table, shuffled)
    at = summary[summary["step"] == 20]
    up_to_the_step = tf.summarize(table, shuffled).query("step == 20 and metric == 'spearman'")["value"].item()
    in_total = at[(at["metric"] == "spearman") & (at["subset"] == "in_total")]["value"].item()
    difference = at[(at["metric"] == "spearman_difference") & (at["reference"] == "in_total")].iloc[0]
    assert up_to_the_step > 0.5 and difference["low"] > 0
    assert difference["value"] == pytest.approx(up_to_the_step - in_total)


def test_trajectory_of_one_term() -> None:
    table, exposures = results()
    path = tf.trajectory(table, exposures, "t3")
    seen = path[path["metric"] == "term_exposures"].set_index("step")["value"]
    assert seen.to_dict() == exposures[exposures["term"] == "t3"].set_index("step")["exposures"].to_dict()
    accuracy = path[path["metric"] == "term_accuracy"]
    assert (accuracy["n"] == 20).all() and accuracy["interval"].unique().tolist() == ["wilson95"]
    with pytest.raises(RequestError, match="term 'zebra' is not in the results"):
        tf.trajectory(table, exposures, "zebra")


def test_paper_bins_are_right_closed_and_labelled_by_their_left_edge() -> None:
    table = pd.DataFrame({
        "suite": "s", "model": "m", "params": 1, "branch": "main", "seed": None, "step": 5, "tokens": 1, "task": "a",
        "term": ["a", "b", "c", "d", "e"], "accuracy": [0.0, 0.2, 0.4, 0.6, 1.0],
    })
    exposures = pd.DataFrame({"term": list("abcde"), "step": 5, "exposures": [0, 1, 10, 11, 5000]})
    bins = tf.binned_accuracy(table, exposures, edges=[1, 10, 100])
    assert bins[["left", "accuracy", "n"]].to_numpy().tolist() == [[1, 0.4, 1], [10, 0.6, 1]]


def accuracies(y: np.ndarray, *, model: str = "m", relation: np.ndarray | str = "") -> pd.DataFrame:
    """One step a row of (steps, terms) accuracies, a question a term."""
    steps, terms = y.shape
    named = {"suite": "s", "model": model, "params": pd.NA, "branch": "main", "seed": None, "tokens": 1, "task": "a"}
    return pd.DataFrame({
        **named, "step": np.repeat(np.arange(steps), terms), "term": [f"t{k}" for k in range(terms)] * steps,
        "correct": y.ravel(), "relation": relation,
    })


def seen_at(steps: int, exposures: np.ndarray) -> pd.DataFrame:
    names = [f"t{k}" for k in range(len(exposures))]
    return pd.concat([pd.DataFrame({"term": names, "step": s, "exposures": exposures}) for s in range(steps)])


def test_nothing_emerges_from_chance_more_often_than_one_time_in_twenty() -> None:
    """A hundred models, ten terms, no relation: by rho ≥ 0.3 alone 18 % of such runs had "emerged"."""
    rng = np.random.default_rng(2)
    table = pd.concat([accuracies(rng.random((2, 10)), model=f"m{k}") for k in range(100)], ignore_index=True)
    found = tf.emergence(table, seen_at(2, rng.permutation(10)), resamples=200)
    emerged = found.loc[found["metric"] == "emergence_step", "value"].notna()
    assert len(emerged) == 100 and emerged.mean() <= 0.1


def test_the_rise_has_a_p_value_and_no_interval() -> None:
    table, exposures = results()
    at = tf.summarize(table, exposures)
    at = at[at["exposures_low"].isna()].set_index(["metric", "step"])
    assert at.loc["monotone_rise", ["low", "high"]].isna().all(axis=None)
    assert set(at.loc["monotone_rise", "interval"]) == {"none"}
    assert at.loc[("monotone_rise_p", 40), "value"] < 0.01 < 0.05 < at.loc[("monotone_rise_p", 10), "value"]
    assert np.isnan(at.loc[("monotone_rise_p", 0), "value"]), "nothing was seen at step 0"


def test_facts_of_one_relation_are_one_unit_where_there_are_several() -> None:
    """Exposures and accuracy that go with the relation: twelve terms of a relation say little more than one."""
    relation = np.repeat([f"r{k}" for k in range(10)], 12)
    rng = np.random.default_rng(7)
    y, often = (rng.normal(size=10).repeat(12) + 0.3 * rng.normal(size=120))[None], rng.permutation(10).repeat(12) + 1
    rows = {}
    for unit, names in (("relation", relation), ("term", "")):
        found = tf.summarize(accuracies(y, relation=names), seen_at(1, often))
        rows[unit] = found[found["exposures_low"].isna()].set_index("metric")
        assert set(found["unit"]) == {unit} and set(rows[unit]["n"]) == {10 if unit == "relation" else 120}
    for metric in ("accuracy", "spearman"):
        wide, narrow = (row.loc[metric, "high"] - row.loc[metric, "low"] for row in rows.values())
        assert wide > 2.5 * narrow and rows["relation"].loc[metric, "value"] == rows["term"].loc[metric, "value"]
    few = tf.summarize(accuracies(y, relation="capital"), seen_at(1, often))
    assert set(few["unit"]) == {"term"}, "with one relation the interval speaks of its terms"


def test_few_relations_leave_an_interval_to_accuracy_alone() -> None:
    """Over the terms of three relations intervals hold the truth of other relations in .58 to .88 of cases."""
    relation = np.repeat(["capital", "language", "river"], 20)
    y = (np.random.default_rng(3).random((1, 60)) < 0.5).astype(float)
    table, seen = accuracies(y, relation=relation), seen_at(1, np.arange(60))
    found = tables.concat([tf.summarize(table, seen), tf.emergence(table, seen, resamples=50)])
    whole = found[found["exposures_low"].isna()].set_index("metric")
    assert set(found["unit"]) == {"relation"} and set(whole["n"]) == {3}
    assert (whole["interval"] == "none").drop("accuracy").all() and whole["low"].drop("accuracy").isna().all()
    wide = whole.loc["accuracy"]
    assert wide["interval"] == "clustered wilson95" and wide["high"] - wide["low"] > 0.3
    told = str(tf.TermFrequency().sentences(found)[0])
    assert "to a degree that no interval judges" in told and "3 relations" in told and "defined" not in told


def test_models_of_unknown_size_are_not_put_in_order() -> None:
    """A suite whose sizes nobody knows, or one of them: every figure is drawn and no size is claimed."""
    table, exposures = results({"a": 1000, "b": 500}, terms=12)
    for unknown in (["a", "b"], ["b"]):
        items = table.assign(params=table["params"].astype("Int64").mask(table["model"].isin(unknown)), task="facts")
        analysis, items = tf.TermFrequency(), items.merge(exposures, on=["term", "step"])
        makers = (tf.summarize, tf.compare_definitions, tf.emergence)
        summary = tables.concat(make(items, exposures) for make in makers)
        assert len(list(analysis.figures(items, summary))) > 5
        plt.close("all")
        assert not any("every size" in str(s) or "by size" in str(s) for s in analysis.sentences(summary))
    nothing = summary.assign(value=np.nan, low=np.nan, high=np.nan)
    told = [str(s) for s in analysis.sentences(nothing)]
    assert told and all("defined" in s and "detectably" not in s for s in told), "undefined is said to be undefined"


def test_every_definition_of_exposures_resamples_relations_too() -> None:
    relation = np.repeat([f"r{k}" for k in range(8)], 5)
    y = np.random.default_rng(1).random((2, 40))
    exposures = pd.concat([seen_at(1, np.arange(40)), seen_at(1, np.arange(40) ** 2 % 37).assign(step=1)])
    found = tf.compare_definitions(accuracies(y, relation=np.tile(relation, 2)), exposures)
    assert set(found["unit"]) == {"relation"} and set(found["n"]) == {8}
    emerged = tf.emergence(accuracies(y, relation=np.tile(relation, 2)), exposures, resamples=50)
    assert set(emerged["unit"]) == {"relation"} and set(emerged["n"]) == {8}
