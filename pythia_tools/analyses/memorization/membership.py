"""Membership inference: can a row's training membership be told from a checkpoint's scores of it?

Signals, each larger for likely members: `loss` = −nll per token; `zlib` = −nll of the whole row over its compressed
size in bytes; `min_k`, `min_k_plus` (the least likely 20 % of tokens; standardised by the model's own distribution);
`reference` = a reference model's nll minus this one's. AUC and true-positive rates at low false-positive rates come
with intervals over members and non-members (see `core.statistics.detection`).

What makes such numbers meaningful is the draw: members and non-members come from the same order, non-members from rows
consumed later (or never), and both pass one filter by exposure, because in a two-epoch order most later rows were
partly seen before (see `effects.followed`). Cost: scores from `row_scores`. Sources: Yeom et al. 2018; Carlini et al.
2021 (zlib, reference); Shi et al. 2023; Zhang et al. 2024; Duan et al. 2024.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.core.statistics import roc
from pythia_tools.core.tables import by_identity

RATES = {"tpr_at_fpr_0.001": 0.001, "tpr_at_fpr_0.01": 0.01, "tpr_at_fpr_0.1": 0.1}
"""Metric → the false-positive rate it is at."""
SIGNALS = ("loss", "zlib", "min_k", "min_k_plus", "reference")


def zlib_bytes(rows: np.ndarray, decode: Callable[[Sequence[int]], str] | None = None) -> np.ndarray:
    """(n,) compressed size of each row: of its text when `decode` is given (a tokenizer's), else of its ids."""
    if decode is not None:
        return np.array([len(zlib.compress(decode(r.tolist()).encode("utf-8", "surrogatepass"))) for r in rows])
    return np.array([len(zlib.compress(r.astype("<u4" if r.max() > 65535 else "<u2").tobytes())) for r in rows])


def signals(table: pd.DataFrame, *, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """The item table of `row_scores` with a column per signal: zlib where it has `zlib_bytes`, reference with a table.

    reference: `row_scores` of one reference checkpoint on the same rows.
    """
    out = table.assign(loss=-table["nll"])
    if "zlib_bytes" in table.columns:
        out["zlib"] = -table["nll_sum"] / table["zlib_bytes"]
    if reference is not None:
        known = reference.set_index("row")["nll"]
        out["reference"] = table["row"].map(known).to_numpy(dtype=np.float64) - table["nll"].to_numpy(dtype=np.float64)
    return out


def summarize_membership(table: pd.DataFrame, *, reference: str | None = None) -> pd.DataFrame:
    """Summary rows per checkpoint and signal (its task): `auc`, and the true-positive rates of RATES.

    The table's column `member` (bool) tells members from non-members. Rows without a score are left out. reference: the
    name of the model behind that signal.
    """
    lines = []
    for identity, _, part in by_identity(table):
        for signal in (s for s in SIGNALS if s in part.columns):
            known = part[part[signal].notna()]
            members = known.loc[known["member"], signal].to_numpy(dtype=np.float64)
            others = known.loc[~known["member"], signal].to_numpy(dtype=np.float64)
            start = {**identity, "task": signal, "reference": reference if signal == "reference" else None}
            found = roc(members, others, list(RATES.values()))
            lines += [{**start, "metric": m, **e.columns()} for m, e in zip(["auc", *RATES], found, strict=True)]
    return declared.effects(lines)
