"""Log-probabilities of continuations under a live model: planned once, run on every checkpoint.

Requests that need the same forward pass share it, and texts that begin alike share their beginning (see `packing`); rows
are sorted by length, so that little is padding; the head is applied at the positions that are asked for and nowhere else.
The plan (ids, positions, targets, as tensors) is made once for all checkpoints.
Cost per checkpoint: one forward pass over the distinct beginnings and endings, one row of logits per distinct beginning before a scored id.
Softmax arithmetic is float32 whatever the model's format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pythia_tools.analyses.bias.packing import Row, mask_type, rows_of, tree_mask
from pythia_tools.analyses.bias.texts import Request
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.models.scores import automatic_batch_size, has_plain_head, vocabulary_size

LOGIT_BYTES = 64 << 20


class Loglikelihoods(NamedTuple):
    """Per request: `total` (n,) float64 nats, `tokens` list of float32 arrays, `cut` (n,) ids lost from the left.

    A request has NaN where its logits held NaN or +Inf, and where its continuation is longer than the model's positions.
    """

    total: np.ndarray
    tokens: list[np.ndarray]
    cut: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """ids (b, T) right-padded; positions (p,) into the flattened hidden states; scored (s,) into positions; targets (s,).

    `order` (b, T) position ids and `ends` (b, T) of rows that hold several texts; None where each row is one text.
    """

    ids: torch.Tensor
    order: torch.Tensor | None
    ends: torch.Tensor | None
    positions: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor


def judged(holds: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(n,) outcomes: 1.0 where it holds, 0.0 where it does not, NaN where the item could not be scored."""
    return np.where(scored, np.asarray(holds, dtype=float), np.nan)


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
        for chosen in (*_batches([r for r in rows if r.packed], batch_size), *_batches([r for r in rows if not r.packed], batch_size)):
            self._add(chosen, inputs, requests)
        self.order = np.array(self._order, dtype=np.int64)

    def _check_lengths(self, most: int) -> None:
        """What does not fit is left out and said; lm-eval stops at the first such text."""
        self.fits = self.lengths <= most
        lost = self.n - int(self.fits.sum())
        if lost and lost == self.n:
            raise RequestError(f"every text ({int(self.lengths.min())} ids and more) is longer than the model's {most} positions")
        if lost:
            progress.warn(f"{lost} of {self.n} texts are longer than the model's {most} positions; their items are left out")

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
    """Requests, ready to be scored on any number of models; plans are kept per length limit and batch size."""

    def __init__(self, requests: Sequence[Request], *, batch_size: int | None = None):
        self.requests = list(requests)
        self.batch_size = batch_size
        self.digest = digest([[list(r.context), list(r.continuation)] for r in self.requests])
        self._plans: dict[tuple[int, int, int | None], Plan] = {}

    def plan(self, model: Any) -> Plan:
        limit = int(getattr(model.config, "max_position_embeddings", 1 << 30))
        longest = max((len(r.context) + len(r.continuation) for r in self.requests), default=1)
        size = self.batch_size or automatic_batch_size(model, min(longest, limit))
        pack = int(getattr(model.config, "hidden_size", 512)) if mask_type(model) is not None else None
        key = (limit, size, pack)
        if key not in self._plans:
            self._plans[key] = Plan(self.requests, limit, size, pack=pack)
        return self._plans[key]

    def __call__(self, model: Any) -> Loglikelihoods:
        """Score every request under a live model. Raises RequestError for ids the model does not have."""
        plan = self.plan(model)
        self._check_ids(model)
        values = np.full(int(plan.offsets[-1]), np.nan, dtype=np.float32)
        done = 0
        for batch in plan.batches:
            log_probability = _score(model, batch)
            values[plan.order[done : done + len(log_probability)]] = log_probability
            done += len(log_probability)
        return _collect(plan, values)

    def _check_ids(self, model: Any) -> None:
        top = max((max(*r.context, *r.continuation) for r in self.requests), default=0)
        size = vocabulary_size(model)
        if top >= size:
            raise RequestError(f"a text holds token id {top}, the model has ids 0 to {size - 1}; is this the model's own tokenizer?")


def _collect(plan: Plan, values: np.ndarray) -> Loglikelihoods:
    starts = plan.offsets[:-1]
    total = np.add.reduceat(values.astype(np.float64), starts) if plan.n else np.zeros(0)
    return Loglikelihoods(total, np.split(values, starts[1:]) if plan.n else [], plan.cut)


@torch.no_grad()
def _score(model: Any, batch: _Batch) -> np.ndarray:
    """(s,) log-probabilities of the batch's targets."""
    device = next(model.parameters()).device
    logits_of = _positions(model, batch, device)
    targets, scored = batch.targets.to(device), batch.scored.to(device)
    found = torch.empty(len(targets), device=device)
    step = max(1, LOGIT_BYTES // (4 * vocabulary_size(model)))
    for start in range(0, len(batch.positions), step):
        logs = torch.log_softmax(logits_of(start, start + step).float(), dim=-1)
        here = torch.nonzero((scored >= start) & (scored < start + step)).squeeze(-1)
        found[here] = logs[scored[here] - start, targets[here]]
    return found.cpu().numpy()


def _positions(model: Any, batch: _Batch, device: torch.device) -> Callable[[int, int], torch.Tensor]:
    """A function (start, stop) → logits of these of the batch's positions."""
    ids = batch.ids.to(device)
    wanted = batch.positions.to(device)
    tree: dict[str, Any] = {}
    kind = mask_type(model)
    if batch.order is not None and batch.ends is not None and kind is not None:
        tree = {"position_ids": batch.order.to(device), "attention_mask": tree_mask(batch.ends.to(device), kind)}
    if has_plain_head(model):
        hidden = model.base_model(input_ids=ids, use_cache=False, **tree)[0]
        hidden = hidden.reshape(-1, hidden.shape[-1])[wanted]
        head = model.get_output_embeddings()
        return lambda start, stop: head(hidden[start:stop])
    logits = model(input_ids=ids, use_cache=False, **tree).logits
    logits = logits.reshape(-1, logits.shape[-1])[wanted]
    return lambda start, stop: logits[start:stop]
