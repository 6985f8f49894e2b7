"""What the measures have in common: texts scored in parts by log-likelihood, items out of the scores; held-out loss.

Texts become ids by the rules of EleutherAI's lm-evaluation-harness, so that scores can be compared: spaces at the end
of a context belong to the continuation; context and continuation are encoded together and cut at the context's length;
an empty context is the beginning-of-text id.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.columns import NAME
from pythia_tools.analysis import Context, ScoreTask, Task
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.models.continuations import Loglikelihoods, Request, Scorer
from pythia_tools.tokens import Openable, open_tokenizer

PART_ITEMS = 512


class Encoder:
    """A tokenizer, and the id that stands for an empty context: its beginning-of-text id, else its end-of-text id."""

    def __init__(self, tokenizer: Openable):
        self.tokenizer = open_tokenizer(tokenizer)
        prefix = self.tokenizer.beginning
        if prefix is None:
            raise RequestError("this tokenizer has no beginning- or end-of-text token to begin with; give another")
        self.prefix = prefix

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """One Request per (context, continuation). Raises RequestError for an empty continuation."""
        moved = [_move_spaces(context, continuation) for context, continuation in pairs]
        whole = self.tokenizer.ids([a + b for a, b in moved])
        contexts = self.tokenizer.ids([a for a, _ in moved])
        return [self._request(a, w, c) for (a, _), w, c in zip(moved, whole, contexts, strict=True)]

    def _request(self, text: str, whole: list[int], context: list[int]) -> Request:
        if not text:
            begun = whole[:1] == [self.prefix]
            context, whole = (whole[:1], whole) if begun else ([self.prefix], [self.prefix, *whole])
        request = Request(tuple(context), tuple(whole[len(context) :]))
        if not request.continuation:
            raise RequestError(f"nothing to score after {text[-60:]!r}: the continuation is empty")
        return request


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    if not kept:
        return ("", context + continuation) if not context else (context, continuation)
    return kept, context[len(kept) :] + continuation


class Measure(Task):
    """A measure as a sweep's task. Subclasses give each item's texts, and its columns from their log-likelihoods.

    texts: (context, continuation) pairs per item, as many for each. more: what else the item table depends on.
    """

    measure: ClassVar[str]

    def __init__(self, tokenizer: Openable, texts: Sequence[Sequence[tuple[str, str]]], more: object = None):
        self.name = f"{NAME}/{self.measure}"
        requests = Encoder(tokenizer).requests([pair for item in texts for pair in item])
        self.each = len(requests) // max(1, len(texts))
        self.parts = -(-len(texts) // PART_ITEMS)
        step = PART_ITEMS * self.each
        self._scorers = [Scorer(requests[step * p : step * (p + 1)]) for p in range(self.parts)]
        self.ids = sum(len(r.context) + len(r.continuation) for r in requests)
        self.digest = digest([self.measure, [s.digest for s in self._scorers], more])

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        scorer = self._scorers[part]
        scorer.batch_size = context.execution.batch_size
        found = scorer(model)
        first = part * PART_ITEMS
        items = slice(first, first + len(found.total) // self.each)
        return pd.DataFrame({"task": self.measure, **self.columns(items, found.total.reshape(-1, self.each), found)})

    @abstractmethod
    def columns(self, items: slice, totals: np.ndarray, found: Loglikelihoods) -> Mapping[str, object]:
        """Columns subset, item, score, outcome, kept and the measure's own, of these items.

        totals: (n, k) log-likelihoods of their texts; found: the same as they were scored, with those of each id.
        """


def margin(totals: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) log-likelihood of the best right choice minus that of the best other one, by (n, k) totals and flags."""
    return np.where(right, totals, -np.inf).max(axis=1) - np.where(right, -np.inf, totals).max(axis=1)


def judged(holds: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(n,) outcomes: 1.0 where it holds, 0.0 where it does not, NaN where the item could not be scored."""
    return np.where(scored, np.asarray(holds, dtype=float), np.nan)


class HeldoutLoss(ScoreTask):
    """Mean loss of each of (n, L + 1) held-out rows as items: `score`, in nats per token, is what branches change."""

    name = f"{NAME}/heldout_loss"

    def __init__(self, rows: npt.ArrayLike, *, vocabulary: int | None = None):
        super().__init__(rows, aggregate="row", vocabulary=vocabulary)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        found = super().run(context, model, part)
        return pd.DataFrame({
            "task": "heldout_loss", "subset": "all", "item": [f"row {r}" for r in found["row"]], "score": found["nll"],
            "outcome": np.nan, "kept": np.isfinite(found["nll"]),
        })
