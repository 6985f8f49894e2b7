"""When does the relation appear, and in which size: the first step, or the smallest model, from which on it holds.

The relation holds at a checkpoint when the rank correlation of accuracy and exposures over terms is at least RHO and
above 95 % of those that permutations of accuracy give: with few terms chance alone reaches 0.3 often. It has emerged at
the first step from which on it holds at every later one measured (and likewise at the smallest size from which on it
holds in every larger one). The interval is a bootstrap over terms (or relations, where there are FEWEST or more), the
same resampled terms at all checkpoints, so that the trajectory stays whole.
Cost: resamples × checkpoints rank correlations, vectorised; 0.2 s for 100 terms and 30 checkpoints.
"""

import numpy as np
import pandas as pd

from pythia_tools.analyses.term_frequency.columns import summary
from pythia_tools.analyses.term_frequency.statistics import by_term, independent
from pythia_tools.core.statistics import FEWEST, Estimate, permuted, spearman, units
from pythia_tools.core.tables import IDENTITY

RHO = 0.3


def emergence(table: pd.DataFrame, exposures: pd.DataFrame, *, resamples: int = 1000) -> pd.DataFrame:
    """Summary: `emergence_step` per model, branch and task (at its last step), `emergence_params` per step and task.

    value, low and high are steps (or sizes) that were measured; NaN stands for never. n: terms present at every point.
    """
    terms = by_term(table, exposures)
    rows = []
    for (_, _, task), part in terms.groupby(["model", "branch", "task"], sort=False, dropna=False):
        last = part.sort_values("step").iloc[-1]
        identity = {column: last[column] for column in IDENTITY}
        estimate, emerged = _emergence(part, "step", resamples)
        rows.append({**identity, "task": task, "metric": "emergence_step", **estimate.columns()})
        rows.append({**identity, "task": task, "metric": "emerged_share", **emerged.columns()})
    main = terms[(terms["branch"] == "main") & terms["params"].notna()]
    for (suite, step, task), part in main.groupby(["suite", "step", "task"], sort=True, dropna=False):
        identity = {"suite": suite, "step": step, "branch": "main"}
        estimate, _ = _emergence(part, "params", resamples)
        rows.append({**identity, "task": task, "metric": "emergence_params", **estimate.columns()})
    return summary(rows)


def _emergence(part: pd.DataFrame, along: str, resamples: int) -> tuple[Estimate, Estimate]:
    """Where along `along` the relation emerges, over terms present at every point; and the share of resamples in which
    it does.
    """
    accuracy = part.pivot_table(index="term", columns=along, values="accuracy", sort=True)
    seen = part.pivot_table(index="term", columns=along, values="exposures", sort=True)
    whole = accuracy.notna().all(axis=1) & seen.notna().all(axis=1)
    y, x = accuracy[whole].to_numpy(np.float64).T, seen[whole].to_numpy(np.float64).T
    points = accuracy.columns.to_numpy(dtype=np.float64)
    unit, labels = independent(part.drop_duplicates("term").set_index("term", drop=False).loc[accuracy.index[whole]])
    who = units(len(labels), labels)
    if x.shape[1] < 3:
        return Estimate(np.nan, n=who.n, unit=unit), Estimate(np.nan, n=who.n, unit=unit)
    floors = np.array([_floor(a, b, labels, resamples) for a, b in zip(x, y, strict=True)])[:, None]
    drawn = [np.stack([spearman(x[k][pick], y[k][pick]) for k in range(len(points))])
             for pick in (who.items(resamples, 0) if who.n >= FEWEST else ())]
    found, *draws = (_first_lasting((r >= RHO) & (r > floors), points) for r in (spearman(x, y)[:, None], *drawn))
    value = float(found[0]) if np.isfinite(found[0]) else np.nan
    if not draws:
        return Estimate(value, n=who.n, unit=unit), Estimate(np.nan, n=who.n, unit=unit)
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975], method="inverted_cdf")
    low, high = (float(v) if np.isfinite(v) else np.nan for v in (low, high))
    share = float(np.isfinite(np.concatenate(draws)).mean())
    return Estimate(value, low, high, who.n, unit, "bootstrap95"), Estimate(share, n=who.n, unit=unit)


def _floor(exposures: np.ndarray, accuracy: np.ndarray, labels: pd.Series, permutations: int) -> float:
    """The rank correlation that permutations of (n,) accuracy within clusters exceed one time in twenty, at most."""
    made = permuted(accuracy, permutations, clusters=labels)
    return float(np.quantile(spearman(np.broadcast_to(exposures, made.shape), made), 0.95, method="inverted_cdf"))


def _first_lasting(holds: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(r,) first point from which on holds[point, r] is true to the end; infinite when the last one is false."""
    lasting = np.logical_and.accumulate(holds[::-1], axis=0)[::-1]
    return np.where(lasting.any(axis=0), points[lasting.argmax(axis=0)], np.inf)
