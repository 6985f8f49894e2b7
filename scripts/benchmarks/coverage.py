"""How often do 95 % intervals of the package cover the truth, and how often do its tests reject when nothing is there?

    python scripts/benchmarks/coverage.py [--trials 1000] [--only mean]

Every row simulates data of a known truth at the number of units and the clustering that users have. An interval should
cover in .93 to .97 of the trials that have one, a test at .05 reject in .03 to .07 of all trials; those that refuse
to answer (NaN) are counted apart. The noise of a share over 1000 trials is ± .014.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from pythia_tools.analyses.bias.summaries import stereotype_score
from pythia_tools.analyses.curves.acquisition import METHODS
from pythia_tools.analyses.memorization import (
    Confusion,
    counterfactual,
    forgetting_curve,
    mean_memorization,
    order_effect,
    profiles,
    scaling,
)
from pythia_tools.analyses.memorization.profiles import NEVER, event_mask
from pythia_tools.analyses.term_frequency.definitions import difference_of_correlations
from pythia_tools.analyses.term_frequency.gap import gap
from pythia_tools.core import statistics
from pythia_tools.core.statistics import Estimate
from pythia_tools.dedup.recall import recall
from pythia_tools.fitting.decision import agreement, decision_accuracy
from pythia_tools.fitting.estimation import Fitted, fit_law
from pythia_tools.fitting.laws import HOFFMANN, allocation
from pythia_tools.fitting.phases import PhasesOptions, phases
from pythia_tools.fitting.points import Points
from pythia_tools.fitting.saturation import peak
from pythia_tools.fitting.seeds import icc, outliers
from pythia_tools.fitting.series import Series

if __name__ == "coverage":  # a benchmark beside it asks for the package of that name, as numba does
    raise ImportError("this is a benchmark, not the package coverage")

R = 600
"""Resamples; fewer than the package's own, for speed."""
Draw = Callable[[np.random.Generator, int], np.ndarray]


class Case(NamedTuple):
    """A row of the table. `trial` of a generator and the number of units: an estimate, whose truth is `truth`, or a
    p-value where the truth is None.
    """

    what: str
    data: str
    n: int
    truth: float | None
    trial: Callable[[np.random.Generator, int], Estimate | float]

    @property
    def allowed(self) -> tuple[float, float]:
        return (0.03, 0.07) if self.truth is None else (0.93, 0.97)

    def run(self, trials: int, seed: int = 0) -> tuple[float, float]:
        """Share of the answered trials that cover (or reject), and share that was refused."""
        rng = np.random.default_rng([seed, self.n, len(self.what), len(self.data)])
        found = [self.trial(rng, self.n) for _ in range(trials)]
        if self.truth is None:
            return float((np.array(found) <= 0.05).mean()), float(np.isnan(found).mean())
        bounds = np.array([(e.low, e.high) for e in found if np.isfinite(e.low)]).reshape(-1, 2)
        inside = (bounds[:, 0] <= self.truth + 1e-12) & (self.truth - 1e-12 <= bounds[:, 1])
        return float(inside.mean()), 1 - len(bounds) / trials


NORMAL: Draw = lambda rng, n: rng.normal(size=n)  # noqa: E731
SKEWED: Draw = lambda rng, n: rng.exponential(size=n)  # noqa: E731
SCORES: Draw = lambda rng, n: rng.beta(0.5, 0.5, n)  # noqa: E731


def _of(function: Callable[..., Estimate | float], draw: Draw, **options: object) -> Callable:
    """A trial: the function of n independent values."""
    return lambda rng, n: function(draw(rng, n), **options)


def _in_clusters(function: Callable[..., Estimate | float], each: int, correlation: float, **options: object) -> Callable:
    """A trial: the function of n clusters of normal values, so many in each, which correlate within a cluster."""
    def trial(rng: np.random.Generator, n: int) -> Estimate | float:
        shared, own = rng.normal(size=(n, 1)) * np.sqrt(correlation), rng.normal(size=(n, each))
        values = shared + own * np.sqrt(1 - correlation)
        return function(values.ravel(), clusters=np.repeat(np.arange(n), each), **options)
    return trial


