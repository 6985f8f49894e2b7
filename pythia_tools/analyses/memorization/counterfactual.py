"""Counterfactual memorization: what is known better by models that were trained on a row than by models that were not.

    mem(x) = mean of M(model, x) over runs whose training data held x − mean over runs whose data did not

M is any per-row measure, larger for better known (by custom per-token accuracy, `top1`). Needs several runs with known
inclusion, such as random halves of the data.
Intervals: per row from the runs (Welch), for a mean over rows a bootstrap that resamples runs and rows (two levels):
runs are what the expectation is over, and with few of them they are the larger source of doubt.
Source: Zhang et al. 2021, arXiv:2112.12938.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, crossed


def counterfactual(values: npt.ArrayLike, included: npt.ArrayLike) -> pd.DataFrame:
    """Per row: with_row, without_row (means), memorization (their difference), low, high, runs_with, runs_without.

    Args:
        values: (runs, n) measure of each row under each run, larger for better known.
        included: (runs, n) bool, whether the run's data held the row.
    Rows that all or none of the runs held have NaN; bounds need two runs on either side.
    Raises: RequestError when the shapes differ or a value is missing.
    """
    data, held = _checked(values, included)
    inside, outside = _side(data, held), _side(data, ~held)
    difference = inside["mean"] - outside["mean"]
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = inside["variance"] / inside["runs"], outside["variance"] / outside["runs"]
        error = np.sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / (inside["runs"] - 1) + b**2 / (outside["runs"] - 1))
        half = np.where(error > 0, student.ppf(0.975, freedom) * error, error)
    return pd.DataFrame({
        "row": np.arange(data.shape[1]), "with_row": inside["mean"], "without_row": outside["mean"],
        "memorization": difference, "low": difference - half, "high": difference + half, "runs_with": inside["runs"],
        "runs_without": outside["runs"],
    })


def mean_memorization(
    values: npt.ArrayLike, included: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Mean counterfactual memorization over rows; bootstrap over runs and rows. n: the rows that have a value."""
    data, held = _checked(values, included)
    usable = int((held.any(axis=0) & ~held.all(axis=0)).sum())
    return replace(crossed(_mean, data, held, unit="row", resamples=resamples, seed=seed), n=usable)


def _checked(values: npt.ArrayLike, included: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    data, held = np.asarray(values, dtype=np.float64), np.asarray(included, dtype=bool)
    if data.ndim != 2 or data.shape != held.shape:
        raise RequestError(f"values have shape {data.shape} and inclusion {held.shape}; both must be runs × rows")
    if not np.isfinite(data).all():
        raise RequestError("some values are missing or infinite; leave those rows out")
    return data, held


def _side(data: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, variance and number of the chosen runs of each row."""
    runs = chosen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(chosen, data, 0).sum(axis=0) / runs
        variance = np.where(chosen, (data - mean) ** 2, 0).sum(axis=0) / (runs - 1)
    return {"mean": mean, "variance": np.where(runs > 1, variance, np.nan), "runs": runs}


def _mean(data: np.ndarray, held: np.ndarray) -> float:
    difference = _side(data, held)["mean"] - _side(data, ~held)["mean"]
    known = difference[np.isfinite(difference)]
    return float(known.mean()) if len(known) else float("nan")
