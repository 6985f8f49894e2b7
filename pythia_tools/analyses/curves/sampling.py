"""Which rows and positions are measured when a command chooses them: drawn at random, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pythia_tools.analyses.curves.task import Chosen
from pythia_tools.analysis import Context
from pythia_tools.core.errors import RequestError

HELDOUT, ORDER = "heldout", "order"
SPARE = 4
"""Rows drawn for each that is wanted: of two that begin in one document, one is left out."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen positions, and where their rows are from: held out, or rows of the order that were consumed."""

    chosen: Chosen
    subset: str


def sample(context: Context, rows: int, positions: int, rows_from: str | None, seed: int) -> Sample:
    """`rows` rows with `positions` positions each (0: all). rows_from: heldout, order, or None for the first there is.

    Rows of the order are of those the last checkpoint has consumed, at most one of a document. Raises RequestError
    where there are none.
    """
    heldout = context.heldout if rows_from != ORDER else None
    rng = np.random.default_rng(seed)
    if heldout is not None or rows_from == HELDOUT:
        if heldout is None:
            raise RequestError(f"{context.name} has no held-out rows; take --rows-from order")
        numbers = np.sort(rng.permutation(len(heldout))[:rows])
        return Sample(_positions(heldout[numbers], numbers, positions, rng), HELDOUT)
    order = context.order
    reached = min(order.n_rows, max(1, context.steps[-1]) * order.batch_rows)
    numbers = rng.choice(reached, min(SPARE * rows, reached), replace=False)
    numbers = np.sort(numbers[order.apart(numbers)][:rows])
    return Sample(_positions(np.asarray(order.take(numbers)), numbers, positions, rng), ORDER)


def _positions(rows: np.ndarray, numbers: np.ndarray, positions: int, rng: np.random.Generator) -> Chosen:
    length = rows.shape[1] - 1
    if not 0 < positions < length:
        return Chosen.of(rows, None, numbers)
    drawn = np.argsort(rng.random((len(rows), length)), axis=1)[:, :positions]
    return Chosen.of(rows, drawn, numbers)
