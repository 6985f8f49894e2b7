"""A row request: a range, the rows of some steps, a seeded random sample, cohorts by time of exposure; canaries; a
file.

Cost: none until the rows are read. Row i of an order is consumed by batch i // batch_rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

import numpy as np

from pythia_tools.analysis import Context
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.order import Rows

SAMPLE = 1000
"""Rows that are judged when the user names none and the suite has no canaries."""
CANARIES = "canaries"


class RowRequest(TypedDict, total=False):
    """What `select_rows` takes beside the order and the seed."""

    rows: tuple[int, int]
    steps: tuple[int, int]
    sample: int
    cohorts: Sequence[int]


@dataclass(frozen=True)
class Selection:
    """rows (n,) int64 numbers, ascending; cohorts (n,) int64 or None: the step before which each was consumed.

    source: `order`, `canaries` or `file`. consecutive: all rows of a range, so that their order can be tested.
    """

    rows: np.ndarray
    cohorts: np.ndarray | None = None
    source: str = "order"
    consecutive: bool = False


def select(context: Context, text: str | None, seed: int = 0) -> Selection:
    """The rows of a request as the command line spells it; None for the default: canaries, else a sample.

    Raises: RequestError when it needs an order or a truth manifest that is not there; DataError for a damaged file.
    """
    if text == CANARIES or (text is None and context.truth is not None):
        truth = context.need_truth("planted canaries")
        return Selection(truth.canaries["canary"].to_numpy(np.int64), source=CANARIES)
    if text is not None and text.endswith(".npy"):
        return Selection(np.arange(len(read_rows(text))), source="file")
    order = context.order
    request = parse_rows(text) if text else RowRequest(sample=min(SAMPLE, order.steps * order.batch_rows))
    return select_rows(order, **request, seed=seed)


def tokens_of(context: Context, chosen: Selection, text: str | None, length: int) -> np.ndarray:
    """(n, ≥ length) ids of the rows of a request."""
    if chosen.source == CANARIES:
        return np.array(context.need_truth("planted canaries").canaries["tokens"].tolist(), dtype=np.int64)
    return read_rows(str(text)) if chosen.source == "file" else context.order.take(chosen.rows)[:, :length]


def read_rows(path: str) -> np.ndarray:
    """(n, L) token ids of a .npy file. Raises RequestError when there is none, DataError for other content."""
    try:
        tokens = np.load(Path(path), allow_pickle=False)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except ValueError as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error})") from error
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise DataError(f"{path} holds {tokens.dtype} of shape {tokens.shape}; token ids are whole numbers, rows × ids")
    return np.asarray(tokens)


def select_rows(
    order: Rows, *, rows: tuple[int, int] | None = None, steps: tuple[int, int] | None = None,
    sample: int | None = None, cohorts: Sequence[int] | None = None, seed: int = 0,
) -> Selection:
    """Rows of an order.

    rows (a, b): rows a … b − 1. steps (a, b): the rows of batches a … b − 1, that is what training consumed from
    checkpoint a to checkpoint b. Neither: all rows the run consumed. sample: that many of them at random, without
    repeats (of each cohort, if cohorts are given). cohorts: ascending steps s0, s1, …: rows of batches [s0, s1) are
    cohort s1, and so on. Raises RequestError for ranges outside the order, both ranges at once, or a sample larger than
    what is there.
    """
    if rows is not None and steps is not None:
        raise RequestError("give rows or steps, not both")
    size, rng = order.batch_rows, np.random.default_rng(seed)
    if cohorts is not None:
        edges = [int(c) for c in cohorts]
        if len(edges) < 2 or edges != sorted(set(edges)):
            raise RequestError(f"cohorts {edges} must be at least two ascending steps")
        parts = [_pick(order, a * size, b * size, sample, rng) for a, b in pairwise(edges)]
        return Selection(np.concatenate(parts), np.repeat(edges[1:], [len(p) for p in parts]))
    if steps is not None:
        rows = (steps[0] * size, steps[1] * size)
    low, high = rows if rows is not None else (0, order.steps * size)
    return Selection(_pick(order, low, high, sample, rng), consecutive=sample is None)


def rows_by(order: Rows, step: int) -> int:
    """How many rows had been consumed by a step. Raises RequestError when the order does not hold so many."""
    consumed = step * order.batch_rows
    if consumed > order.n_rows:
        raise RequestError(
            f"step {step} consumed more rows than order {order.name} has ({order.n_rows}); is it the suite's order?"
        )
    return consumed


def parse_rows(text: str) -> RowRequest:
    """Command-line spelling of `select_rows`: `0:512`, `steps=0:10,sample=1000`, `cohorts=0:1000:100,sample=50`.

    Row ranges leave out their second end; `steps=a:b` is batches a to b, both included, as in every command.
    `cohorts=a:b:c` has edges a, a + c, … up to b. Raises RequestError for anything else.
    """
    chosen = RowRequest()
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        try:
            numbers = [int(v) for v in value.split(":")]
        except ValueError:
            raise _unreadable(text) from None
        if name in ("", "rows") and len(numbers) == 2:
            chosen["rows"] = (numbers[0], numbers[1])
        elif name == "steps" and len(numbers) == 2:
            chosen["steps"] = (numbers[0], numbers[1] + 1)
        elif name == "sample" and len(numbers) == 1:
            chosen["sample"] = numbers[0]
        elif name == "cohorts" and len(numbers) == 3 and numbers[2] > 0:
            chosen["cohorts"] = list(range(numbers[0], numbers[1] + 1, numbers[2]))
        else:
            raise _unreadable(text)
    return chosen


def _unreadable(text: str) -> RequestError:
    return RequestError(
        f"rows {text!r} cannot be read; give a range 0:512, any of steps=0:10, sample=1000, cohorts=0:1000:100 joined "
        "by commas, canaries, or a .npy file"
    )


def _pick(order: Rows, low: int, high: int, sample: int | None, rng: np.random.Generator) -> np.ndarray:
    if not 0 <= low < high <= order.n_rows:
        raise RequestError(
            f"rows {low}:{high} (steps {low // order.batch_rows}:{-(-high // order.batch_rows)}) are not in order "
            f"{order.name}, which has rows 0:{order.n_rows}"
        )
    if sample is None:
        return np.arange(low, high, dtype=np.int64)
    if sample > high - low:
        raise RequestError(f"a sample of {sample} rows was asked for, rows {low}:{high} are {high - low}")
    return np.sort(low + rng.choice(high - low, sample, replace=False))
