"""Counts per block: Poisson when order does not matter, overdispersed or trending when it does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from pythia_tools.analyses.memorization import block_counts, order_effect, qq_points, summarize_order
from pythia_tools.analyses.memorization.order_effect import dispersion
from pythia_tools.core.errors import RequestError

RNG = np.random.default_rng(7)
PLAIN = RNG.random(512 * 60) < 0.01


def test_rows_in_no_order_look_like_poisson() -> None:
    found = order_effect(PLAIN, permutations=400, resamples=300)
    assert block_counts(PLAIN)[0].sum() == PLAIN.sum() and found["block_mean"].value == PLAIN.sum() / 60
    for name in ("dispersion", "position_correlation"):
        assert found[f"{name}_permuted"].low < found[name].value < found[f"{name}_permuted"].high
    assert found["p_dispersion"].value > 0.05 and found["p_position"].value > 0.05


def test_bursts_and_trends_are_found_as_effects() -> None:
    bursts = PLAIN.copy()
    bursts[512 * 10 : 512 * 10 + 60] = True
    found = order_effect(bursts, permutations=400, resamples=300)
    assert found["dispersion"].value > found["dispersion_permuted"].high and found["p_dispersion"].value <= 0.01
    rising = RNG.random(512 * 60) < np.linspace(0, 0.04, 512 * 60)
    found = order_effect(rising, permutations=400, resamples=300)
    assert found["position_correlation"].low > 0.5 and found["p_position"].value <= 0.01


def test_the_null_is_that_of_shuffled_rows() -> None:
    flags = np.zeros(40 * 25, bool)
    flags[:90] = True
    null = order_effect(flags, block=40, permutations=3000, resamples=50)["dispersion_permuted"]
    rng = np.random.default_rng(1)
    slow = [dispersion(block_counts(rng.permutation(flags), 40)[0]) for _ in range(3000)]
    assert (null.low, null.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.06)
    assert stats.ks_2samp(slow, [dispersion(c) for c in _null(flags)]).pvalue > 0.001


def _null(flags: np.ndarray) -> np.ndarray:
    from pythia_tools.analyses.memorization.order_effect import _permuted

    counts, _ = block_counts(flags, 40)
    return _permuted(counts, 40, 2000, np.random.default_rng(2))


def test_quantiles_are_those_of_statsmodels() -> None:
    counts, _ = block_counts(PLAIN)
    theirs = sm.ProbPlot(counts.astype(float), stats.poisson(counts.mean()))
    points = qq_points(counts)
    assert np.repeat(points["theoretical"], points["multiplicity"]).tolist() == theirs.theoretical_quantiles.tolist()
    assert np.repeat(points["observed"], points["multiplicity"]).tolist() == theirs.sample_quantiles.tolist()


def test_incomplete_and_undecided_blocks_are_left_out_and_counted() -> None:
    flags = pd.array([True, False] * 10, dtype="boolean")
    flags[5] = pd.NA
    counts, left_out = block_counts(flags, 4)
    assert counts.tolist() == [2, 2, 2, 2] and left_out == 4
    assert block_counts([True] * 7, 3)[0].tolist() == [3, 3] and block_counts([True] * 7, 3)[1] == 1
    with pytest.raises(RequestError, match="too few"):
        order_effect([True] * 5, block=2)


def test_nothing_memorized_is_no_crash() -> None:
    found = order_effect(np.zeros(40, bool), block=4, permutations=20, resamples=20)
    assert np.isnan(found["dispersion"].value) and np.isnan(found["p_dispersion"].value)


def test_a_random_sample_has_no_order_to_test() -> None:
    identity = {"suite": "s", "model": "m", "params": 1, "step": 2, "tokens": 3, "branch": "main", "seed": 1}
    table = pd.DataFrame({**identity, "row": range(64), "memorized": pd.array(PLAIN[:64], dtype="boolean")})
    assert set(
        summarize_order(table, block=8, permutations=50)["metric"]
    ) >= {"dispersion", "position_correlation", "p_position"}
    with pytest.raises(RequestError, match="consecutive rows"):
        summarize_order(table.iloc[::2], block=8)
