"""Curves of any rows under any checkpoints, into a store: the primitive under the analysis."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy.typing as npt

from pythia_tools.analyses.curves.store import CurveStore, open_store
from pythia_tools.analyses.curves.task import STORE, Chosen, CurveTask
from pythia_tools.analysis import Context, Execution, Where, sweep
from pythia_tools.core import files
from pythia_tools.core.results import CellStore
from pythia_tools.models.digest import known_record
from pythia_tools.suites import Checkpoint

RECEIPT = "made_of.json"
"""In the store's folder, written after it: what it was made of, weights by their digests."""


def token_curves(
    checkpoints: Iterable[Checkpoint], rows: npt.ArrayLike, *, positions: npt.ArrayLike | None = None,
    row_ids: npt.ArrayLike | None = None, vocabulary: int | None = None,
    folder: str | os.PathLike[str] | None = None, **where: Unpack[Where],
) -> CurveStore:
    """Surprisal (bits) of chosen positions of `rows` (n, L + 1) under every checkpoint, in a store that is opened.

    positions: None for all, (p,) the same in every row, (n, p) those of each row; position t is the prediction of id
    t + 1 from ids 0 … t. row_ids: what to call the rows, ascending (default 0 … n − 1). vocabulary: ids that compete,
    for padded vocabularies. folder: where the store is kept (default: in the cache). where: device, dtype, cells, … as
    an `Execution` takes them; without cells, those of a killed call are found again in the folder.

    One store holds all runs among the checkpoints: `store.token(row, position, "70m")`, `store.row`, `store.step`,
    `store.chunks`; `curves.describe(store, "70m")` gives ages of acquisition, forgetting and so on, a line per token.
    A store that this call made before of the same weights is opened as it is.
    Cost: one forward pass per row and checkpoint; memory for 32 checkpoints at a time, 2 bytes a token.
    Raises: RequestError for rows or positions that do not fit; else what a sweep raises.
    """
    chosen = Chosen.of(rows, positions, row_ids)
    listed = list(checkpoints)
    task = CurveTask(chosen, vocabulary=vocabulary, profiles=False)
    named = files.digest([task.digest, [str(c) for c in listed]])[:20]
    task.folder = Path(folder) if folder is not None else files.cache_dir() / STORE / named
    context = Context(listed, Execution(**where))
    known, receipt = _known_weights(listed), task.folder / RECEIPT
    made_of = {"curves": task.digest, "dtype": str(context.execution.dtype), "weights": known}
    if None not in known.values() and receipt.is_file() and files.read_json(receipt) == made_of:
        return open_store(task.folder)
    receipt.unlink(missing_ok=True)
    if context.execution.cells is None:
        context.execution = replace(context.execution, cells=CellStore(task.folder / "cells"))
    found = sweep(context, [task])
    files.write_json(receipt, {**made_of, "weights": found.weights})
    files.delete(task.folder / "cells")
    return open_store(task.folder)


def _known_weights(checkpoints: Iterable[Checkpoint]) -> dict[str, str | None]:
    """Checkpoint → digest of its weights, where that is remembered."""
    records = {str(c): known_record(c) for c in checkpoints}
    return {name: None if record is None else record.digest for name, record in records.items()}