def _clustered_flags(share: float, each: int, correlation: float) -> Callable:
    """A trial: the mean of n clusters of flags (beta-binomial)."""
    more = (1 - correlation) / correlation

    def trial(rng: np.random.Generator, n: int) -> Estimate:
        flags = rng.random((n, each)) < rng.beta(share * more, (1 - share) * more, (n, 1))
        return statistics.mean(flags.ravel(), unit="occupation", clusters=np.repeat(np.arange(n), each))
    return trial


def _ranks(rho: float, each: int = 1) -> Callable:
    """A trial: the rank correlation of n pairs (or clusters of pairs) of a normal law."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        x, noise = np.repeat(rng.normal(size=(2, n)), each, axis=1)
        y = rho * x + np.sqrt(1 - rho**2) * noise
        x, y = (v + 0.01 * rng.normal(size=v.size) * (each > 1) for v in (x, y))
        clusters = np.repeat(np.arange(n), each) if each > 1 else None
        return statistics.rank_correlation(x, y, unit="term", clusters=clusters, resamples=R if each == 1 else 200)
    return trial


def _autoregression(rng: np.random.Generator, n: int, lag: float) -> np.ndarray:
    noise = rng.normal(size=n)
    noise[0] /= np.sqrt(1 - lag**2)
    for k in range(1, n):
        noise[k] += lag * noise[k - 1]
    return noise


def _series(lag: float, part: int) -> Callable:
    """A trial: the mean (0) or the p-value (1) of a series of n checkpoints."""
    return lambda rng, n: statistics.series_mean(_autoregression(rng, n, lag), unit="checkpoint")[part]


def _two_samples(draw: Draw, scale: float) -> Callable:
    return lambda rng, n: statistics.difference_of_means(
        draw(rng, n) - 1, scale * (draw(rng, 2 * n) - 1), unit="row", resamples=R
    )


def _paired_flags(share: float, differ: float) -> Callable:
    """A trial: the difference of n paired flags, so many of which change, up as often as down."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        before = rng.random(n) < share
        return statistics.difference(np.where(rng.random(n) < differ, rng.random(n) < share, before), before, unit="row")
    return trial


def _ages(method: str, each: int) -> Callable:
    """A trial: the mean age of acquisition of n rows of tokens whose curves are sigmoids of known age and noise."""
    steps = np.unique(np.r_[2 ** np.arange(10), np.arange(1000, 143_001, 4000)])

    def trial(rng: np.random.Generator, n: int) -> Estimate:
        rows = np.repeat(np.arange(n), each)
        age = 2.8 + 0.3 * rng.normal(size=n)[rows] + 0.3 * rng.normal(size=n * each)
        curves = 15.6 - 10 / (1 + np.exp((age[:, None] - np.log10(steps)) / 0.25))
        found = METHODS[method](curves + rng.normal(0, 0.1, curves.shape), steps, 15.6)
        return statistics.mean(found.age, unit="row", clusters=rows, resamples=R)
    return trial


SIZE, DATA, FLOOR = (406.4, 0.34), (410.7, 0.28), 1.69
"""Hoffmann et al.'s constants A and alpha, B and beta, E: the truth of the runs below."""
FAR = np.log([[1.2e10, 3e11]])
"""Logs of a size and tokens beyond all runs below."""


def _loss(logs: np.ndarray) -> np.ndarray:
    n, d = np.exp(logs).T
    return FLOOR + SIZE[0] / n ** SIZE[1] + DATA[0] / d ** DATA[1]


@cache
def _fitted(side: int, noise: float, tail: int, number: int) -> tuple[Fitted, float]:
    """The law fitted to side x side noisy runs (normal, or Student's t of so few degrees), and one further run's loss."""
    logs = np.log([(n, d) for n in np.geomspace(7e7, 7e9, side) for d in np.geomspace(1.4e9, 1.4e11, side)])
    rng = np.random.default_rng([side, tail, number])
    scatter = rng.standard_t(tail, len(logs) + 1) / np.sqrt(tail / (tail - 2)) if tail else rng.normal(size=len(logs) + 1)
    loss = _loss(np.concatenate([logs, FAR])) * np.exp(noise * scatter)
    table = pd.DataFrame(np.exp(logs), columns=["params", "tokens"]).assign(loss=loss[:-1], run=np.arange(len(logs)))
    return fit_law(HOFFMANN, Points(table), starts=16, resamples=R, seed=number), float(loss[-1])


