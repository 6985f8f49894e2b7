"""Difference in differences: cohorts begin at the right checkpoint, known effects come back, placebo effects are zero.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import ttest_ind

from pythia_tools.analyses.memorization import (
    cohort_of,
    forgetting_curve,
    profiles,
    summarize_profiles,
    with_exposures,
)
from pythia_tools.analyses.memorization.profiles import NEVER, event_mask
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError

STEPS = [0, 10, 20, 30, 40]


def test_a_row_enters_at_the_first_checkpoint_above_its_batch() -> None:
    assert cohort_of([0, 9, 10, 19, 39, 40, -1], STEPS).tolist() == [10, 10, 20, 20, 40, NEVER, NEVER]


def _world(n: int = 40, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses that fall for all alike, and by 2, 1.5, 1 … once a row was consumed."""
    rng = np.random.default_rng(seed)
    cohorts = np.repeat([10, 30, NEVER], n)
    trend = np.array([5.0, 4.0, 3.5, 3.2, 3.0])
    values = trend + rng.normal(0, 1, (3 * n, 1)) + rng.normal(
        0, noise, (3 * n, 5)
    ) if noise else trend + rng.normal(0, 1, (3 * n, 1))
    effect = np.zeros((3 * n, 5))
    effect[:n] = [0, 2, 1.5, 1, 0.5]
    effect[n : 2 * n] = [0, 0, 0, 2, 1.5]
    return values - effect, cohorts, effect


def test_known_effects_come_back_exactly_under_parallel_trends() -> None:
    values, cohorts, _ = _world()
    found = profiles(-values, STEPS, cohorts)
    assert found.cohorts.tolist() == [10, 30] and len(found.control) == 40
    assert found.effects[0] == pytest.approx([0, 2, 1.5, 1, 0.5])
    assert found.effects[1] == pytest.approx([0, 0, 0, 2, 1.5])
    assert all(abs(cell.high - cell.low) < 1e-9 for cell in found.cells(1))
    mean = found.mean(event_mask(found, "instantaneous"))
    value, low, high = mean.value, mean.low, mean.high
    assert (value, low, high) == pytest.approx((2, 2, 2))
    assert found.mean(event_mask(found, "residual")).value == pytest.approx(1.0)
    assert found.mean(event_mask(found, "before")).value == pytest.approx(0)


def test_one_cell_equals_the_interaction_of_a_regression() -> None:
    values, cohorts, _ = _world(noise=0.3)
    found = profiles(values, STEPS, cohorts)
    pair = cohorts != 10
    frame = pd.DataFrame({
        "y": np.concatenate([values[pair, 2], values[pair, 4]]), "after": np.repeat([0, 1], pair.sum()),
        "treated": np.tile(cohorts[pair] == 30, 2).astype(int),
    })
    assert found.effects[1, 4] == pytest.approx(smf.ols("y ~ after * treated", frame).fit().params["after:treated"])
    paired = values[:, 4] - values[:, 2]
    a, b = paired[cohorts == 30], paired[cohorts == NEVER]
    welch = ttest_ind(a, b, equal_var=False).confidence_interval()
    cell = found.cells(1, resamples=2000)[4]
    assert (cell.low, cell.high) == pytest.approx((welch.low, welch.high), abs=0.1 * (welch.high - welch.low))
    assert cell.low <= welch.low + 1e-9 and welch.high - 1e-9 <= cell.high and cell.n == 40


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        values, cohorts, _ = _world(25, 0.5, seed)
        found = profiles(-values, STEPS, cohorts)
        residual = found.mean(event_mask(found, "residual"), resamples=200, seed=seed)
        low, high = residual.low, residual.high
        held += low <= 1.0 <= high
    assert 50 <= held <= 60


def test_a_cohort_of_one_row_has_no_interval_and_joins_others_in_means() -> None:
    values, cohorts, _ = _world(12, 0.5)
    few = (cohorts != 30) | (np.arange(len(cohorts)) == 12)
    found = profiles(-values[few], STEPS, cohorts[few])
    assert all(np.isnan(cell.low) and cell.n == 1 for cell in found.cells(1))
    here = event_mask(found, "instantaneous")
    mean = found.mean(here)
    assert mean.n == 13 and mean.low < mean.value < mean.high
    alone = found.mean(here & (found.cohorts == 30)[:, None])
    assert alone.n == 1 and np.isnan(alone.low) and alone.value == found.effects[1, 3]


