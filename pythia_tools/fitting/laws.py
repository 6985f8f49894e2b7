"""The laws: how loss falls with size and tokens, or with compute; what each says about optimal allocation.

    hoffmann   L = E + A / N^alpha + B / D^beta
    kaplan     L = ((A / N)^(alpha / beta) + B / D)^beta
    gadre      L = E + A / N^alpha + B 6^(-alpha/2) / D^alpha     (D = M N, M tokens per parameter)
    flops      L = E + A / C^alpha

N: parameters, D: training tokens, C: training FLOPs, 6 N D where a table has none. Logs are centred before the fit, so
that constants of very different sizes are steps of about one.
Sources: Hoffmann et al. 2022, arXiv:2203.15556, approach 3; Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5; Gadre et al.
2024, arXiv:2403.08540, eq. 4; Magnusson et al. 2025, arXiv:2504.11393 (single scale).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pythia_tools.fitting.minimize import Terms

FLOPS = 6.0
"""Training FLOPs per parameter and token (Kaplan et al. 2020, section 2.1)."""


@dataclass(frozen=True)
class Law:
    """A law over (n, k) logs of its variables.

    variables: of params, tokens and flops. terms: the law's terms at centred logs. starts: (B, p) of a generator, B and
    the mean of log L. constants: name → (B,) of (B, p) fitted ones and the (k,) centres.
    """

    name: str
    formula: str
    variables: tuple[str, ...]
    terms: Callable[[np.ndarray], Terms]
    starts: Callable[[np.random.Generator, int, float], np.ndarray]
    constants: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]

    @property
    def sized(self) -> bool:
        return "params" in self.variables


def _stacked(n: int, *rows: tuple[np.ndarray | float, ...]) -> np.ndarray:
    """(n, J, p) from J rows of p columns, each (n,) or a number."""
    terms = [np.stack([np.broadcast_to(cell, n).astype(float) for cell in row], axis=-1) for row in rows]
    return np.stack(terms, axis=1)


def _shares(rng: np.random.Generator, many: int, middle: float, terms: int) -> np.ndarray:
    """(B, terms) logs of terms that share the mean loss at random."""
    return np.log(rng.dirichlet(np.ones(terms), many) + 1e-6) + middle


def _hoffmann_terms(logs: np.ndarray) -> Terms:
    x, z = logs.T
    return Terms(_stacked(len(logs), (1, 0, 0, -x, 0), (0, 1, 0, 0, -z), (0, 0, 1, 0, 0)))


def _hoffmann_starts(rng: np.random.Generator, many: int, middle: float) -> np.ndarray:
    return np.concatenate([_shares(rng, many, middle, 3), rng.uniform(0.05, 1, (many, 2))], axis=1)


def _hoffmann_constants(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    a, b, e, alpha, beta = theta.T
    return {"A": np.exp(a + alpha * centre[0]), "B": np.exp(b + beta * centre[1]), "E": np.exp(e), "alpha": alpha,
            "beta": beta}


def _kaplan_terms(logs: np.ndarray) -> Terms:
    x, z = logs.T
    return Terms(_stacked(len(logs), (1, 0, -x, 0), (0, 1, 0, -z)), scale=3)


def _kaplan_starts(rng: np.random.Generator, many: int, middle: float) -> np.ndarray:
    return np.concatenate([_shares(rng, many, middle, 2), rng.uniform(0.02, 0.6, (many, 2))], axis=1)


def _kaplan_constants(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    a, b, alpha, beta = theta.T
    with np.errstate(over="ignore"):
        return {"A": np.exp(a / alpha + centre[0]), "B": np.exp(b / beta + centre[1]), "alpha": alpha, "beta": beta}


def _gadre_terms(logs: np.ndarray) -> Terms:
    x, z = logs.T
    return Terms(_stacked(len(logs), (1, 0, 0, -x), (0, 1, 0, -z), (0, 0, 1, 0)))


def _gadre_starts(rng: np.random.Generator, many: int, middle: float) -> np.ndarray:
    return np.concatenate([_shares(rng, many, middle, 3), rng.uniform(0.05, 1, (many, 1))], axis=1)


def _gadre_constants(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    a, b, e, alpha = theta.T
    return {"A": np.exp(a + alpha * centre[0]), "B": np.exp(b + alpha * (centre[1] + 0.5 * np.log(FLOPS))),
            "E": np.exp(e), "alpha": alpha}


def _flops_terms(logs: np.ndarray) -> Terms:
    return Terms(_stacked(len(logs), (1, 0, -logs[:, 0]), (0, 1, 0)))


def _flops_starts(rng: np.random.Generator, many: int, middle: float) -> np.ndarray:
    return np.concatenate([_shares(rng, many, middle, 2), rng.uniform(0.02, 0.6, (many, 1))], axis=1)


def _flops_constants(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    a, e, alpha = theta.T
    return {"A": np.exp(a + alpha * centre[0]), "E": np.exp(e), "alpha": alpha}


_PLANE = ("params", "tokens")
HOFFMANN = Law("hoffmann", "E + A / N^alpha + B / D^beta", _PLANE, _hoffmann_terms, _hoffmann_starts,
               _hoffmann_constants)
KAPLAN = Law("kaplan", "((A / N)^(alpha / beta) + B / D)^beta", _PLANE, _kaplan_terms, _kaplan_starts,
             _kaplan_constants)
GADRE = Law("gadre", "E + A / N^alpha + B 6^(-alpha/2) / D^alpha", _PLANE, _gadre_terms, _gadre_starts,
            _gadre_constants)
COMPUTE = Law("flops", "E + A / C^alpha", ("flops",), _flops_terms, _flops_starts, _flops_constants)


def slopes_of(law: Law, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) how fast the terms of size and of tokens fall, as exponents that balance at the optimum.

    Kaplan's law is a power of (A / N)^(alpha / beta) + B / D, whose terms fall with alpha / beta and 1.
    """
    if law is HOFFMANN:
        return theta[:, 3], theta[:, 4]
    if law is GADRE:
        return theta[:, 3], theta[:, 3]
    return theta[:, 2] / theta[:, 3], np.ones(len(theta))


def allocation(law: Law, theta: np.ndarray) -> np.ndarray:
    """(B,) exponent a of N_opt ~ C^a: b / (a + b) for terms that fall with N^-a and D^-b."""
    a, b = slopes_of(law, theta)
    return b / (a + b)


def optimum(law: Law, theta: np.ndarray, centre: np.ndarray, flops: float) -> tuple[np.ndarray, np.ndarray]:
    """(B,) logs of the parameters and of the tokens at which 6 N D = flops and the loss is least.

    There a A / N^a = b B / D^b (the two terms' derivatives along the line of constant compute).
    """
    a, b = slopes_of(law, theta)
    first, second = theta[:, 0], theta[:, 1]
    if law is KAPLAN:
        first, second = first / theta[:, 3], second / theta[:, 3]
    log_a, log_b = first + a * centre[0], second + b * centre[1]
    together = np.log(flops / FLOPS)
    size = (np.log(a) + log_a - np.log(b) - log_b + b * together) / (a + b)
    return size, together - size
