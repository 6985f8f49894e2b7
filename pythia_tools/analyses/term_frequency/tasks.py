"""Items as tasks: chosen among the candidates of a closed answer set, or decoded greedily where there is none.

Closed: one forward pass scores every candidate. The score is the sum of its tokens' log-probabilities after the prompt,
in nats; the highest is chosen (the first of equals). Candidates share their prompt's pass, and prompts what they begin
with (`models.continuations`).

Greedy: up to 16 new tokens to the end of the line, then the answer rule. Prompts of equal length share a batch, so
nothing is ever padded, and a row that cannot change its answer any more is dropped from the batch. Keys and values are
cached between steps. Cost: one pass over the prompt and one step per new token, most often two or three for arithmetic.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.answers import is_right, is_settled, read_answer
from pythia_tools.analyses.term_frequency.items import Encoded, Item, TermTask
from pythia_tools.analysis import Context
from pythia_tools.core import files
from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Request, Scorer
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.models.score import max_positions
from pythia_tools.tokens import Openable

MAX_NEW_TOKENS = 16


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


class GreedyTask(TermTask):
    """Items decoded greedily, as a sweep's task; `chosen` is the answer read. Its own column: output (the decoded text
    up to the stop). `rule`: see `answers`. `vocabulary`: choose among the first so many ids only.
    """

    version = 3
    own = ("output",)

    def __init__(
        self, items: Sequence[Item], tokenizer: Openable, *, name: str = "questions", rule: str = "digits",
        vocabulary: int | None = None,
    ):
        super().__init__([replace(i, candidates=()) for i in items], tokenizer, name, vocabulary)
        self.rule = rule
        newline = self.tokenizer.encode("\n")  # 187 in GPT-NeoX; where it is no id of its own, only the text stops
        self.stop = newline[0] if len(newline) == 1 else None
        questions = [(e.item.name, e.item.term, e.item.answers, e.prompt) for e in self.items]
        self.digest = files.digest([questions, rule, self.stop, MAX_NEW_TOKENS, vocabulary])
        self.ids = sum(len(e.prompt) for e in self.items)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        items = self.part(part)
        made = greedy(
            model, [e.prompt for e in items], MAX_NEW_TOKENS, vocabulary=self.vocabulary,
            batch_size=context.execution.batch_size, done=self._done,
        )
        return self.table(items, [self._judged(e.item, ids) for e, ids in zip(items, made, strict=True)])

    def _text(self, ids: list[int]) -> str:
        ended = ids[:-1] if ids[-1] == self.stop else ids
        return str(self.tokenizer.engine.decode(ended, skip_special_tokens=True))

    def _done(self, ids: list[int]) -> bool:
        return ids[-1] == self.stop or is_settled(self._text(ids), self.rule)

    def _judged(self, item: Item, ids: list[int]) -> tuple[object, ...]:
        if LOST in ids:
            return None, None, None
        output = self._text(ids).split("\n")[0]
        read = read_answer(output, self.rule)
        return is_right(read, item.answers, self.rule), read, output
