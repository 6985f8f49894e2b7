"""Questions without an answer set: greedy decoding to the end of the line, then the answer rule.

Up to 16 new tokens, stopping at a newline token. Prompts of equal length share a batch, so nothing is ever padded, and
a row that cannot change its answer any more is dropped from the batch. Keys and values are cached between steps.
Cost: one pass over the prompt and one step per new token, most often two or three for arithmetic.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.answers import RULES, is_right, is_settled, read_answer
from pythia_tools.analyses.term_frequency.items import Item, TermTask
from pythia_tools.analysis import Context
from pythia_tools.core import files
from pythia_tools.core.errors import unknown
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.tokens import Openable

MAX_NEW_TOKENS = 16


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
        if rule not in RULES:
            raise unknown("answer rule", rule, RULES)
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
