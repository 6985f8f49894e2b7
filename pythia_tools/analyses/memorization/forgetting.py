"""Forgetting curves: any per-row measure against the steps since the row was last consumed.

Each (row, checkpoint) is placed at (exposures so far, steps since the last one); a later exposure of the same row starts a new
stretch, so a row consumed again is never counted as remembered. Means are over rows, and intervals resample rows
with all their checkpoints.
Cost: one pass over the table and resamples × rows multiply-adds per bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import from_draws, units
from pythia_tools.core.tables import IDENTITY


def align(
    table: pd.DataFrame, steps_per_item: Sequence[Any], *, row_ids: Sequence[int] | np.ndarray | None = None
) -> pd.DataFrame:
    """The table with columns `exposures` (consumed so far) and `since` (steps since the last; 0: the checkpoint just after).

    steps_per_item: each row's batches, 0-based. A batch b is in checkpoint b + 1, so since = step − (b + 1). Before the first
    exposure `since` is <NA>.
    """
    numbers = np.arange(len(steps_per_item)) if row_ids is None else np.asarray(row_ids)
    place = pd.Index(numbers).get_indexer(pd.Index(table["row"]))
    if (place < 0).any():
        raise RequestError(f"row {table['row'].to_numpy()[place < 0][0]} has no exposures; give steps for each row of the table")
    ordered = [np.sort(np.asarray(s, dtype=np.int64)) for s in steps_per_item]
    steps = table["step"].to_numpy(dtype=np.int64)
    count = np.array([np.searchsorted(ordered[p], s) for p, s in zip(place, steps, strict=True)], dtype=np.int64)
    last = np.array([ordered[p][c - 1] if c else -1 for p, c in zip(place, count, strict=True)], dtype=np.int64)
    since = pd.array(np.where(count > 0, steps - last - 1, 0), dtype="Int64")
    since[count == 0] = pd.NA
    return table.assign(exposures=count, since=since)


def forgetting_curve(
    aligned: pd.DataFrame, measure: str, *, bins: Sequence[int] | None = None, by_exposures: bool = True, resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of a column by steps since exposure, per model: a summary table with metric `MEASURE_after_exposure`.

    bins: lower edges of `since`; default 0, 1, 2, 4, 8 … Each group reads `exposures=4, since=16-31`; the identity's step is the last
    checkpoint that fell into the bin. Rows whose measure is missing are left out.
    """
    data = aligned[aligned["since"].notna() & aligned[measure].notna()]
    if data.empty:
        raise RequestError(f"no row was consumed before any checkpoint and has {measure!r}; there is nothing to align")
    longest = int(data["since"].max())
    edges = np.array(bins if bins is not None else [0, *(1 << np.arange(longest.bit_length()))], dtype=np.int64)
    number = np.searchsorted(edges, data["since"].to_numpy(dtype=np.int64), side="right") - 1
    data = data.assign(bin=number)[number >= 0]
    rng = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    keys = ["suite", "model", "branch", *(["exposures"] if by_exposures else [])]
    for _, part in data.groupby(keys, sort=False, dropna=False):
        names, rows = np.unique(part["row"], return_inverse=True)
        weights = units(len(names)).weights(resamples, rng)
        for bin_number, inside in part.groupby("bin", sort=True):
            here = rows[np.asarray(data.loc[part.index, "bin"] == bin_number)]
            values = inside[measure].to_numpy(dtype=np.float64)
            draws = _resampled(values, here, weights, len(names))
            estimate = from_draws(values.mean(), draws, n=len(np.unique(here)), unit="row")
            identity = {str(k): v for k, v in inside.sort_values("step")[IDENTITY].iloc[-1].to_dict().items()}
            group = _group(edges, int(str(bin_number)), inside["exposures"].iloc[0] if by_exposures else None)
            lines.append({**identity, "group": group, "metric": f"{measure}_after_exposure", **estimate.columns()})
    return tables.summary(lines)


def _group(edges: np.ndarray, number: int, exposures: int | None) -> str:
    low = int(edges[number])
    high = f"-{int(edges[number + 1]) - 1}" if number + 1 < len(edges) else "+"
    high = "" if number + 1 < len(edges) and edges[number + 1] == low + 1 else high
    since = f"since={low}{high}"
    return since if exposures is None else f"exposures={exposures}, {since}"


def _resampled(values: np.ndarray, rows: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """The mean in each resample of rows, each with all its lines in this bin; resamples without any are left out."""
    totals = weights @ np.bincount(rows, weights=values, minlength=count)
    lines = weights @ np.bincount(rows, minlength=count)
    return totals[lines > 0] / lines[lines > 0]
