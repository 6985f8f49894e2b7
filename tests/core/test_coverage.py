"""A small version of `scripts/benchmarks/coverage.py`: intervals hold as often as they say, tests reject as rarely."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks" / "coverage.py"
_SPEC = importlib.util.spec_from_file_location("coverage_benchmark", _PATH)
coverage = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = coverage
_SPEC.loader.exec_module(coverage)
SLOW = (
    "rank correlation, clusters", "slope of memorized shares", "mean effect", "forgetting", "order test",
    "difference of correlations", "change point", "a change where none is", "saturation, test", "saturation, fall",
)
CASES = [case for case in coverage.cases() if case.what not in SLOW and case.n <= 60 and "law" not in case.what]
LAWS = [case for case in coverage.cases() if case.what.startswith("law: ") and case.n == 16]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.what}, {case.data}, {case.n}")
def test_it_holds_as_often_as_it_says(case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 150 trials .88 to 1 cover, at most .11 reject: four standard errors from the goal, and far from what fails."""
    monkeypatch.setattr(coverage, "R", 200)
    share, refused = case.run(150, seed=1)
    assert share <= 0.11 if case.truth is None else share >= 0.88
    assert refused < 0.15 or "autoregression" in case.data


@pytest.mark.parametrize("case", LAWS, ids=lambda case: case.what)
def test_intervals_of_laws_hold_over_few_runs(case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 trials .8 to 1 cover: four standard errors from the goal. The whole table is measured by the bench."""
    monkeypatch.setattr(coverage, "R", 100)
    share, refused = case.run(40, seed=1)
    assert share >= 0.8 and refused == 0


def test_a_percentile_bootstrap_of_few_would_fail_here() -> None:
    """The bench tells: two seeds by percentiles hold in about half of the trials."""
    from pythia_tools.core import statistics

    def percentile(rng, n):
        x = rng.normal(size=n)
        return statistics.from_draws(x.mean(), x[rng.integers(0, n, (200, n))].mean(axis=1), n=n, unit="seed")

    share, _ = coverage.Case("percentiles", "normal", 2, 0, percentile).run(150)
    assert share < 0.7
