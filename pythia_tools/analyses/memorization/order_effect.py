"""Does the training order decide what is memorized? Counts per block of rows against what order-free chance gives.

As in the Pythia paper: memorized rows are counted in consecutive blocks of 512, and the counts are compared with a
Poisson law of the same mean by a Q–Q plot (plotting positions i/(n + 1)). Beside it what decides: the dispersion
(variance over mean) and the rank correlation with position, as effect sizes with intervals, against a null from
permuting rows. With hundreds of thousands of blocks any test rejects; a dispersion of 1.02 is not an effect, whatever
its p-value. Cost: one hypergeometric draw per block and permutation (exact: block counts of permuted rows are
multivariate hypergeometric, so rows need not be shuffled). Source: Biderman et al. 2023 (Pythia), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import poisson, rankdata

from pythia_tools.analyses.memorization import declared
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, percentiles, permutation_pvalue, rank_correlation, statistic
from pythia_tools.core.tables import by_identity

BLOCK = 512
FEWEST = 3
"""Blocks without which there is nothing to compare."""
_CELLS = 1 << 22


@dataclass(frozen=True)
class OrderEffect:
    """What the counts say. `null_*`: quantiles .025 and .975 under permuted rows; p-values are two-sided, never 0."""

    block: int
    counts: np.ndarray = field(repr=False)
    rate: float
    dispersion: Estimate
    null_dispersion: tuple[float, float]
    p_dispersion: float
    trend: Estimate
    null_trend: tuple[float, float]
    p_trend: float
    left_out: int


def block_counts(flags: npt.ArrayLike, block: int = BLOCK) -> tuple[np.ndarray, int]:
    """Memorized rows per whole block of consecutive rows, and how many rows were left out.

    flags: (n,) in row order, missing where undecided. The incomplete last block and blocks with an undecided row are
    left out.
    """
    if block < 1:
        raise RequestError(f"block {block} must be at least 1")
    values = pd.array(flags, dtype="boolean")
    whole = len(values) // block
    known = ~np.asarray(values.isna())
    ones = np.asarray(values.fillna(False)).astype(np.int64)
    counts = ones[: whole * block].reshape(whole, block).sum(axis=1)
    complete = known[: whole * block].reshape(whole, block).all(axis=1)
    return counts[complete], len(values) - int(complete.sum()) * block


def order_effect(
    flags: npt.ArrayLike, *, block: int = BLOCK, permutations: int = 1000, resamples: int = 1000, seed: int = 0
) -> OrderEffect:
    """Dispersion and trend of block counts with their permutation null. RequestError with fewer than 3 whole blocks."""
    counts, left_out = block_counts(flags, block)
    if len(counts) < FEWEST:
        raise RequestError(
            f"{len(counts)} whole blocks of {block} rows are too few; give at least {FEWEST}, or choose a smaller block"
        )
    places = np.arange(len(counts))
    seen_dispersion, seen_trend = dispersion(counts), _trend(counts[None])[0]
    null_dispersion, null_trend = _null(counts, block, permutations, seed)
    return OrderEffect(
        block, counts, float(counts.mean()),
        statistic(dispersion, counts, resamples=resamples, seed=seed, unit="block"),
        percentiles(null_dispersion), permutation_pvalue(null_dispersion, seen_dispersion),
        rank_correlation(places, counts, resamples=resamples, seed=seed, unit="block"),
        percentiles(null_trend), permutation_pvalue(null_trend, seen_trend), left_out,
    )


def dispersion(counts: np.ndarray) -> float:
    """Sample variance over mean: 1 for Poisson counts; NaN when nothing was memorized."""
    mean = counts.mean()
    return float(counts.var(ddof=1) / mean) if mean > 0 else float("nan")


def qq_points(counts: np.ndarray) -> pd.DataFrame:
    """Poisson quantiles at i/(n + 1) beside sorted counts, equal points joined: theoretical, observed, multiplicity."""
    n = len(counts)
    theory = poisson.ppf(np.arange(1, n + 1) / (n + 1), counts.mean()) if n else np.zeros(0)
    frame = pd.DataFrame({"theoretical": theory, "observed": np.sort(counts)})
    return frame.groupby(["theoretical", "observed"], as_index=False).size().rename(columns={"size": "multiplicity"})


def summarize_order(
    table: pd.DataFrame, *, block: int = BLOCK, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Summary rows per checkpoint of items that hold consecutive rows: rows per block, dispersion, position correlation
    and their nulls.

    Checkpoints with fewer than 3 whole blocks of decided rows are left out, and that is said.
    Raises RequestError when a checkpoint's rows are not consecutive (a random sample has no order to test).
    """
    lines = []
    named = table.assign(task=pd.NA) if "task" not in table.columns else table
    for identity, (task,), part in by_identity(named, "task"):
        part = part.sort_values("row")
        if (np.diff(part["row"].to_numpy()) != 1).any():
            raise RequestError("the order test needs consecutive rows, each once; measure a range, as order.rows(a, b)")
        whole = len(block_counts(part["memorized"], block)[0])
        if whole < FEWEST:
            said = f"{whole} whole blocks of {block} decided rows are too few to test order"
            progress.note(f"{identity['model']} step {identity['step']}: {said}")
            continue
        effect = order_effect(part["memorized"], block=block, permutations=permutations, seed=seed)
        n = len(effect.counts)
        plain, null = ({"n": n, "unit": "block", "interval": how} for how in ("none", "permutation95"))
        numbers = {
            "block_rows": {"value": block, **plain},
            "block_mean": {"value": effect.rate, **plain},
            "dispersion": effect.dispersion.columns(),
            "dispersion_permuted": {"value": 1.0, **_bounds(effect.null_dispersion), **null},
            "position_correlation": effect.trend.columns(),
            "position_correlation_permuted": {"value": 0.0, **_bounds(effect.null_trend), **null},
            "p_dispersion": {"value": effect.p_dispersion, **plain},
            "p_position": {"value": effect.p_trend, **plain},
        }
        lines += [{**identity, "task": task, "metric": metric, **number} for metric, number in numbers.items()]
    return declared.summary(lines)


def _bounds(pair: tuple[float, float]) -> dict[str, float]:
    return {"low": pair[0], "high": pair[1]}


def _null(counts: np.ndarray, block: int, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dispersion and trend of `permutations` shuffles of all rows, a few at a time."""
    rng, step = np.random.default_rng(seed), max(1, _CELLS // len(counts))
    spread, trend = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, permutations, step):
        drawn = _permuted(counts, block, min(step, permutations - start), rng)
        spread.append(np.array([dispersion(c) for c in drawn]))
        trend.append(_trend(drawn))
    return np.concatenate(spread), np.concatenate(trend)


def _permuted(counts: np.ndarray, block: int, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """(permutations, blocks) counts after shuffling all rows."""
    colours = np.full(len(counts), block, dtype=np.int64)
    return rng.multivariate_hypergeometric(colours, int(counts.sum()), size=permutations, method="marginals")


def _trend(counts: np.ndarray) -> np.ndarray:
    """Spearman's rho of each line of (r, n) counts with position; NaN for a constant line."""
    n = counts.shape[1]
    place = np.arange(n) - (n - 1) / 2
    ranks = rankdata(counts, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ranks @ place / np.sqrt((ranks**2).sum(axis=1) * (place**2).sum())
