"""Statistics against scipy, statsmodels and hand counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr
from scipy.stats import t as student

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


def test_percentile_bootstrap_matches_scipy_within_noise() -> None:
    from scipy.stats import bootstrap

    data = np.random.default_rng(1).exponential(size=80)
    ours = statistics.statistic(lambda rows: rows.mean(axis=1), data, unit="item", resamples=8000, vectorized=True)
    rng = np.random.default_rng(2)
    theirs = bootstrap((data,), np.mean, method="percentile", n_resamples=8000, rng=rng).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)


def test_the_mean_of_few_units_is_never_surer_than_students_t() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    two = statistics.mean([0.1, 0.3], unit="seed")
    assert two.interval == "student95" and two.high - 0.2 == pytest.approx(12.706 * 0.1, rel=1e-4)
    for n in (2, 3, 5, 10, 40):
        for data in (rng.normal(size=n), rng.exponential(size=n), rng.integers(0, 5, n) + 0.5):
            found = statistics.mean(data, unit="seed")
            student = ttest_1samp(data, 0).confidence_interval()
            assert found.low <= student.low + 1e-9 and found.high >= student.high - 1e-9
            assert found.value - found.low == pytest.approx(found.high - found.value)
    wide = statistics.mean(np.random.default_rng(3).lognormal(size=12), unit="item")
    assert wide.interval == "studentized bootstrap95"


def test_two_samples_are_never_surer_than_welch() -> None:
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(2)
    for n, m in ((2, 5), (8, 8), (30, 6)):
        a, b = rng.normal(size=n), 3 * rng.exponential(size=m)
        found = statistics.difference_of_means(a, b, unit="row")
        welch = ttest_ind(a, b, equal_var=False).confidence_interval()
        assert found.low <= welch.low + 1e-9 and found.high >= welch.high - 1e-9
    lone = statistics.difference_of_means([1.0], [2.0, 3.0], unit="row")
    assert (lone.value, lone.interval) == (-1.5, "none") and np.isnan(lone.low)


def test_a_heavy_tail_widens_the_interval_beyond_students() -> None:
    from scipy.stats import t as student

    data = np.random.default_rng(5).lognormal(sigma=1.5, size=15)
    found = statistics.mean(data, unit="item")
    assert found.high - found.value > 1.1 * student.ppf(0.975, 14) * data.std(ddof=1) / np.sqrt(15)


def test_values_that_repeat_are_resampled_by_frequency_to_the_same_interval() -> None:
    data = np.round(np.random.default_rng(5).exponential(3, 300))
    few = statistics.mean(data, unit="item", resamples=20_000)
    slow = statistics.mean(data + np.random.default_rng(1).normal(0, 1e-9, 300), unit="item", resamples=20_000)
    assert (few.low, few.high) == pytest.approx((slow.low, slow.high), rel=0.01)


def test_shares_get_wilson_and_one_value_gets_no_interval() -> None:
    share = statistics.mean([1.0] * 10, unit="canary")
    assert (share.value, share.low, share.high) == (1.0, statistics.wilson(10, 10, unit="canary").low, 1.0)
    assert (share.n, share.unit, share.interval) == (10, "canary", "wilson95")
    lone = statistics.mean([0.3], unit="item")
    assert (lone.value, lone.interval) == (0.3, "none")
    assert np.isnan([lone.low, lone.high]).all()
    paired = statistics.difference([1.0, 0.0, 1.0], [0.0, 0.0, 0.0], unit="item")
    assert paired == statistics.paired_shares(2, 0, 3, unit="item")
    same = statistics.difference(np.zeros(24), np.zeros(24), unit="item")
    assert same.low < 0 < same.high, "24 pairs that agree are no proof that none differs"


def test_flags_in_clusters_are_worth_fewer_and_never_certain() -> None:
    clusters = np.repeat(np.arange(24), 8)
    alike = np.repeat(np.random.default_rng(1).permutation(24) < 8, 8).astype(float)
    found = statistics.mean(alike, unit="occupation", clusters=clusters)
    alone = statistics.wilson(8, 24, unit="occupation")
    assert (found.value, found.n, found.interval) == (1 / 3, 24, "clustered wilson95")
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    mixed = statistics.mean(np.tile([1, 0, 0, 1, 0, 0, 1, 0], 24), unit="occupation", clusters=clusters)
    assert mixed.high - mixed.low < alone.high - alone.low
    every = statistics.mean(np.ones(192), unit="occupation", clusters=clusters)
    assert 0.8 < every.low < statistics.wilson(192, 192, unit="item").low and every.high == 1
    one = statistics.mean([1, 0, 1], unit="occupation", clusters=[0, 0, 0])
    assert np.isnan(one.low) and one.interval == "none"


def test_percentiles_of_too_few_units_are_refused() -> None:
    few = statistics.rank_correlation([1, 2, 3, 4, 5], [2, 1, 3, 5, 4], unit="term")
    assert few.value == pytest.approx(0.8) and few.interval == "none" and np.isnan([few.low, few.high]).all()
    assert statistics.rank_correlation(range(6), [2, 1, 3, 5, 4, 6], unit="term").interval == "bootstrap95"


def test_dispersion_has_an_interval_that_holds() -> None:
    counts = np.random.default_rng(1).poisson(5, 40)
    found = statistics.dispersion(counts, unit="block")
    assert found.value == pytest.approx(counts.var(ddof=1) / counts.mean())
    assert 0 < found.low < found.value < found.high
    plain = statistics.statistic(lambda c: c.var(ddof=1) / c.mean(), counts, unit="block")
    assert found.high - found.low > plain.high - plain.low
    for nothing in ([0] * 9, [3] * 9, [1, 2, 0]):
        none = statistics.dispersion(nothing, unit="block")
        assert none.interval == "none" and np.isnan(none.low)


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


def test_few_units_are_tested_by_students_t_as_no_sign_is_rare_enough() -> None:
    from scipy.stats import ttest_1samp

    seeds = [0.021, 0.025, 0.019]
    assert statistics.sign_flip_test(seeds) == 0.25
    assert statistics.paired_test(seeds) == pytest.approx(ttest_1samp(seeds, 0).pvalue)
    many = np.random.default_rng(3).normal(0.4, 1, 20)
    assert statistics.paired_test(many) == statistics.sign_flip_test(many)
    assert np.isnan(statistics.paired_test([0.3])) and statistics.paired_test([0.0, 0.0, 0.0]) == 1


def test_clustered_flags_of_which_none_differs_are_no_proof_of_no_difference() -> None:
    flags, clusters = np.tile([0.0, 1.0, 1.0], 20), np.repeat(np.arange(20), 3)
    found = statistics.difference(flags, flags, unit="text", clusters=clusters)
    expected = statistics.paired_shares(0, 0, 20, unit="text")
    assert (found.low, found.high, found.n) == (expected.low, expected.high, 20) and found.low < 0 < found.high
    nats = statistics.difference(np.ones(60) * 0.3, np.ones(60) * 0.3, unit="text", clusters=clusters)
    assert "agresti" not in nats.interval


def test_a_series_is_worth_fewer_values_the_more_its_neighbours_are_alike() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    steps = rng.normal(size=400)
    noise = steps + 0.3
    found, p, least = statistics.series_mean(noise, unit="checkpoint")
    waves = [np.sqrt(2) * np.mean(noise * np.cos(np.pi * j * (np.arange(400) + 0.5) / 400)) for j in (1, 2, 3, 4)]
    t = noise.mean() / np.sqrt(np.mean(np.square(waves)))
    assert found.n == 5 and p == pytest.approx(2 * student.sf(t, 4))
    assert p < 0.05 < 0.3 + least and found.low > 0
    smooth = np.convolve(steps, np.ones(30) / 30, mode="valid")
    drifted, drift_p, _ = statistics.series_mean(smooth, unit="checkpoint")
    assert drift_p > 0.04 > 1e-4 > ttest_1samp(smooth, 0).pvalue
    assert drifted.interval == "cosine t95" and drifted.low < drifted.value < drifted.high
    trend, trend_p, _ = statistics.series_mean(np.linspace(0, 1, 40), unit="checkpoint")
    assert trend.low < 0 and trend_p > 0.05
    for short in ([0.1, 0.2, 0.3], rng.normal(size=19), [0.2] * 30):
        none, no_p, no_least = statistics.series_mean(short, unit="checkpoint")
        assert none.interval == "none" and np.isnan([none.low, no_p, no_least]).all()


def test_adjusted_pvalues_equal_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = [0.01, 0.04, 0.03, 0.2, 0.001]
    assert statistics.adjust_pvalues(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert statistics.adjust_pvalues(p, "bh") == pytest.approx(multipletests(p, method="fdr_bh")[1])
    with pytest.raises(RequestError, match="allowed: holm, bh"):
        statistics.adjust_pvalues(p, "bonferoni")


@pytest.mark.parametrize("n", [2, 3, 6, 24, 200])
def test_minimal_detectable_effect_equals_statsmodels_power_analysis(n: int) -> None:
    from statsmodels.stats.power import TTestPower

    d = np.random.default_rng(5).normal(size=n)
    expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * d.std(ddof=1)
    assert statistics.minimal_detectable_effect(d) == pytest.approx(expected, rel=1e-3)


def _fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression().fit_transform(x, y)


def test_isotonic_rise_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        n = int(rng.integers(2, 40))
        x, y = rng.integers(0, 8, n).astype(float), rng.normal(0, 1, n) + rng.choice([-0.3, 0, 0.3]) * np.arange(n)
        if len(np.unique(x)) > 1:
            expected = [np.ptp(_fitted(x, row)) for row in (y, y[::-1])]
            np.testing.assert_allclose(_rises(x, np.stack([y, y[::-1]])), expected, atol=1e-9)
    x = rng.integers(0, 12, 60).astype(float)
    y = np.clip(x / 12 + rng.normal(0, 0.3, 60), 0, 1)
    rise, p = statistics.isotonic_rise(x, y)
    assert rise == pytest.approx(np.ptp(_fitted(x, y))) and p == 1 / 2001
    assert statistics.isotonic_rise(x, 5 - x) == (0, 1)
    assert np.isnan(statistics.isotonic_rise([3, 3, 3], [0, 1, 0])).all()


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(5), 4)])
def test_the_isotonic_rise_is_judged_by_permutations(clusters: np.ndarray | None) -> None:
    """Without any relation, and with clusters that differ in level, its p-value is below .05 in one case of twenty."""
    rng = np.random.default_rng(8)
    level = 0 if clusters is None else 3 * rng.normal(size=(600, 5))[:, clusters]
    noise = level + rng.normal(size=(600, 20))
    found = [statistics.isotonic_rise(rng.integers(0, 9, 20), y, clusters=clusters, permutations=199)[1] for y in noise]
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07


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


def _draws(function, *columns, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """A cluster bootstrap spelled out: draw cluster names, join their items, take the statistic."""
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(LABELS))
    draws = []
    for _ in range(resamples):
        chosen = [names[k] for k in rng.integers(0, len(names), len(names))]
        joined = [(k, copy) for copy, name in enumerate(chosen) for k in np.flatnonzero(name == LABELS)]
        rows, copies = (np.array(part) for part in zip(*joined, strict=True))
        draws.append(function(*(c[rows] for c in columns), copies))
    return np.array(draws)


def _error_of_mean(values: np.ndarray, clusters: np.ndarray) -> float:
    """By statsmodels: a regression on a constant with cluster-robust variance, n / (n - 1) as the only correction."""
    import statsmodels.api as sm

    fit = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": np.unique(clusters, return_inverse=True)[1], "use_correction": False}
    )
    n = len(np.unique(clusters))
    return float(fit.bse[0]) * np.sqrt(n / (n - 1))


def test_clusters_are_resampled_whole_as_by_a_slow_explicit_bootstrap() -> None:
    rng = np.random.default_rng(9)
    place = np.unique(LABELS, return_inverse=True)[1]
    x = rng.normal(size=10)[place] + 0.1 * rng.normal(size=LABELS.size)
    y = x + rng.normal(size=LABELS.size)
    options = {"unit": "occupation", "clusters": LABELS}
    found, draws = statistics.statistic(np.median, x, **options), _draws(lambda a, _: np.median(a), x)
    told = (np.median(x), *np.nanquantile(draws, [0.025, 0.975]))
    assert (found.value, found.low, found.high) == pytest.approx(told)
    for found, data in ((statistics.mean(x, **options), x), (statistics.difference(x, y, **options), x - y)):
        middle = partial(np.subtract, data.mean())
        told = _draws(lambda a, copies, m=middle: abs(m(a.mean())) / _error_of_mean(a, copies), data, resamples=300)
        again = statistics.difference(data, resamples=300, **options)
        half = np.quantile(told, 0.95) * _error_of_mean(data, LABELS)
        assert again.high - again.value == pytest.approx(half), "at least Student's, here more"
        assert (found.n, found.unit) == (10, "occupation") and found.interval.endswith("studentized bootstrap95")
        assert found.low <= found.value <= found.high
    apart = statistics.mean(x, unit="item")
    clustered = statistics.mean(x, **options)
    assert clustered.high - clustered.low > 1.3 * (apart.high - apart.low), "items of one cluster tell less"


def test_permutations_stay_within_clusters() -> None:
    values = np.arange(LABELS.size)
    made = statistics.permuted(values, 50, clusters=LABELS, seed=2)
    assert (np.sort(made, axis=1) == values).all() and (np.asarray(LABELS)[made] == np.asarray(LABELS)).all()
    assert len({tuple(row) for row in made}) == 50
    assert (statistics.permuted(values, 9, clusters=values) == statistics.permuted(values, 9)).all()


def test_clusters_of_size_one_give_the_unclustered_numbers() -> None:
    rng = np.random.default_rng(3)
    x, y, flags = rng.normal(size=25), rng.normal(size=25), rng.integers(0, 2, 25)
    names = rng.permutation(25).astype(str)
    for function, columns in (
        (statistics.mean, (x,)), (statistics.mean, (flags,)),
        (statistics.difference, (x, y)), (statistics.rank_correlation, (x, y)),
        (partial(statistics.statistic, np.median), (x,)),
    ):
        assert function(*columns, unit="row", clusters=names) == function(*columns, unit="row")
    assert statistics.isotonic_rise(x.round(), y, clusters=names) == statistics.isotonic_rise(x.round(), y)
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


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_bounds_are_low_value_high(values: list[float], seed: int) -> None:
    """The bounds of a mean lie on either side of it, in this order."""
    found = statistics.mean(values, unit="row", seed=seed)
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


def test_permutation_pvalues_count_both_tails_and_what_was_seen() -> None:
    draws = np.arange(99.0)
    assert statistics.permutation_pvalue(draws, 98.5) == statistics.permutation_pvalue(draws, -1) == 2 / 100
    assert statistics.permutation_pvalue(draws, 49) == 1
    assert np.isnan(statistics.permutation_pvalue(np.full(5, np.nan), 1.0))


def test_correlations_over_few_clusters_are_jackknifed_on_fishers_z() -> None:
    """Clusters left out one by one with scipy's rho; percentiles of 6 to 10 clusters cover in .86 to .94 of cases."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, LABELS.size))
    found = statistics.rank_correlation(x, y, unit="relation", clusters=LABELS)
    z = [np.arctanh(spearmanr(x[name != LABELS], y[name != LABELS]).statistic) for name in np.unique(LABELS)]
    n = len(z)
    reach = student.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * n * np.var(z))
    bounds = np.tanh(np.arctanh(spearmanr(x, y).statistic) + np.array([-reach, reach]))
    assert (found.low, found.high, found.n) == pytest.approx((*bounds, n)) and found.interval == "jackknife t95"


