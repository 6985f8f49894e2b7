"""Does the training order decide what is memorized? Counts per block of rows against what order-free chance gives.

As in the Pythia paper: memorized rows are counted in consecutive blocks of 512, and the counts are compared with a
Poisson law of the same mean by a Q–Q plot (plotting positions i/(n + 1)). Beside it what decides: the dispersion
(variance over mean) and the rank correlation with position, as effect sizes with intervals, against a null from
permuting rows. With hundreds of thousands of blocks any test rejects; a dispersion of 1.02 is not an effect, whatever
its p-value. Cost: one hypergeometric draw per block and permutation (exact: block counts of permuted rows are
multivariate hypergeometric, so rows need not be shuffled). Source: Biderman et al. 2023 (Pythia), section 4.1.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import poisson, rankdata

from pythia_tools.analyses.memorization import declared
from pythia_tools.core import progress, statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, percentiles, permutation_pvalue, rank_correlation
from pythia_tools.core.tables import by_identity

BLOCK = 512
FEWEST = 3
"""Blocks without which there is nothing to compare."""
_CELLS = 1 << 22


def block_counts(flags: npt.ArrayLike, block: int = BLOCK) -> tuple[np.ndarray, int]:
    """Memorized rows per whole block of consecutive rows, and how many rows were left out.

    flags: (n,) in row order, missing where undecided. The incomplete last block and blocks with an undecided row are
    left out.
    """
    values = pd.Series(flags, dtype="boolean")
    whole = len(values) // block
    known = ~np.asarray(values.isna())
    ones = np.asarray(values.fillna(False)).astype(np.int64)
    counts = ones[: whole * block].reshape(whole, block).sum(axis=1)
    complete = known[: whole * block].reshape(whole, block).all(axis=1)
    return counts[complete], len(values) - int(complete.sum()) * block


def order_effect(
    flags: npt.ArrayLike, *, block: int = BLOCK, permutations: int = 1000, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Metric → estimate: rows per block, dispersion and position correlation, each beside its permutation null.

    The nulls' bounds are quantiles .025 and .975 under permuted rows; p-values are two-sided, never 0.
    Raises: RequestError with fewer than 3 whole blocks.
    """
    counts, _ = block_counts(flags, block)
    if len(counts) < FEWEST:
        raise RequestError(
            f"{len(counts)} whole blocks of {block} decided rows are too few to test order; give at least {FEWEST}, "
            "or choose a smaller block"
        )
    places, plain = np.arange(len(counts)), partial(Estimate, n=len(counts), unit="block")
    spreads, trends = _null(counts, block, permutations, seed)
    null = partial(plain, interval="permutation95")
    return {
        "block_rows": plain(float(block)),
        "block_mean": plain(float(counts.mean())),
        "dispersion": statistics.dispersion(counts, unit="block", resamples=resamples, seed=seed),
        "dispersion_permuted": null(1.0, *percentiles(spreads)),
        "position_correlation": rank_correlation(places, counts, unit="block", resamples=resamples, seed=seed),
        "position_correlation_permuted": null(0.0, *percentiles(trends)),
        "p_dispersion": plain(permutation_pvalue(spreads, dispersion(counts))),
        "p_position": plain(permutation_pvalue(trends, _trend(counts[None])[0])),
    }


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


def summarize_order(table: pd.DataFrame, *, block: int = BLOCK, permutations: int = 1000) -> pd.DataFrame:
    """Summary rows per checkpoint of items that hold consecutive rows: rows per block, dispersion, position correlation
    and their nulls.

    Checkpoints with fewer than 3 whole blocks of decided rows are left out, and that is said.
    Raises RequestError when a checkpoint's rows are not consecutive (a random sample has no order to test).
    """
    lines = []
    named = table.assign(task=None) if "task" not in table.columns else table
    for identity, (task,), part in by_identity(named, "task"):
        part = part.sort_values("row")
        if (np.diff(part["row"].to_numpy()) != 1).any():
            raise RequestError("the order test needs consecutive rows, each once; measure a range, as order.rows(a, b)")
        try:
            found = order_effect(part["memorized"], block=block, permutations=permutations)
        except RequestError as error:
            progress.note(f"{identity['model']} step {identity['step']}: {error}")
            continue
        lines += [{**identity, "task": task, "metric": metric, **e.columns()} for metric, e in found.items()]
    return declared.summary(lines)


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
    return rng.multivariate_hypergeometric(np.full(len(counts), block), int(counts.sum()), size=permutations)


def _trend(counts: np.ndarray) -> np.ndarray:
    """Spearman's rho of each line of (r, n) counts with position; NaN for a constant line."""
    n = counts.shape[1]
    place = np.arange(n) - (n - 1) / 2
    ranks = rankdata(counts, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ranks @ place / np.sqrt((ranks**2).sum(axis=1) * (place**2).sum())
