"""Memorization over a suite: which rows each checkpoint reproduces, as one item table, resumable part by part.

    table = measure(checkpoints, rows, context=32, continuation=32)
    curve = summarize(table)

Item columns after the identity columns:

| column | type | meaning |
|---|---|---|
| row | int | the row's number: its place in `rows`, or what `row_ids` calls it |
| memorized | boolean | greedy decoding from the context yields the whole continuation; <NA> unless status is `ok` |
| status | str | `ok`, or why there is no answer (`extract.STATUS`) |
| matched | int | leading continuation ids that greedy decoding reproduces; <NA> unless status is `ok` |
| margin | float | logits: minimum over judged positions of the true id's minus the best other's; > 0 memorized, < 0 not, 0 a tie |
| judged | int | continuation positions looked at: all for memorized rows, those of the last stage reached for others |
| dtype | str | number format of the pass that decided (`float32` beside `bfloat16` when a screen was used) |
| decided, doubt | str, float | only with a screen: what settled the row, and the margin a rejection needed (`extract.Screening`) |
| score | float | only with score=True: share of the continuation that greedy decoding gives at the same place |
| edit_distance, span | int | with the score: ids to change in what was decoded, and its longest run of ids in common with the truth |
| mask | bytes | only with keep_from: packed bits, one per position from keep_from on; read with `extractable` |
| group | str | only when groups were given: the row's subset |

Cost: one pass over the context per row and checkpoint, a little more for memorized rows; see extract.py and screen.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pythia_tools.analyses.memorization.extract import BEYOND, NONFINITE, OK, STAGES, Window, as_rows, extract
from pythia_tools.analyses.memorization.score import decoding_table
from pythia_tools.analyses.memorization.screen import screened
from pythia_tools.analysis import Context, Task, sweep
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.models import rows_digest
from pythia_tools.models.devices import dtype_name
from pythia_tools.suites.checkpoint import Checkpoint

PART_ROWS = 4096
"""Rows per part: what a killed sweep loses at most."""
SCREENS = ("bfloat16", "float16")
COLUMNS_VERSION = 2
"""Raised when a part's columns change, so that parts of an older version are not joined with new ones."""


