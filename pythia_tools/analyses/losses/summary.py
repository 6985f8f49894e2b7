"""Loss per checkpoint and row set in nats per token and bits per byte, with intervals over rows, and two contrasts.

Where a checkpoint has both sides, `nll_gap` of `after` with reference `before` is what a pass over a batch leaves
behind on top of what was learned in general. Where it has consumed some of the rows drawn from all of training, they
are told apart (`training_consumed`, `training_ahead`), with the same contrast: what is left of having seen a row,
however long ago.

Bits per byte are a ratio of sums, Σ nats / (ln 2 · Σ bytes) over the rows' text; rows are resampled as wholes.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pythia_tools.analyses.losses.rows import AFTER, BEFORE, TRAINING
from pythia_tools.analyses.losses.task import NAME
from pythia_tools.core import tables
from pythia_tools.core.statistics import RESAMPLES, Estimate, difference_of_means, mean, statistic
from pythia_tools.core.tables import Metric

AHEAD, CONSUMED = f"{TRAINING}_ahead", f"{TRAINING}_consumed"
CONTRASTS = ((AFTER, BEFORE), (AHEAD, CONSUMED))
METRICS = {
    "nll": Metric("nats per token", "mean negative log-likelihood of a row's tokens"),
    "bits_per_byte": Metric(
        "bits per byte", "summed negative log-likelihood of the rows' text over ln 2 times its UTF-8 bytes"
    ),
    "nll_gap": Metric(
        "nats per token", "loss on rows not yet consumed (of the batch after a checkpoint, or ahead in training) minus "
                          "that on consumed ones (of the batch before it, or anywhere)"
    ),
}


def summarize(table: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """`nll`, `bits_per_byte` and `nll_gap` of an item table, as a summary table.

    Rows without a finite loss are left out, and n says how many remain.
    """
    lines = []
    for identity, _, items in tables.by_identity(table):
        values: dict[str, np.ndarray] = {}
        for subset, rows in subsets(items):
            values[subset] = rows["nll"].dropna().to_numpy(float)
            found = estimates(rows, resamples=resamples, seed=seed)
            lines += [{**identity, "subset": subset, "metric": m, **e.columns()} for m, e in found.items()]
        lines += [{**identity, **line} for line in _gaps(values, resamples, seed)]
    return tables.summary(lines, analysis=NAME, metrics=METRICS)


def subsets(items: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and rows of each set of one checkpoint; those of all training also apart, where only some were consumed."""
    for name, rows in items.groupby("subset", sort=False):
        yield str(name), rows
        if name == TRAINING:
            known = rows["consumed"].astype("boolean")
            if known.any() and not known.all():
                yield CONSUMED, rows[known]
                yield AHEAD, rows[~known]


def estimates(rows: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """`nll` of the rows of an item table, and `bits_per_byte` where the bytes of their text are known.

    >>> rows = pd.DataFrame({"nll": [2.0, 3.0], "text_nats": [16.0, 24.0], "bytes": [20, 40]})
    >>> {metric: round(estimate.value, 4) for metric, estimate in estimates(rows).items()}
    {'nll': 2.5, 'bits_per_byte': 0.9618}
    """
    found = {"nll": mean(rows["nll"].dropna(), unit="row", resamples=resamples, seed=seed)}
    text = rows[(rows["bytes"] > 0).fillna(False).astype(bool)]
    if len(text):
        columns = (text[c].to_numpy(float) for c in ("text_nats", "bytes"))
        found["bits_per_byte"] = statistic(
            _ratio, *columns, unit="row", resamples=resamples, seed=seed, vectorized=True
        )
    return found


def _ratio(nats: np.ndarray, spelled: np.ndarray) -> np.ndarray:
    return np.asarray(nats.sum(axis=1) / (np.log(2) * spelled.sum(axis=1)))


def _gaps(values: Mapping[str, np.ndarray], resamples: int, seed: int) -> Iterator[dict[str, object]]:
    for ahead, behind in CONTRASTS:
        if {ahead, behind} <= values.keys():
            gap = difference_of_means(values[ahead], values[behind], unit="row", resamples=resamples, seed=seed)
            yield {"subset": ahead, "reference": behind, "metric": "nll_gap", **gap.columns()}
