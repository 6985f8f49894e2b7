"""`Rows`: what every reader of training rows asks for, and an array of rows that answers it.

Row numbers are training order: batch b (0-based) is rows [B*b, B*(b+1)), consumed by the update from step b to b+1, so
a checkpoint at step N has consumed batches 0 … N-1, that is rows [0, B*N). A row is seq_length + 1 token ids.
"""

from __future__ import annotations

import hashlib
import operator
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.tokens.tokenizer import Openable


class Rows(Protocol):
    """Rows in training order: a `DataOrder`, an `overlays.Overlay`, or an array (`ArrayRows`).

    name         what results call them
    seq_length   inputs per row (L); a row holds L+1 tokens
    batch_rows   rows per step (B)
    n_rows       rows in all, those of a last, incomplete batch included
    steps        whole batches, or as many as the run took: checkpoints are 0 … steps
    dtype        of the token ids
    fingerprint  hex digest that differs when any row or its step does
    tokenizer    what `open_tokenizer` takes for these ids, or None
    remote       whether reading goes over the network

    A class of one's own inherits from it and writes `take`; what reads faster overrides `rows` and `rows_into`.
    """

    name: str
    seq_length: int
    batch_rows: int
    n_rows: int
    steps: int
    dtype: np.dtype
    tokenizer: Openable | None
    remote: bool

    @property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @property
    def row_tokens(self) -> int:
        """Tokens of a row: seq_length + 1."""
        return self.seq_length + 1

    @abstractmethod
    def take(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Rows by number, in the order asked: (n, L+1). Raises RequestError for a row that does not exist."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop): (stop-start, L+1). Raises RequestError outside [0, n_rows]."""
        return self.take(np.arange(*self.check_span(start, stop), dtype=np.int64))

    def rows_into(self, out: np.ndarray, start: int) -> None:
        """Rows [start, start+len(out)) into `out`, a contiguous (n, L+1) array of `dtype`.

        A scan that uses one array again and again spares the system fresh pages, which cost more than the bytes.
        Raises RequestError outside [0, n_rows], and for an array of another kind.
        """
        self.check_room(out)
        out[:] = self.rows(start, start + len(out))

    @property
    def batches_in_words(self) -> str:
        """Which batches there are, for messages."""
        if self.steps:
            return f"it has batches 0 to {self.steps - 1}, of {self.batch_rows} rows each"
        return f"its {self.n_rows} rows make no batch of {self.batch_rows}; say how many rows a step has (batch_rows)"

    def batch(self, step: int) -> np.ndarray:
        """Batch `step`, (B, L+1): what the update from `step` to `step`+1 consumed. RequestError beyond the last."""
        step = _whole(step, "step")
        if not 0 <= step < self.steps:
            raise RequestError(f"batch {step} of order {self.name}: {self.batches_in_words}")
        return self.rows(step * self.batch_rows, (step + 1) * self.batch_rows)

    @property
    def opening(self) -> tuple[int, int]:
        """Bytes and files that are downloaded whole before the first row is read; zeros for an order at hand."""
        return 0, 0

    def fetching(self, rows: int, stretches: int) -> tuple[int, int]:
        """Bytes and requests that `rows` rows in so many stretches of neighbours take over the network, nothing of them
        being cached; zeros for an order at hand. For plans: nothing is opened where the manifest says all.
        """
        return (rows * self.row_tokens * self.dtype.itemsize, stretches) if self.remote else (0, 0)

    def chunks(self, start: int = 0, stop: int | None = None, rows: int = 4096) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) over [start, stop) in pieces of at most `rows`; for scans that never hold the whole."""
        stop = self.n_rows if stop is None else stop
        for a in range(start, stop, rows):
            yield a, self.rows(a, min(stop, a + rows))

    def step_of(self, rows: npt.ArrayLike) -> np.ndarray:
        """The batch that consumes each row, (n,) int64; the first checkpoint that contains it is one later."""
        return np.asarray(rows, dtype=np.int64) // self.batch_rows

    def documents(self, numbers: npt.ArrayLike) -> np.ndarray:
        """(n,) number of the document in which each row begins, −1 where the order does not know."""
        return np.full(len(self.check_numbers(numbers)), -1, dtype=np.int64)

    def apart(self, numbers: npt.ArrayLike) -> np.ndarray:
        """(n,) bool: no row before it in `numbers` begins in the same document; all true where that is not known.

        Rows chosen so are independent units as they stand.
        """
        place = self.documents(numbers)
        first = np.zeros(len(place), dtype=bool)
        first[np.unique(np.where(place < 0, -1 - np.arange(len(place)), place), return_index=True)[1]] = True
        return first

    def check_span(self, start: SupportsIndex, stop: SupportsIndex) -> tuple[int, int]:
        """A row range as ints. Raises RequestError unless 0 <= start <= stop <= n_rows."""
        a, b = _whole(start, "row"), _whole(stop, "row")
        if not 0 <= a <= b <= self.n_rows:
            raise RequestError(f"rows {a}:{b} of order {self.name}: it has rows 0:{self.n_rows}")
        return a, b

    def check_numbers(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Row numbers as (n,) int64. Raises RequestError for one that is not whole or does not exist."""
        given = np.asarray(numbers)
        if given.size and given.dtype.kind not in "ui":
            raise RequestError(f"row numbers must be whole, these are {given.dtype}")
        rows = given.astype(np.int64).reshape(-1)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.n_rows:
            bad = rows[(rows < 0) | (rows >= self.n_rows)][0]
            raise RequestError(f"row {bad} of order {self.name}: it has rows 0 to {self.n_rows - 1}")
        return rows

    def check_room(self, out: np.ndarray) -> None:
        """Raises RequestError unless `out` can take rows in place."""
        if out.shape[1:] != (self.row_tokens,) or out.dtype != self.dtype or not out.flags.c_contiguous:
            need = f"a contiguous (n, {self.row_tokens}) {self.dtype} array"
            raise RequestError(f"rows of order {self.name} need {need}, not {out.shape} {out.dtype}")


class ArrayRows(Rows):
    """An array of rows (n, L+1) in training order, `batch_rows` of them per step.

    Raises: RequestError unless it is a 2-D array of whole, non-negative numbers.
    """

    def __init__(
        self, rows: npt.ArrayLike, batch_rows: int = 1, *, tokenizer: Openable | None = None, name: str = "rows",
    ):
        self.array = np.asarray(rows)
        if self.array.ndim != 2 or self.array.dtype.kind not in "ui" or batch_rows < 1:
            got = f"{self.array.dtype} {self.array.shape}, {batch_rows}"
            raise RequestError(f"rows must be a 2-D array of token ids and batch_rows positive; got {got}")
        if self.array.dtype.kind == "i" and self.array.size and self.array.min() < 0:
            raise RequestError(f"token ids must not be negative; the smallest is {self.array.min()}")
        self.name, self.batch_rows, self.tokenizer, self.remote = name, batch_rows, tokenizer, False
        self.n_rows, self.seq_length, self.dtype = len(self.array), self.array.shape[1] - 1, self.array.dtype
        self.steps = self.n_rows // batch_rows

    @cached_property
    def fingerprint(self) -> str:
        content = hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()
        return digest([self.array.shape, str(self.array.dtype), content, self.batch_rows])

    def take(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Rows by number, in the order asked: (n, L+1). Raises RequestError for a row that does not exist."""
        return self.array[self.check_numbers(numbers)]


def _whole(value: SupportsIndex, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise RequestError(f"{what} must be a whole number, not {value!r}") from None
