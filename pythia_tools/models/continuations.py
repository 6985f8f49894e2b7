"""Log-probabilities of continuations under a live model: planned once, run on every checkpoint.

Requests that need the same forward pass share it, and texts that begin alike share their beginning (see `packing`);
rows are sorted by length, so that little is padding; the head is applied at the positions that are asked for and
nowhere else. The plan (ids, positions, targets, as tensors) is made once for all checkpoints.
Cost per checkpoint: one forward pass over the distinct beginnings and endings, one row of logits per distinct beginning
before a scored id. Softmax arithmetic is float32 whatever the model's format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.models.devices import inference_mode
from pythia_tools.models.packing import Row, mask_type, rows_of, tree_mask
from pythia_tools.models.score import automatic_batch_size, check_ids, device_of, max_positions, position_logits


class Request(NamedTuple):
    """The log-probability of `continuation` after `context` is wanted; both are ids, neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Loglikelihoods(NamedTuple):
    """Per request: `total` (n,) float64 nats, `tokens` list of float32 arrays, `cut` (n,) ids lost from the left.

    A request has NaN where its logits held NaN or +Inf, and where its continuation is longer than the model's
    positions. Where leads were asked for: `greedy` (n,) bool, each of its ids is the likeliest one (the first of
    equals), and `lead` (n,) float32, by how many nats they are ahead of the likeliest other id at the closest position.
    """

    total: np.ndarray
    tokens: list[np.ndarray]
    cut: np.ndarray
    greedy: np.ndarray | None = None
    lead: np.ndarray | None = None


@dataclass(frozen=True)
class _Batch:
    """ids (b, T) right-padded; positions (p,) into the flattened states; scored (s,) into positions; targets (s,).

    `order` (b, T) position ids and `ends` (b, T) of rows that hold several texts; None where each row is one text.
    """

    ids: torch.Tensor
    order: torch.Tensor | None
    ends: torch.Tensor | None
    positions: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor


class Plan:
    """The forward passes that a list of requests needs, for models of at most `max_length` positions.

    `batch_size` counts texts, however many of them a row holds. `pack`: the model's width, where texts may share rows.
    """

    def __init__(self, requests: Sequence[Request], max_length: int, batch_size: int, *, pack: int | None = None):
        self.n = len(requests)
        self.lengths = np.array([len(r.continuation) for r in requests], dtype=np.int64)
        self._check_lengths(max_length)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.cut = np.zeros(self.n, dtype=np.int64)
        inputs = self._inputs(requests, max_length)
        self.batches: list[_Batch] = []
        self._order: list[int] = []
        rows = rows_of(inputs, pack=pack is not None, most=batch_size, hidden=pack or 1)
        for packed in (True, False):
            for chosen in _batches([row for row in rows if row.packed == packed], batch_size):
                self._add(chosen, inputs, requests)
        self.order = np.array(self._order, dtype=np.int64)

    def _check_lengths(self, most: int) -> None:
        """What does not fit is left out and said; lm-eval stops at the first such text."""
        self.fits = self.lengths <= most
        lost = self.n - int(self.fits.sum())
        if lost and lost == self.n:
            shortest = int(self.lengths.min())
            raise RequestError(f"every text ({shortest} ids and more) is longer than the model's {most} positions")
        if lost:
            longer = f"{lost} of {self.n} texts are longer than the model's {most} positions"
            progress.warn(f"{longer}; their items are left out")

    def _inputs(self, requests: Sequence[Request], max_length: int) -> dict[tuple[int, ...], list[int]]:
        """Distinct inputs (context + continuation without its last id, cut from the left) → the requests they serve."""
        inputs: dict[tuple[int, ...], list[int]] = {}
        for k, request in enumerate(requests):
            if not self.fits[k]:
                continue
            whole = (*request.context, *request.continuation)[-(max_length + 1) :]
            self.cut[k] = len(request.context) + len(request.continuation) - len(whole)
            inputs.setdefault(whole[:-1], []).append(k)
        return inputs

    def _add(self, chosen: list[Row], inputs: dict[tuple[int, ...], list[int]], requests: Sequence[Request]) -> None:
        width = max(len(row.ids) for row in chosen)
        ids, order = np.zeros((2, len(chosen), width), dtype=np.int64)
        ends = np.tile(np.arange(1, width + 1), (len(chosen), 1))
        flat: dict[int, int] = {}
        scored: list[int] = []
        targets: list[int] = []
        for number, row in enumerate(chosen):
            n = len(row.ids)
            ids[number, :n], order[number, :n], ends[number, :n] = row.ids, row.positions, row.ends
            for text, places in zip(row.texts, row.places, strict=True):
                for k in inputs[text]:
                    asked = number * width + places[len(text) - int(self.lengths[k]) :]
                    scored += [flat.setdefault(int(place), len(flat)) for place in asked]
                    targets += requests[k].continuation
                    self._order += range(int(self.offsets[k]), int(self.offsets[k + 1]))
        tree = chosen[0].packed
        tensors = [torch.tensor(v, dtype=torch.long) for v in (list(flat), scored, targets)]
        extra = (torch.from_numpy(order), torch.from_numpy(ends)) if tree else (None, None)
        self.batches.append(_Batch(torch.from_numpy(ids), *extra, *tensors))


