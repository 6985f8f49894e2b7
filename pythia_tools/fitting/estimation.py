"""A law fitted to points: constants, resamples of whole runs, predictions with intervals, and the fit without a part.

Runs are what is independent: a resample weighs runs with all their checkpoints at random, never checkpoints, and starts
from the fit itself. Intervals are percentiles; a prediction's has the scatter of a run about the law too, and is
widened to Student's t for the runs that the constants leave over.
Sources: as `minimize`; Rubin 1981 and Jin, Ying & Wei 2001 (random weights, as a resample that lacks a size fits
nothing); Davison & Hinkley 1997, section 6.3.3 (prediction).
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate
from pythia_tools.fitting.laws import Law
from pythia_tools.fitting.minimize import descend, polished
from pythia_tools.fitting.points import SAME, Points, refusal

STARTS = 64
RESAMPLES = 1000
UNIT = "run"


@dataclass(frozen=True)
class Fitted:
    """A law with its constants.

    theta: (p,) fitted constants at centred logs; centre: (k,) the logs' means; loss: the sum of Huber losses.
    draws: (R, p) constants of the resamples; empty without resampling.
    """

    law: Law
    points: Points
    theta: np.ndarray
    centre: np.ndarray
    loss: float
    draws: np.ndarray

    @cached_property
    def rests(self) -> np.ndarray:
        """(n,) log loss minus the law's."""
        return self.points.log_loss - self.log_predicted(self.points.logs(self.law), self.theta[None])[0]

    @property
    def runs(self) -> int:
        return statistics.units(len(self.rests), self.points.runs).n

    @property
    def freedom(self) -> int:
        """Runs that the constants leave over, at least one."""
        return max(1, self.runs - len(self.theta))

    def log_predicted(self, logs: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """(B, n) log losses of (B, p) constants at (n, k) logs of the variables."""
        return self.law.terms(logs - self.centre)(theta)[0]

    def estimate(self, values: np.ndarray, draws: np.ndarray) -> Estimate:
        """An estimate out of its (1,) value and (R,) resampled ones."""
        return statistics.from_draws(float(values[0]), draws, n=self.runs, unit=UNIT)

    def constants(self) -> dict[str, Estimate]:
        """The law's constants by name."""
        values, draws = (self.law.constants(theta, self.centre) for theta in (self.theta[None], self.draws))
        return {name: self.estimate(values[name], draws[name]) for name in values}

    def predicted(self, logs: np.ndarray, *, seed: int = 0) -> list[Estimate]:
        """The loss that a further run would reach at each of (n, k) logs, with the interval of a single run."""
        rng = np.random.default_rng(seed)
        value = np.exp(self.log_predicted(logs, self.theta[None])[0])
        spread = np.sqrt(self.runs / self.freedom) * (self.rests - np.median(self.rests))
        draws = self.log_predicted(logs, self.draws)
        draws = np.exp(draws + rng.choice(spread, draws.shape))
        estimate = partial(statistics.fitted, n=self.runs, freedom=self.freedom, unit=UNIT)
        found = [estimate(float(value[k]), draws[:, k]) for k in range(len(value))]
        return [replace(e, low=max(e.low, 0.0), interval=e.interval.replace("bootstrap", "prediction")) for e in found]


def fit_law(
    law: Law, points: Points, *, resamples: int = RESAMPLES, seed: int = 0, starts: int = STARTS
) -> Fitted:
    """The law's best constants of so many random starts, and those of resamples of the runs."""
    logs, target = points.logs(law), points.log_loss
    centre = logs.mean(axis=0)
    terms, rng = law.terms(logs - centre), np.random.default_rng(seed)
    found, losses = descend(terms, target, law.starts(rng, starts, float(target.mean())))
    if not np.isfinite(losses).any():
        raise RequestError(f"{law.name} fits these points from none of {starts} starts; look at their units")
    theta, loss = polished(terms, target, found[np.nanargmin(losses)])
    draws = np.empty((0, len(theta)))
    if resamples:
        weights = statistics.units(len(target), points.runs).smooth_weights(resamples, seed)
        draws, _ = descend(terms, target, np.tile(theta, (resamples, 1)), weights, steps=100)
    return Fitted(law, points, theta, centre, loss, draws)


@dataclass(frozen=True)
class Check:
    """A part held out: what a fit without it predicts for it. inside: (n,) whether each lies in its interval."""

    what: str
    held: Points
    predicted: list[Estimate]

    @property
    def errors(self) -> np.ndarray:
        """(n,) predicted / measured − 1."""
        return np.array([e.value for e in self.predicted]) / np.exp(self.held.log_loss) - 1

    @property
    def inside(self) -> np.ndarray:
        loss = np.exp(self.held.log_loss)
        return np.array([e.low <= y <= e.high for e, y in zip(self.predicted, loss, strict=True)])


def hold_out(law: Law, points: Points, what: str, *, resamples: int, seed: int) -> Check | None:
    """Fit without the largest `params`, `tokens` or `flops` and predict those; None where the rest carries no law.

    That is the largest size; of tokens and FLOPs the largest, and a tenth of the points at least.
    """
    values = points.table[what].to_numpy(float)
    top = values.max() / SAME
    kept = values < (top if what == "params" else min(top, float(np.quantile(values, 0.9))))
    rest = points.where(kept)
    if refusal(rest.table, law):
        return None
    fitted = fit_law(law, rest, resamples=resamples, seed=seed)
    held = points.where(~kept)
    return Check(what, held, fitted.predicted(held.logs(law), seed=seed))
