"""Statistics against scipy, statsmodels and hand counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics.association import _rises


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
    rng = np.random.default_rng(2)
    theirs = bootstrap((data,), np.mean, method="percentile", n_resamples=8000, rng=rng).confidence_interval
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


def _fitted(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Isotonic regression by scikit-learn over the levels that have weight."""
    from sklearn.isotonic import IsotonicRegression

    held = weights > 0
    return IsotonicRegression().fit(x[held], y[held], sample_weight=weights[held]).predict(x[held])


def test_isotonic_rise_is_that_of_scikit_learn_under_any_weights() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        n = int(rng.integers(2, 40))
        x, y = rng.integers(0, 8, n).astype(float), rng.normal(0, 1, n) + rng.choice([-0.3, 0, 0.3]) * np.arange(n)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=5).astype(float)
        expected = [np.ptp(_fitted(x, y, w)) for w in weights]
        np.testing.assert_allclose(_rises(x, y, weights), expected, atol=1e-9)
    weights = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), size=300).astype(float)
    rises = [np.ptp(_fitted(x, y, w)) for w in weights]
    found = statistics.isotonic_rise(x, y, unit="term", resamples=300, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(rises, [0.025, 0.975])))
    x = rng.integers(0, 12, 60).astype(float)
    y = np.clip(x / 12 + rng.normal(0, 0.3, 60), 0, 1)
    rise = statistics.isotonic_rise(x, y, unit="term")
    assert rise.low <= rise.value <= rise.high and rise.value == pytest.approx(np.ptp(_fitted(x, y, np.ones(60))))
    assert statistics.isotonic_rise(x, 5 - x, unit="term").value == 0
    assert np.isnan(statistics.isotonic_rise([3, 3, 3], [0, 1, 0], unit="term").value)


def test_partial_correlation_equals_residuals_of_ranks_by_statsmodels() -> None:
    import statsmodels.api as sm
    from scipy.stats import rankdata

    rng = np.random.default_rng(6)
    z = rng.normal(size=80)
    length = rng.integers(1, 4, 80).astype(float)
    x, y = z + rng.normal(size=80), z + 0.2 * length + rng.normal(size=80)
    design = sm.add_constant(np.column_stack([rankdata(z), rankdata(length)]))
    left = [sm.OLS(rankdata(v), design).fit().resid for v in (x, y)]
    got = statistics.partial_rank_correlation(x, y, [z, length], unit="term")
    assert got.value == pytest.approx(np.corrcoef(*left)[0, 1])
    assert got.low < got.value < got.high
    assert statistics.partial_rank_correlation(x, y, [], unit="term").value == pytest.approx(spearmanr(x, y).statistic)
    nothing_left = statistics.partial_rank_correlation(x, y, [x], unit="term")
    assert np.isnan(nothing_left.value)


def test_spearman_of_rows_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 4, (30, 9)), rng.integers(0, 3, (30, 9))
    for a, b in ((x, y), (x - 2, y * 100), (x.astype(float), y)):
        got = statistics.spearman(a, b)
        for k in range(30):
            if np.ptp(x[k]) and np.ptp(y[k]):
                assert got[k] == pytest.approx(spearmanr(x[k], y[k]).statistic)
            else:
                assert np.isnan(got[k])


LABELS = np.array(list("aabbbbcdddeefffffffghhiijjj"))


def _slow(function, *columns, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """A cluster bootstrap spelled out: draw cluster names, join their items, take the statistic."""
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(LABELS))
    draws = []
    for _ in range(resamples):
        chosen = [names[k] for k in rng.integers(0, len(names), len(names))]
        rows = [k for name in chosen for k in np.flatnonzero(name == LABELS)]
        draws.append(function(*(c[rows] for c in columns)))
    return (function(*columns), *np.nanquantile(draws, [0.025, 0.975]))


