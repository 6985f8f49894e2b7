"""On the trained pythia-micro: canaries against the truth manifest, bursts as causal jumps, membership before and after exposure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from greedy_models import generated, leading, unrestrained

from pythia_tools import load_suite
from pythia_tools.analyses.memorization import (
    Window,
    auc,
    cohort_of,
    extract,
    measure,
    profiles,
    row_scores,
    scores,
    screened,
    summarize,
    with_exposures,
)
from pythia_tools.analyses.memorization.profiles import NEVER, event_mask
from pythia_tools.micro import load_truth
from pythia_tools.models import load

pytestmark = pytest.mark.trained


@pytest.fixture(scope="module")
def canaries(micro_suite: Path) -> pd.DataFrame:
    return load_truth(micro_suite).canaries


def _tokens(canaries: pd.DataFrame) -> np.ndarray:
    return np.array(canaries["tokens"].tolist(), dtype=np.int64)


@pytest.mark.parametrize("model_name", ["s", "m"])
def test_flags_prefixes_and_scores_equal_generate(micro_suite: Path, canaries: pd.DataFrame, model_name: str) -> None:
    suite = load_suite(micro_suite)
    step = suite.steps(model_name)[-1]
    model: Any = unrestrained(load(suite.checkpoint(model_name, step), device="cpu", dtype="float32"))
    tokens = _tokens(canaries)
    for context, continuation in ((32, 32), (16, 24), (48, 16)):
        window = Window(context, continuation)
        decoded = generated(model, tokens[:, :context], continuation)
        truth = tokens[:, context : context + continuation]
        found = extract(model, tokens, window)
        assert (found.memorized == (decoded == truth).all(axis=1)).all() and found.memorized.sum() > 10
        assert (found.matched == leading(decoded, truth)).all()
        assert (scores(model, tokens, window) == (decoded == truth).mean(axis=1)).all()
        quick = screened(model, tokens, window)
        assert (quick.memorized == found.memorized).all() and (quick.matched == found.matched).all()
    flips = np.repeat(tokens[found.memorized][:8], 16, axis=0)
    places = np.tile(np.arange(16), len(flips) // 16)
    flips[np.arange(len(flips)), 48 + places] = (flips[np.arange(len(flips)), 48 + places] + 1) % 1000
    flipped = extract(model, flips, Window(48, 16))
    assert not flipped.memorized.any() and (flipped.matched == places).all()


def test_memorized_canaries_and_exposures_agree_with_the_truth(micro_suite: Path, canaries: pd.DataFrame) -> None:
    suite = load_suite(micro_suite)
    last = suite.steps("m")[-1]
    table = measure(suite.checkpoints(["m"], [0, last]), _tokens(canaries), row_ids=canaries["canary"].to_numpy(), device="cpu")
    table = with_exposures(table, canaries["steps"].tolist(), row_ids=canaries["canary"].to_numpy())
    trained = table[table["step"] == last].set_index("row")
    assert (trained["exposures"] == canaries.set_index("canary")["copies"]).all()
    assert not trained.loc[trained["exposures"] == 0, "memorized"].any()
    assert not table.loc[table["step"] == 0, "memorized"].any() and (table.loc[table["step"] == 0, "exposures"] == 0).all()
    shares = summarize(table[table["step"] == last], by="exposures").query("metric == 'memorized_share'").set_index("exposures_low")["value"]
    assert shares[256] >= 0.9 and shares[128] >= 0.9 and shares[1] <= 0.1
    often, seldom = trained.loc[trained["exposures"] >= 64, "matched"].mean(), trained.loc[trained["exposures"] <= 4, "matched"].mean()
    assert often > 28 > 6 > seldom


@pytest.fixture(scope="module")
def losses(micro_suite: Path, canaries: pd.DataFrame) -> pd.DataFrame:
    """canary × step, nats per token, of the largest model."""
    suite = load_suite(micro_suite)
    steps = [s for s in suite.steps("m") if s == 0 or s >= 256]
    table = row_scores(suite.checkpoints(["m"], steps), _tokens(canaries), row_ids=canaries["canary"].to_numpy(), device="cpu")
    return table.pivot(index="row", columns="step", values="nll").loc[canaries["canary"]]


def test_causal_profiles_jump_at_the_checkpoint_after_a_burst(canaries: pd.DataFrame, losses: pd.DataFrame) -> None:
    steps = [s for s in losses.columns if s >= 256]
    burst = canaries["burst"].notna() & (canaries["copies"] >= 4)
    first = np.array([s[0] if len(s) else -1 for s in canaries["steps"]])
    cohorts = np.where(canaries["copies"] == 0, NEVER, cohort_of(first, steps))
    keep = (burst | (canaries["copies"] == 0)).to_numpy()
    assert (cohorts[burst] == canaries.loc[burst, "burst"]).all(), "the burst lies just before its checkpoint"
    found = profiles(losses[steps].to_numpy()[keep], steps, cohorts[keep], lower_is_memorized=True, resamples=500)
    mean = found.mean(event_mask(found, "instantaneous"))
    value, low = mean.value, mean.low
    assert value > 0.8 and low > 0.3
    placebo = found.mean(event_mask(found, "before")).value
    assert abs(placebo) < value / 4
    for cohort, effects in zip(found.cohorts, found.effects, strict=True):
        at = list(found.steps).index(cohort)
        rises = np.diff(np.nan_to_num(effects))
        assert rises.argmax() == at - 1, f"cohort {cohort}: the largest rise is the burst's checkpoint"
    lasting = found.mean(event_mask(found, "residual"))
    residual, low = lasting.value, lasting.low
    assert 0 < low < residual < value, "some of it stays, some is forgotten"


def test_membership_is_at_chance_before_and_clear_after_many_exposures(canaries: pd.DataFrame, losses: pd.DataFrame) -> None:
    often = (canaries["copies"] >= 64).to_numpy()
    controls = (canaries["copies"] == 0).to_numpy()
    before = auc(-losses.loc[often, 0], -losses.loc[controls, 0], resamples=300)
    assert before.low < 0.5 < before.high
    last = losses.columns[-1]
    after = auc(-losses.loc[often, last], -losses.loc[controls, last], resamples=300)
    assert after.value > 0.9 and after.low > 0.9
    late = canaries["burst"].eq(1200).fillna(False).to_numpy(dtype=bool) & (canaries["copies"] >= 4).to_numpy()
    step = max(s for s in losses.columns if s < 1200)
    not_yet = auc(-losses.loc[late, step], -losses.loc[controls, step], resamples=300)
    assert not_yet.low < 0.5 < not_yet.high


def test_float16_and_bfloat16_flags_are_those_of_float32_or_flagged(micro_suite: Path, canaries: pd.DataFrame) -> None:
    suite = load_suite(micro_suite)
    checkpoint = suite.checkpoint("m", suite.steps("m")[-1])
    exact = extract(load(checkpoint, device="cpu", dtype="float32"), _tokens(canaries))
    half = extract(load(checkpoint, device="cpu", dtype="bfloat16").to(torch.bfloat16), _tokens(canaries))
    differs = exact.memorized != half.memorized
    assert (np.abs(exact.margin[differs]) < 0.5).all(), "only rows of small margin change with the format"
