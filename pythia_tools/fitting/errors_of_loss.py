"""Downstream error from loss: error = ceiling - k exp(-gamma L), by least squares from many starts.

For a given gamma the law is linear in the other two, so that only gamma is searched for.
Source: Gadre et al. 2024, arXiv:2403.08540, eq. 5.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError

GAMMAS = np.geomspace(0.02, 50, 200)
"""Where gamma is looked for, per unit of the loss."""


@dataclass(frozen=True)
class ErrorLaw:
    """ceiling, k, gamma; with (R, 3) of resamples of the runs."""

    constants: np.ndarray
    draws: np.ndarray

    def __call__(self, loss: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Error at losses (…,) for constants (…, 3)."""
        ceiling, k, gamma = np.moveaxis(constants, -1, 0)
        return np.asarray(ceiling - k * np.exp(-gamma * loss))


def fit_errors(
    loss: np.ndarray, error: np.ndarray, runs: np.ndarray, *, resamples: int = 0, seed: int = 0
) -> ErrorLaw:
    """The law through (n,) losses and errors. Raises RequestError for fewer than six different losses."""
    if len(np.unique(loss)) < 6:
        raise RequestError(f"{len(np.unique(loss))} different losses carry no law of the error; 6 are needed")
    weights = statistics.units(len(loss), runs).smooth_weights(resamples, seed)
    draws = np.array([_best(loss, error, row) for row in weights]).reshape(-1, 3)
    return ErrorLaw(_best(loss, error, np.ones(len(loss))), draws)


def _best(loss: np.ndarray, error: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(3,) constants of least weighted squares."""
    def squares(log_gamma: float) -> float:
        return _linear(loss, error, weights, np.exp(log_gamma))[0]

    place = int(np.argmin([squares(value) for value in np.log(GAMMAS)]))
    around = np.log(GAMMAS[[max(place - 1, 0), min(place + 1, len(GAMMAS) - 1)]])
    found = minimize_scalar(squares, bounds=tuple(around), method="bounded", options={"xatol": 1e-10})
    gamma = float(np.exp(found.x))
    return np.array([*_linear(loss, error, weights, gamma)[1], gamma])


def _linear(
    loss: np.ndarray, error: np.ndarray, weights: np.ndarray, gamma: float
) -> tuple[float, tuple[float, float]]:
    """Weighted squares of the best ceiling and k at a gamma, and the two."""
    x = np.exp(-gamma * (loss - loss.min()))
    mean_x, mean_y = np.average(x, weights=weights), np.average(error, weights=weights)
    spread = (weights * (x - mean_x) ** 2).sum()
    slope = (weights * (x - mean_x) * (error - mean_y)).sum() / max(spread, 1e-300)
    ceiling = mean_y - slope * mean_x
    squares = float((weights * (error - ceiling - slope * x) ** 2).sum())
    with np.errstate(over="ignore"):
        return squares, (float(ceiling), float(-slope * np.exp(gamma * loss.min())))
