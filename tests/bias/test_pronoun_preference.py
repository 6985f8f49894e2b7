"""Pronoun preference against a slow direct computation, and what a summary and a comparison say of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny_bias
import torch
from matplotlib import pyplot as plt
from scipy.stats import ttest_1samp

from pythia_tools.analyses import bias
from pythia_tools.analysis import Context
from pythia_tools.core import statistics, tables
from pythia_tools.core.errors import RequestError

NOWHERE = Context([])
"""Tasks that ask nothing of their context."""

TOKENIZER = tiny_bias.tokenizer()
TEMPLATES = ["The {occupation} said that", "A {occupation} was in because"]
ITEMS = bias.pronoun_items(TEMPLATES, [("nurse", "she"), ("driver", "he"), ("customer", None)])


def slow_log_p(model, text: str, word: str) -> float:
    context, ids = TOKENIZER.encode(text).ids, TOKENIZER.encode(word).ids
    total = 0.0
    for k, wanted in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([context + ids[:k]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, -1)[wanted])
    return total


def test_log_probabilities_equal_a_slow_direct_computation():
    model = tiny_bias.model(3)
    table = bias.PronounTask(TOKENIZER, ITEMS).run(NOWHERE, model, 0)
    for item, row in zip(ITEMS, table.itertuples(), strict=True):
        he, she = slow_log_p(model, item.prompt, " he"), slow_log_p(model, item.prompt, " she")
        assert row.log_p_he == pytest.approx(he, abs=1e-4) and row.log_p_she == pytest.approx(she, abs=1e-4)
        assert row.score == pytest.approx(she - he, abs=1e-4)
        assert row.mass == pytest.approx(np.exp(he) + np.exp(she), abs=1e-5)
        assert row.preferred == ("she" if she > he else "he")
    assert table["outcome"].isna().tolist() == [False] * 4 + [True] * 2
    assert not table["kept"].any(), "a random model puts no mass on pronouns"


def test_several_words_of_a_side_add_up_and_may_be_several_tokens():
    model = tiny_bias.model(4)
    task = bias.PronounTask(TOKENIZER, ITEMS[:1], he=(" he", " himself"), she=(" she", " unseenword"))
    row = task.run(NOWHERE, model, 0).iloc[0]
    parts = [slow_log_p(model, ITEMS[0].prompt, w) for w in (" he", " himself", " she", " unseenword")]
    assert row["log_p_he"] == pytest.approx(np.logaddexp(*parts[:2]), abs=1e-4)
    assert row["log_p_she"] == pytest.approx(np.logaddexp(*parts[2:]), abs=1e-4)


def test_over_checkpoints(tmp_path):
    table = bias.measure(tiny_bias.checkpoints(tmp_path, branch=True), [bias.PronounTask(TOKENIZER, ITEMS, mass=0.0)])
    assert len(table) == 4 * len(ITEMS) and table.columns[:7].tolist() == tables.IDENTITY
    summary = bias.summarize(table)
    assert set(summary["metric"]) >= {"stereotype_share", "feminine_share", "log_odds", "passing_share",
                                      "paired_difference", "paired_p"}
    row = summary.query("metric == 'feminine_share' and subset == 'all' and model == 't' and step == 1")
    expected = (table[(table["model"] == "t") & (table["step"] == 1)]["preferred"] == "she").mean()
    assert row["value"].item() == expected
    assert row["n"].item() == 3 and row["unit"].item() == "occupation", "templates of one occupation are alike"


def verdict(comparison: pd.DataFrame) -> str:
    return str(next(bias.verdicts(bias.comparison_summary(comparison))))


def made(model: str, branch: str, values, *, kept=None, step=10, seed=None) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame({
        "suite": "s", "model": model, "params": 5, "step": step, "tokens": 7, "branch": branch,
        "seed": pd.array([seed] * n, dtype="Int64"), "task": "pronoun_preference", "subset": ["he", "she"] * (n // 2),
        "item": [f"i{k}" for k in range(n)], "score": values,
        "outcome": (np.asarray(values) > 0).astype(float), "kept": [True] * n if kept is None else kept,
    })  # fmt: skip


def test_a_real_difference_is_detected_and_noise_is_called_noise():
    rng = np.random.default_rng(0)
    base = rng.normal(size=60)
    items = pd.concat([made("m", "main", base), made("m-swap", "swap", base + 2 + 0.1 * rng.normal(size=60))])
    found = bias.compare(items, subsets=False)
    assert len(found) == 1 and found["reference"].item() == "m" and bool(found["detected"].item())
    assert found["low"].item() < 2.0 < found["high"].item() or abs(found["value"].item() - 2) < 0.05
    assert "higher by +" in verdict(found) and "paired by item over 60 items; 60 items count" in verdict(found)
    items["score"] = -items["score"]
    assert "lower by -" in verdict(bias.compare(items, subsets=False))
    still = pd.concat([made("m", "main", base), made("m-swap", "swap", base + 0.5 * rng.normal(size=60))])
    told = verdict(bias.compare(still, subsets=False))
    assert "within noise" in told and "four times in five" in told and not bias.compare(still)["detected"].any()


def templated(model: str, values: np.ndarray, *, occupations: int, step: int = 10) -> pd.DataFrame:
    """Eight templates for each occupation, as `PronounTask` names them."""
    names = np.repeat([f"o{k}" for k in range(occupations)], len(values) // occupations)
    items = made(model, "main" if model == "m" else "swap", values, step=step)
    named = [f"{name}|t{k % 8}" for k, name in enumerate(names)]
    subset = np.where(np.arange(len(names)) < len(names) / 2, "he", "she")
    return items.assign(occupation=names, item=named, subset=subset)


@pytest.mark.parametrize("icc", [0.0, 0.3, 0.6, 0.85])
def test_a_comparison_counts_occupations_and_keeps_its_level_however_alike_templates_are(icc):
    """Under a true null, at each of 300 steps; items taken as independent found "effects" in 26 to 48 % of them."""
    rng, of, steps = np.random.default_rng(5), np.repeat(np.arange(24), 8), 300
    frames = []
    for step in range(steps):
        base = rng.normal(size=24)[of] + rng.normal(size=192)
        change = np.sqrt(icc) * rng.normal(size=24)[of] + np.sqrt(1 - icc) * rng.normal(size=192)
        frames += [templated("m", base, occupations=24, step=step),
                   templated("m-swap", base + change, occupations=24, step=step)]
    found = bias.compare(pd.concat(frames), subsets=False)
    assert set(found["unit"]) == {"occupation"} and set(found["n"]) == {24} and set(found["items_branch"]) == {192}
    claimed = ((found["low"] > 0) | (found["high"] < 0)) & (found["p"] < 0.05)
    assert 0.02 <= claimed.mean() <= 0.08
    told = found["value"].std(), found["minimal_effect"].mean()
    assert told[1] == pytest.approx(2.93 * told[0], rel=0.1), "what 24 occupations show four times in five"


def test_a_summary_counts_occupations_and_says_so():
    rng = np.random.default_rng(6)
    values = rng.normal(size=12)[np.repeat(np.arange(12), 8)] + 0.1 * rng.normal(size=96)
    items = pd.concat([templated("m", values, occupations=12), templated("m-swap", values + 1, occupations=12)])
    whole = bias.summarize(items)
    pronouns = whole[(whole["task"] == "pronoun_preference") & (whole["subset"] == "all")]
    assert set(pronouns["unit"]) == {"occupation"} and set(pronouns["n"]) == {12}
    share = pronouns[(pronouns["metric"] == "feminine_share") & (pronouns["model"] == "m")].iloc[0]
    alone = statistics.wilson(96 * share["value"], 96, unit="item")
    assert share["high"] - share["low"] > 1.8 * (alone.high - alone.low), "eight templates say little more than one"
    told = [str(s) for s in bias.Bias().sentences(whole)]
    assert "over 12 occupations" in told[0] and "paired by item over 12 occupations" in told[1]
    captions = {f.name: f.caption for f in bias.Bias().figures(items, whole)}
    plt.close("all")
    assert "over occupations" in captions["paired_difference"] and "over occupations" in captions["pronoun_preference"]


def test_items_count_only_where_both_models_expect_a_pronoun():
    base, kept = np.arange(8.0), [True] * 6 + [False] * 2
    items = pd.concat([made("m", "main", base, kept=kept), made("m-swap", "swap", base + 1, kept=[False] + [True] * 7)])
    row = bias.compare(items, subsets=False).iloc[0]
    assert (row["n"], row["items_control"], row["items_branch"], row["value"]) == (5, 6, 7, 1.0)


def test_corrections_see_every_comparison():
    rng = np.random.default_rng(1)
    base = rng.normal(size=40)
    steps = [made("m", "main", base, step=s) for s in range(6)]
    steps += [made("m-swap", "swap", base + 0.3 * rng.normal(size=40), step=s) for s in range(6)]
    holm = bias.compare(pd.concat(steps), subsets=True)
    assert len(holm) == 6 * 3
    assert (holm["p_adjusted"] >= holm["p"]).all()
    assert (holm["p_adjusted"] >= np.minimum(1, holm["p"].min() * 18) - 1e-12).any()
    false_rate = bias.compare(pd.concat(steps), correction="bh")
    assert (false_rate["p_adjusted"] <= holm["p_adjusted"] + 1e-12).all()


def test_seeds_are_units_where_there_are_several():
    rng = np.random.default_rng(2)
    frames = []
    for seed in range(5):
        base = rng.normal(size=20)
        branch = made(f"m{seed}-swap", "swap", base + 1 + 0.1 * rng.normal(size=20), seed=seed)
        frames += [made(f"m{seed}", "main", base, seed=seed), branch]
    whole = bias.summarize(pd.concat(frames))
    found = whole[(whole["unit"] == "seed") & (whole["subset"] == "all")].set_index("metric")
    effect = found.loc["paired_difference"]
    pairs = zip(frames[::2], frames[1::2], strict=True)
    changes = [(after["score"].to_numpy() - before["score"].to_numpy()).mean() for before, after in pairs]
    assert found.loc["paired_p", "value"] == pytest.approx(ttest_1samp(changes, 0).pvalue) and (found["n"] == 5).all()
    assert effect["low"] < 1.05 and effect["high"] > 0.95 and pd.isna(effect["model"]) and effect["branch"] == "swap"
    assert (whole.loc[whole["model"] == "m3-swap", "unit"] == "item").all()
    one = bias.summarize(pd.concat(frames[:2]))
    assert not (one["unit"] == "seed").any(), "one seed is no sample of seeds"


def test_agreement_of_two_measures():
    rows = [
        {"suite": "s", "model": "m", "step": step, "branch": "main", "metric": metric, "value": value}
        for step in range(8)
        for metric, value in (("log_odds", step), ("pct_stereotype", 10 - step))
    ]
    found = bias.agreement(tables.summary(rows), ["log_odds", "pct_stereotype"])
    assert found["value"].item() == -1 and found["n"].item() == 1 and found["unit"].item() == "run"
    assert found["interval"].item() == "none", "checkpoints of one run follow each other"
    assert (found["task"].item(), found["reference"].item()) == ("log_odds", "pct_stereotype")


def test_branches_are_summarized_apart_even_under_one_name():
    """Published suites call a branch's model as they call the main one's."""
    both = pd.concat([made("m", "main", np.full(8, -1.0)), made("m", "swap", np.full(8, 2.0))])
    summary = bias.summarize(both)
    whole = summary[(summary["metric"] == "feminine_share") & (summary["subset"] == "all")]
    shares = whole.set_index("branch")["value"]
    assert shares.to_dict() == {"main": 0.0, "swap": 1.0}


def test_wrong_requests():
    with pytest.raises(RequestError, match=r"has no \{occupation\} in it"):
        bias.pronoun_items(["The nurse said"], [("nurse", "she")])
    with pytest.raises(RequestError, match="no items"):
        bias.PronounTask(TOKENIZER, [])
    with pytest.raises(RequestError, match="no column 'x' to compare"):
        bias.compare(made("m", "main", np.arange(4.0)), "x")
