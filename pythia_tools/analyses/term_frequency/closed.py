"""Questions whose answer set is known: one forward pass scores every candidate.

The score of a candidate is the sum of its tokens' log-probabilities after the prompt, in nats; the highest is chosen
(the first of equals). Candidates share their passes: one per question when all are single tokens, else one for each
different beginning (all tokens but the last). Prompts are batched by length, the short ones filled up at the right,
which causal attention never sees from the left. Softmax arithmetic is float32 whatever the model's format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analyses.term_frequency.items import Encoded, Item, check_items, encode
from pythia_tools.analysis import Context, Task
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError

PART_ITEMS = 512
COLUMNS = ["item", "term", "correct", "chosen", "answer", "logprob", "margin"]


class ClosedTask(Task):
    """Items with candidates, as a sweep's task: one row per item.

    Columns: item, term, correct (nullable bool: <NA> where the model gave NaN), chosen (the candidate), answer,
    logprob (of the answer, nats), margin (logprob minus that of the best wrong candidate).
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Any, *, name: str = "questions",
        vocabulary: int | None = None,
    ):
        """`vocabulary`: softmax over the first so many ids only (those the tokenizer has; larger models pad more)."""
        self.label, self.name = name, f"{NAME}/{name}"
        self.items = encode(check_items(items), tokenizer)
        for e in self.items:
            if len(e.candidates) < 2:
                number = len(e.candidates)
                raise RequestError(
                    f"item {e.item.name!r} has {number} candidates; a closed set needs two or more, or decode greedily"
                )
        self.vocabulary = vocabulary
        asked = [
            (e.item.name, e.item.term, e.item.answers, e.prompt, e.item.candidates, e.candidates) for e in self.items
        ]
        self.digest = files.digest([asked, vocabulary])
        self.parts = -(-len(self.items) // PART_ITEMS)
        self.ids = sum(len(e.prompt) + sum(map(len, e.candidates)) for e in self.items)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        items = self.items[part * PART_ITEMS:(part + 1) * PART_ITEMS]
        scores = candidate_scores(model, items, batch_size=context.execution.batch_size, vocabulary=self.vocabulary)
        return pd.DataFrame(
            [_judged(e, s) for e, s in zip(items, scores, strict=True)], columns=COLUMNS
        ).astype({"correct": "boolean"})


def candidate_scores(
    model: Any, items: Sequence[Encoded], *, batch_size: int | None = None, vocabulary: int | None = None,
) -> list[np.ndarray]:
    """Per item (candidates,) float64: log-probability of each candidate after the prompt, in nats; NaN where the logits
    are.
    """
    passes = [(n, begin) for n, e in enumerate(items) for begin in _beginnings(e.candidates)]
    scores = [np.full(len(e.candidates), np.nan) for e in items]
    for batch in batches_by_length([len(items[n].prompt) + len(begin) for n, begin in passes], model, batch_size):
        _score_batch(model, items, [passes[p] for p in batch], scores, vocabulary)
    return scores


def batches_by_length(lengths: Sequence[int], model: Any, batch_size: int | None) -> Iterator[list[int]]:
    """Numbers of rows that go through together, the longest first, so that memory is tried at once."""
    from pythia_tools.models.scores import automatic_batch_size

    order = sorted(range(len(lengths)), key=lambda r: -lengths[r])
    start = 0
    while start < len(order):
        size = batch_size or automatic_batch_size(model, lengths[order[start]])
        yield order[start:start + size]
        start += size


def _beginnings(candidates: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The fewest beginnings (all but the last token) whose passes score every candidate: those that begin no other."""
    heads = sorted({c[:-1] for c in candidates})
    return [h for i, h in enumerate(heads) if i + 1 == len(heads) or heads[i + 1][:len(h)] != h]


def _score_batch(
    model: Any, items: Sequence[Encoded], passes: Sequence[tuple[int, tuple[int, ...]]], scores: list[np.ndarray],
    vocabulary: int | None
) -> None:
    rows = [items[n].prompt + begin for n, begin in passes]
    places = [(r, len(items[n].prompt) - 1 + k) for r, (n, begin) in enumerate(passes) for k in range(len(begin) + 1)]
    wanted: list[tuple[int, int]] = []  # (place, token) of every log-probability that is needed
    uses: list[tuple[int, int, list[int]]] = []  # (item, candidate, indexes into wanted)
    first_place = 0
    done: set[tuple[int, int]] = set()
    for n, begin in passes:
        for c, candidate in enumerate(items[n].candidates):
            if candidate[:-1] == begin[:len(candidate) - 1] and (n, c) not in done:
                done.add((n, c))
                uses.append((n, c, list(range(len(wanted), len(wanted) + len(candidate)))))
                wanted.extend((first_place + k, token) for k, token in enumerate(candidate))
        first_place += len(begin) + 1
    found = token_logprobs(model, rows, places, wanted, vocabulary)
    for n, c, indexes in uses:
        scores[n][c] = found[indexes].sum()


def token_logprobs(
    model: Any, rows: Sequence[tuple[int, ...]], places: Sequence[tuple[int, int]], wanted: Sequence[tuple[int, int]],
    vocabulary: int | None = None,
) -> np.ndarray:
    """(len(wanted),) float64 log-probabilities: `places` are (row, position), `wanted` (number of the place, token
    after it).
    """
    import torch

    from pythia_tools.models.scores import LOGIT_BYTES

    place = torch.tensor([p for p, _ in wanted])
    token = torch.tensor([t for _, t in wanted])
    found = torch.empty(len(wanted), dtype=torch.float64)
    with torch.no_grad():
        states, head = states_at(model, rows, places)
        step = max(1, LOGIT_BYTES // (4 * states.shape[-1] if head is None else 4 * head.weight.shape[0]))
        for a in range(0, len(states), step):
            logits = (states[a:a + step] if head is None else head(states[a:a + step])).float()[:, :vocabulary]
            here = (place >= a) & (place < a + step)
            if here.any() and int(token[here].max()) >= logits.shape[1]:
                highest = int(token[here].max())
                raise RequestError(
                    f"token id {highest} is not in the vocabulary of {logits.shape[1]}; is this its tokenizer?"
                )
            logprobs = logits - torch.logsumexp(logits, 1, keepdim=True)
            found[here] = logprobs[(place[here] - a).to(logits.device), token[here].to(logits.device)].double().cpu()
    return found.numpy()


def states_at(model: Any, rows: Sequence[tuple[int, ...]], places: Sequence[tuple[int, int]]) -> tuple[Any, Any]:
    """(places, width) last states and the head that makes logits of them, or (places, vocabulary) logits and None."""
    import torch

    from pythia_tools.models.scores import has_plain_head, vocabulary_size

    highest = max(map(max, rows))
    if highest >= vocabulary_size(model):
        raise RequestError(
            f"token id {highest} is not in the model's vocabulary of {vocabulary_size(model)}; is this its tokenizer?"
        )
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(map(len, rows))
    if limit is not None and longest > limit:
        raise RequestError(
            f"a prompt with its answer has {longest} tokens, the model's context is {limit}; use fewer shots"
        )
    device = next(model.parameters()).device
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    for r, row in enumerate(rows):
        ids[r, :len(row)] = torch.tensor(row)
    index = torch.tensor(places, device=device)
    if has_plain_head(model):
        hidden = model.base_model(input_ids=ids.to(device), use_cache=False)[0]
        return hidden[index[:, 0], index[:, 1]].contiguous(), model.get_output_embeddings()
    logits = model(input_ids=ids.to(device), use_cache=False).logits
    return logits[index[:, 0], index[:, 1]], None


def _judged(encoded: Encoded, scores: np.ndarray) -> list[Any]:
    item = encoded.item
    right = item.candidates.index(item.answers[0])
    if not np.isfinite(scores).all():
        return [item.name, item.term, None, None, item.answers[0], np.nan, np.nan]
    chosen = int(scores.argmax())
    margin = float(scores[right] - np.delete(scores, right).max())
    return [
        item.name, item.term, chosen == right, item.candidates[chosen], item.answers[0], float(scores[right]), margin
    ]