def _law(quantity: str, side: int, noise: float, tail: int) -> Callable:
    """A trial: the exponent of optimal allocation, the constant E, or the loss of a run far beyond. Trials of the three
    are of the same runs, fitted once.
    """
    numbers = count()

    def trial(rng: np.random.Generator, n: int) -> Estimate:
        fitted, further = _fitted(side, noise, tail, next(numbers))
        if quantity == "exponent":
            return fitted.estimate(allocation(HOFFMANN, fitted.theta[None]), allocation(HOFFMANN, fitted.draws))
        if quantity == "E":
            return fitted.constants()["E"]
        found = fitted.predicted(FAR)[0]
        return replace(found, value=found.value - further, low=found.low - further, high=found.high - further)

    return trial


def _laws() -> Iterator[Case]:
    truths = {"exponent": DATA[1] / (SIZE[1] + DATA[1]), "E": FLOOR, "prediction": 0.0}
    for side, noise, tail in ((4, 0.005, 0), (6, 0.005, 0), (6, 0.02, 0), (6, 0.005, 3)):
        data = f"{side} x {side} runs, {'t3' if tail else 'normal'} noise of {noise:.1%}"
        for quantity, truth in truths.items():
            yield Case(f"law: {quantity}", data, side * side, truth, _law(quantity, side, noise, tail))


def cases() -> Iterator[Case]:
    """Every row of the table."""
    yield from _laws()
    mean = partial(statistics.mean, unit="item", resamples=R)
    for n in (2, 3, 5):
        yield Case("mean over seeds", "normal", n, 0, _of(mean, NORMAL))
    for n in (10, 24, 100):
        yield Case("mean", "normal", n, 0, _of(mean, NORMAL))
        yield Case("mean", "exponential", n, 1, _of(mean, SKEWED))
        yield Case("mean", "scores, beta(.5, .5)", n, 0.5, _of(mean, SCORES))
    for correlation in (0.3, 0.85):
        yield Case("mean, clusters", f"24 × 8, correlation {correlation}", 24, 0, _in_clusters(mean, 8, correlation))
        for n, each in ((12, 20), (24, 8), (60, 4)):
            data = f"33 %, {n} × {each}, correlation {correlation}"
            yield Case("share, clusters", data, n, 0.33, _clustered_flags(0.33, each, correlation))
    for share in (0.1, 0.5):
        for n in (20, 100):
            flags = partial(lambda rng, n, share: (rng.random(n) < share).astype(float), share=share)
            yield Case("share", f"{share:.0%}", n, share, _of(mean, flags))
    yield Case("paired difference", "flags, 20 % redrawn", 40, 0, _paired_flags(0.4, 0.2))
    yield Case("paired difference", "flags, 20 % redrawn", 200, 0, _paired_flags(0.4, 0.2))
    for n in (8, 24):
        yield Case("two means", "exponential, n and 2 n, scales 1 and 2", n, 0, _two_samples(SKEWED, 2))
        yield Case("two means", "normal around 1, n and 2 n, scales 1 and 3", n, 0, _two_samples(lambda g, k: NORMAL(g, k) + 1, 3))
    for n in (12, 24, 60):
        dispersion = partial(statistics.dispersion, unit="block", resamples=R)
        yield Case("dispersion", "Poisson(5)", n, 1, _of(dispersion, lambda rng, n: rng.poisson(5, n)))
        yield Case("dispersion", "negative binomial, twice Poisson's", n, 2, _of(dispersion, lambda rng, n: rng.negative_binomial(5, 0.5, n)))
        for rho in (0.0, 0.6):
            yield Case("rank correlation", f"normal, rho {rho}", n, 6 / np.pi * np.arcsin(rho / 2), _ranks(rho))
    yield Case("rank correlation, clusters", "24 × 4, rho .6", 24, 6 / np.pi * np.arcsin(0.3), _ranks(0.6, 4))
    for n, lag in ((20, 0.0), (20, 0.3), (20, 0.6), (60, 0.6), (60, 0.75), (154, 0.8)):
        yield Case("test over checkpoints", f"autoregression {lag}", n, None, _series(lag, 1))
        yield Case("mean over checkpoints", f"autoregression {lag}", n, 0, _series(lag, 0))
    for method in ("gam", "crossing"):
        for n, each in ((24, 8), (60, 4)):
            yield Case("mean age of acquisition", f"{method}, {n} × {each} tokens", n, 2.8, _ages(method, each))
    yield Case("mean age of acquisition", "sigmoid, 64 × 2 tokens", 64, 2.8, _ages("sigmoid", 2))
    paired = partial(statistics.paired_test)
    for n in (3, 5, 10, 24):
        yield Case("paired test", "normal", n, None, _of(paired, NORMAL))
    yield Case("paired test", "exponential around 0, either side", 24, None, _of(paired, lambda rng, n: rng.laplace(size=n)))
    for correlation in (0.3, 0.85):
        yield Case("paired test, clusters", f"24 × 8, correlation {correlation}", 24, None, _in_clusters(paired, 8, correlation))
    yield Case("permutation test", "normal", 24, None, _permuted)
    yield from _memorization()
    yield from _of_terms()
    yield from _of_bias_and_duplicates()


