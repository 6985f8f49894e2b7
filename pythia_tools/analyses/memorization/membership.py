"""Membership inference: can a row's training membership be told from a checkpoint's scores of it?

Signals, each larger for likely members: `loss` = −nll per token; `zlib` = −nll of the whole row over its compressed
size in bytes; `min_k`, `min_k_plus` (the least likely 20 % of tokens; standardised by the model's own distribution);
`reference` = a reference model's nll minus this one's. AUC and true-positive rates at low false-positive rates come
with intervals that resample members and non-members (a row with all its checkpoints).

What makes such numbers meaningful is the draw: members and non-members come from the same order, non-members from rows
consumed later (or never), filtered by exposure, because in a two-epoch order most later rows were partly seen before,
and matched for recency where asked. A `Split` says for which steps its labels hold, and stays fixed while checkpoints
are compared. Cost: scores from `row_scores`; the exposure filter scans the rows consumed before. Sources: Yeom et al.
2018; Carlini et al. 2021 (zlib, reference); Shi et al. 2023; Zhang et al. 2024; Duan et al. 2024.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import roc
from pythia_tools.core.tables import by_identity

RATES = {"tpr_at_fpr_0.001": 0.001, "tpr_at_fpr_0.01": 0.01, "tpr_at_fpr_0.1": 0.1}
"""Metric → the false-positive rate it is at."""
SIGNALS = ("loss", "zlib", "min_k", "min_k_plus", "reference")


@dataclass(frozen=True)
class Split:
    """Fixed labels: rows consumed before `first`, and rows not consumed before `last`; right for steps first … last.

    members, nonmembers: order rows.
    """

    members: np.ndarray
    nonmembers: np.ndarray
    first: int
    last: int

    @property
    def rows(self) -> np.ndarray:
        """All row numbers, members first."""
        return np.concatenate([self.members, self.nonmembers])

    @property
    def labels(self) -> np.ndarray:
        """(n,) bool, True for members, aligned with `rows`."""
        return np.arange(len(self.members) + len(self.nonmembers)) < len(self.members)

    def check(self, step: int) -> None:
        """Raises RequestError when a checkpoint at `step` would make some label wrong."""
        if not self.first <= step <= self.last:
            held = f"{self.first} to {self.last}"
            raise RequestError(f"these labels hold for steps {held}, not for step {step}; draw another split")


def zlib_bytes(rows: np.ndarray, decode: Callable[[Sequence[int]], str] | None = None) -> np.ndarray:
    """(n,) compressed size of each row: of its text when `decode` is given (a tokenizer's), else of its ids."""
    if decode is not None:
        return np.array([len(zlib.compress(decode(r.tolist()).encode("utf-8", "surrogatepass"))) for r in rows])
    return np.array([len(zlib.compress(r.astype("<u4" if r.max() > 65535 else "<u2").tobytes())) for r in rows])


def signals(
    table: pd.DataFrame, *, sizes: np.ndarray | None = None, reference: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The item table of `row_scores` with a column per signal: zlib needs sizes, reference a reference table.

    sizes: (n,) compressed bytes of rows 0 … n − 1 as numbered in the table's order of first appearance.
    reference: `row_scores` of one reference checkpoint on the same rows.
    """
    out = table.assign(loss=-table["nll"])
    if sizes is not None:
        place = pd.Index(table["row"].unique()).get_indexer(pd.Index(table["row"]))
        if len(sizes) != place.max() + 1:
            raise RequestError(f"{len(sizes)} sizes for {place.max() + 1} rows; give one for each row of the table")
        out["zlib"] = -table["nll_sum"].to_numpy() / np.asarray(sizes)[place]
    if reference is not None:
        known = reference.set_index("row")["nll"]
        if not known.index.is_unique:
            raise RequestError("the reference holds rows twice; give the scores of one checkpoint")
        out["reference"] = table["row"].map(known).to_numpy(dtype=np.float64) - table["nll"].to_numpy(dtype=np.float64)
    return out


def summarize_membership(
    table: pd.DataFrame, split: Split, *, reference: str | None = None, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Summary rows per checkpoint and signal (its task): `auc`, and the true-positive rates of RATES.

    The table's rows are numbered as in the order, or 0 … n − 1 in the order of `split.rows`. Rows without a score are
    left out. reference: the name of the model behind that signal. Raises RequestError for a checkpoint outside the
    split's steps.
    """
    numbers = split.rows if set(table["row"]) <= set(split.rows.tolist()) else np.arange(len(split.rows))
    place = pd.Index(numbers).get_indexer(pd.Index(table["row"]))
    if (place < 0).any():
        raise RequestError(f"row {table['row'].to_numpy()[place < 0][0]} is not in this split")
    table = table.assign(member=split.labels[place])
    lines = []
    for identity, _, part in by_identity(table):
        split.check(int(str(identity["step"])))
        for signal in (s for s in SIGNALS if s in part.columns):
            known = part[part[signal].notna()]
            members = known.loc[known["member"], signal].to_numpy(dtype=np.float64)
            others = known.loc[~known["member"], signal].to_numpy(dtype=np.float64)
            start = {**identity, "task": signal, "reference": reference if signal == "reference" else None}
            found = roc(members, others, list(RATES.values()), resamples=resamples, seed=seed)
            lines += [{**start, "metric": m, **e.columns()} for m, e in zip(["auc", *RATES], found, strict=True)]
    return declared.effects(lines)
