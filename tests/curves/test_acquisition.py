"""Ages of acquisition against the original definition, re-derived here one curve at a time, and against known ages."""

from __future__ import annotations

import doctest
import warnings
from itertools import pairwise

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.optimize import curve_fit

from pythia_tools.analyses.curves import (
    acquisition,
    by_crossing,
    by_gam,
    by_sigmoid,
    measures,
    of_curves,
    variability_between_runs,
)
from pythia_tools.analyses.curves.gam import smoother
from pythia_tools.core.errors import RequestError

CHANCE = np.log2(50_277)
STEPS = np.unique(np.r_[0, 2 ** np.arange(10), np.linspace(1000, 143_000, 32).astype(int)])
X = np.log10(STEPS[1:])


def made_curves(n: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Curves (n, steps) in bits and their mid-points in log10 steps; the last fifths are flat, U-shaped and odd."""
    rng = np.random.default_rng(seed)
    x = np.log10(np.maximum(STEPS, 0.1))
    end, mid, scale = rng.uniform(1, 14, (n, 1)), rng.uniform(0.8, 4.4, (n, 1)), rng.uniform(0.03, 0.6, (n, 1))
    curves = CHANCE + (end - CHANCE) / (1 + np.exp((mid - x) / scale))
    k = n // 5
    curves[-k:] = rng.uniform(4, 17, (k, 1))
    curves[-2 * k : -k] = 5 + rng.uniform(0.3, 3, (k, 1)) * (x - rng.uniform(1, 4.5, (k, 1))) ** 2
    curves[-2 * k : -2 * k + 20] = np.linspace(4, 20, len(STEPS))  # rises only
    noise = rng.normal(0, 0.3, curves.shape)
    noise[-5:] = 0  # flat without any noise, one of them at chance
    curves += noise
    curves[-1] = CHANCE
    return curves, mid[:, 0]


CURVES, MIDS = made_curves()


def reference_sigmoid(y: np.ndarray) -> tuple[float, bool]:
    """As B.1 of the definitions says it: p0, tolerance loosened tenfold on failure, clipping, one curve."""
    def sigmoid(x, start, end, mid, scale):
        return start + (end - start) / (1.0 + np.exp((mid - x) / scale))

    tolerance, fitted = 1e-8, None
    while fitted is None:
        try:
            fitted, _ = curve_fit(sigmoid, X, y, p0=[min(y), max(y), np.mean(X), 1.0], maxfev=10**6, ftol=tolerance)
        except RuntimeError:
            tolerance *= 10
    start, end, mid, scale = fitted
    low, high = -CHANCE, max(y)
    level = 0.5 * low + 0.5 * high
    if level >= max(start, end) or low >= high or (end - start) * scale < 0:
        return max(X), True
    if level <= min(start, end):
        return min(X), True
    age = mid - scale * np.log((end - start) / (level - start) - 1)
    return min(max(age, min(X)), max(X)), not min(X) <= age <= max(X)


def test_the_sigmoid_is_the_original_definition_on_a_thousand_curves() -> None:
    """Where a curve steps down between two checkpoints its mid-point is hardly determined, and `curve_fit` repeats
    itself to 2e-4 only: arrays that lie elsewhere in memory round otherwise in the last place.
    """
    found = by_sigmoid(CURVES, STEPS, CHANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [reference_sigmoid(-curve[1:]) for curve in CURVES]
    ages, clipped = (np.array(column) for column in zip(*expected, strict=True))
    apart = np.abs(found.age - ages)
    assert (apart < 1e-6).mean() > 0.97 and (apart < 1e-3).mean() > 0.995
    assert (found.clipped == clipped).mean() > 0.995 and not found.failed.any()
    flat, bent = CURVES[-200:], CURVES[-400:-200]
    assert found.clipped[-200:].mean() > 0.5 and len(flat) == len(bent) == 200
    level = (CHANCE + CURVES[:, 1:].min(axis=1)) / 2
    np.testing.assert_allclose(found.threshold, level)


def reference_gam(curve: np.ndarray, designs: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    """Least squares with the penalty as further rows, for each λ; λ by generalized cross-validation; a loop for the
    first point below the threshold.
    """
    here, fine = designs
    n, best = len(curve), (np.inf, None)
    for lam in np.logspace(-3, 3, 11):
        rough = np.sqrt(lam) * np.diff(np.eye(25), n=2, axis=0)
        ridge = np.finfo(float).eps ** 0.25 * np.eye(26)
        rows = np.vstack([here, np.column_stack([rough, np.zeros(23)]), ridge])
        weights = np.linalg.lstsq(rows, np.r_[curve, np.zeros(49)], rcond=None)[0]
        freedom = np.trace(here @ np.linalg.solve(rows.T @ rows, here.T))
        score = n * ((curve - here @ weights) ** 2).sum() / (n - 1.4 * freedom) ** 2
        if score < best[0]:
            best = score, fine @ weights
    smooth = best[1]
    level = 0.5 * CHANCE + 0.5 * min(smooth)
    if level >= CHANCE:
        return X[-1], smooth
    for x, value in zip(np.linspace(X[0], X[-1], 1000), smooth, strict=True):
        if value <= level:
            return x, smooth
    raise AssertionError("its own least value is below the threshold")


def test_the_spline_is_the_original_definition_on_a_thousand_curves() -> None:
    def design(x):
        knots = np.linspace(-3 / 22, 25 / 22, 29) * (X[-1] - X[0]) + X[0]
        basis = [BSpline.basis_element(knots[k : k + 5], extrapolate=False)(x) for k in range(25)]
        return np.column_stack([*np.nan_to_num(basis), np.ones(len(x))])

    designs = design(X), design(np.linspace(X[0], X[-1], 1000))
    found = by_gam(CURVES, STEPS, CHANCE)
    ages = np.array([reference_gam(curve[1:], designs)[0] for curve in CURVES[::2]])
    step = (X[-1] - X[0]) / 999
    apart = np.abs(found.age[::2] - ages)
    assert (apart < 1e-9).mean() > 0.98 and (apart < 2 * step).mean() > 0.99  # flat without noise: rounding decides
    _, smooth = reference_gam(CURVES[3, 1:], designs)
    np.testing.assert_allclose(smoother(tuple(X.tolist())).smooth(CURVES[3:4, 1:])[1][0], smooth, atol=1e-6)


@pytest.mark.parametrize("steps", [STEPS[1:], STEPS[1::3], 2 ** np.arange(8)], ids=["many", "fewer", "8"])
def test_the_spline_is_pygam(steps: np.ndarray) -> None:
    """Fewer checkpoints than weights included, where pygam cuts its decomposition."""
    pygam = pytest.importorskip("pygam")
    x = np.log10(steps)
    curves = CURVES[[0, 7, 500, 650, 990]][:, np.searchsorted(STEPS, np.minimum(steps, STEPS[-1]))]
    made = smoother(tuple(x.tolist()))
    here, fine = made.smooth(curves)
    for curve, own, grid in zip(curves, here, fine, strict=True):
        other = pygam.LinearGAM(n_splines=25)
        other.gridsearch(X=x[:, None], y=curve, lam=np.logspace(-3, 3, 11), progress=False)
        np.testing.assert_allclose(own, other.predict(x), atol=1e-9)
        np.testing.assert_allclose(grid, other.predict(made.grid), atol=1e-9)


def test_the_crossing_is_a_walk_along_the_curve() -> None:
    found = by_crossing(CURVES, STEPS, CHANCE)
    for number, curve in enumerate(CURVES[:, 1:]):
        level = (CHANCE + min(curve)) / 2
        expected = np.nan
        for k, value in enumerate(curve):
            if min(curve) < CHANCE and value <= level:
                share = (curve[k - 1] - level) / (curve[k - 1] - value) if k else 0.0
                expected = X[k - 1] + share * (X[k] - X[k - 1]) if k else X[0]
                break
        assert found.age[number] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert not found.failed.any() and np.isnan(found.age[-1]), "a curve at chance is never acquired"


@pytest.mark.parametrize("method", [by_sigmoid, by_gam, by_crossing])
def test_known_ages_are_found(method) -> None:
    """Mean error on curves whose noise is a third of a bit: without bias beyond .05 of a decade."""
    rng = np.random.default_rng(1)
    mid = rng.uniform(1.5, 4, 200)
    curves = CHANCE - 10 / (1 + np.exp((mid[:, None] - np.log10(np.maximum(STEPS, 0.1))) / 0.25))
    error = method(curves + rng.normal(0, 0.3, curves.shape), STEPS, CHANCE).age - mid
    assert abs(np.median(error)) < 0.06 and np.abs(error).mean() < 0.12


def test_what_has_no_age_says_so() -> None:
    lost = np.array([[9.0, 8, np.nan, 3, 2, 1], [9, 8, 5, 3, 2, 1]])
    steps = [0, 1, 2, 4, 8, 16]
    for method in (by_sigmoid, by_gam, by_crossing):
        found = method(lost, steps, 9.0)
        assert found.failed.tolist() == [True, False] and np.isnan(found.age[0]) and np.isfinite(found.age[1])
    for method in (by_sigmoid, by_gam):
        assert method(lost[1:, :3], steps[:3], 9.0).failed.all(), "two checkpoints fit nothing"
    assert np.isnan(by_crossing(lost[1:, :1], [0], 9.0).age).all()
    with pytest.raises(RequestError, match="steps must ascend"):
        by_crossing(lost, [0, 1, 2, 4, 4, 5], 9.0)


def test_the_other_measures_are_what_they_say() -> None:
    told = of_curves(CURVES, STEPS, CHANCE, ages=["crossing"])
    np.testing.assert_allclose(told["final"], CURVES[:, -11:].mean(axis=1))
    np.testing.assert_allclose(told["variability"], [np.std(c[-11:]) for c in CURVES])
    np.testing.assert_allclose(told["forgetting"], CURVES[:, -1] - CURVES.min(axis=1))
    assert told["best_step"].tolist() == STEPS[CURVES.argmin(axis=1)].tolist()
    smooth = smoother(tuple(X.tolist())).smooth(CURVES[:, 1:])[0]
    rises = [sum(max(0.0, b - a) for a, b in pairwise(c)) for c in smooth]
    np.testing.assert_allclose(told["forgettability"], rises)
    other = variability_between_runs(CURVES[:50], CURVES[50:100], STEPS)
    np.testing.assert_allclose(other, ((smooth[:50] - smooth[50:100]) ** 2).mean(axis=1))
    with pytest.raises(RequestError, match="age of acquisition 'gamm'; did you mean 'gam'"):
        of_curves(CURVES[:2], STEPS, CHANCE, ages=["gamm"])


@pytest.mark.parametrize("module", [acquisition, measures])
def test_the_examples_run(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