def test_clusters_are_resampled_whole_as_by_a_slow_explicit_bootstrap() -> None:
    rng = np.random.default_rng(9)
    place = np.unique(LABELS, return_inverse=True)[1]
    x = rng.normal(size=10)[place] + 0.1 * rng.normal(size=LABELS.size)
    y = x + rng.normal(size=LABELS.size)
    flags = (x > 0).astype(float)
    rho = lambda a, b: spearmanr(a, b).statistic  # noqa: E731
    options = {"unit": "occupation", "clusters": LABELS}
    for found, slow in (
        (statistics.mean(x, **options), _slow(np.mean, x)),
        (statistics.mean(np.round(x), by_frequency=True, **options), _slow(np.mean, np.round(x))),
        (statistics.mean(flags, **options), _slow(np.mean, flags)),
        (statistics.difference(x, y, **options), _slow(np.mean, x - y)),
        (statistics.statistic(np.median, x, **options), _slow(np.median, x)),
        (statistics.rank_correlation(x, y, **options), _slow(rho, x, y)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx(slow), found
        assert (found.n, found.unit) == (10, "occupation") and found.interval.endswith("bootstrap95")
        assert found.low <= found.value <= found.high
    apart = statistics.mean(x, unit="item")
    clustered = statistics.mean(x, **options)
    assert clustered.high - clustered.low > 1.3 * (apart.high - apart.low), "items of one cluster tell less"


def test_the_isotonic_rise_weighs_whole_clusters() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 6, LABELS.size).astype(float), rng.normal(size=LABELS.size)
    found = statistics.isotonic_rise(x, y, unit="occupation", clusters=LABELS, resamples=200, seed=3)
    names = list(dict.fromkeys(LABELS))
    drawn = np.random.default_rng(3).multinomial(10, np.full(10, 0.1), size=200)
    rises = [np.ptp(_fitted(x, y, np.array([copies[names.index(k)] for k in LABELS], dtype=float))) for copies in drawn]
    assert found.n == 10 and (found.low, found.high) == pytest.approx(tuple(np.quantile(rises, [0.025, 0.975])))


def test_clusters_of_size_one_give_the_unclustered_numbers() -> None:
    rng = np.random.default_rng(3)
    x, y, flags = rng.normal(size=25), rng.normal(size=25), rng.integers(0, 2, 25)
    names = rng.permutation(25).astype(str)
    for function, columns in (
        (statistics.mean, (x,)), (statistics.mean, (flags,)),
        (statistics.difference, (x, y)), (statistics.rank_correlation, (x, y)),
        (partial(statistics.statistic, np.median), (x,)), (statistics.isotonic_rise, (x.round(), y)),
    ):
        assert function(*columns, unit="row", clusters=names) == function(*columns, unit="row")
    assert statistics.sign_flip_test(x, clusters=names) == statistics.sign_flip_test(x)
    assert statistics.minimal_detectable_effect(x, clusters=names) == statistics.minimal_detectable_effect(x)


def test_tests_and_minimal_effects_count_clusters() -> None:
    d = np.random.default_rng(8).normal(0.5, 1, 6)
    copies = np.repeat(d, 5)
    labels = np.repeat(np.arange(6), 5)
    assert statistics.sign_flip_test(copies, clusters=labels) == statistics.sign_flip_test(d)
    assert statistics.minimal_detectable_effect(copies, clusters=labels) == pytest.approx(
        statistics.minimal_detectable_effect(d)
    )
    assert np.isnan(statistics.minimal_detectable_effect(copies, clusters=np.zeros(30)))
    lone = statistics.mean(copies, unit="seed", clusters=np.zeros(30))
    assert lone.n == 1 and lone.value == pytest.approx(d.mean()) and np.isnan([lone.low, lone.high]).all()


def test_every_item_needs_a_cluster() -> None:
    with pytest.raises(RequestError, match="3 items have 2 cluster labels"):
        statistics.mean([1.0, 2.0, 4.0], unit="row", clusters=["a", "b"])
    with pytest.raises(RequestError, match="3 items have 2 cluster labels"):
        statistics.mean([1.0, 2.0, 4.0], unit="row", clusters=["a", None, "b"])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.integers(0, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_bounds_are_low_value_high(values: list[float], seed: int, by_frequency: bool) -> None:
    """Of a mean's percentile bootstrap with many resamples the bounds lie on either side of it, in this order."""
    found = statistics.mean(values, unit="row", seed=seed, by_frequency=by_frequency)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    shares = statistics.mean(np.array(values) > 0, unit="row")
    assert 0 <= shares.low <= shares.value <= shares.high <= 1


def test_bounds_keep_their_ends_in_columns() -> None:
    found = statistics.mean(np.arange(30.0), unit="row")
    assert list(found.columns()) == ["value", "low", "high", "n", "unit", "interval"]
    assert found.columns()["low"] < 14.5 < found.columns()["high"]
    assert statistics.percentiles(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert statistics.percentiles(np.array([np.nan, 1.0, np.inf, 3.0]), 0.5) == (1.5, 2.5)


def test_bounds_of_paired_shares_known_errors_and_two_samples_keep_their_ends() -> None:
    shares = statistics.paired_shares(20, 5, 100, unit="row")
    assert 0 < shares.low < shares.value == 0.15 < shares.high
    low, high = statistics.normal_bounds([0.5, 2.0], [0.1, float("nan")], 0.9)
    assert (low[0], high[0]) == pytest.approx((0.5 - 0.1644854, 0.5 + 0.1644854)) and np.isnan([low[1], high[1]]).all()
    rng = np.random.default_rng(2)
    a, b = rng.normal(1.0, 1, 60), rng.normal(0.5, 2, 80)
    found = statistics.difference_of_means(a, b, unit="row")
    error = np.sqrt(a.var() / 60 + b.var() / 80)
    assert found.value == a.mean() - b.mean() and found.n == 140
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=0.1)
    assert np.isnan(statistics.difference_of_means(a, [], unit="row").value)


def test_two_crossed_kinds_of_units_are_both_resampled() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(12, 1)) + rng.normal(size=(1, 50)) + 0.1 * rng.normal(size=(12, 50))
    found = statistics.crossed(np.mean, table, unit="run")
    error = np.sqrt(table.mean(axis=1).var() / 12 + table.mean(axis=0).var() / 50)
    assert found.low < found.value < found.high and found.n == 12
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


def test_permutation_pvalues_count_both_tails_and_what_was_seen() -> None:
    draws = np.arange(99.0)
    assert statistics.permutation_pvalue(draws, 98.5) == statistics.permutation_pvalue(draws, -1) == 2 / 100
    assert statistics.permutation_pvalue(draws, 49) == 1
    assert np.isnan(statistics.permutation_pvalue(np.full(5, np.nan), 1.0))
