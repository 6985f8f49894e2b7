"""What an item table says of each document: predictions, right or wrong, probabilities. Derived, never run again.

    table = documents(items)                    # one row per checkpoint, task and document that predicts something
    table.groupby(["model", "step", "task"])["right_norm"].mean()                                    # acc_norm

Cost: one pass over the rows.
"""

import numpy as np
import pandas as pd

from pythia_tools.core.tables import IDENTITY, Column

DOCUMENT = {
    "task": Column("string", "as in items"), "kind": Column("string", "as in items"),
    "shots": Column("int64", "as in items"), "doc_id": Column("int64", "as in items"),
    "choices": Column("int64", "how many choices there are; 2 where greedy decoding is right or not"),
    "predicted": Column("int64", "the likeliest choice, the first of equals; 1 or 0: greedy decoding is right or not"),
    "predicted_norm": Column("Int64", "the likeliest choice per character"),
    "predicted_bytes": Column("Int64", "the likeliest choice per byte"),
    "right": Column("boolean", "whether the prediction is right; <NA> where no choice is"),
    "right_norm": Column("boolean", "the same per character"),
    "right_bytes": Column("boolean", "the same per byte"),
    "margin": Column("float64", "nats by which the prediction is ahead"),
    "brier": Column("float64", "squared distance of the choices' probabilities from the right answer (0 to 2)"),
    "gold_probability": Column("float64", "probability of the right choice among the choices"),
    "gold_bits_per_byte": Column("float64", "negative log2-likelihood of the right choice per byte of its text"),
}
"""Columns after the identity ones."""


def documents(items: pd.DataFrame) -> pd.DataFrame:
    """One row per checkpoint × task × document of an item table: IDENTITY and DOCUMENT.

    Documents with a choice that has no log-likelihood are left out, and so are texts and generations, which predict no
    choice. Brier score and the gold columns are NaN where not exactly one choice is right.
    """
    parts = [_choosing(items[(items["kind"] == "multiple_choice") & items["gold"].notna()]),
             _greedy(items[(items["kind"] == "loglikelihood") & items["is_greedy"].notna()])]
    kept = [part for part in parts if len(part)]
    whole = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=[*IDENTITY, *DOCUMENT])
    types = {name: column.dtype for name, column in DOCUMENT.items()}
    return whole[[*IDENTITY, *DOCUMENT]].astype(types)


def _greedy(rows: pd.DataFrame) -> pd.DataFrame:
    """Documents of one continuation: right where greedy decoding gives it."""
    rows = rows[~rows.duplicated([*IDENTITY, "task", "doc_id"], keep=False)]
    right = rows["is_greedy"]
    found = rows[[*IDENTITY, "task", "kind", "shots", "doc_id"]].assign(
        choices=2, predicted=right.astype("int64"), right=right, margin=rows["lead"].abs(),
        gold_probability=np.exp(rows["ll"]), gold_bits_per_byte=_bits(rows["ll"], rows["bytes"]),
    )
    return found.reindex(columns=[*IDENTITY, *DOCUMENT])


def _bits(ll: pd.Series, size: pd.Series) -> pd.Series:
    """−log2-likelihood per byte; NaN for texts without bytes."""
    return -ll / np.log(2) / size.where(size > 0)


def _choosing(rows: pd.DataFrame) -> pd.DataFrame:
    """Documents with choices, whose rows follow each other."""
    if rows.empty:
        return rows
    key = rows[[*IDENTITY, "task", "doc_id"]]
    starts = np.flatnonzero((key.ne(key.shift()) & ~(key.isna() & key.shift().isna())).fillna(True).any(axis=1))
    sizes = np.diff([*starts, len(rows)])
    ll, gold = rows["ll"].to_numpy(float), rows["gold"].to_numpy(bool)
    scores = {"": ll, "_norm": ll / rows["characters"].to_numpy(float), "_bytes": ll / rows["bytes"].to_numpy(float)}
    found = rows.iloc[starts][[*IDENTITY, "task", "kind", "shots", "doc_id"]].assign(choices=sizes)
    any_gold = np.logical_or.reduceat(gold, starts)
    for name, values in scores.items():
        place = _first_best(values, starts, sizes)
        right = pd.array(gold[starts + place], dtype="boolean")
        right[~any_gold] = pd.NA
        found[f"predicted{name}"], found[f"right{name}"] = place, right
    found["margin"] = np.maximum.reduceat(np.nan_to_num(rows["margin"].to_numpy(float), nan=0.0), starts)
    return _with_probabilities(found, ll, gold, rows["bytes"].to_numpy(float), starts)[
        ~np.isnan(np.add.reduceat(ll, starts))
    ]


def _first_best(values: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The place of the highest value in each group, the first of equals."""
    best = np.repeat(np.maximum.reduceat(values, starts), sizes)
    inside = np.arange(len(values)) - np.repeat(starts, sizes)
    found = np.minimum.reduceat(np.where(values == best, inside, len(values)), starts)
    return np.where(found < sizes, found, 0)


def _with_probabilities(
    found: pd.DataFrame, ll: np.ndarray, gold: np.ndarray, size: np.ndarray, starts: np.ndarray
) -> pd.DataFrame:
    """Brier score and what the right choice gets, where there is exactly one."""
    sizes = found["choices"].to_numpy()
    shares = np.exp(ll - np.repeat(np.maximum.reduceat(ll, starts), sizes))
    shares /= np.repeat(np.add.reduceat(shares, starts), sizes)
    one = np.add.reduceat(gold, starts, dtype=np.int64) == 1
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.add.reduceat(np.where(gold, -ll / np.log(2) / size, 0.0), starts)
    told = {
        "brier": np.add.reduceat((shares - gold) ** 2, starts),
        "gold_probability": np.add.reduceat(shares * gold, starts), "gold_bits_per_byte": bits,
    }
    return found.assign(**{name: np.where(one, values, np.nan) for name, values in told.items()})
