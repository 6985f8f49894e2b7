"""Forgetting curves: any per-row measure against the steps since the row was last consumed.

Each (row, checkpoint) is placed at (exposures so far, steps since the last one); a later exposure of the same row
starts a new stretch, so a row consumed again is never counted as remembered. Means are over rows, and intervals
resample rows with all their checkpoints. Cost: one pass over the table and resamples × rows multiply-adds per bin.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.summary import exposure_bins
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import from_draws, units
from pythia_tools.core.tables import IDENTITY


def forgetting_curve(
    aligned: pd.DataFrame, measure: str, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean of a column by exposures and steps since the last, per model: metric `MEASURE_after_exposure` of a summary.

    aligned: an item table from `with_exposures`. Each line has the lower edge of its bin of `since` (0, 1, 2, 4, 8 …);
    the identity's step is the last checkpoint that fell into the bin. Rows whose measure is missing are left out.
    """
    data = aligned[aligned["since"].notna() & aligned[measure].notna()]
    if data.empty:
        raise RequestError(f"no row was consumed before any checkpoint and has {measure!r}; there is nothing to align")
    data = data.assign(bin=exposure_bins(data["since"]))
    rng = np.random.default_rng(seed)
    lines = []
    for (*_, exposures), part in data.groupby(["suite", "model", "branch", "exposures"], sort=False):
        names, place = np.unique(part["row"], return_inverse=True)
        weights = units(len(names)).weights(resamples, rng)
        for since in np.unique(part["bin"]):
            here = (part["bin"] == since).to_numpy()
            inside, rows = part[here], place[here]
            values = inside[measure].to_numpy(dtype=np.float64)
            # a drawn row brings all its lines in this bin
            totals = weights @ np.bincount(rows, weights=values, minlength=len(names))
            held = weights @ np.bincount(rows, minlength=len(names))
            found = from_draws(values.mean(), totals[held > 0] / held[held > 0], n=len(np.unique(rows)), unit="row")
            start = {**inside.sort_values("step")[IDENTITY].iloc[-1], "since": since, "exposures_low": exposures}
            named = {"exposures_high": exposures, "metric": f"{measure}_after_exposure"}
            lines.append({**start, **named, **found.columns()})
    return declared.effects(lines)
