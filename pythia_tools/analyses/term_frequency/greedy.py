"""Questions without an answer set: greedy decoding to the end of the line, then the answer rule.

Up to 16 new tokens, stopping at a newline token. Prompts of equal length share a batch, so nothing is ever padded, and
a row that cannot change its answer any more is dropped from the batch. Keys and values are cached between steps.
Cost: one pass over the prompt and one step per new token, most often two or three for arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.answers import check_rule, is_right, is_settled, read_answer
from pythia_tools.analyses.term_frequency.closed import PART_ITEMS
from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analyses.term_frequency.items import Item, check_items, encode
from pythia_tools.analysis import Context, Task
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError

MAX_NEW_TOKENS = 16
COLUMNS = ["item", "term", "correct", "chosen", "answer", "output"]


class GreedyTask(Task):
    """Items decoded greedily, as a sweep's task: one row per item.

    Columns: item, term, correct (nullable bool: <NA> where the model gave NaN), chosen (the answer read), answer (the
    first right one), output (the decoded text up to the stop).
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Any, *, name: str = "questions", rule: str = "digits",
        max_new_tokens: int = MAX_NEW_TOKENS, vocabulary: int | None = None,
    ):
        """`rule`: see `answers`. `vocabulary`: choose among the first so many ids only."""
        from pythia_tools.counts.vocabulary import load_tokenizer

        self.label, self.name = name, f"{NAME}/{name}"
        self.rule = check_rule(rule)
        self.backend = load_tokenizer(tokenizer)
        self.items = encode([_open(i) for i in check_items(items)], self.backend)
        self.stop = _newline(self.backend)
        self.max_new_tokens = max_new_tokens
        self.vocabulary = vocabulary
        questions = [(e.item.name, e.item.term, e.item.answers, e.prompt) for e in self.items]
        self.digest = files.digest([questions, rule, self.stop, max_new_tokens, vocabulary])
        self.parts = -(-len(self.items) // PART_ITEMS)
        self.ids = sum(len(e.prompt) + sum(map(len, e.candidates)) for e in self.items)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        items = self.items[part * PART_ITEMS:(part + 1) * PART_ITEMS]
        outputs: list[str | None] = [None] * len(items)
        for numbers in _equal_lengths(
            [len(e.prompt) for e in items], model, context.execution.batch_size, self.max_new_tokens
        ):
            rows = np.array([items[n].prompt for n in numbers])
            for n, text in zip(numbers, self._decode(model, rows), strict=True):
                outputs[n] = text
        judged = [self._judged(e.item, o) for e, o in zip(items, outputs, strict=True)]
        return pd.DataFrame(judged, columns=COLUMNS).astype({"correct": "boolean"})

    def _judged(self, item: Item, output: str | None) -> list[Any]:
        if output is None:
            return [item.name, item.term, None, None, item.answers[0], None]
        read = read_answer(output, self.rule)
        return [item.name, item.term, is_right(read, item.answers, self.rule), read, item.answers[0], output]

    def _decode(self, model: Any, rows: np.ndarray) -> list[str | None]:
        """Greedy texts of prompts (n, length); None where the logits were NaN."""
        return greedy_texts(
            model, rows, self.max_new_tokens, stop=self.stop, vocabulary=self.vocabulary,
            settled=lambda text: is_settled(text, self.rule),
            decode=lambda ids: self.backend.decode(ids, skip_special_tokens=True)
        )


def greedy_texts(
    model: Any, rows: np.ndarray, new: int, *, stop: int | None, vocabulary: int | None, settled: Any, decode: Any,
) -> list[str | None]:
    """The text decoded greedily after each prompt, prompts (n, length) of one length."""
    import torch

    from pythia_tools.models.score import vocabulary_size

    if rows.max() >= vocabulary_size(model):
        raise RequestError(f"token id {rows.max()} is not in the model's vocabulary of {vocabulary_size(model)}; is this its tokenizer?")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and rows.shape[1] + new > limit:
        raise RequestError(f"a prompt of {rows.shape[1]} tokens and {new} new ones exceed the model's context of {limit}; use fewer shots")
    made: list[list[int]] = [[] for _ in rows]
    failed: set[int] = set()
    live = np.arange(len(rows))
    step = torch.from_numpy(rows.astype(np.int64)).to(next(model.parameters()).device)
    cache: Any = None
    with torch.no_grad():
        for _ in range(new):
            logits, cache = _next_logits(model, step, cache)
            logits = logits[:, :vocabulary].float()
            chosen = logits.argmax(1)
            good = torch.isfinite(logits).all(1).cpu().numpy()
            tokens = chosen.cpu().numpy()
            goes_on = []
            for place, (n, token) in enumerate(zip(live, tokens, strict=True)):
                if not good[place]:
                    failed.add(int(n))
                    continue
                if token == stop:
                    continue
                made[n].append(int(token))
                if not settled(decode(made[n])):
                    goes_on.append(place)
            if not goes_on:
                break
            if len(goes_on) < len(live):
                keep = torch.tensor(goes_on, device=chosen.device)
                cache.batch_select_indices(keep)
                chosen = chosen[keep]
                live = live[goes_on]
            step = chosen[:, None]
    return [None if n in failed else decode(made[n]).split("\n")[0] for n in range(len(rows))]


def _next_logits(model: Any, ids: Any, cache: Any) -> tuple[Any, Any]:
    """(n, vocabulary) logits after the last of ids (n, k), and the cache that holds all that was read."""
    from pythia_tools.models.score import has_plain_head

    if has_plain_head(model):
        found = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return model.get_output_embeddings()(found.last_hidden_state[:, -1].contiguous()), found.past_key_values
    found = model(input_ids=ids, past_key_values=cache, use_cache=True)
    return found.logits[:, -1], found.past_key_values


def _equal_lengths(lengths: Sequence[int], model: Any, batch_size: int | None, new: int) -> Iterator[list[int]]:
    from pythia_tools.models.score import automatic_batch_size

    for length in sorted(set(lengths), reverse=True):
        same = [n for n, size in enumerate(lengths) if size == length]
        size = batch_size or automatic_batch_size(model, length + new)
        yield from (same[a:a + size] for a in range(0, len(same), size))


def _newline(backend: Any) -> int | None:
    """The id that is exactly a newline (187 in GPT-NeoX), or None: then only the text's own newlines stop."""
    ids = backend.encode("\n", add_special_tokens=False).ids
    return int(ids[0]) if len(ids) == 1 else None


def _open(item: Item) -> Item:
    return Item(item.prompt, item.answers, item.term, item.name)
