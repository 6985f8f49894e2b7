"""Counterfactual memorization: what is known better by models that were trained on a row than by models that were not.

    mem(x) = mean of M(model, x) over runs whose training data held x − mean over runs whose data did not

M is any per-row measure, larger for better known (by custom per-token accuracy, `top1`). Needs several runs with known
inclusion, such as random halves of the data.
Intervals: per row from the runs (Welch; none where no run differs from the others of its side), for a mean over rows
from runs and rows, two crossed kinds of units, by Student's t: runs are what the expectation is over, and with few of
them they are the larger source of doubt. Resampled runs would leave most rows without runs on one side.
Sources: Zhang et al. 2021, arXiv:2112.12938; Cameron, Gelbach & Miller 2011 (variance of two crossed kinds of units:
the sum of both less that of their cells); Satterthwaite 1946 (degrees of freedom).
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate


def counterfactual(values: npt.ArrayLike, included: npt.ArrayLike) -> pd.DataFrame:
    """Per row: with_row, without_row (means), memorization (their difference), low, high, runs_with, runs_without.

    Args:
        values: (runs, n) measure of each row under each run, larger for better known.
        included: (runs, n) bool, whether the run's data held the row.
    Rows that all or none of the runs held have NaN; bounds need two runs on either side that are not all alike.
    Raises: RequestError when the shapes differ or a value is missing.
    """
    data, held = _checked(values, included)
    inside, outside = _side(data, held), _side(data, ~held)
    difference = inside["mean"] - outside["mean"]
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = inside["variance"] / inside["runs"], outside["variance"] / outside["runs"]
        error = np.sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / (inside["runs"] - 1) + b**2 / (outside["runs"] - 1))
        half = np.where(error > 0, student.ppf(0.975, freedom) * error, np.nan)
    return pd.DataFrame({
        "row": np.arange(data.shape[1]), "with_row": inside["mean"], "without_row": outside["mean"],
        "memorization": difference, "low": difference - half, "high": difference + half, "runs_with": inside["runs"],
        "runs_without": outside["runs"],
    })


def mean_memorization(values: npt.ArrayLike, included: npt.ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean counterfactual memorization over rows. n: the rows that have a value.

    The interval is told by rows with two runs on either side at least; with fewer than two such rows there is none.
    """
    data, held = _checked(values, included)
    usable = held.any(axis=0) & ~held.all(axis=0)
    rows = int(usable.sum())
    value = float(_gains(data[:, usable], held[:, usable]).mean()) if rows else float("nan")
    told = (held.sum(axis=0) > 1) & ((~held).sum(axis=0) > 1)
    if told.sum() < 2:
        return Estimate(value, n=rows, unit="row")
    error, freedom = _error(data[:, told], held[:, told])
    reach = float(student.ppf(0.5 + level / 2, freedom)) * error
    return Estimate(value, value - reach, value + reach, rows, "row", f"crossed t{round(100 * level)}")


def _error(data: np.ndarray, held: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean over rows that have two runs on either side, and its degrees of freedom."""
    runs, rows = data.shape
    size = np.where(held, held.sum(axis=0), (~held).sum(axis=0))
    rest = data - np.where(held, _side(data, held)["mean"], _side(data, ~held)["mean"])
    added = np.where(held, 1, -1) * rest / np.sqrt(size * (size - 1)) / rows
    of_runs, of_cells = float((added.sum(axis=1) ** 2).sum()), float((added**2).sum())
    of_rows = float(_gains(data, held).var(ddof=1)) / rows
    whole = max(of_runs + of_rows - of_cells, of_rows)
    freedom = whole**2 / max(of_runs**2 / (runs - 2) + of_rows**2 / (rows - 1), 1e-300)
    return float(np.sqrt(whole)), max(freedom, 1.0)


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


def _gains(data: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(n,) mean of the runs that held each row minus that of the others."""
    return _side(data, held)["mean"] - _side(data, ~held)["mean"]