def test_a_bootstrap_that_cannot_vary_has_no_interval() -> None:
    same = statistics.rank_correlation(np.arange(12), np.arange(12) ** 2, unit="term")
    assert same.value == 1 and same.interval == "none" and np.isnan(same.low)
    x, y, length = np.random.default_rng(2).random((3, 11))
    few = statistics.partial_rank_correlation(x, y, [length, length**2], unit="term")
    assert np.isfinite(few.value) and few.interval == "none", "two controls need twelve terms"


def test_means_of_shares_have_wilsons_bounds_at_what_they_are_worth() -> None:
    """statsmodels has Wilson's bounds of so many flags; a share of all that were asked is no certainty."""
    from statsmodels.stats.proportion import proportion_confint

    few = np.array([0.0, 0.0, 0.0, 0.0, 0.25, 0.5])
    plain, shares = statistics.mean(few, unit="term"), statistics.mean(few, unit="term", share=True)
    p, worth = few.mean(), few.mean() * (1 - few.mean()) / (few.var(ddof=1) / 6)
    alpha = 2 * norm.sf(student.ppf(0.975, 5))
    bounds = proportion_confint(p * worth, worth, alpha=alpha, method="wilson")
    assert plain.low < 0 == shares.low and plain.high < shares.high == pytest.approx(bounds[1], rel=1e-6)
    assert shares.interval == "effective wilson95" and shares.value == plain.value
    half = statistics.mean([0.5] * 8, unit="term", share=True)
    assert half.low < 0.4 and half.high > 0.6, "eight shares of one half each"
    assert np.isnan(statistics.mean([0.5], unit="term", share=True).low)