def _of_terms() -> Iterator[Case]:
    """What term frequency and the learning curve report."""
    for n in (12, 24, 100):
        yield Case("frequency gap", "10 questions a term, unrelated", n, 0, _gap(0.0))
    yield Case("frequency gap", "10 questions a term, related", 24, _expected_gap(24, 0.3), _gap(0.3))
    for n in (6, 12):
        yield Case("frequency gap, relations", "8 facts each, unrelated", n, 0, _gap(0.0, 8))
    for n in (20, 100):
        accuracy = partial(lambda rng, n: rng.binomial(50, rng.beta(0.2, 2, n)) / 50)
        yield Case("accuracy over terms", "50 questions, beta(.2, 2)", n, 0.2 / 2.2,
                   _of(partial(statistics.mean, unit="term", share=True), accuracy))
    for n, each in ((6, 6), (12, 4)):
        yield Case("rank correlation, few clusters", f"{n} × {each}, rho .6", n, 6 / np.pi * np.arcsin(0.3), _ranks(0.6, each))
    for n in (12, 30):
        for slope in (0.0, 0.5):
            truth = _partial_truth(slope)
            yield Case("partial rank correlation", f"two controls, slope {slope}", n, truth, partial(_partial, slope=slope))
    for n, each in ((16, 1), (24, 1), (8, 6)):
        what, size = ("difference of correlations", "") if each == 1 else ("difference, relations", f", {n} × {each}")
        yield Case(what, "columns correlate .95" + size, n, _spearmans(0.6) - _spearmans(0.4), partial(_differ, each=each))
    yield Case("test of the monotone rise", "unrelated", 24, None, _rise)
    loss = lambda rng, n: 2 + rng.gamma(4, 0.3, n)  # noqa: E731
    yield Case("loss over rows", "skewed, 96 rows", 96, 3.2, _of(partial(statistics.mean, unit="row", resamples=R), loss))
    yield Case("loss after minus before", "skewed, 96 and 96 rows", 96, 0, lambda rng, n: statistics.difference_of_means(
        loss(rng, n), loss(rng, n), unit="row", resamples=R))


def _of_bias_and_duplicates() -> Iterator[Case]:
    for share in (0.5, 0.6, 0.75):
        for n in (12, 30):
            truth = 0.85 * 2 * min(share, 1 - share)
            yield Case("icat", f"targets × 8, ss {share}, lms .85", n, truth, partial(_icat, share=share))
    for differ, each in ((0.02, 8), (0.2, 8)):
        yield Case("paired flags, clusters", f"24 × {each}, {differ:.0%} differ", 24, 0, partial(_gained, each=each, differ=differ))
    for n in (15, 30, 98):
        for found in (0.8, 0.95, 0.99):
            truth = (4 * found + found**2) / 5
            yield Case("recall of duplicates", f"pairs and triples, {found:.0%} found", n, truth, partial(_recall, found=found))


