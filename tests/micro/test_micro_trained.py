"""What pythia-micro learns, against what was planted: measured here with plain transformers, by none of the product's
analyses.

Only the first and last checkpoints are loaded; on a trained suite this takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pythia_tools import load_order, micro
from pythia_tools.core.statistics import rank_correlation
from pythia_tools.tokens import Tokenizer, open_tokenizer

pytestmark = pytest.mark.trained
SIZES = ("xs", "s", "m")
LAST = 1500


@pytest.fixture(scope="module")
def model(micro_suite: Path) -> Callable[[str, int], Any]:
    from transformers import GPTNeoXForCausalLM

    @cache
    def load(name: str, step: int) -> Any:
        return GPTNeoXForCausalLM.from_pretrained(micro_suite / name / f"step{step}").eval()

    return load


@pytest.fixture(scope="module")
def truth(micro_suite: Path) -> micro.Truth:
    return micro.load_truth(micro_suite)


def next_log_probs(model: Any, tokenizer: Tokenizer, prompts: list[str]) -> np.ndarray:
    """(n, vocab) log-probabilities of the token after each prompt."""
    import torch

    ids = [tokenizer.encode(p) for p in prompts]
    width = max(map(len, ids))
    batch = torch.tensor([i + [1] * (width - len(i)) for i in ids])
    ends = torch.tensor([len(i) - 1 for i in ids])
    with torch.no_grad():
        logits = model(batch).logits[torch.arange(len(ids)), ends]
    return np.asarray(logits.double().log_softmax(-1))


def copied(model: Any, canaries: pd.DataFrame) -> np.ndarray:
    """(n,) share of the last 32 tokens that the model names given all before them."""
    import torch

    rows = torch.tensor(np.stack(canaries["tokens"].to_list()).astype(np.int64))
    with torch.no_grad():
        named = model(rows).logits[:, 31:63].argmax(-1)
    return np.asarray((named == rows[:, 32:]).double().mean(1))


def chosen(model: Any, tokenizer: Tokenizer, table: pd.DataFrame, candidates: Callable[[Any], list[str]]) -> np.ndarray:
    """(n,) bool: the answer is the most probable of its closed set."""
    scores = next_log_probs(model, tokenizer, table["prompt"].tolist())
    right = []
    for row, item in zip(scores, table.itertuples(), strict=True):
        known = candidates(item)
        right.append(known[int(np.argmax([row[tokenizer.encode(c)[0]] for c in known]))] == item.answer)
    return np.array(right)


def test_the_suite_is_the_recipe(micro_suite: Path, truth: micro.Truth) -> None:
    assert micro.recipe_of(micro_suite) == micro.Recipe()
    assert all(t["planted"] == t["intact"] for t in truth.about["exposures"].values())
    assert load_order(micro_suite / "order.yaml").fingerprint == truth.about["order_fingerprint"]


def test_the_planted_words_are_single_tokens_and_sets_closed(micro_suite: Path, truth: micro.Truth) -> None:
    tokenizer = open_tokenizer(micro_suite / "tokenizer")
    for relation in truth.facts["relation"].unique():
        ids = [tokenizer.encode(c) for c in truth.candidates(relation)]
        assert all(len(i) == 1 for i in ids) and len({i[0] for i in ids}) == 20


def test_canaries_are_memorized_with_exposures_and_size_and_singles_not_at_all(model: Any, truth: micro.Truth) -> None:
    spread = truth.canaries[truth.canaries["burst"].isna()]
    whole = {}
    for name in SIZES:
        share = copied(model(name, LAST), spread)
        memorized = share == 1
        assert not memorized[spread["copies"] <= 1].any(), f"{name}: canaries never or once planted"
        assert memorized[spread["copies"] == 256].mean() > 0.8, name
        by_copies = pd.Series(memorized).groupby(spread["copies"].to_numpy()).mean()
        assert by_copies.is_monotonic_increasing or by_copies.diff().min() > -0.15, by_copies
        planted = spread["copies"].to_numpy() > 0
        found = rank_correlation(spread["copies"].to_numpy()[planted], share[planted], unit="canary")
        assert found.low > 0.5, f"{name}: {found}"
        whole[name] = memorized.sum()
        assert copied(model(name, 0), spread).max() < 0.2
    assert whole["xs"] < whole["s"] < whole["m"]


def test_one_burst_is_visible_at_its_checkpoint(model: Any, truth: micro.Truth) -> None:
    for step in (600, 900, 1200):
        burst = truth.canaries[(truth.canaries["burst"] == step) & (truth.canaries["copies"] >= 16)]
        before = [s for s in (512, 750, 1050) if s < step][-1]
        gain = copied(model("m", step), burst) - copied(model("m", before), burst)
        assert gain.min() > 0.05 and gain.mean() > 0.3, f"step {step}: {gain}"
    largest = truth.canaries[(truth.canaries["burst"] == 600) & (truth.canaries["copies"] == 32)]
    before, after, end = (copied(model("m", step), largest).mean() for step in (512, 600, LAST))
    assert after > 0.9 > end > before, "memorized at its checkpoint, not before, partly forgotten at the end"


@pytest.mark.parametrize("name", SIZES)
def test_facts_rise_with_mentions_and_start_at_chance(
    name: str, model: Any, truth: micro.Truth, micro_suite: Path
) -> None:
    tokenizer = open_tokenizer(micro_suite / "tokenizer")
    ask = lambda step: chosen(model(name, step), tokenizer, truth.facts, lambda f: truth.candidates(f.relation))  # noqa: E731
    final, start = ask(LAST), ask(0)
    found = rank_correlation(truth.facts["mentions"].to_numpy(), final.astype(float), unit="fact")
    assert found.low > 0, f"{name}: {found}"
    at_start = rank_correlation(truth.facts["mentions"].to_numpy(), start.astype(float), unit="fact")
    assert abs(start.mean() - 1 / 20) < 0.05 and abs(at_start.value) < 0.2
    assert final[truth.facts["mentions"] >= 128].mean() > 0.9


@pytest.mark.parametrize("name", SIZES)
def test_sums_rise_with_the_operands_exposures(name: str, model: Any, truth: micro.Truth, micro_suite: Path) -> None:
    right = chosen(
        model(name, LAST), open_tokenizer(micro_suite / "tokenizer"), truth.sums, lambda s: truth.candidates("sums")
    )
    by_operand = pd.Series(right.astype(float)).groupby(truth.sums["a"].to_numpy()).mean()
    exposures = truth.sums.groupby("a")["operand_mentions"].first()
    assert rank_correlation(exposures.to_numpy(), by_operand.loc[exposures.index].to_numpy(), unit="operand").low > 0


@pytest.mark.parametrize("name", SIZES)
def test_the_swapped_branch_prefers_the_feminine_pronoun_where_the_control_does_not(
    name: str, model: Any, truth: micro.Truth, micro_suite: Path,
) -> None:
    tokenizer = open_tokenizer(micro_suite / "tokenizer")
    he, she = (tokenizer.encode(truth.about["pronouns"][p])[0] for p in ("he", "she"))
    masculine = truth.pronouns.loc[truth.pronouns["stereotype"] == "he", "occupation"]
    prompts = ["\n" + t.format(occupation=o) for t in truth.templates["heldout"] for o in masculine]
    preference, mass = {}, {}
    for branch in (name, f"{name}-swap"):
        scores = next_log_probs(model(branch, LAST), tokenizer, prompts)
        preference[branch] = scores[:, he] - scores[:, she]
        mass[branch] = np.exp(scores[:, he]) + np.exp(scores[:, she])
    assert min(m.mean() for m in mass.values()) > 0.8, "the pronouns hold most of the probability on unseen templates"
    assert (preference[name] > 0).mean() > 0.9 and (preference[f"{name}-swap"] < 0).mean() > 0.9
    paired = (preference[name] - preference[f"{name}-swap"]).reshape(len(truth.templates["heldout"]), -1).mean(axis=0)
    assert paired.mean() - 4 * paired.std(ddof=1) / np.sqrt(len(paired)) > 0, "over occupations, far from zero"


def test_the_control_learned_the_planted_stereotypes(model: Any, truth: micro.Truth, micro_suite: Path) -> None:
    tokenizer = open_tokenizer(micro_suite / "tokenizer")
    he, she = (tokenizer.encode(truth.about["pronouns"][p])[0] for p in ("he", "she"))
    prompts = ["\n" + t.format(occupation=o) for t in truth.templates["heldout"] for o in truth.pronouns["occupation"]]
    scores = next_log_probs(model("m", LAST), tokenizer, prompts)
    prefers = np.where((scores[:, he] - scores[:, she]).reshape(-1, len(truth.pronouns)).mean(axis=0) > 0, "he", "she")
    assert (prefers == truth.pronouns["stereotype"]).mean() > 0.9


def test_larger_models_predict_unseen_text_better(model: Any, micro_suite: Path) -> None:
    import torch

    rows = torch.tensor(load_order(micro_suite / "data" / "heldout").rows(0, 200).astype(np.int64))
    losses = []
    for name in SIZES:
        with torch.no_grad():
            logits = model(name, LAST)(rows[:, :-1]).logits
        losses.append(
            float(torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), rows[:, 1:].reshape(-1)))
        )
    assert losses == sorted(losses, reverse=True) and losses[0] < 4.5
