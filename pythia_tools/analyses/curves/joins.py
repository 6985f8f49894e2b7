"""What of the training rows stands beside a token's curve: exposures, n-gram surprisal, its document, when it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools import counts
from pythia_tools.analyses.curves.ngrams import LONGEST, Contexts, Continuations, continuations, surprisals
from pythia_tools.analyses.curves.task import Chosen
from pythia_tools.analysis import Context
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest, human_bytes
from pythia_tools.order import DataOrder, Rows
from pythia_tools.order.sources import PackedRows

MOST_TOKENS = 1 << 30
"""Tokens up to which rows are counted without being asked to."""


@dataclass(frozen=True, eq=False)
class ConsumedNgrams:
    """N-grams of the rows that the last of the context's checkpoints has consumed, at contexts of chosen positions."""

    contexts: Contexts
    stop: int
    """rows counted: [0, stop) of the order"""
    digest: str

    @classmethod
    def of(cls, context: Context, chosen: Chosen, longest: int) -> ConsumedNgrams:
        """Raises RequestError for steps beyond the order, for more than its vocabulary allows, and where it would all
        have to be fetched.
        """
        stop, order = consumed(context), context.order
        if order.remote and stop * order.row_tokens > MOST_TOKENS:
            size = human_bytes(stop * order.row_tokens * order.dtype.itemsize)
            raise RequestError(f"counting n-grams in the rows consumed would read {size} of {order.name} from the hub; "
                               "choose earlier --steps, a local copy with --order, or --ngrams 0")
        contexts = Contexts.of(chosen.rows, chosen.line, chosen.position, longest)
        return cls(contexts, stop, digest([context.order.fingerprint, stop, contexts.digest]))

    def tables(self, context: Context) -> Sequence[Continuations]:
        """Counted in one pass, or found among the execution's cells."""
        return continuations(context.order, self.contexts, self.stop, context.execution.cells)


def ngram_surprisals(
    order: Rows, rows: npt.ArrayLike, positions: npt.ArrayLike | None = None, *, step: int, longest: int = LONGEST,
    row_ids: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Surprisal (bits) of chosen positions by n-grams of the rows consumed before `step`, for n = 1 … longest.

    rows, positions: as `token_curves` takes them. row_ids: the rows' numbers in the order, ascending, where they are of
    it, so that their own occurrences are not counted; None for rows from elsewhere.
    Columns: row, position, token, ngram_1 …. Back-off as in `ngrams`. Raises RequestError for what does not fit.
    """
    chosen = Chosen.of(rows, positions, row_ids)
    contexts = Contexts.of(chosen.rows, chosen.line, chosen.position, longest)
    stop = step * order.batch_rows
    if not 0 < step <= order.steps:
        raise RequestError(f"step {step} of order {order.name}: {order.batches_in_words}")
    own = (chosen.numbers < stop)[chosen.line] & (row_ids is not None)
    found = surprisals(continuations(order, contexts, stop), chosen.tokens, own.astype(np.int64))
    return pd.concat([chosen.places, _named(found)], axis=1)


def _named(found: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(found, columns=[f"ngram_{n}" for n in range(1, found.shape[1] + 1)])


def consumed(context: Context) -> int:
    """Rows of the order that the last of the checkpoints has consumed. Raises RequestError beyond the order."""
    last, order = context.steps[-1], context.order
    if last > order.steps:
        raise RequestError(f"step {last} lies beyond order {order.name} ({order.steps} batches); choose earlier "
                           "--steps, another --order, or --ngrams 0")
    return last * order.batch_rows


def countable(context: Context) -> bool:
    """Whether the rows consumed are at hand and few enough to be counted unasked."""
    if not context.names_order or context.order.remote or not 0 < context.steps[-1] <= context.order.steps:
        return False
    return consumed(context) * context.order.row_tokens <= MOST_TOKENS


def ngram_columns(context: Context, chosen: Chosen, counted: ConsumedNgrams, own: np.ndarray) -> pd.DataFrame:
    """ngram_1 … ngram_n: bits of the true tokens, own rows left out. own: (k,) bool, the position's row was counted."""
    found = surprisals(counted.tables(context), chosen.tokens, own.astype(np.int64))
    return _named(found)


def exposure_columns(context: Context, chosen: Chosen, crossing: np.ndarray, last: int) -> pd.DataFrame:
    """exposures and trigram_exposures up to step `last`; exposures_at_crossing, up to 10 ** crossing (log10 steps)."""
    kinds, place = np.unique(chosen.tokens, return_inverse=True)
    windows = np.stack([chosen.rows[chosen.line, chosen.position + back] for back in (-1, 0, 1)], axis=1)
    fits = chosen.position > 0  # else the window would begin before its row
    triples, third = np.unique(windows[fits], axis=0, return_inverse=True)
    patterns = [counts.Ngram((int(token),)) for token in kinds] + [counts.Ngram(tuple(t)) for t in triples.tolist()]
    steps = np.array([0, *(s for s in context.steps if s > 0)])
    table = context.exposures(patterns, steps)["exposures"].to_numpy().reshape(len(patterns), len(steps))
    at = int(np.searchsorted(steps, last))
    trigrams = pd.array(np.full(len(place), 0), dtype="Int64")
    trigrams[~fits] = pd.NA
    trigrams[fits] = table[len(kinds) :, at][third.reshape(-1)]
    when = [np.interp(10**x, steps, table[k]) for x, k in zip(crossing, place, strict=True)]  # NaN stays NaN
    return pd.DataFrame({"exposures": pd.array(table[place, at], dtype="Int64"), "trigram_exposures": trigrams,
                         "exposures_at_crossing": when})


def place_columns(context: Context, chosen: Chosen) -> pd.DataFrame:
    """document and consumed, of rows of the order by their numbers."""
    order = context.order
    documents = pd.array(np.full(len(chosen.line), 0), dtype="Int64")
    documents[:] = pd.NA
    if isinstance(order, DataOrder) and isinstance(order.source, PackedRows):
        for line, row in enumerate(chosen.numbers.tolist()):
            pieces = counts.documents_of_rows(order, row, row + 1)
            here = slice(*np.searchsorted(chosen.line, [line, line + 1]).tolist())
            at = np.searchsorted(pieces["row_start"].to_numpy(), chosen.position[here] + 1, side="right") - 1
            documents[here] = pieces["document"].to_numpy()[at]
    step = order.step_of(chosen.numbers)[chosen.line] + 1
    return pd.DataFrame({"document": documents, "consumed": pd.array(step, dtype="Int64")})
