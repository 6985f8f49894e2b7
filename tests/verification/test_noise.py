"""What number formats may flip: bounds by brute force, false alarms and power in a simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pythia_tools.verification.noise import band

LEVEL = 0.01


def _chance_of_more(chances: np.ndarray, k: int) -> float:
    """P(more than k of these independent events), by listing every outcome."""
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=len(chances)):
        if sum(outcome) > k:
            total += float(np.prod(np.where(outcome, chances, 1 - chances)))
    return total


def test_flips_beyond_the_band_are_as_rare_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, apart = rng.normal(0, 0.3, 10), np.abs(rng.normal(0, 0.2, 50))
        value = float((x > 0).mean())
        found = band(x, apart, value=value, metric="acc", level=LEVEL)
        chances = np.array([(apart >= abs(v)).mean() for v in x])
        for side, room in ((x > 0, value - found.low), (x <= 0, found.high - value)):
            assert _chance_of_more(chances[side], round(room * 10)) <= LEVEL / 2
        assert found.may_flip == (np.abs(x) <= apart.max()).sum()


@pytest.mark.parametrize(("n", "noise"), [(104, 0.02), (1838, 0.02), (5153, 0.1)])
def test_honest_runs_are_seldom_outside(n: int, noise: float) -> None:
    """Differences with heavy tails, measured on 200 other documents."""
    rng = np.random.default_rng(n)
    outside = 0
    for _ in range(400):
        x, sample = rng.normal(-0.3, 2.0, n), np.abs(rng.standard_t(4, 200) * noise)
        other = x + rng.standard_t(4, n) * noise
        found = band(x, sample, value=float((x > 0).mean()), metric="acc", level=LEVEL)
        outside += not found.low - 1e-12 <= (other > 0).mean() <= found.high + 1e-12
    assert outside / 400 <= LEVEL


def test_a_mean_of_log_likelihoods_stays_in_its_band_and_another_checkpoint_leaves_it() -> None:
    rng = np.random.default_rng(1)
    ll = -rng.gamma(2, 2, 2000)
    value = float(np.exp(-ll.mean()))
    apart = np.abs(rng.normal(0, 0.02, 200))
    found = band(ll, apart, value=value, metric="perplexity", level=LEVEL)
    for _ in range(200):
        assert found.low <= np.exp(-(ll + rng.normal(0, 0.02, 2000)).mean()) <= found.high
    assert np.exp(-(ll - 0.05).mean()) > found.high  # 5 % more perplexity


def test_nothing_measured_allows_for_nothing() -> None:
    x = np.array([-0.5, 0.5])
    assert band(x, np.empty(0), value=0.5, metric="acc", level=LEVEL)[:2] == (0.5, 0.5)
    assert band(x, np.array([np.inf]), value=0.5, metric="acc", level=LEVEL)[:2] == (0.5, 0.5)
