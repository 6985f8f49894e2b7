"""How alike two sets of predictions are: Cohen's kappa, plain and weighted, of checkpoints and of seeds.

kappa = 1 − Σ w·observed / Σ w·expected over pairs of predictions, w = 0 on the diagonal (Cohen 1960, 1968): 1 for equal
predictions, 0 for what chance gives. PolyPythias (van der Wal et al. 2025) weights by the distance of the choices; for
two choices that is the plain one.
Cost: one table of choices × choices per pair of checkpoints; intervals resample its counts.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import FEWEST, RESAMPLES, Estimate
from pythia_tools.core.tables import IDENTITY

WEIGHTS = {"": "none", "_weighted": "linear"}
"""Ending of a metric's name → the weights of its kappa."""


def kappa(first: npt.ArrayLike, second: npt.ArrayLike, weights: str = "none") -> float:
    """Cohen's kappa of two aligned (n,) predictions (integers from 0); NaN where both always say the same one thing.

    weights: `none`, `linear` or `quadratic` in the distance of two predictions.

    >>> round(kappa([0, 1, 1, 2], [0, 1, 2, 2]), 4)
    0.6364
    >>> round(kappa([0, 1, 1, 2], [0, 1, 2, 2], "linear"), 4)
    0.7143
    """
    return float(_kappas(_counts(first, second)[None], weights)[0])


def estimate(
    first: npt.ArrayLike, second: npt.ArrayLike, weights: str = "none", *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The same with the percentiles of resampled documents; no bounds below FEWEST documents."""
    counts = _counts(first, second)
    value, n = float(_kappas(counts[None], weights)[0]), int(counts.sum())
    if n < FEWEST:
        return Estimate(value, n=n, unit="document")
    drawn = statistics.frequencies(counts.ravel(), resamples, seed).reshape(resamples, *counts.shape)
    return statistics.from_draws(value, _kappas(drawn, weights), n=n, unit="document")


def _counts(first: npt.ArrayLike, second: npt.ArrayLike) -> np.ndarray:
    """(k, k) how often each pair of predictions occurs."""
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if a.shape != b.shape or not a.size:
        raise RequestError(f"{a.size} and {b.size} predictions; kappa needs as many of both, and one at least")
    k = int(max(a.max(), b.max())) + 1
    return np.bincount(a * k + b, minlength=k * k).reshape(k, k)


def _kappas(counts: np.ndarray, weights: str) -> np.ndarray:
    """(r,) kappa of each of (r, k, k) tables of counts."""
    k = counts.shape[-1]
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(float)
    powers = {"none": apart > 0, "linear": apart, "quadratic": apart**2}
    if weights not in powers:
        raise RequestError(f"weights {weights!r} are not known; allowed: {', '.join(powers)}")
    weight = powers[weights].astype(float)
    total = counts.sum(axis=(1, 2))
    expected = np.einsum("ri,rj->rij", counts.sum(axis=2), counts.sum(axis=1)) / total[:, None, None]
    observed, chance = (np.einsum("rij,ij->r", table, weight) for table in (counts, expected))
    return np.where(chance > 0, 1 - observed / np.where(chance > 0, chance, 1), np.nan)


def self_consistency(documents: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Summary rows: each checkpoint's predictions against those of its run's last step that was evaluated."""
    for _, run in documents.groupby([c for c in IDENTITY if c not in ("step", "tokens")], sort=False, dropna=False):
        last = run[run["step"] == run["step"].max()]
        for who, here in run[run["step"] < run["step"].max()].groupby(IDENTITY, sort=False, dropna=False):
            identity: dict[str, object] = dict(zip(IDENTITY, who, strict=True))
            yield from _compared("self_consistency", identity, here, last)


def seed_agreement(documents: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Summary rows: each run's predictions against those of the first run of its size, at equal steps.

    Only sizes whose runs all differ in seed: those that share one differ in something else.
    """
    for _, family in documents.groupby(["suite", "params", "branch"], sort=False, dropna=False):
        runs = family[["model", "seed"]].drop_duplicates()
        if len(runs) < 2 or runs["seed"].isna().any() or runs["seed"].duplicated().any():
            continue
        first = runs["model"].iloc[0]
        for who, here in family[family["model"] != first].groupby(IDENTITY, sort=False, dropna=False):
            identity: dict[str, object] = dict(zip(IDENTITY, who, strict=True))
            same = family[(family["model"] == first) & (family["step"] == identity["step"])]
            yield from _compared("seed_agreement", {**identity, "reference": first}, here, same)


def _compared(
    metric: str, identity: Mapping[str, object], here: pd.DataFrame, other: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Kappas of each task that both have."""
    for task, mine in here.groupby("task", sort=False):
        theirs = other.loc[other["task"] == task, ["doc_id", "predicted"]]
        both = mine[["doc_id", "predicted"]].merge(theirs, on="doc_id")
        if both.empty:
            continue
        for ending, weights in WEIGHTS.items():
            found = estimate(both["predicted_x"], both["predicted_y"], weights)
            yield {**identity, "task": task, "metric": f"{metric}{ending}", **found.columns()}
