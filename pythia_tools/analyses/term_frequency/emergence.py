"""When does the relation appear, and in which size: the first step, or the smallest model, from which on it holds.

The relation holds at a checkpoint when the rank correlation of accuracy and exposures over terms is at least `rho`. It has emerged at
the first step from which on it holds at every later one measured (and likewise at the smallest size from which on it holds in
every larger one). The interval is a bootstrap over terms, the same resampled terms at all checkpoints, so that the trajectory stays whole.
Cost: resamples × checkpoints rank correlations, vectorised; 0.1 s for 100 terms and 30 checkpoints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.analyses.term_frequency.analysis import by_term
from pythia_tools.core.statistics import spearman, units

RHO = 0.3


def emergence_steps(
    table: pd.DataFrame, exposures: pd.DataFrame, *, rho: float = RHO, resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """Per model, branch and task: step (first from which on the relation holds; <NA>: never), low and high, emerged (share of resamples
    in which it emerged at all), n (terms). low and high are steps that were measured; <NA> stands for never.
    """
    terms = by_term(table, exposures)
    rows = []
    for key, part in terms.groupby(["suite", "model", "params", "branch", "task"], sort=False, dropna=False):
        found = _emergence(part, "step", rho, resamples, seed)
        rows.append({**dict(zip(["suite", "model", "params", "branch", "task"], key, strict=True)), **found})
    return pd.DataFrame(rows).rename(columns={"value": "step"}).astype({"step": "Int64", "low": "Int64", "high": "Int64"})


def emergence_sizes(
    table: pd.DataFrame, exposures: pd.DataFrame, *, rho: float = RHO, resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """Per step and task, over models of the main branch: params of the smallest model from which on the relation holds, as above."""
    terms = by_term(table, exposures)
    terms = terms[(terms["branch"] == "main") & terms["params"].notna()]
    rows = []
    for key, part in terms.groupby(["suite", "step", "task"], sort=True, dropna=False):
        found = _emergence(part, "params", rho, resamples, seed)
        rows.append({**dict(zip(["suite", "step", "task"], key, strict=True)), **found})
    return pd.DataFrame(rows).rename(columns={"value": "params"}).astype({"params": "Int64", "low": "Int64", "high": "Int64"})


def _emergence(part: pd.DataFrame, along: str, rho: float, resamples: int, seed: int) -> dict[str, Any]:
    """Where along `along` the relation emerges, with its interval over terms present at every point."""
    accuracy = part.pivot_table(index="term", columns=along, values="accuracy", sort=True)
    seen = part.pivot_table(index="term", columns=along, values="exposures", sort=True)
    whole = accuracy.notna().all(axis=1) & seen.notna().all(axis=1)
    y, x = accuracy[whole].to_numpy(np.float64).T, seen[whole].to_numpy(np.float64).T
    points = accuracy.columns.to_numpy(dtype=np.float64)
    n = x.shape[1]
    if n < 3:
        return {"value": pd.NA, "low": pd.NA, "high": pd.NA, "emerged": float("nan"), "n": n}
    pick = np.concatenate(list(units(n).picks(resamples, seed)))
    value = _first_lasting(spearman(x, y)[:, None] >= rho, points)[0]
    draws = _first_lasting(np.stack([spearman(x[k][pick], y[k][pick]) >= rho for k in range(len(points))]), points)
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    shown = [int(v) if np.isfinite(v) else pd.NA for v in (value, low, high)]
    return {"value": shown[0], "low": shown[1], "high": shown[2], "emerged": float(np.isfinite(draws).mean()), "n": n}


def _first_lasting(holds: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(r,) first point from which on holds[point, r] is true to the end; infinite when the last one is false."""
    lasting = np.logical_and.accumulate(holds[::-1], axis=0)[::-1]
    return np.where(lasting.any(axis=0), points[lasting.argmax(axis=0)], np.inf)
