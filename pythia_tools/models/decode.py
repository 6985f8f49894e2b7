"""Greedy decoding, and its shortcut: whether a known continuation is what greedy decoding would give, in one pass.

A `Decoder` is fed ids and keeps their keys and values; it returns verdicts, never the logits of a whole vocabulary for
all positions. Fed a true continuation, it verifies all its positions at once; fed its own best ids, it decodes.
Nothing is suppressed, ties are won by the first id, prompts are never padded.
Cost: the forward pass over the new tokens; memory: the cache of one batch.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from pythia_tools.core.errors import RequestError
from pythia_tools.models import bounded, score
from pythia_tools.models.devices import inference_mode
from pythia_tools.models.head import Verdict, judge, judge_logits


class Decoder:
    """A causal language model with the keys and values of one batch of rows of equal length.

    `vocabulary`: only ids below it compete (None: all of the unembedding's, as `generate` does).
    """

    def __init__(self, model: nn.Module, vocabulary: int | None = None):
        self.model: Any = model
        self.vocabulary = min(vocabulary or 1 << 62, score.vocabulary_size(model))
        self.device = score.device_of(model)
        self.start()

    def start(self) -> None:
        """Forget all rows; the next ids begin a new batch."""
        self._cache: Any = None
        self._begun = False

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with the rows at these places only."""
        if self._cache is not None:
            self._cache.batch_select_indices(rows)

    def feed(self, ids: torch.Tensor, truth: torch.Tensor) -> Verdict:
        """Verdict (n, p) on the true ids (n, p) that come after the last p of the ids (n, t), which follow those
        before.
        """
        if self._begun and self._cache is None:
            raise RequestError(f"{type(self.model).__name__} keeps no keys and values, so it is not decoded here")
        last = truth.shape[1]
        inputs = {"input_ids": ids, "past_key_values": self._cache, "use_cache": True}
        if score.has_plain_head(self.model):
            out = self.model.base_model(**inputs)
            hidden = out.last_hidden_state[:, -last:]
            verdict = self._judge(hidden.reshape(-1, hidden.shape[-1]).contiguous(), truth.reshape(-1))
        else:
            out = self.model(**inputs, logits_to_keep=last)
            logits = out.logits[:, -last:, : self.vocabulary].reshape(-1, self.vocabulary).contiguous()
            verdict = judge_logits(logits, truth.reshape(-1))
        self._cache, self._begun = getattr(out, "past_key_values", None), True
        return verdict.reshape(*truth.shape)

    def _judge(self, hidden: torch.Tensor, truth: torch.Tensor) -> Verdict:
        weight, bias = self._head
        if len(hidden) >= bounded.FEWEST and self._bounded is not None:
            return self._bounded.judge(hidden, truth)
        return judge(hidden, weight, truth, bias)

    @cached_property
    def _head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return head.weight.detach()[: self.vocabulary], None if bias is None else bias.detach()[: self.vocabulary]

    @cached_property
    def _bounded(self) -> bounded.BoundedHead | None:
        """The faster float32 head of some processors (see `bounded`, which nothing but this line and `_judge` needs).
        """
        weight, bias = self._head
        return bounded.BoundedHead(weight) if bounded.helps(weight, bias) else None


LOST = -1
"""Stands where no id can be decoded, because the logits are no numbers; nothing follows it."""


@inference_mode
def greedy(
    model: nn.Module, prompts: Sequence[Sequence[int]] | np.ndarray, new: int, *, vocabulary: int | None = None,
    batch_size: int | None = None, done: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """The next ids of each prompt by repeated argmax, at most `new`; LOST where the logits are no numbers.

    Prompts of equal length share a batch. `done` is asked after each id whether the ids decoded so far suffice: such a
    row leaves its batch. Raises: RequestError for ids the model does not have, or more positions than it has.
    """
    made: list[list[int]] = [[] for _ in prompts]
    lengths = np.array([len(p) for p in prompts], dtype=np.int64)
    if not len(lengths) or not new:
        return made
    score.check_ids(model, 0, max(max(p) for p in prompts))
    limit = score.max_positions(model)
    if lengths.max() + new - 1 > limit:
        raise RequestError(
            f"a prompt of {lengths.max()} tokens and {new} new ones exceed the model's context of {limit}; "
            "use shorter prompts (fewer shots) or fewer new tokens"
        )
    decoder = Decoder(model, vocabulary)
    for length in np.unique(lengths)[::-1]:  # the longest first, so that memory is tried at once
        same = np.flatnonzero(lengths == length)

        def batch(here: slice, same: np.ndarray = same) -> None:
            live = same[here]
            for row in live:
                made[row].clear()
            ids = np.array([prompts[row] for row in live], dtype=np.int64)
            _decode(decoder, live, torch.from_numpy(ids), made, new, done)

        score.in_batches(len(same), batch_size or score.automatic_batch_size(model, int(length) + new), batch)
    return made


def _decode(
    decoder: Decoder, live: np.ndarray, ids: torch.Tensor, made: list[list[int]], new: int,
    done: Callable[[list[int]], bool] | None,
) -> None:
    decoder.start()
    ids = ids.to(decoder.device)
    for step in range(new):
        verdict = decoder.feed(ids, torch.zeros((len(ids), 1), dtype=torch.long, device=decoder.device))
        ids = verdict.best
        found = torch.where(verdict.finite, ids, LOST)[:, 0].tolist()
        for row, token in zip(live, found, strict=True):
            made[row].append(token)
        going_on = [k for k, (row, token) in enumerate(zip(live, found, strict=True))
                    if token != LOST and not (done is not None and done(made[row]))]
        if not going_on or step + 1 == new:
            return
        if len(going_on) < len(live):
            rows = torch.tensor(going_on, device=decoder.device)
            decoder.keep(rows)
            live, ids = live[going_on], ids[rows]