def _terms(rng: np.random.Generator, n: int, slope: float, each: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Exposures of n terms (or of each of n relations' terms), their accuracy on ten questions, and the relations."""
    relation = np.repeat(np.arange(n), each)
    x = rng.normal(0, 2, n * each)
    skill = slope * x - 0.5 + 0.7 * rng.normal(size=n * each) + (each > 1) * rng.normal(size=n)[relation]
    return np.floor(np.exp(x + 5)), rng.binomial(10, 1 / (1 + np.exp(-skill))) / 10, relation if each > 1 else None


def _gap(slope: float, each: int = 1) -> Callable[[np.random.Generator, int], Estimate]:
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        x, y, relation = _terms(rng, n, slope, each)
        return gap(x, y, clusters=relation)
    return trial


def _expected_gap(n: int, slope: float) -> float:
    """The mean gap of so many terms, over 4000 draws; sorted here and not by the package."""
    rng, k = np.random.default_rng(0), min(10, n // 2)
    drawn = (_terms(rng, n, slope)[:2] for _ in range(4000))
    ordered = np.array([y[np.argsort(x)] for x, y in drawn])
    return float(100 * (ordered[:, -k:].mean() - ordered[:, :k].mean()))


def _spearmans(r: float | np.ndarray) -> float | np.ndarray:
    """Spearman's rho of normal columns of correlation r."""
    return 6 / np.pi * np.arcsin(np.asarray(r) / 2)


_CONTROLS = np.array([[1, 0.5, -0.3], [0.5, 1, 0.0], [-0.3, 0.0, 1]])
"""Correlations of a column and its two controls."""


def _weights(slope: float) -> np.ndarray:
    return np.array([slope, -0.3, 0.3])


def _partial(rng: np.random.Generator, n: int, slope: float) -> Estimate:
    x, *controls = columns = rng.multivariate_normal(np.zeros(3), _CONTROLS, n).T
    y = _weights(slope) @ columns + 0.7 * rng.normal(size=n)
    return statistics.partial_rank_correlation(x, y, controls, unit="term", resamples=R)


def _partial_truth(slope: float) -> float:
    """Of the columns' matrix of Spearman's correlations, by its inverse."""
    w = _weights(slope)
    with_y = _CONTROLS @ w
    r = np.block([[_CONTROLS, with_y[:, None]], [with_y[None], np.full((1, 1), w @ with_y + 0.49)]])
    scale = np.sqrt(np.diag(r))
    inverse = np.linalg.inv(_spearmans(np.clip(r / np.outer(scale, scale), -1, 1)))
    return float(-inverse[0, 3] / np.sqrt(inverse[0, 0] * inverse[3, 3]))


def _differ(rng: np.random.Generator, n: int, each: int) -> Estimate:
    r = np.array([[1, 0.95, 0.6], [0.95, 1, 0.4], [0.6, 0.4, 1]])
    made = [rng.multivariate_normal(np.zeros(3), r / (1 + (each > 1)), size) for size in (n, n * each)]
    x, z, y = (np.repeat(made[0], each, axis=0) + made[1] if each > 1 else made[1]).T
    clusters = np.repeat(np.arange(n), each) if each > 1 else None
    return difference_of_correlations(x, z, y, unit="term", clusters=clusters)


def _rise(rng: np.random.Generator, n: int) -> float:
    x, y, _ = _terms(rng, n, 0.0)
    return statistics.isotonic_rise(x, y, permutations=400)[1]


def _icat(rng: np.random.Generator, n: int, share: float) -> Estimate:
    """Eight items of a target, which correlate by .1."""
    flags = [(rng.random((n, 8)) < rng.beta(9 * p, 9 * (1 - p), (n, 1))).astype(float).ravel() for p in (0.85, share)]
    return stereotype_score(*flags, unit="target", clusters=np.repeat(np.arange(n), 8))


def _gained(rng: np.random.Generator, n: int, each: int, differ: float) -> Estimate:
    """Of the pairs of a cluster as many are gained as lost, on average over clusters."""
    up, down = 2 * differ * rng.beta(1, 3, (2, n, 1))
    drawn = rng.random((n, each))
    change = (drawn < up).astype(float) - (drawn > 1 - down)
    return statistics.difference(change.ravel(), unit="occupation", clusters=np.repeat(np.arange(n), each), resamples=R)


def _recall(rng: np.random.Generator, n: int, found: float) -> Estimate:
    """n clusters, every second one of three documents: each but the first is found with it, or left alone."""
    sizes = np.tile([2, 3], -(-n // 2))[:n] if n % 2 == 0 else np.append(np.tile([2, 3], n // 2), 2 + rng.integers(2))
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    numbers = np.arange(sizes.sum())
    pairs = np.array([(a, b) for a in numbers for b in np.flatnonzero(first == first[a])])
    return recall(pairs, np.where(rng.random(len(numbers)) < found, first, numbers))


def _permuted(rng: np.random.Generator, n: int) -> float:
    x, y = rng.normal(size=(2, n))
    draws = statistics.spearman(np.tile(x, (400, 1)), rng.permuted(np.tile(y, (400, 1)), axis=1))
    return statistics.permutation_pvalue(draws, float(statistics.spearman(x[None], y[None])[0]))


def _memorization() -> Iterator[Case]:
    """What the analyses of memorization make of rows: members or cohorts of n, and their controls."""
    for n, controls in ((5, 10), (8, 32), (32, 64), (50, 500)):
        for law, draw in (("normal", NORMAL), ("exponential", SKEWED)):
            yield Case("effect of a cohort", f"{law}, n and {controls}", n, 0, _effect(draw, [n], controls))
    for n, cohorts, controls in ((24, 6, 20), (32, 4, 32)):
        data = f"normal, {cohorts} cohorts and {controls}"
        yield Case("mean effect", data, n, 0, _effect(NORMAL, [n // cohorts] * cohorts, controls))
    for controls in (10, 100):
        yield Case("forgetting", f"normal, n rows at 1 to 4 checkpoints, and {controls}", 24, 0, _forgetting(controls))
    for rows, share, agree in ((200, 0.05, 0.6), (512, 0.02, 0.5), (512, 0.1, 0.9), (2000, 0.02, 0.1)):
        data = f"{share:.0%} memorized, {agree:.0%} of it by both"
        for metric in ("f1", "recall"):
            yield Case(metric, data, rows, agree, _confusion(share, agree, metric))
    for rows, share in ((500, 0.004), (1000, 0.02)):
        yield Case("slope of memorized shares", f"from {share:.1%}, four sizes", rows, 0.5, _slope(share))
    for n, others in ((10, 10), (20, 20), (24, 500), (100, 500)):
        for apart in (0, 1, 2.3):
            data = f"normal, {apart} apart, n and {others}"
            yield Case("AUC", data, n, float(norm.cdf(apart / 2**0.5)), _detection(others, apart))
    for rate, n, others in ((0.01, 50, 500), (0.01, 200, 500), (0.1, 24, 100), (0.1, 200, 500)):
        for apart in (0, 1, 2):
            data = f"at {rate:.0%} false ones, normal, {apart} apart, n and {others}"
            truth = float(norm.sf(norm.isf(rate) - apart))
            yield Case("true-positive rate", data, n, truth, _detection(others, apart, rate))
    for runs in (4, 6, 20):
        for kind in ("by row", "by run"):
            yield Case("counterfactual, mean", f"60 rows, runs differ, halves drawn {kind}", runs, 1, _counterfactual(kind))
    yield from curve_cases()
    yield Case("counterfactual, one row", "normal, half of the runs", 6, 1, _counterfactual("one"))
    for blocks, share in ((12, 0.3), (32, 0.02)):
        for part in ("p_dispersion", "p_position"):
            yield Case("order test", f"{part}, {share:.0%} of blocks of 128 rows", blocks, None, _order(share, part))


def _effect(draw: Draw, sizes: Sequence[int], controls: int) -> Callable:
    """A trial: the mean instantaneous effect of cohorts that consumption did nothing to."""
    cohorts = np.concatenate([np.repeat(10 * (1 + np.arange(len(sizes))), sizes), np.full(controls, NEVER)])
    steps = list(range(0, 10 * len(sizes) + 20, 10))

    def trial(rng: np.random.Generator, n: int) -> Estimate:
        noise = np.stack([draw(rng, len(cohorts)) for _ in steps], axis=1)
        found = profiles(noise + 2 * rng.normal(size=(len(cohorts), 1)), steps, cohorts)
        return found.mean(event_mask(found, "instantaneous"), resamples=R)
    return trial


def _forgetting(controls: int) -> Callable:
    """A trial: the advantage over controls, 0 in truth, in a bin of four checkpoints, of which rows have some."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        loss = rng.normal(size=(n + controls, 1)) + rng.normal(size=(n + controls, 4)) / 2 + rng.normal(size=4)
        advantage = loss[n:].mean(axis=0) - loss
        row, step = (place.ravel() for place in np.indices(loss.shape))
        items = pd.DataFrame({"row": row, "step": step, "advantage": advantage.ravel(), "exposures": 1, "since": 16})
        first = np.append(rng.integers(0, 4, n), np.zeros(controls, np.int64))
        items["since"] = items["since"].where((row < n) & (step >= first[row])).astype("Int64")
        items = items.assign(suite="s", model="m", params=1, branch="main", seed=0, tokens=step)
        line = forgetting_curve(items, "advantage", controls=n + np.arange(controls), resamples=R).iloc[0]
        return Estimate(*(float(line[c]) for c in ("value", "low", "high")))
    return trial


def _confusion(share: float, agree: float, metric: str) -> Callable:
    """A trial: how well one model's memorized rows predict those of another that memorized as many."""
    cells = np.array([agree, 1 - agree, 1 - agree, 1 / share - 2 + agree]) * share
    return lambda rng, n: Confusion(*(int(c) for c in rng.multinomial(n, cells))).estimates()[metric]


def _slope(share: float) -> Callable:
    """A trial: the exponent of memorized shares over sizes, the same rows judged under all of them."""
    sizes = np.array([70e6, 160e6, 410e6, 1.4e9])
    limits = norm.isf(share * (sizes / sizes[0]) ** 0.5)

    def trial(rng: np.random.Generator, n: int) -> Estimate:
        flags = 0.8**0.5 * rng.normal(size=(n, 1)) + 0.2**0.5 * rng.normal(size=(n, 4)) > limits
        row, size = (place.ravel() for place in np.indices(flags.shape))
        table = pd.DataFrame({"row": row, "model": size.astype(str), "params": sizes[size], "memorized": flags.ravel()})
        found = scaling(table.assign(suite="s", branch="main", seed=0, step=1, tokens=1), resamples=R)
        line = found[found["metric"] == "parameters_exponent"].iloc[0]
        return Estimate(*(float(line[c]) for c in ("value", "low", "high")))
    return trial


def _detection(others: int, apart: float, rate: float | None = None) -> Callable:
    """A trial: the AUC, or the true-positive rate at a false-positive one, of n members and so many others."""
    rates = [] if rate is None else [rate]
    return lambda rng, n: statistics.roc(rng.normal(apart, 1, n), rng.normal(size=others), rates)[-1]


def _counterfactual(kind: str) -> Callable:
    """A trial: runs that differ, each trained on half of the rows; half of the runs hold all rows, or each row."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        held = np.repeat(np.arange(n)[:, None] % 2 == 0, 1 if kind == "one" else 60, axis=1)
        held = rng.permuted(held, axis=0) if kind == "by row" else held
        noise = rng.normal(size=held.shape) + rng.normal(size=(n, 1)) + rng.normal(size=held.shape[1])
        if kind == "one":
            line = counterfactual(noise + held, held).iloc[0]
            return Estimate(*(float(line[c]) for c in ("memorization", "low", "high")))
        return mean_memorization(noise + held * rng.normal(1, 0.5, 60), held)
    return trial


def _order(share: float, part: str) -> Callable:
    """A trial: p-value of the order of rows memorized by chance."""
    return lambda rng, n: order_effect(
        rng.random(n * 128) < share, block=128, permutations=R, resamples=2)[part].value


def _change(pieces: str, told: bool, jump: float) -> Callable:
    """A trial: where a curve of n checkpoints changes, less where it truly does; or whether one is found where none is
    (jump 0), as a p-value of 0 or 1.
    """
    def trial(rng: np.random.Generator, n: int) -> Estimate | float:
        steps = np.unique(np.geomspace(1, 1e6, n).astype(int))
        x = np.log10(steps)
        true = rng.uniform(x[len(x) // 4], x[3 * len(x) // 4])
        late = x > true
        slope = 2.0 if jump and pieces == "linear" else 0.0
        curve = (jump + slope * (x - true)) * late + rng.normal(size=len(x))
        series = Series({}, steps, curve, np.full(len(x), 1.0 if told else np.nan))
        found = phases(series, PhasesOptions(pieces=pieces, resamples=200, changes=1 if jump else None))
        if not jump:
            return float(not found.places)
        low, high, place = found.low[0], found.high[0], found.places[0]
        return Estimate((x[place - 1] + x[place]) / 2 - true, x[low - 1] - true, x[high] - true, n, "checkpoint")
    return trial


def _fall(rng: np.random.Generator, n: int, true: float | None) -> Estimate | float:
    """The p-value of a fall of a flat curve, or the fall of one that rises and falls, whose errors are 1."""
    x = np.linspace(-1, 1, n)
    curve = np.zeros(n) if true is None else -true * np.where(x > 0, x, -3 * x)
    curve = curve - (0 if true is None else curve.max())
    found = peak(Series({}, np.arange(1, n + 1), curve + rng.normal(size=n), np.ones(n)), seed=int(rng.integers(1 << 30)))
    return found.p if true is None else Estimate(found.fall, found.low, found.high, n, "checkpoint")


def _decisions(small: float, large: float) -> tuple[float, Callable]:
    """The truth and a trial: n corpora of normal quality, three small runs and one large one of so much noise each."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        quality = rng.normal(size=n)
        runs = quality[:, None] + small * rng.normal(size=(n, 3))
        return decision_accuracy(agreement(runs, quality + large * rng.normal(size=n)))
    return 0.5 + float(np.arcsin(((1 + small**2) * (1 + large**2)) ** -0.5)) / np.pi, trial


def _agreeing(seeds: float) -> Callable:
    """A trial: ICC(2,1) of 14 steps × n seeds, whose offsets vary so much beside the steps' 1 and the rest's .25."""
    def trial(rng: np.random.Generator, n: int) -> Estimate:
        table = rng.normal(size=(14, 1)) + np.sqrt(seeds) * rng.normal(size=(1, n)) + 0.5 * rng.normal(size=(14, n))
        return icc(table)
    return trial


def _clean_runs(rng: np.random.Generator, n: int) -> float:
    """0 where one of n clean runs is called an outlier, else 1: runs that wander, as curves over training do."""
    runs = rng.normal(size=(n, 20)).cumsum(axis=1)
    return float(not any(run.flagged for run in outliers(np.arange(1, 21), runs)))


def curve_cases() -> Iterator[Case]:
    """Change points, falls from a peak, decisions, agreement of seeds, outliers."""
    for n in (27, 60):
        for pieces, jump in (("constant", 2.0), ("linear", 3.0)):
            for told in (True, False):
                data = f"{pieces}, errors {'known' if told else 'unknown'}"
                yield Case("change point", f"{data}, jump {jump:g} errors", n, 0, _change(pieces, told, jump))
                yield Case("a change where none is", data, n, None, _change(pieces, told, 0))
        yield Case("saturation, test", "flat", n, None, partial(_fall, true=None))
        yield Case("saturation, fall", "peak in the middle, falls by 6 errors", n, 6.0, partial(_fall, true=6.0))
    for n in (6, 10, 25):
        for noise in (0.3, 1.0):
            truth, trial = _decisions(noise, 0.2)
            yield Case("decision accuracy", f"seed noise {noise:g} of the corpora's spread", n, truth, trial)
    for n in (6, 10):
        for spread in (0.0, 1.0):
            yield Case("ICC(2,1)", f"14 steps, seeds' variance {spread:g}", n, 1 / (1.25 + spread), _agreeing(spread))
    for n in (5, 10, 20):
        yield Case("outlier among seeds", "clean, random walks", n, None, _clean_runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    args = parser.parse_args()
    print("| what | data | units | covers (95 %) or rejects (5 %) | refused |\n|---|---|---|---|---|")
    for case in cases():
        if args.only in case.what:
            share, refused = case.run(args.trials)
            low, high = case.allowed
            mark = "" if low <= share <= high else " (outside)"
            print(f"| {case.what} | {case.data} | {case.n} | {share:.3f}{mark} | {refused:.0%} |", flush=True)


if __name__ == "__main__":
    main()
