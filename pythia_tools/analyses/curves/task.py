"""What one pass over a checkpoint gives: surprisal at chosen positions, and per row what context and n-grams explain.

Cells hold a line per row with the surprisal of its chosen positions as bytes of float16. As they are received,
checkpoint by checkpoint, they go into the store, a group of checkpoints at a time, so that no more than that is in
memory; what remains in the result is a line per checkpoint and row, for at most PROFILE_ROWS rows.

Cost: one forward pass per row and checkpoint; logits are made at the positions that are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from pythia_tools.analyses.curves.assembly import Assembly
from pythia_tools.analyses.curves.divergence import Predictions
from pythia_tools.analyses.curves.ngrams import Continuations
from pythia_tools.analysis import Context, Task
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.models.devices import inference_mode
from pythia_tools.models.score import (
    automatic_batch_size,
    check_ids,
    check_rows,
    device_of,
    in_batches,
    position_logprobs,
    rows_digest,
    vocabulary_size,
)
from pythia_tools.suites import Checkpoint

STORE = "token_curves"
"""Folder of the store, in a run's folder or in the cache."""
PART_ROWS = 256
PROFILE_ROWS = 1024
"""Rows, evenly spread over those chosen, at which the effect of context and n-grams are measured."""
EARLY, LATE = 50, 500
"""Positions between which Olsson et al. (2022, arXiv:2209.11895) compare the loss."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Chosen positions of chosen rows: that at position t is the prediction of id t + 1 from ids 0 … t.

    rows: (n, L + 1) ids; numbers: (n,) what the rows are called, ascending; line, position: (k,) by row and position.
    """

    rows: np.ndarray
    numbers: np.ndarray
    line: np.ndarray
    position: np.ndarray

    @classmethod
    def of(
        cls, rows: npt.ArrayLike, positions: npt.ArrayLike | None = None, row_ids: npt.ArrayLike | None = None
    ) -> Chosen:
        """positions: None for all, (p,) the same in every row, or (n, p) those of each row.

        Raises RequestError for rows that are no integers (n, L + 1), positions beyond them, or numbers of rows that do
        not ascend.
        """
        array = check_rows(rows)
        n, length = array.shape[0], array.shape[1] - 1
        numbers = np.arange(n) if row_ids is None else np.asarray(row_ids)
        if len(numbers) != n or (np.diff(numbers) <= 0).any():
            raise RequestError(f"{len(numbers)} row_ids for {n} rows; one for each is needed, ascending")
        wanted = np.arange(length) if positions is None else np.asarray(positions)
        wanted = np.broadcast_to(wanted, (n, wanted.shape[-1])) if wanted.ndim == 1 else wanted
        if wanted.shape[:1] != (n,) or wanted.dtype.kind not in "iu" or not wanted.size:
            raise RequestError(f"positions must be whole numbers (p,) or ({n}, p), not {wanted.dtype} {wanted.shape}")
        if wanted.min() < 0 or wanted.max() >= length:
            raise RequestError(f"positions go from {wanted.min()} to {wanted.max()}; these rows have 0 to {length - 1}")
        marked = np.zeros((n, length), dtype=bool)
        np.put_along_axis(marked, wanted, True, axis=1)
        line, position = np.nonzero(marked)
        return cls(array, numbers, line, position)

    @cached_property
    def places(self) -> pd.DataFrame:
        """row, position, token of every curve: the token is the true id, the one that follows."""
        return pd.DataFrame({"row": self.numbers[self.line], "position": self.position, "token": self.tokens})

    @cached_property
    def tokens(self) -> np.ndarray:
        """(k,) the true ids."""
        return self.rows[self.line, self.position + 1].astype(np.int64)

    @cached_property
    def begins(self) -> np.ndarray:
        """(n + 1,) where each row's positions begin."""
        return np.searchsorted(self.line, np.arange(len(self.rows) + 1))

    @property
    def context_positions(self) -> tuple[int, int]:
        """The two positions whose losses tell what context is worth: 50 and 500, in shorter rows 1/8 and 3/4 of them.
        """
        length = self.rows.shape[1] - 1
        return (EARLY, LATE) if length > LATE else (length // 8, 3 * length // 4)

    @property
    def profiled(self) -> np.ndarray:
        """(n,) bool: the rows at which context and n-grams are measured."""
        n = len(self.rows)
        found = np.zeros(n, dtype=bool)
        found[np.linspace(0, n - 1, min(n, PROFILE_ROWS)).astype(int)] = True
        return found

    @property
    def digest(self) -> str:
        return files.digest([rows_digest(self.rows), self.numbers, self.line, self.position])


class Counted(Protocol):
    """Where continuations come from when the first model asks for them."""

    @property
    def digest(self) -> str: ...

    def tables(self, context: Context) -> Sequence[Continuations]: ...


class CurveTask(Task):
    """Surprisal at chosen positions into a store; with `profiles`, a line per checkpoint and row besides.

    counted: n-grams that predictions are compared with, or None. folder: of the store; by default beside the cells.
    """

    name = "curves/positions"

    def __init__(
        self, chosen: Chosen, *, vocabulary: int | None = None, counted: Counted | None = None, profiles: bool = True,
        folder: Path | None = None,
    ):
        self.chosen, self.vocabulary, self.counted, self.profiles = chosen, vocabulary, counted, profiles
        self.folder = folder
        self.parts = -(-len(chosen.rows) // PART_ROWS)
        self.ids = chosen.rows.size
        self.digest = files.digest([chosen.digest, vocabulary, counted.digest if counted else None, profiles])
        self._assembly: tuple[Context, Assembly] | None = None
        self._predictions: list[Predictions] | None = None

    def store_folder(self, context: Context) -> Path | None:
        """Where the store is: `folder`, else beside the run's cells, else in the cache; a shard makes none."""
        if context.execution.shard is not None:
            return None
        if self.folder is None and context.execution.cells is None:
            named = files.digest([self.digest, [str(c) for c in context.checkpoints], str(context.execution.dtype)])
            return files.cache_dir() / STORE / named[:20]
        cells = context.execution.cells
        return self.folder or (cells.folder.parent / STORE if cells else None)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        """A line per row: row, vocabulary, surprisal (bytes of float16 bits), early, late, kl_1, … as in `COLUMNS`."""
        if self.counted is not None and self._predictions is None:
            self._predictions = [Predictions(table) for table in self.counted.tables(context)]
        lines = np.arange(part * PART_ROWS, min(len(self.chosen.rows), (part + 1) * PART_ROWS))
        check_ids(model, int(self.chosen.rows[lines].min()), int(self.chosen.rows[lines].max()), self.vocabulary)
        own = _Part(self, lines)
        size = context.execution.batch_size or automatic_batch_size(model, self.chosen.rows.shape[1] - 1)
        in_batches(len(lines), size, lambda here: own.measure(model, lines[here]))
        if own.lost:
            named = getattr(model, "checkpoint", "model")
            progress.warn(f"{named}: {own.lost} positions have NaN or Inf logits; try --dtype float32")
        return own.frame(min(self.vocabulary or 1 << 62, vocabulary_size(model)))

    def received(self, context: Context, checkpoint: Checkpoint, part: int, frame: pd.DataFrame) -> pd.DataFrame:
        """Put the surprisals into the store; the lines of profiled rows remain."""
        folder = self.store_folder(context)
        if folder is not None:
            if self._assembly is None or self._assembly[0] is not context:
                self._assembly = context, Assembly(folder, self.chosen.places, context.checkpoints)
            values = np.frombuffer(b"".join(frame["surprisal"]), dtype="<f2")
            begin = int(self.chosen.begins[part * PART_ROWS])
            if self._assembly[1].add(checkpoint, begin, values, int(frame["vocabulary"].iloc[0])) is not None:
                self._assembly = None
        kept = frame["profiled"].to_numpy(bool)
        return frame[kept].drop(columns=["surprisal", "vocabulary", "profiled"])

    @property
    def predictions(self) -> Sequence[Predictions]:
        return self._predictions or ()


class _Part:
    """One part under way: arrays over its rows and positions."""

    def __init__(self, task: CurveTask, lines: np.ndarray):
        self.task, self.chosen, self.lines = task, task.chosen, lines
        self.first, stop = self.chosen.begins[[lines[0], lines[-1] + 1]].tolist()
        self.bits = np.full(stop - self.first, np.nan, dtype=np.float32)
        self.profiled = self.chosen.profiled[lines] & task.profiles
        self.ends = np.full((len(lines), 2), np.nan)
        self.divergence = np.full((len(task.predictions), stop - self.first), np.nan)

    @property
    def lost(self) -> int:
        """Positions without a finite surprisal."""
        return int(np.isnan(self.bits).sum())

    def measure(self, model: nn.Module, lines: np.ndarray) -> None:
        """Fill in what these rows give."""
        length = self.chosen.rows.shape[1] - 1
        a, b = self.chosen.begins[[lines[0], lines[-1] + 1]].tolist()
        chosen = (self.chosen.line[a:b] - lines[0]) * length + self.chosen.position[a:b]
        ends = np.arange(len(lines))[:, None] * length + np.array(self.chosen.context_positions)
        places = np.union1d(chosen, ends) if self.task.profiles else chosen
        comparing = self.task.chosen.profiled[self.chosen.line[a:b]]
        compared = _Compared(self.task.predictions, chosen[comparing], np.arange(a, b)[comparing])
        nats, found = _surprisals(model, self.chosen.rows[lines], places, self.task.vocabulary, compared)
        self.bits[a - self.first : b - self.first] = nats[np.searchsorted(places, chosen)] / np.log(2)
        if self.task.profiles:
            self.ends[lines - self.lines[0]] = nats[np.searchsorted(places, ends)]
        self.divergence[:, compared.numbers - self.first] = found

    def frame(self, vocabulary: int) -> pd.DataFrame:
        """The cell; `kl_n` and `bits` are means over the row's positions that have a value."""
        cuts = self.chosen.begins[self.lines[0] : self.lines[-1] + 2] - self.first
        told = {f"kl_{p.table.n}": _row_means(values, cuts)
                for p, values in zip(self.task.predictions, self.divergence, strict=True)}
        kept = self.bits.astype("<f2")
        return pd.DataFrame({
            "row": self.chosen.numbers[self.lines], "profiled": self.profiled, "vocabulary": vocabulary,
            "surprisal": [kept[a:b].tobytes() for a, b in pairwise(cuts)],
            "bits": _row_means(self.bits, cuts), "early": self.ends[:, 0], "late": self.ends[:, 1], **told,
        })


@dataclass(frozen=True, eq=False)
class _Compared:
    """Which places (numbered through the flattened rows, ascending) are compared with which predictions.

    numbers: those of the chosen positions that lie there.
    """

    predictions: Sequence[Predictions]
    places: np.ndarray
    numbers: np.ndarray


@inference_mode
def _surprisals(
    model: nn.Module, rows: np.ndarray, places: np.ndarray, vocabulary: int | None, compared: _Compared
) -> tuple[np.ndarray, np.ndarray]:
    """(places,) nats of the true ids, and (predictions, compared places) divergences in bits.

    places (p,): positions numbered through the flattened rows, ascending.
    """
    ids = torch.from_numpy(rows.astype(np.int64)).to(device_of(model))
    wanted = torch.from_numpy(places).to(ids.device)
    true = ids[:, 1:].reshape(-1)[wanted]
    nats = np.empty(len(places), dtype=np.float32)
    found = np.full((len(compared.predictions), len(compared.places)), np.nan)
    for block, logp in position_logprobs(model, ids[:, :-1], wanted, vocabulary=vocabulary):
        here = places[block]
        nats[block] = -logp.gather(1, true[block, None])[:, 0].cpu().numpy()
        a, b = np.searchsorted(compared.places, [here[0], here[-1] + 1]).tolist()
        if compared.predictions and a < b:
            some = logp[torch.from_numpy(np.searchsorted(here, compared.places[a:b])).to(logp.device)]
            for line, predictions in enumerate(compared.predictions):
                found[line, a:b] = predictions.from_model(some, compared.numbers[a:b])
    return nats, found


def _row_means(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """(rows,) mean of the finite values between cuts; NaN where a row has none."""
    good = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(v)]) for v in (np.where(good, values, 0.0), good))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[cuts[1:]] - sums[cuts[:-1]]) / (counts[cuts[1:]] - counts[cuts[:-1]]))
