"""Questions whose answer set is known: one forward pass scores every candidate.

The score of a candidate is the sum of its tokens' log-probabilities after the prompt, in nats; the highest is chosen
(the first of equals). Candidates share their prompt's pass, and prompts what they begin with (`models.continuations`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.items import Encoded, Item, TermTask
from pythia_tools.analysis import Context
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Request, Scorer
from pythia_tools.models.score import max_positions
from pythia_tools.tokens import Openable


class ClosedTask(TermTask):
    """Items with candidates, as a sweep's task. `vocabulary`: softmax over the first so many ids only.

    Its own columns: logprob (of the answer, nats), margin (logprob minus that of the best wrong candidate).
    """

    version = 4
    own = ("logprob", "margin")

    def __init__(
        self, items: Sequence[Item], tokenizer: Openable, *, name: str = "questions", vocabulary: int | None = None
    ):
        super().__init__(items, tokenizer, name, vocabulary)
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
        requests = [[Request(e.prompt, c) for e in self.part(p) for c in e.candidates] for p in range(self.parts)]
        self._scorers = [Scorer(r, vocabulary=vocabulary) for r in requests]

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        if self._longest > max_positions(model):
            raise RequestError(
                f"a prompt with its answer has {self._longest} tokens, the model's context is {max_positions(model)}; "
                "use fewer shots"
            )
        items, scorer = self.part(part), self._scorers[part]
        scorer.batch_size = context.execution.batch_size
        ends = np.cumsum([len(e.candidates) for e in items])
        scores = np.split(scorer(model).total, ends[:-1])
        return self.table(items, list(map(_judged, items, scores)))


def _judged(encoded: Encoded, scores: np.ndarray) -> tuple[object, ...]:
    """Whether the choice is right, the choice, and the answer's log-probability and margin."""
    item = encoded.item
    right = item.candidates.index(item.answers[0])
    if not np.isfinite(scores).all():
        return None, None, np.nan, np.nan
    chosen = int(scores.argmax())
    margin = float(scores[right] - np.delete(scores, right).max())
    return chosen == right, item.candidates[chosen], float(scores[right]), margin