def _batches(rows: list[Row], batch_size: int) -> Iterator[list[Row]]:
    """Rows in batches of at most `batch_size` texts (one row at least)."""
    batch: list[Row] = []
    texts = 0
    for row in rows:
        if batch and texts + len(row.texts) > batch_size:
            yield batch
            batch, texts = [], 0
        batch.append(row)
        texts += len(row.texts)
    if batch:
        yield batch


class Scorer:
    """Requests, ready to be scored on any number of models; plans are kept per length limit and batch size.

    `vocabulary`: softmax over the first so many ids only (those the tokenizer has; larger models pad more).
    `batch_size`: texts per forward pass; None chooses, and halves it when an accelerator runs out of memory.
    `leads`: also whether each continuation is what greedy decoding gives, and how far that is from changing.
    """

    def __init__(
        self, requests: Sequence[Request], *, batch_size: int | None = None, vocabulary: int | None = None,
        leads: bool = False,
    ):
        self.requests = list(requests)
        self.batch_size, self.vocabulary, self.leads = batch_size, vocabulary, leads
        self.digest = digest([[list(r.context), list(r.continuation)] for r in self.requests])
        self._highest = max((max(*r.context, *r.continuation) for r in self.requests), default=0)
        self._longest = max((len(r.context) + len(r.continuation) for r in self.requests), default=1)
        self._plans: dict[tuple[int, int, int | None], Plan] = {}

    def __call__(self, model: nn.Module) -> Loglikelihoods:
        """Score every request under a live model. Raises RequestError for ids the model does not have."""
        check_ids(model, 0, self._highest, self.vocabulary)
        size = self.batch_size or automatic_batch_size(model, min(self._longest, max_positions(model)))
        while True:
            plan = self.plan(model, size)
            try:
                return _collect(plan, [_score(model, batch, self.vocabulary, self.leads) for batch in plan.batches])
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                size = max(1, size // 2)

    def plan(self, model: nn.Module, size: int) -> Plan:
        """The plan for models of this one's width and positions."""
        limit = max_positions(model)
        pack = int(getattr(model.config, "hidden_size", 512)) if mask_type(model) is not None else None
        key = (limit, size, pack)
        if key not in self._plans:
            self._plans[key] = Plan(self.requests, limit, size, pack=pack)
        return self._plans[key]


def _collect(plan: Plan, found: Sequence[np.ndarray]) -> Loglikelihoods:
    if not plan.n:
        return Loglikelihoods(np.zeros(0), [], plan.cut)
    values = np.full((found[0].shape[0], int(plan.offsets[-1])), np.nan, dtype=np.float32)
    values[:, plan.order] = np.concatenate(found, axis=1)
    starts = plan.offsets[:-1]
    total, tokens = np.add.reduceat(values[0].astype(np.float64), starts), np.split(values[0], starts[1:])
    if len(values) == 1:
        return Loglikelihoods(total, tokens, plan.cut)
    lead = np.minimum.reduceat(values[1], starts)
    return Loglikelihoods(total, tokens, plan.cut, np.minimum.reduceat(values[2], starts) == 1, lead)


@inference_mode
def _score(model: nn.Module, batch: _Batch, vocabulary: int | None, leads: bool) -> np.ndarray:
    """(1, s) log-probabilities of the batch's targets; with leads (3, s), these, their leads, and 1 for the likeliest.
    """
    device, kind = device_of(model), mask_type(model)
    tree: dict[str, torch.Tensor] = {}
    if batch.order is not None and batch.ends is not None and kind is not None:
        tree = {"position_ids": batch.order.to(device), "attention_mask": tree_mask(batch.ends.to(device), kind)}
    targets, scored = batch.targets.to(device), batch.scored.to(device)
    found = torch.empty((3 if leads else 1, len(targets)), device=device)
    blocks = position_logits(model, batch.ids.to(device), batch.positions.to(device), vocabulary=vocabulary, **tree)
    for places, logits in blocks:
        logs = torch.log_softmax(logits, dim=-1)
        here = torch.nonzero((scored >= places.start) & (scored < places.stop)).squeeze(-1)
        rows, ids = scored[here] - places.start, targets[here]
        found[0, here] = logs[rows, ids]
        if leads:
            found[1, here], found[2, here] = _leads(logs, rows, ids)
    return found.cpu().numpy()


def _leads(logs: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(s,) nats by which each id leads the likeliest other one of its row of logs (p, V), and 1 where it is the first
    of the likeliest.
    """
    best, places = logs.max(dim=-1)
    first = places[rows] == ids
    own = logs[rows, ids]
    lead = own - best[rows]
    ahead = torch.unique(rows[first])
    if len(ahead):  # what comes second matters only where the id itself comes first
        second = torch.empty_like(best)
        second[ahead] = logs[ahead].scatter_(1, places[ahead, None], -torch.inf).amax(dim=-1)
        lead = torch.where(first, own - second[rows], lead)
    return lead, first.float()
