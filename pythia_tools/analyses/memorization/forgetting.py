"""Forgetting curves: any per-row measure against the steps since the row was last consumed.

Each (row, checkpoint) is placed at (exposures so far, steps since the last one); a later exposure of the same row
starts a new stretch, so a row consumed again is never counted as remembered. Means are over rows, and intervals
resample rows with all their checkpoints. Cost: one pass over the table and resamples × rows multiply-adds per bin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.summary import places
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import from_draws, units
from pythia_tools.core.tables import IDENTITY


def align(
    table: pd.DataFrame, steps_per_item: Sequence[npt.ArrayLike], *, row_ids: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """The table with columns `exposures` (consumed so far) and `since` (steps since the last; 0: the checkpoint just
    after).

    steps_per_item: each row's batches, 0-based. A batch b is in checkpoint b + 1, so since = step − (b + 1). Before the
    first exposure `since` is <NA>. Raises RequestError for an unknown row.
    """
    place = places(table, steps_per_item, row_ids)
    ordered = [np.sort(np.asarray(s, dtype=np.int64)) for s in steps_per_item]
    steps = table["step"].to_numpy(dtype=np.int64)
    count = np.array([np.searchsorted(ordered[p], s) for p, s in zip(place, steps, strict=True)], dtype=np.int64)
    last = np.array([ordered[p][c - 1] if c else -1 for p, c in zip(place, count, strict=True)], dtype=np.int64)
    since = pd.array(np.where(count > 0, steps - last - 1, 0), dtype="Int64")
    since[count == 0] = pd.NA
    return table.assign(exposures=count, since=since)


def forgetting_curve(
    aligned: pd.DataFrame, measure: str, *, bins: Sequence[int] | None = None, by_exposures: bool = True,
    resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """Mean of a column by steps since exposure, per model: a summary table with metric `MEASURE_after_exposure`.

    bins: lower edges of `since`; default 0, 1, 2, 4, 8 … Each line has exposures (unless all are taken together) and
    the lower edge of its bin; the identity's step is the last checkpoint that fell into the bin. Rows whose measure is
    missing are left out.
    """
    data = aligned[aligned["since"].notna() & aligned[measure].notna()]
    if data.empty:
        raise RequestError(f"no row was consumed before any checkpoint and has {measure!r}; there is nothing to align")
    longest = int(data["since"].max())
    edges = np.array(bins if bins is not None else [0, *(1 << np.arange(longest.bit_length()))], dtype=np.int64)
    number = np.searchsorted(edges, data["since"].to_numpy(dtype=np.int64), side="right") - 1
    data = data.assign(bin=number)[number >= 0]
    rng = np.random.default_rng(seed)
    lines = []
    for _, part in data.groupby(["suite", "model", "branch", *(["exposures"] if by_exposures else [])], sort=False):
        names, place = np.unique(part["row"], return_inverse=True)
        weights = units(len(names)).weights(resamples, rng)
        for bin_number in np.unique(part["bin"]):
            here = (part["bin"] == bin_number).to_numpy()
            inside, rows = part[here], place[here]
            values = inside[measure].to_numpy(dtype=np.float64)
            # a drawn row brings all its lines in this bin
            totals = weights @ np.bincount(rows, weights=values, minlength=len(names))
            held = weights @ np.bincount(rows, minlength=len(names))
            found = from_draws(values.mean(), totals[held > 0] / held[held > 0], n=len(np.unique(rows)), unit="row")
            start = {**inside.sort_values("step")[IDENTITY].iloc[-1], "since": int(edges[bin_number])}
            if by_exposures:
                start |= dict.fromkeys(("exposures_low", "exposures_high"), int(inside["exposures"].iloc[0]))
            lines.append({**start, "metric": f"{measure}_after_exposure", **found.columns()})
    return declared.effects(lines)