def test_the_summary_names_every_effect() -> None:
    values, cohorts, _ = _world()
    batches = np.where(cohorts == NEVER, 999, cohorts - 1)
    identity = {"suite": "s", "model": "m", "params": 10, "tokens": 0, "branch": "main", "seed": 1}
    items = tables.check_items(pd.DataFrame([
        {**identity, "step": s, "row": r, "nll": values[r, i]} for i, s in enumerate(STEPS) for r in range(len(values))
    ]))
    found = summarize_profiles(items, batches, controls=cohorts == NEVER, resamples=30)
    at = found.dropna(subset=["cohort"]).set_index(["metric", "cohort", "step"])["value"]
    assert at["effect", 30, 40] == pytest.approx(1.5)
    assert at["instantaneous", 10, 10] == pytest.approx(2)
    assert at["residual", 10, 40] == pytest.approx(0.5)
    at = found[found["cohort"].isna()].fillna({"since": -999}).set_index(["metric", "since", "step"])["value"]
    assert at["persistent_effect", 10, 40] == pytest.approx(1.5)
    assert at["before_effect", -20, 40] == pytest.approx(0) and at["before_effect", -30, 40] == pytest.approx(0)
    assert at["mean_instantaneous", -999, 40] == pytest.approx(2)


def test_designs_that_cannot_answer_are_refused() -> None:
    values, cohorts, _ = _world()
    with pytest.raises(RequestError, match="no control rows"):
        profiles(values, STEPS, np.where(cohorts == NEVER, 10, cohorts))
    with pytest.raises(RequestError, match="no treated rows"):
        profiles(values, STEPS, np.full(len(values), NEVER))
    with pytest.raises(RequestError, match="must ascend"):
        profiles(values, STEPS[::-1], cohorts)
    broken = values.copy()
    broken[0, 0] = np.nan
    with pytest.raises(RequestError, match="missing"):
        profiles(broken, STEPS, cohorts)


def test_forgetting_starts_anew_at_each_exposure() -> None:
    identity = {"suite": "s", "model": "m", "params": 10, "tokens": 0, "branch": "main", "seed": 1}
    exposures = [[4, 19], [], [9]]
    items = pd.DataFrame([{**identity, "step": s, "row": r, "score": s + r / 10} for s in STEPS for r in range(3)])
    aligned = with_exposures(tables.check_items(items), exposures)
    first = aligned[aligned["row"] == 0]
    assert first["exposures"].tolist() == [0, 1, 2, 2, 2]
    assert first["since"].tolist() == [pd.NA, 5, 0, 10, 20] or first["since"].fillna(-1).tolist() == [-1, 5, 0, 10, 20]
    assert aligned.loc[aligned["row"] == 1, "since"].isna().all()
    assert aligned.loc[aligned["row"] == 2, "since"].fillna(-1).tolist() == [-1, 0, 10, 20, 30]
    curve = forgetting_curve(aligned, "score", resamples=50)
    assert set(curve["metric"]) == {"score_after_exposure"}
    at = curve.set_index(["exposures_low", "since"])["value"]
    assert at[1, 4] == 10.0 and at[1, 0] == 10.2
    assert at[1, 16] == pytest.approx((30.2 + 40.2) / 2)
    assert sorted(curve["since"].unique()) == [0, 4, 8, 16]


def test_an_advantage_over_few_controls_is_as_unsure_as_they_are() -> None:
    rng = np.random.default_rng(0)
    identity = {"suite": "s", "model": "m", "params": 10, "tokens": 0, "branch": "main", "seed": 1, "step": 10}
    loss = rng.normal(size=52)
    items = tables.check_items(pd.DataFrame([
        {**identity, "row": r, "advantage": loss[40:].mean() - loss[r]} for r in range(52)
    ]))
    aligned = with_exposures(items, [[9]] * 40 + [[]] * 12)
    line = forgetting_curve(aligned, "advantage", controls=np.arange(40, 52), resamples=2000).iloc[0]
    welch = ttest_ind(loss[40:], loss[:40], equal_var=False).confidence_interval()
    assert line["n"] == 40 and line["value"] == pytest.approx((welch.low + welch.high) / 2)
    assert (line["low"], line["high"]) == pytest.approx((welch.low, welch.high), abs=0.1 * (welch.high - welch.low))
    sure = forgetting_curve(aligned, "advantage", resamples=2000).iloc[0]
    assert sure["high"] - sure["low"] < 0.6 * (line["high"] - line["low"])
