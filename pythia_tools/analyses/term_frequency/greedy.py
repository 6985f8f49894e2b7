"""Questions without an answer set: greedy decoding to the end of the line, then the answer rule.

Up to 16 new tokens, stopping at a newline token. Prompts of equal length share a batch, so nothing is ever padded, and
a row that cannot change its answer any more is dropped from the batch. Keys and values are cached between steps.
Cost: one pass over the prompt and one step per new token, most often two or three for arithmetic.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from torch import nn

from pythia_tools.analyses.term_frequency.answers import check_rule, is_right, is_settled, read_answer
from pythia_tools.analyses.term_frequency.closed import PART_ITEMS
from pythia_tools.analyses.term_frequency.columns import NAME
from pythia_tools.analyses.term_frequency.items import Item, check_items, encode
from pythia_tools.analysis import Context, Task
from pythia_tools.core import files
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.tokens import Openable, Tokenizer, open_tokenizer

MAX_NEW_TOKENS = 16
COLUMNS = ["item", "term", "correct", "chosen", "answer", "output"]


class GreedyTask(Task):
    """Items decoded greedily, as a sweep's task: one row per item.

    Columns: item, term, correct (nullable bool: <NA> where the model gave NaN), chosen (the answer read), answer (the
    first right one), output (the decoded text up to the stop).
    """

    def __init__(
        self, items: Sequence[Item], tokenizer: Openable, *, name: str = "questions", rule: str = "digits",
        max_new_tokens: int = MAX_NEW_TOKENS, vocabulary: int | None = None,
    ):
        """`rule`: see `answers`. `vocabulary`: choose among the first so many ids only."""
        self.label, self.name = name, f"{NAME}/{name}"
        self.rule = check_rule(rule)
        self.tokenizer = open_tokenizer(tokenizer)
        self.items = encode([replace(i, candidates=()) for i in check_items(items)], self.tokenizer)
        self.stop = _newline(self.tokenizer)
        self.max_new_tokens = max_new_tokens
        self.vocabulary = vocabulary
        questions = [(e.item.name, e.item.term, e.item.answers, e.prompt) for e in self.items]
        self.digest = files.digest([questions, rule, self.stop, max_new_tokens, vocabulary])
        self.parts = -(-len(self.items) // PART_ITEMS)
        self.ids = sum(len(e.prompt) for e in self.items)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        items = self.items[part * PART_ITEMS:(part + 1) * PART_ITEMS]
        made = greedy(
            model, [e.prompt for e in items], self.max_new_tokens, vocabulary=self.vocabulary,
            batch_size=context.execution.batch_size, done=self._done,
        )
        outputs = [None if LOST in ids else self._text(ids).split("\n")[0] for ids in made]
        judged = [self._judged(e.item, o) for e, o in zip(items, outputs, strict=True)]
        return pd.DataFrame(judged, columns=COLUMNS).astype({"correct": "boolean"})

    def _text(self, ids: list[int]) -> str:
        ended = ids[:-1] if ids[-1] == self.stop else ids
        return str(self.tokenizer.engine.decode(ended, skip_special_tokens=True))

    def _done(self, ids: list[int]) -> bool:
        return ids[-1] == self.stop or is_settled(self._text(ids), self.rule)

    def _judged(self, item: Item, output: str | None) -> list[object]:
        if output is None:
            return [item.name, item.term, None, None, item.answers[0], None]
        read = read_answer(output, self.rule)
        return [item.name, item.term, is_right(read, item.answers, self.rule), read, item.answers[0], output]


def _newline(tokenizer: Tokenizer) -> int | None:
    """The id that is exactly a newline (187 in GPT-NeoX), or None: then only the text's own newlines stop."""
    ids = tokenizer.encode("\n")
    return ids[0] if len(ids) == 1 else None
