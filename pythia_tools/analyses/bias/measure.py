"""What the measures have in common: texts scored in parts by log-likelihood, items out of the scores."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Unpack

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.columns import COLUMNS, NAME
from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.analysis import Context, Task, Where, sweep
from pythia_tools.core import tables
from pythia_tools.core.files import digest
from pythia_tools.models.continuations import Loglikelihoods, Scorer
from pythia_tools.suites import Checkpoint
from pythia_tools.tokens import Openable

PART_ITEMS = 512


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


def measure(checkpoints: Iterable[Checkpoint], task: Task | Sequence[Task], **where: Unpack[Where]) -> pd.DataFrame:
    """One item table of one task or several on every checkpoint; COLUMNS says what the columns hold.

    `where`: device, dtype, cells, …, as an `Execution` takes them. Raises what `analysis.sweep` raises.
    """
    return items(sweep(checkpoints, list(task) if isinstance(task, Sequence) else [task], **where))


def items(result: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One item table out of the tables of a sweep."""
    frames = [frame for frame in result.values() if len(frame)]
    if not frames:
        return tables.check_items(pd.DataFrame(columns=[*tables.IDENTITY, *list(COLUMNS)[:6]]))
    return tables.check_items(pd.concat(frames, ignore_index=True))
