"""Which rows does greedy decoding reproduce? One teacher-forced pass, in stages, instead of ℓ decoding steps.

A row is (k, ℓ)-extractable when greedy decoding from its first k ids yields its next ℓ ids. Under teacher forcing that
is the same as: at each of the ℓ positions the argmax is the true id (until the first miss both see the same ids). So
the first position decides for most rows; only survivors see the next few positions, and only theirs the rest, from the
cache of keys and values. The conditions: no eos or padding suppression, ties won by the first id, ids below
`vocabulary`.

Unlike extractability the original memorization score, the share of continuation positions that greedy decoding
reproduces, needs real decoding after the first miss, for almost every row (`decoding_table`). It starts where the row
first departs from the truth (known from the one pass), in batches of equal length with a cache of keys and values, so
that nothing decoded agrees with the truth by construction and nothing is decoded twice.

Cost: k tokens per row, ℓ − 1 more for each memorized one; with 1 % memorized, close to a plain pass over the context.
The score: one step per position after the first miss. Source of the protocol: Carlini et al. 2021/2023; Biderman et al.
2023 (k = ℓ = 32 there); of the score: Biderman et al. 2023, arXiv:2304.11158.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from pythia_tools.analyses.memorization.summary import exposure_bins
from pythia_tools.analyses.memorization.taxonomy import near_verbatim
from pythia_tools.core.errors import RequestError
from pythia_tools.models.decode import LOST, Decoder, greedy
from pythia_tools.models.devices import dtype_name, inference_mode
from pythia_tools.models.head import Verdict
from pythia_tools.models.score import automatic_batch_size, in_batches, max_positions

OK, SHORT, BEYOND, NONFINITE = "ok", "short", "id beyond vocabulary", "logits not finite"
"""Every status. `short`: the row has fewer than offset + context + continuation ids. `id beyond vocabulary`: it holds
an id the model does not have (another tokenizer, or a damaged file). `logits not finite`: a logit was NaN or infinite
(overflow in float16, damaged weights). `memorized` is missing unless the status is `ok`; it is never False for want of
a number.
"""

DECODED = 256
"""Rows decoded together at least: each step reads all weights once, whatever their number."""
STAGES = (1, 4)
"""Continuation positions judged before survivors see the next; the last stage, all of them, is implied."""


@dataclass(frozen=True)
class Window:
    """Which ids of a row are shown and which must follow, and how that is decided.

    Row ids [offset, offset + context) are shown, [offset + context, offset + context + continuation) must follow.
    `vocabulary`: only ids below it compete (None: all of the unembedding's, as `generate` does).
    `keep_from`: keep the match mask of all positions from this one on, counted from `offset` (every (k, ℓ) with
    k ≥ keep_from within the window is read off later); it turns staging off.
    """

    context: int = 32
    continuation: int = 32
    offset: int = 0
    vocabulary: int | None = None
    keep_from: int | None = None

    def __post_init__(self) -> None:
        if self.context < 1 or self.continuation < 1 or self.offset < 0:
            raise RequestError(
                f"context {self.context}, continuation {self.continuation}, offset {self.offset}: "
                "context and continuation must be at least 1, offset at least 0"
            )
        if self.keep_from is not None and not 1 <= self.keep_from <= self.context:
            raise RequestError(f"keep_from {self.keep_from} must be from 1 to context, {self.context}")
        if self.vocabulary is not None and self.vocabulary < 2:
            raise RequestError(f"vocabulary {self.vocabulary} must be at least 2")

    @property
    def length(self) -> int:
        """Ids of a row that matter, from `offset` on."""
        return self.context + self.continuation

    @property
    def ends(self) -> list[int]:
        """Continuation positions judged after each stage."""
        if self.keep_from is not None:
            return [self.continuation]
        return sorted({s for s in STAGES if s < self.continuation} | {self.continuation})

COLUMNS = ("memorized", "status", "matched", "margin", "judged", "dtype", "edge")


@dataclass(frozen=True)
class Screening:
    """How a lower-precision screen went over n rows.

    decided (n,) str, what settled each row: `exact` (no screen, or a calibration row), `screen` (rejected by it
    alone), `doubtful` (kept by it or too near to call: judged exactly), `audit` (rejected by it, drawn at random,
    judged exactly). doubt: the margin in size that a rejection needed (NaN: all rows were judged exactly). largest and
    spread: maximum and standard deviation of the differences between the two passes' margins, in logits. overturned:
    audited rejections that were wrong.
    """

    decided: np.ndarray
    doubt: float
    largest: float
    spread: float
    overturned: int = 0


@dataclass
class Extraction:
    """What was found for n rows, in their order.

    memorized (n,) bool, meaningful where status is "ok"; matched (n,) leading continuation ids that greedy decoding
    reproduces; margin (n,) float32 minimum over judged positions of the true logit minus the best other's (0: a tie);
    judged (n,) continuation positions looked at; dtype (n,) of the pass that decided; mask (n, positions) bool or None.
    edge (n,) float32: the smallest margin in size up to the deciding position, which is what another precision must
    overturn.
    """

    memorized: np.ndarray
    status: np.ndarray
    matched: np.ndarray
    margin: np.ndarray
    judged: np.ndarray
    dtype: np.ndarray
    edge: np.ndarray
    mask: np.ndarray | None = None
    screening: Screening | None = None

    def put(self, index: np.ndarray, other: Extraction) -> None:
        """Overwrite the rows at `index` by another extraction's."""
        for name in COLUMNS:
            getattr(self, name)[index] = getattr(other, name)


def blank(n: int, window: Window, dtype: str) -> Extraction:
    mask = np.zeros((n, window.length - window.keep_from), bool) if window.keep_from is not None else None
    return Extraction(
        np.zeros(n, bool), np.full(n, OK, dtype=object), np.zeros(n, np.int32), np.full(n, np.nan, np.float32),
        np.zeros(n, np.int32), np.full(n, dtype, dtype=object),
        np.full(n, np.inf, np.float32), mask,
    )


def cut(rows: Any, window: Window, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows (n, length) int64 of rows, and each row's status; windows of unusable rows hold zeros.

    Args:
        rows: (n, L) integer array, or a sequence of n integer sequences of any lengths.
        size: ids the model knows.
    Raises: RequestError when the rows are not integers, or none is long enough.
    """
    stop = window.offset + window.length
    lengths = np.array([len(r) for r in rows], dtype=np.int64)
    if len(rows) and lengths.max() < stop:
        raise RequestError(
            f"rows have {lengths.max()} ids, but offset {window.offset} + context {window.context} + continuation "
            f"{window.continuation} needs {stop}; choose a shorter context or continuation"
        )
    status = np.where(lengths < stop, SHORT, OK).astype(object)
    nothing = np.zeros(window.length, np.int64)
    cuts = [np.asarray(r)[window.offset : stop] if s == OK else nothing for r, s in zip(rows, status, strict=True)]
    windows = np.array(cuts).reshape(len(rows), window.length)
    if len(windows) and windows.dtype.kind not in "iu":
        raise RequestError(f"rows must be integer token ids, these are {windows.dtype}")
    windows = windows.astype(np.int64)
    beyond = ((windows < 0) | (windows >= size)).any(axis=1)
    status[beyond & (status == OK)] = BEYOND
    windows[status != OK] = 0
    return windows, status


@inference_mode
def extract(model: nn.Module, rows: Any, window: Window | None = None, *, batch_size: int | None = None) -> Extraction:
    """Extractability of rows by one model, in the model's own dtype.

    Args:
        model: a causal language model in eval mode, on its device.
        rows: (n, L) integer array or n integer sequences.
        batch_size: rows per pass; None chooses.
    Raises: RequestError for rows shorter than the window, or a window beyond the model's context.
    """
    window = window or Window()
    decoder = Decoder(model, window.vocabulary)
    windows, usable, result = prepare(model, rows, window)
    size = batch_size or automatic_batch_size(model, window.length)
    judge_windows(decoder, windows, usable, window, result, size)
    return result


def prepare(model: nn.Module, rows: Any, window: Window) -> tuple[np.ndarray, np.ndarray, Extraction]:
    """Windows (n, length), the numbers of those that can be judged, and an empty result that says why not the others.

    Raises RequestError when the window is longer than the positions the model was built for.
    """
    if window.length - 1 > max_positions(model):
        raise RequestError(
            f"context {window.context} + continuation {window.continuation} needs {window.length - 1} positions, "
            f"the model has {max_positions(model)}; choose a shorter context or continuation"
        )
    windows, status = cut(rows, window, Decoder(model, window.vocabulary).vocabulary)
    result = blank(len(windows), window, dtype_name(next(model.parameters()).dtype))
    result.status[:] = status
    return windows, np.flatnonzero(status == OK), result


def judge_windows(
    decoder: Decoder, windows: np.ndarray, index: np.ndarray, window: Window, result: Extraction, batch_size: int,
    doubt: float = 0.0,
) -> np.ndarray:
    """Judge windows[index] in stages and write into `result`; returns the numbers of rows left in doubt.

    With doubt > 0 (a lower-precision screen) a row is rejected only by a margin below −doubt, after margins above
    doubt.
    All others are in doubt, those that passed every position among them: a screen rejects, it never calls a row
    memorized.
    """
    doubtful: dict[int, np.ndarray] = {}

    def batch(here: slice) -> None:
        rows = index[here]
        result.put(rows, blank(len(rows), window, str(result.dtype[rows[0]])))
        doubtful[here.start] = _stages(decoder, windows[rows], rows, window, result, doubt)

    in_batches(len(index), batch_size, batch)
    return np.concatenate([np.zeros(0, np.int64), *doubtful.values()])


def _stages(
    decoder: Decoder, windows: np.ndarray, numbers: np.ndarray, window: Window, result: Extraction, doubt: float,
) -> np.ndarray:
    ids = torch.from_numpy(windows).to(decoder.device)
    decoder.start()
    doubtful = []
    shown, start = 0, window.context if window.keep_from is None else window.keep_from
    for stop in (window.context + end for end in window.ends):
        verdict = decoder.feed(ids[:, shown : stop - 1], ids[:, start:stop])
        if result.mask is not None:
            result.mask[numbers] = verdict.match.cpu().numpy()
        keep, unsure = record(verdict, start - window.context, numbers, window, result, doubt)
        doubtful.append(numbers[unsure])
        if stop == window.length or not keep.any():
            break
        if not keep.all():
            rows = torch.from_numpy(np.flatnonzero(keep)).to(decoder.device)
            decoder.keep(rows)
            ids, numbers = ids[rows], numbers[keep]
        shown, start = stop - 1, stop
    return np.concatenate(doubtful)


def record(
    verdict: Verdict, behind: int, numbers: np.ndarray, window: Window, result: Extraction, doubt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Write one stage's verdicts; which rows go on, and which are in doubt. Positions before the context's end are
    masks only.
    """
    skip = max(0, -behind)
    match, margin, finite = (t[:, skip:].cpu().numpy() for t in (verdict.match, verdict.margin, verdict.finite))
    sure = match if doubt <= 0 else margin > doubt
    stops = ~sure
    first = np.where(stops.any(axis=1), stops.argmax(axis=1), match.shape[1])
    at = np.minimum(first, match.shape[1] - 1)[:, None]
    stopped = first < match.shape[1]
    # What comes after a row's first miss cannot change its flag, so only what was read up to there can be "not finite".
    bad = stopped & ~np.take_along_axis(finite, at, 1)[:, 0]
    if result.mask is not None:
        bad = ~verdict.finite.all(dim=1).cpu().numpy()
    passed = ~stopped & (result.judged[numbers] + match.shape[1] >= window.continuation)
    unsure = (doubt > 0) & (passed | (stopped & ((np.take_along_axis(margin, at, 1)[:, 0] >= -doubt) | bad)))
    result.matched[numbers] += first.astype(np.int32)
    result.judged[numbers] += match.shape[1]
    result.margin[numbers] = np.fmin(result.margin[numbers], np.fmin.reduce(margin, axis=1))
    result.memorized[numbers] = passed
    upto = np.where(np.arange(match.shape[1])[None] <= first[:, None], np.abs(margin), np.inf)
    result.edge[numbers] = np.fmin(result.edge[numbers], np.fmin.reduce(upto, axis=1))
    result.status[numbers[bad]] = NONFINITE
    result.margin[numbers[bad]] = np.nan
    return ~stopped, unsure


def as_rows(rows: Any, row_ids: npt.ArrayLike | None = None) -> tuple[np.ndarray | Sequence[Any], np.ndarray]:
    """Rows, as one array where their lengths are equal, and their numbers, int64 (default 0 … n − 1).

    Raises: RequestError without rows, or when there are not as many numbers.
    """
    if not len(rows):
        raise RequestError("no rows to measure")
    if not isinstance(rows, list | tuple) or len({len(r) for r in rows}) == 1:
        rows = np.asarray(rows)
    numbers = np.arange(len(rows)) if row_ids is None else np.asarray(row_ids, dtype=np.int64)
    if len(numbers) != len(rows):
        raise RequestError(f"{len(numbers)} row_ids for {len(rows)} rows; give one for each")
    return rows, numbers


def decoding_table(
    model: nn.Module, rows: Any, window: Window | None = None, *, found: Extraction | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Per row, what decoding says of near-verbatim recall: score (share of equal places; 1.0 means extractable),
    edit_distance (ids), span (longest common run of ids, wherever it starts). Missing where status is not ok.

    `found`: what `extract` said of the same rows with the same window, if known.
    """
    window = window or Window()
    found = found or extract(model, rows, window, batch_size=batch_size)
    windows, _, _ = prepare(model, rows, window)
    truth = windows[:, window.context :]
    decoded = truth.copy()  # right up to each row's first miss
    departs = np.flatnonzero((found.status == OK) & (found.matched < window.continuation))
    known = exposure_bins(found.matched[departs])  # few groups, so that batches stay full; ids below are decoded again
    size = batch_size or max(DECODED, automatic_batch_size(model, window.length))
    for start in np.unique(known):
        group, left = departs[known == start], window.continuation - int(start)
        prompts = windows[group, : window.context + start]
        made = greedy(model, prompts, left, vocabulary=window.vocabulary, batch_size=size)
        decoded[group, start:] = [row + [LOST] * (left - len(row)) for row in made]
    near = near_verbatim(decoded, truth).rename(columns={"agree": "score"})
    lost = found.status != OK
    return near.astype({"edit_distance": "Int32", "span": "Int32"}).apply(lambda column: column.mask(lost))