class MemorizationTask(Task):
    """Extractability as a task of `analysis.sweep`, so that it shares live models with other analyses.

    rows: (n, L) integer array or n integer sequences; row_ids: (n,) whole numbers; groups: (n,) subsets' names.
    screen: None, or the number format of a first, faster pass (`bfloat16`), with doubtful rows judged again exactly.
    """

    def __init__(
        self, rows: Any, window: Window, *, score: bool = False, screen: str | None = None,
        row_ids: Sequence[int] | np.ndarray | None = None, groups: Sequence[Any] | np.ndarray | None = None,
        batch_size: int | None = None, name: str = "memorization",
    ):
        if screen is not None and screen not in SCREENS:
            raise RequestError(f"screen {screen!r} is not known; use one of {', '.join(SCREENS)}, or None")
        if screen is not None and window.keep_from is not None:
            raise RequestError("a screen decides rows, not every position; use either keep_from or a screen")
        self.rows = as_rows(rows)
        if not len(self.rows):
            raise RequestError("no rows to measure")
        self.window, self.score, self.screen, self.batch_size, self.name = window, score, screen, batch_size, name
        self.row_ids = np.arange(len(self.rows)) if row_ids is None else np.asarray(row_ids, dtype=np.int64)
        self.groups = None if groups is None else np.asarray(groups, dtype=object).astype(str)
        for what, given in (("row_ids", self.row_ids), ("groups", self.groups)):
            if given is not None and len(given) != len(self.rows):
                raise RequestError(f"{len(given)} {what} for {len(self.rows)} rows; give one for each")
        settings = [asdict(window), score, screen, COLUMNS_VERSION]
        self.digest = files.digest([rows_digest(self.rows), self.row_ids, self.groups, settings])
        self.parts = -(-len(self.rows) // PART_ROWS)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        """One line per row of the part, without identity columns."""
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        frame = measure_model(model, self.rows[here], self.window, score=self.score, screen=self.screen, batch_size=self.batch_size)
        frame["row"] = self.row_ids[here]
        if self.groups is not None:
            frame["group"] = self.groups[here]
        _warn(frame, getattr(model, "checkpoint", "the model"))
        return frame


def measure_model(
    model: nn.Module, rows: Any, window: Window | None = None, *, score: bool = False, screen: str | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """The item columns (see the module's first lines) for one live model; `row` is the place in `rows`."""
    window = window or Window()
    rows = as_rows(rows)
    if screen is None or dtype_name(next(model.parameters()).dtype) == screen:
        found = extract(model, rows, window, batch_size=batch_size)
    else:
        found = screened(model, rows, window, dtype=screen, batch_size=batch_size)
    good = found.status == OK
    frame = pd.DataFrame({
        "row": np.arange(len(rows)),
        "memorized": pd.array(np.where(good, found.memorized, None), dtype="boolean"),  # type: ignore[call-overload]
        "status": found.status.astype(str),
        "matched": pd.array(np.where(good, found.matched, None), dtype="Int32"),  # type: ignore[call-overload]
        "margin": np.where(good, found.margin, np.nan).astype(np.float32),
        "judged": found.judged,
        "dtype": found.dtype.astype(str),
    })
    if found.screening is not None:
        frame["decided"], frame["doubt"] = found.screening.decided, np.float32(found.screening.doubt)
    if score:
        frame = frame.join(decoding_table(model, rows, window, found=found, batch_size=batch_size))
    if found.mask is not None:
        frame["mask"] = [bits.tobytes() for bits in np.packbits(found.mask, axis=1)]
    return frame


def measure(
    checkpoints: Iterable[Checkpoint], rows: Any, *, context: int = 32, continuation: int = 32, offset: int = 0, score: bool = False,
    screen: str | None = None, keep_from: int | None = None, vocabulary: int | None = None, stages: Sequence[int] = STAGES,
    row_ids: Sequence[int] | np.ndarray | None = None, groups: Sequence[Any] | np.ndarray | None = None, batch_size: int | None = None,
    device: str | torch.device = "auto", dtype: str | torch.dtype | None = None, cells: CellStore | None = None,
    shard: tuple[int, int] | None = None, allow_defective: bool = False,
) -> pd.DataFrame:
    """One line per checkpoint × row; see the module's first lines for its columns.

    Args:
        rows: (n, L) integer array (`order.rows`, `order.take`), or n integer sequences.
        context, continuation, offset: the window of each row; `vocabulary`: only ids below it compete.
        score: decode past the first miss too, for the original memorization score (slow).
        screen: `bfloat16` judges first in that format and only doubtful rows in the model's own.
        keep_from: keep match masks, from which `extractable` reads every shorter window.
        cells: where finished parts are kept and found again. `shard`: (i, n), this machine's part.
    Raises: RequestError for rows shorter than the window or a window beyond the model's context.
    """
    window = Window(context, continuation, offset, vocabulary, keep_from, tuple(stages))
    task = MemorizationTask(rows, window, score=score, screen=screen, row_ids=row_ids, groups=groups, batch_size=batch_size)
    return sweep(checkpoints, [task], cells=cells, device=device, dtype=dtype, shard=shard, allow_defective=allow_defective)[task.name]


def extractable(table: pd.DataFrame, context: int, continuation: int, *, window: Window) -> pd.Series:
    """Nullable flags of a shorter window, read off the masks that `measure(…, keep_from=…)` stored under `window`.

    (k, ℓ) is readable when keep_from ≤ k and k + ℓ ≤ the window's length; the context begins at the same offset.
    """
    if "mask" not in table.columns or window.keep_from is None:
        raise RequestError("this table holds no masks; measure with keep_from to read other windows off it")
    if not (window.keep_from <= context and continuation >= 1 and context + continuation <= window.length):
        raise RequestError(
            f"context {context} with continuation {continuation} is not inside the masks: context must be at least "
            f"{window.keep_from} and context + continuation at most {window.length}"
        )
    width = window.length - window.keep_from
    bits = np.array([np.unpackbits(np.frombuffer(m, np.uint8), count=width) for m in table["mask"]], dtype=bool).reshape(-1, width)
    start = context - window.keep_from
    flags = bits[:, start : start + continuation].all(axis=1)
    known = (table["status"] == OK).to_numpy()
    return pd.Series(pd.array(np.where(known, flags, None), dtype="boolean"), index=table.index, name="memorized")  # type: ignore[call-overload]


def _warn(frame: pd.DataFrame, named: object) -> None:
    beyond, lost = int((frame["status"] == BEYOND).sum()), int((frame["status"] == NONFINITE).sum())
    if beyond:
        progress.warn(f"{named}: {beyond} of {len(frame)} rows hold ids the model does not have; are rows and model of one tokenizer?")
    if lost:
        progress.warn(f"{named}: {lost} of {len(frame)} rows met NaN or infinite logits and are left undecided; try --dtype float32")
