"""Questions whose answer set is known: one forward pass scores every candidate.

The score of a candidate is the sum of its tokens' log-probabilities after the prompt, in nats; the highest is chosen
(the first of equals). Candidates share their prompt's pass, and prompts what they begin with (`models.continuations`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analyses.term_frequency.items import Encoded, Item, check_items, encode
from pythia_tools.analysis import Context, Task
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Request, Scorer
from pythia_tools.models.score import max_positions
from pythia_tools.tokens import Openable

PART_ITEMS = 512
COLUMNS = ["item", "term", "correct", "chosen", "answer", "logprob", "margin"]


class ClosedTask(Task):
    """Items with candidates, as a sweep's task: one row per item.

    Columns: item, term, correct (nullable bool: <NA> where the model gave NaN), chosen (the candidate), answer,
    logprob (of the answer, nats), margin (logprob minus that of the best wrong candidate).
    """

    version = 2

    def __init__(
        self, items: Sequence[Item], tokenizer: Openable, *, name: str = "questions", vocabulary: int | None = None
    ):
        """`vocabulary`: softmax over the first so many ids only (those the tokenizer has; larger models pad more)."""
        self.label, self.name = name, f"{NAME}/{name}"
        self.items = encode(check_items(items), tokenizer)
        for e in self.items:
            if len(e.candidates) < 2:
                raise RequestError(
                    f"item {e.item.name!r} has {len(e.candidates)} candidates; a closed set needs two or more, "
                    "or decode greedily"
                )
        questions = [
            (e.item.name, e.item.term, e.item.answers, e.prompt, e.item.candidates, e.candidates) for e in self.items
        ]
        self.digest = files.digest([questions, vocabulary])
        self.ids = sum(len(e.prompt) + sum(map(len, e.candidates)) for e in self.items)
        self._longest = max(len(e.prompt) + len(c) - 1 for e in self.items for c in e.candidates)
        self._scorers = []
        for start in range(0, len(self.items), PART_ITEMS):
            requests = [Request(e.prompt, c) for e in self._part(start) for c in e.candidates]
            self._scorers.append(Scorer(requests, vocabulary=vocabulary))
        self.parts = len(self._scorers)

    def _part(self, start: int) -> list[Encoded]:
        return self.items[start:start + PART_ITEMS]

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        if self._longest > max_positions(model):
            raise RequestError(
                f"a prompt with its answer has {self._longest} tokens, the model's context is {max_positions(model)}; "
                "use fewer shots"
            )
        items, scorer = self._part(part * PART_ITEMS), self._scorers[part]
        scorer.batch_size = context.execution.batch_size
        ends = np.cumsum([len(e.candidates) for e in items])
        scores = np.split(scorer(model).total, ends[:-1])
        judged = [_judged(e, s) for e, s in zip(items, scores, strict=True)]
        return pd.DataFrame(judged, columns=COLUMNS).astype({"correct": "boolean"})


def _judged(encoded: Encoded, scores: np.ndarray) -> list[object]:
    item = encoded.item
    right = item.candidates.index(item.answers[0])
    if not np.isfinite(scores).all():
        return [item.name, item.term, None, None, item.answers[0], np.nan, np.nan]
    chosen = int(scores.argmax())
    margin = float(scores[right] - np.delete(scores, right).max())
    named = [item.name, item.term, chosen == right, item.candidates[chosen], item.answers[0]]
    return [*named, float(scores[right]), margin]
