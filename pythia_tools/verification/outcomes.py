"""What each document contributes to a metric, and how far it is from contributing something else.

Shares of right answers rest on margins: `x` is the score of the right choice minus that of the best wrong one (of the
stereotyped sentence minus the other; of greedy continuations the lead), so a document counts where x > 0 and may flip
where |x| is small. Other metrics rest on values: `x` is what the document adds to a mean.
Cost: one pass over the rows for each metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pythia_tools.core.tables import IDENTITY

SHARE = frozenset({"acc", "acc_norm", "acc_bytes", "pct_stereotype"})
"""Metrics that are shares of documents with a margin."""
LOGARITHMIC = frozenset({"perplexity", "word_perplexity", "byte_perplexity"})
"""exp of a negative mean of log-likelihoods, per document, word or byte."""
LIKELIHOOD = LOGARITHMIC | {"bits_per_byte", "likelihood_diff"}
"""Metrics that are no shares, and that float32 rounds."""
COLUMNS = [*IDENTITY, "task", "doc_id", "metric", "x"]


class Documents(NamedTuple):
    """Rows of a kind, document by document: where each begins, and one row of each that names it."""

    rows: pd.DataFrame
    starts: np.ndarray
    names: pd.DataFrame

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Documents:
        key = rows[[*IDENTITY, "task", "doc_id"]]
        new = (key.ne(key.shift()) & ~(key.isna() & key.shift().isna())).fillna(True).any(axis=1)
        starts = np.flatnonzero(new)
        return cls(rows, starts, key.iloc[starts].reset_index(drop=True))

    def most(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The highest of the chosen values in each document; −inf where none is."""
        return np.maximum.reduceat(np.where(chosen, values, -np.inf), self.starts)

    def named(self, metric: str, x: np.ndarray) -> pd.DataFrame:
        return self.names.assign(metric=metric, x=x)


def outcomes(items: pd.DataFrame) -> pd.DataFrame:
    """One row per checkpoint × task × document × metric that rests on it: IDENTITY, task, doc_id, metric, x.

    items: as `evaluate` gives them. x is NaN where a log-likelihood is no number.
    """
    frames = [frame for read in _READERS for frame in read(items) if len(frame)]
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return found[COLUMNS].astype({"metric": "string", "x": "float64"})


def _choices(items: pd.DataFrame) -> Iterator[pd.DataFrame]:
    rows = items[(items["kind"] == "multiple_choice") & items["gold"].notna()]
    if rows.empty:
        return
    documents, ll = Documents.of(rows), rows["ll"].to_numpy(float)
    gold = rows["gold"].to_numpy(bool)
    for metric, size in (("acc", None), ("acc_norm", "characters"), ("acc_bytes", "bytes")):
        with np.errstate(divide="ignore", invalid="ignore"):
            score = ll if size is None else ll / rows[size].to_numpy(float)
            x = documents.most(score, gold) - documents.most(score, ~gold)
        lost = np.add.reduceat(np.isnan(score), documents.starts) > 0
        yield documents.named(metric, np.where(lost, np.nan, x))


def _pairs(items: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """CrowS-Pairs: the first of two sentences is the stereotyped one."""
    rows = items[items["task"].str.startswith("crows_pairs") & (items["kind"] == "multiple_choice")]
    if rows.empty:
        return
    documents, ll = Documents.of(rows), rows["ll"].to_numpy(float)
    second = np.minimum(documents.starts + 1, len(ll) - 1)
    x = ll[documents.starts] - ll[second]
    yield documents.named("pct_stereotype", x)
    yield documents.named("likelihood_diff", np.abs(x))


def _continuations(items: pd.DataFrame) -> Iterator[pd.DataFrame]:
    rows = items[items["kind"] == "loglikelihood"]
    rows = rows[~rows.duplicated([*IDENTITY, "task", "doc_id"], keep=False)]
    names = rows[[*IDENTITY, "task", "doc_id"]]
    yield names.assign(metric="acc", x=rows["lead"])
    yield names.assign(metric="perplexity", x=rows["ll"])


def _texts(items: pd.DataFrame) -> Iterator[pd.DataFrame]:
    rows = items[items["kind"] == "loglikelihood_rolling"]
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        yield rows[[*IDENTITY, "task", "doc_id"]].assign(metric=metric, x=rows["ll"])


_READERS: Sequence[Callable[[pd.DataFrame], Iterator[pd.DataFrame]]] = (_choices, _pairs, _continuations, _texts)
