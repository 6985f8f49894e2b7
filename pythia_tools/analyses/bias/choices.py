"""Multiple choice by log-likelihood: contexts, continuations, and the one with the highest sum; ties go to the first.

The base of WinoBias, Winogender, StereoSet and BBQ. Items may have any number of choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Scorer


class Chosen(NamedTuple):
    """`totals` one array of log-likelihoods per item, `choice` (n,) index of the best."""

    totals: list[np.ndarray]
    choice: np.ndarray


class ChoiceScorer:
    """(context, choices) items, encoded and planned once."""

    def __init__(self, tokenizer: Any, items: Sequence[tuple[str, Sequence[str]]], *, batch_size: int | None = None):
        few = [context for context, choices in items if len(choices) < 2]
        if few:
            raise RequestError(f"an item needs two choices or more: {few[0][-80:]!r}")
        encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
        self._sizes = np.array([len(choices) for _, choices in items], dtype=np.int64)
        pairs = [(context, choice) for context, choices in items for choice in choices]
        self._scorer = Scorer(encoder.requests(pairs), batch_size=batch_size)
        self.digest = self._scorer.digest

    def __call__(self, model: nn.Module) -> Chosen:
        totals = np.split(self._scorer(model).total, np.cumsum(self._sizes)[:-1])
        return Chosen(totals, np.array([int(np.argmax(t)) for t in totals], dtype=np.int64))


def margin(totals: Sequence[np.ndarray], right: Sequence[int]) -> np.ndarray:
    """(n,) log-likelihood of the right choice minus that of the best other one."""
    return np.array([t[r] - np.delete(t, r).max() for t, r in zip(totals, right, strict=True)])


def judged(holds: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(n,) outcomes: 1.0 where it holds, 0.0 where it does not, NaN where the item could not be scored."""
    return np.where(scored, np.asarray(holds, dtype=float), np.nan)
