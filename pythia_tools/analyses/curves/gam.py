"""The smooth curve that Chang & Bergen (TACL 2024, arXiv:2308.15419) fit to surprisal over log steps, for all at once.

Theirs is `pygam.LinearGAM(n_splines=25).gridsearch(lam=logspace(-3, 3, 11))`: an intercept and 25 cubic B-splines on
equal knots from the first to the last checkpoint, a penalty λ on second differences of their weights (Eilers & Marx
1996), λ by generalized cross-validation with each degree of freedom counted 1.4 times (Wood 2006, section 4.5.4). All
curves share their checkpoints, so a smoother is one matrix per λ. With fewer checkpoints than weights, the
decomposition is cut as pygam cuts it, so that the curves are the same there too.

Cost: a microsecond per checkpoint and curve.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import BSpline

SPLINES, DEGREE, EXTRA = 25, 3, 1.4
LAMBDAS = np.logspace(-3, 3, 11)
GRID = 1000
"""Points at which a smooth curve is searched for its crossing."""
RIDGE = float(np.sqrt(np.finfo(np.float64).eps))


@dataclass(frozen=True, eq=False)
class Smoother:
    """What turns curves (n, steps) at fixed x into smooth ones: a matrix per λ, at the checkpoints and on the grid."""

    grid: np.ndarray
    """(GRID,) x of the grid"""
    at_steps: np.ndarray
    """(λ, steps, steps)"""
    on_grid: np.ndarray
    """(λ, GRID, steps)"""
    freedom: np.ndarray
    """(λ,) effective degrees of freedom"""

    def chosen(self, curves: np.ndarray) -> np.ndarray:
        """(n,) number of the λ with the least score of generalized cross-validation, the first of equals."""
        n = curves.shape[1]
        misfit = np.stack([((curves - curves @ hat.T) ** 2).sum(axis=1) for hat in self.at_steps], axis=1)
        with np.errstate(divide="ignore"):
            return np.argmin(n * misfit / (n - EXTRA * self.freedom) ** 2, axis=1)

    def smooth(self, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, steps) and (n, GRID) of finite curves (n, steps)."""
        which = self.chosen(curves)
        here, fine = np.empty(curves.shape), np.empty((len(curves), GRID))
        for number in np.unique(which):
            own = which == number
            here[own] = curves[own] @ self.at_steps[number].T
            fine[own] = curves[own] @ self.on_grid[number].T
        return here, fine


@lru_cache(maxsize=8)
def smoother(x: tuple[float, ...]) -> Smoother:
    """The smoother of curves measured at x (log10 steps, ascending, two at least)."""
    places = np.asarray(x)
    grid = np.linspace(places[0], places[-1], GRID)
    design, fine = (_design(p, places[0], places[-1]) for p in (places, grid))
    solved = [_solve(design, lam) for lam in LAMBDAS]
    return Smoother(grid, np.stack([design @ s for s, _ in solved]), np.stack([fine @ s for s, _ in solved]),
                    np.array([freedom for _, freedom in solved]))


def _design(x: np.ndarray, first: float, last: float) -> np.ndarray:
    """(n, 26): B-splines on knots that go on beyond both ends, and the intercept."""
    pieces = SPLINES - DEGREE
    knots = np.arange(-DEGREE, pieces + DEGREE + 1) / pieces
    scaled = np.clip((x - first) / (last - first), 0, 1)
    basis = BSpline.design_matrix(np.minimum(scaled, np.nextafter(1, 0)), knots, DEGREE).toarray()
    return np.column_stack([basis, np.ones(len(x))])


def _solve(design: np.ndarray, lam: float) -> tuple[np.ndarray, float]:
    """(26, n) from measured values to weights, and the degrees of freedom."""
    n, m = design.shape
    rough = np.diff(np.eye(SPLINES), n=2, axis=0)
    penalty = RIDGE * np.eye(m)
    penalty[:SPLINES, :SPLINES] += lam * rough.T @ rough
    q, r = np.linalg.qr(design)
    u, d, vt = np.linalg.svd(np.vstack([r, np.linalg.cholesky(penalty).T]), full_matrices=False)
    kept = min(n, m)
    top = u[:kept, :kept]
    return (vt[:kept].T / d[:kept]) @ top.T @ q.T, float((top**2).sum())
