"""Statistics against scipy, statsmodels and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError


@given(st.integers(0, 60), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_wilson_equals_statsmodels(hits: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    hits = min(hits, n)
    low, high = proportion_confint(hits, n, method="wilson")
    ours = statistics.wilson(hits, n, unit="item")
    assert ours.value == hits / n
    assert ours.low == pytest.approx(low, abs=1e-12)
    assert ours.high == pytest.approx(high, abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    empty = statistics.wilson(0, 0, unit="item")
    assert np.isnan(empty.value)
    assert (empty.low, empty.high, empty.n) == (0.0, 1.0, 0)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        e = statistics.mean(rng.normal(3.0, 1.0, 40), unit="item", resamples=400, seed=trial)
        covered += e.low <= 3.0 <= e.high
    assert 175 <= covered <= 199


def test_bootstrap_matches_scipy_within_noise() -> None:
    from scipy.stats import bootstrap

    data = np.random.default_rng(1).exponential(size=80)
    ours = statistics.mean(data, unit="item", resamples=8000)
    theirs = bootstrap((data,), np.mean, method="percentile", n_resamples=8000, rng=np.random.default_rng(2)).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)


def test_shares_get_wilson_and_one_value_gets_no_interval() -> None:
    share = statistics.mean([1.0] * 10, unit="canary")
    assert (share.value, share.low, share.high) == (1.0, statistics.wilson(10, 10, unit="canary").low, 1.0)
    assert (share.n, share.unit, share.interval) == (10, "canary", "wilson95")
    lone = statistics.mean([0.3], unit="item")
    assert lone.value == 0.3
    assert np.isnan([lone.low, lone.high]).all()
    paired = statistics.difference([1.0, 0.0, 1.0], [0.0, 0.0, 0.0], unit="item")
    assert paired.interval == "paired bootstrap95"


def test_nan_is_refused_with_its_count() -> None:
    with pytest.raises(RequestError, match="1 of 3 values are NaN"):
        statistics.mean([1.0, float("nan"), 2.0], unit="item")


def test_paired_difference_pairs() -> None:
    a = np.arange(20.0)
    e = statistics.difference(a + 0.5, a, unit="item")
    assert (e.value, e.low, e.high) == (0.5, 0.5, 0.5)
    with pytest.raises(RequestError, match="20 and 19"):
        statistics.difference(a, a[1:], unit="item")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=40))
@settings(max_examples=60, deadline=None)
def test_rank_correlation_equals_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=float).T
    ours = statistics.rank_correlation(x, y, unit="item", resamples=20).value
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_sign_flip_is_exact_for_few_units_and_close_for_many() -> None:
    assert statistics.sign_flip_test([1, 1, 1]) == pytest.approx(2 / 8)
    assert statistics.sign_flip_test([1, -1]) == 1.0
    d = np.random.default_rng(3).normal(0.3, 1, 13)
    exact = statistics.sign_flip_test(d)
    padded = statistics.sign_flip_test(np.append(d, 0.0), resamples=40000)
    assert padded == pytest.approx(exact, abs=0.01)


def test_adjusted_pvalues_equal_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = [0.01, 0.04, 0.03, 0.2, 0.001]
    assert statistics.adjust_pvalues(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert statistics.adjust_pvalues(p, "bh") == pytest.approx(multipletests(p, method="fdr_bh")[1])
    with pytest.raises(RequestError, match="allowed: holm, bh"):
        statistics.adjust_pvalues(p, "bonferoni")


def test_minimal_detectable_effect_equals_the_power_formula() -> None:
    d = np.random.default_rng(5).normal(size=200)
    expected = (1.959964 + 0.841621) * d.std(ddof=1) / np.sqrt(200)
    assert statistics.minimal_detectable_effect(d) == pytest.approx(expected, rel=1e-5)
