"""Memorization over a suite: which rows each checkpoint reproduces, as one item table, resumable part by part.

    table = measure(checkpoints, rows, context=32, continuation=32)
    curve = summarize(table)

`declared.COLUMNS` documents what follows the identity columns. Columns that are there only when asked for: decided and
doubt (a screen; see `extract.Screening`), score, edit_distance and span (score=True), mask (keep_from; read with
`extractable`).

Cost: one pass over the context per row and checkpoint, a little more for memorized rows; see extract.py and screen.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.memorization.extract import BEYOND, NONFINITE, OK, Window, as_rows, decoding_table, extract
from pythia_tools.analyses.memorization.screen import screened
from pythia_tools.analysis import Context, Key, Task, Where, sweep
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.models import rows_digest
from pythia_tools.models.devices import dtype_name
from pythia_tools.order import Rows
from pythia_tools.suites import Checkpoint

PART_ROWS = 4096
"""Rows per part: what a killed sweep loses at most."""
SCREENS = ("bfloat16", "float16")


class Request(Where, total=False):
    """The fields of a `Window`, and where to compute."""

    context: int
    continuation: int
    offset: int
    vocabulary: int | None
    keep_from: int | None


@dataclass(frozen=True)
class RowsOf:
    """Rows of an order by their numbers (n,), `length` ids of each; read when the first model runs, so planning reads
    none.
    """

    order: Rows
    numbers: np.ndarray
    length: int


class MemorizationTask(Task):
    """Extractability as a task of `analysis.sweep`, so that it shares live models with other analyses.

    rows: (n, L) integer array or n integer sequences, or `RowsOf` an order; row_ids: (n,) whole numbers of an array's.
    screen: None, or the number format of a first, faster pass (`bfloat16`), with doubtful rows judged again exactly.
    last: main run → its last step, for rows that are judged there alone.
    """

    version = 2

    def __init__(
        self, rows: npt.ArrayLike | RowsOf, window: Window, *, score: bool = False, screen: str | None = None,
        row_ids: npt.ArrayLike | None = None, name: str = "memorization", last: Mapping[str, int] | None = None,
    ):
        if screen is not None and screen not in SCREENS:
            raise RequestError(f"screen {screen!r} is not known; use one of {', '.join(SCREENS)}, or None")
        if screen is not None and window.keep_from is not None:
            raise RequestError("a screen decides rows, not every position; use either keep_from or a screen")
        if isinstance(rows, RowsOf):
            self._asked, self.row_ids = rows, rows.numbers
            content = [rows.order.fingerprint, rows.length]
        else:
            self.rows, self.row_ids = as_rows(rows, row_ids)
            content = [rows_digest(self.rows)]
        self.window, self.score, self.screen, self.name, self.last = window, score, screen, name, last
        self.digest = files.digest([*content, self.row_ids, asdict(window), score, screen])
        self.parts = -(-len(self.row_ids) // PART_ROWS)
        every_position = window.keep_from is not None or score
        each = window.context + (window.continuation - 1 if every_position else 0)
        self.ids = len(self.row_ids) * each if last is None else 0

    @cached_property
    def rows(self) -> np.ndarray | Sequence[Any]:
        """The rows, read now where they were asked of an order."""
        return self._asked.order.take(self._asked.numbers)[:, : self._asked.length]

    def key(self, checkpoint: Checkpoint) -> Key | None:
        """Nothing to do before a run's last step where rows are judged there alone."""
        return "" if self.last is None or self.last.get(checkpoint.model.name) == checkpoint.step else None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        """One line per row of the part, without identity columns."""
        here = slice(part * PART_ROWS, (part + 1) * PART_ROWS)
        frame = measure_model(
            model, self.rows[here], self.window, score=self.score, screen=self.screen,
            batch_size=context.execution.batch_size)
        frame["row"] = self.row_ids[here]
        _warn(frame, getattr(model, "checkpoint", "the model"))
        return frame


def measure_model(
    model: nn.Module, rows: npt.ArrayLike, window: Window | None = None, *, score: bool = False,
    screen: str | None = None, batch_size: int | None = None,
) -> pd.DataFrame:
    """The item columns (see `declared.COLUMNS`) for one live model; `row` is the place in `rows`."""
    window = window or Window()
    rows, numbers = as_rows(rows)
    if screen is None or dtype_name(next(model.parameters()).dtype) == screen:
        found = extract(model, rows, window, batch_size=batch_size)
    else:
        found = screened(model, rows, window, dtype=screen, batch_size=batch_size)
    good = found.status == OK
    frame = pd.DataFrame({
        "row": numbers,
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
    checkpoints: Iterable[Checkpoint], rows: npt.ArrayLike, *, score: bool = False, screen: str | None = None,
    row_ids: npt.ArrayLike | None = None, **request: Unpack[Request],
) -> pd.DataFrame:
    """One line per checkpoint × row; see the module's first lines for its columns.

    Args:
        rows: (n, L) integer array (`order.rows`, `order.take`), or n integer sequences. score: decode past the first
        miss too, for the original memorization score (slow). screen: `bfloat16` judges first in that format and only
        doubtful rows in the model's own. row_ids: (n,) what to call the rows.
        request: the fields of each row's `Window` (with keep_from match masks are kept, from which `extractable` reads
        every shorter window); device, dtype, cells, …, as an `Execution` takes them.
    Raises: RequestError for rows shorter than the window or a window beyond the model's context.
    """
    given = dict(request)
    window = Window(**{f.name: given.pop(f.name) for f in fields(Window) if f.name in given})  # type: ignore[arg-type]
    task = MemorizationTask(rows, window, score=score, screen=screen, row_ids=row_ids)
    return sweep(checkpoints, [task], **given)[task.name]  # type: ignore[arg-type]


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
    masks = [np.unpackbits(np.frombuffer(mask, np.uint8), count=width) for mask in table["mask"]]
    bits = np.array(masks, dtype=bool).reshape(-1, width)
    start = context - window.keep_from
    flags = bits[:, start : start + continuation].all(axis=1)
    known = (table["status"] == OK).to_numpy()
    return pd.Series(flags, index=table.index, name="memorized", dtype="boolean").where(known)


def _warn(frame: pd.DataFrame, named: object) -> None:
    troubles = {
        BEYOND: "rows hold ids the model does not have; are rows and model of one tokenizer?",
        NONFINITE: "rows met NaN or infinite logits and are left undecided; try --dtype float32",
    }
    for status, said in troubles.items():
        if lost := int((frame["status"] == status).sum()):
            progress.warn(f"{named}: {lost} of {len(frame)} {said}")
