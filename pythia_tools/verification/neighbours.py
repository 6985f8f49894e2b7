"""Which other checkpoints fit as well as the one that a number was published for.

Every checkpoint of the run is set against every published one of the same suites: `published` rows say which published
numbers the run's would fit, `run` rows which of the run's checkpoints would fit the published numbers. A wrong
checkpoint shows as another one that fits better; one of a plateau, as many that fit as well.
Cost: checkpoints of the run × published ones × numbers, in one join.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pythia_tools.core.tables import IDENTITY
from pythia_tools.verification.columns import NEIGHBOUR

KEYS = ["task", "subset", "metric", "shots"]
MOST = 5
"""Neighbours that are listed for each checkpoint and side."""


def neighbours(judged: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """IDENTITY and NEIGHBOUR: the checkpoint itself (`claimed`), and those that fit as well or better, best first.

    judged: compared numbers with their bands; table: all published ones (see `compare.theirs`).
    """
    kept = judged[judged["ours"].notna()]
    sides = [("published", _published_side(kept, table)), ("run", _run_side(kept))]
    rows = [row for side, pairs in sides for row in _fitting(side, pairs)]
    found = pd.DataFrame(rows, columns=[*IDENTITY, *NEIGHBOUR])
    return found.astype({name: column.dtype for name, column in NEIGHBOUR.items()})


def _published_side(kept: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The run's numbers against those published for any checkpoint, in the same set of results."""
    other = table[["collection", "model", "step", "suite", *KEYS, "published"]].rename(
        columns={"model": "other_model", "step": "other_step", "suite": "other_suite"}
    )
    own = kept[[*IDENTITY, "collection", *KEYS, *_BAND]]
    pairs = own.merge(other, on=["collection", *KEYS])
    return pairs[~pairs["other_suite"].isin(kept["suite"]) | (pairs["other_suite"] == pairs["suite"])]


def _run_side(kept: pd.DataFrame) -> pd.DataFrame:
    """What was published for a checkpoint against the run's numbers of any other."""
    claim = kept[[*IDENTITY, "collection", *KEYS, "published"]]
    other = kept[["suite", "model", "step", *KEYS, *_BAND]].drop_duplicates(["suite", "model", "step", *KEYS])
    return claim.merge(other.rename(columns={"model": "other_model", "step": "other_step"}), on=["suite", *KEYS])


_BAND = ["ours", "rounding", "low", "high", "documents"]


def _fitting(side: str, pairs: pd.DataFrame) -> Iterator[dict[str, object]]:
    if pairs.empty:
        return
    off = (pairs["ours"] - pairs["published"]).abs()
    equal = off <= pairs["rounding"]
    inside = (pairs["published"] >= pairs["low"] - pairs["rounding"]) & (
        pairs["published"] <= pairs["high"] + pairs["rounding"]
    )
    document = np.maximum(1.0, pairs["ours"].abs()) / pairs["documents"].astype("float64").clip(lower=1)
    scale = (pairs["high"] - pairs["low"]) / 2 + pairs["rounding"] + document
    marked = pairs.assign(equal=equal, within=inside & ~equal, outside=~(inside | equal), distance=off / scale)
    for who, part in marked.groupby([*IDENTITY, "collection"], sort=False, dropna=False):
        fits = part.groupby(["other_model", "other_step"], sort=False).agg(
            numbers=("equal", "size"), equal=("equal", "sum"), within=("within", "sum"), outside=("outside", "sum"),
            distance=("distance", "mean"),
        ).reset_index()
        identity = dict(zip([*IDENTITY, "collection"], who, strict=True))
        for row in _as_good(fits, identity).to_dict("records"):
            yield {**identity, "side": side, **{str(k): v for k, v in row.items()}}


def _as_good(fits: pd.DataFrame, who: dict[str, object]) -> pd.DataFrame:
    """The claimed checkpoint first, then those with as many numbers that fit as well or better."""
    claimed = (fits["other_model"] == who["model"]) & (fits["other_step"] == who["step"])
    fits = fits.assign(claimed=claimed)
    own = fits[claimed].iloc[0]
    others = fits[~claimed & (fits["numbers"] == own["numbers"]) & (fits["outside"] <= own["outside"])]
    if own["outside"]:
        others = others[(others["outside"] < own["outside"]) | (others["distance"] < own["distance"])]
    best = others.sort_values(["outside", "distance"], kind="stable").head(MOST)
    return pd.concat([fits[claimed], best], ignore_index=True)
