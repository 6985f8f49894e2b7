"""Cuts are those of `ruptures`, states those of `hmmlearn`, agreement that of scikit-learn; each if installed."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_tools.fitting.phases import segment
from pythia_tools.fitting.states import adjusted_rand, fit_states


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, w = np.log(np.arange(1, 13)), rng.normal(size=12).cumsum(), rng.uniform(0.5, 2, 12)

    def cost(a: int, b: int, degree: int) -> float:
        line = np.polyfit(x[a:b], y[a:b], degree, w=np.sqrt(w[a:b]))
        return float((w[a:b] * (y[a:b] - np.polyval(line, x[a:b])) ** 2).sum())

    for pieces, degree in (("constant", 0), ("linear", 1)):
        short = degree + 2
        ways = {(i, j): cost(0, i, degree) + cost(i, j, degree) + cost(j, 12, degree)
                for i in range(short, 12) for j in range(i + short, 12 - short + 1)}
        best = min(ways, key=ways.get)
        found = segment(x, y, pieces=pieces, most=2, weights=w)[2]
        assert found.starts == best and found.cost == pytest.approx(ways[best])


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_those_of_ruptures_without_its_jump(seed: int) -> None:
    ruptures = pytest.importorskip("ruptures")
    y = np.random.default_rng(seed).normal(size=40).cumsum()
    points = np.arange(40.0)
    for count in (1, 2, 3):
        theirs = ruptures.Dynp(model="l2", min_size=2, jump=1).fit(y).predict(n_bkps=count)[:-1]
        assert list(segment(points, y, pieces="constant", most=count)[count].starts) == theirs
        signal = np.column_stack([y, np.ones(40), points])
        theirs = ruptures.Dynp(model="linear", min_size=3, jump=1).fit(signal).predict(n_bkps=count)[:-1]
        assert list(segment(points, y, most=count)[count].starts) == theirs


def test_states_are_those_of_hmmlearn() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    rng = np.random.default_rng(0)
    runs = [np.concatenate([rng.normal(m, 1, (k, 3)) for m, k in ((0, 9), (3, 4 + run), (6, 8))]) for run in range(5)]
    points, lengths = np.concatenate(runs), [len(run) for run in runs]
    ours = fit_states(runs, 3)[0]
    theirs = hmm.GaussianHMM(3, "diag")
    theirs.startprob_, theirs.transmat_ = np.exp(ours.start), np.exp(ours.moves)
    theirs.means_, theirs.covars_ = ours.means, ours.variances
    assert ours.score == pytest.approx(theirs.score(points, lengths))
    assert (theirs.predict(points, lengths) == np.concatenate(ours.paths(runs))).all()
    starts = [hmm.GaussianHMM(3, "diag", n_iter=200, random_state=k, covars_prior=0, covars_weight=0) for k in range(5)]
    assert ours.score == pytest.approx(max(s.fit(points, lengths).score(points, lengths) for s in starts), abs=1e-3)


def test_likelihood_is_the_sum_over_all_paths() -> None:
    """Brute force in plain Python: three steps, two states."""
    from itertools import product

    rng = np.random.default_rng(0)
    run = rng.normal(size=(3, 2)) + np.array([[0], [0], [4]])
    model = fit_states([run, run + 0.1], 2, starts=2)[0]
    total = 0.0
    for held in (run, run + 0.1):
        seen = model.emissions(held)
        total += np.log(sum(
            np.exp(model.start[a] + seen[0, a] + model.moves[a, b] + seen[1, b] + model.moves[b, c] + seen[2, c])
            for a, b, c in product(range(2), repeat=3)
        ))
    assert model.score == pytest.approx(total)


def test_agreement_is_the_adjusted_rand_index() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(30):
        one, other = rng.integers(0, 4, (2, 25))
        assert adjusted_rand(one, other) == pytest.approx(metrics.adjusted_rand_score(one, other))
