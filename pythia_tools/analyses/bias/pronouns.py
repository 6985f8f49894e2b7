"""Which pronoun follows an occupation: P(he) against P(she) as the next word after a template, item by item.

An item is a template with an occupation in it. Its log-odds are log P(she) − log P(he); its mass P(he) + P(she) says
whether the model expects a pronoun there at all. An item counts in shares and means only where its mass is above one
half: below that the ratio of two small numbers says little. How many items pass is part of the result.
Cost: one forward pass and one row of logits per item and checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.choices import judged
from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.analysis import Context, Task
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.models.continuations import Request, Scorer

MASS = 0.5
MEASURE = "pronoun_preference"


@dataclass(frozen=True)
class PronounItem:
    """A context whose next word is scored; `stereotype` is "he", "she", or None where none is claimed."""

    prompt: str
    occupation: str
    stereotype: str | None
    template: str = ""


def pronoun_items(templates: Iterable[str], occupations: Iterable[tuple[str, str | None]], *, lead: str = "") -> list[PronounItem]:
    """Every template (with {occupation}) × every (occupation, stereotype). `lead` goes before each prompt (a newline, say)."""
    templates, occupations = list(templates), list(occupations)
    bad = [t for t in templates if "{occupation}" not in t]
    if bad:
        raise RequestError(f"template {bad[0]!r} has no {{occupation}} in it")
    return [
        PronounItem(lead + template.replace("{occupation}", occupation), occupation, stereotype, template)
        for occupation, stereotype in occupations
        for template in templates
    ]


class PronounTask(Task):
    """Pronoun preference as a sweep's task.

    Args:
        tokenizer: of the models, as in `Encoder`.
        items: what to ask (`pronoun_items`).
        he, she: continuations that count for each side, with their leading space; alternatives are added up.
        mass: an item is `kept` where P(he) + P(she) is above it.
    """

    parts = 1

    def __init__(
        self, tokenizer: Any, items: Sequence[PronounItem], *, he: Sequence[str] = (" he",), she: Sequence[str] = (" she",),
        mass: float = MASS, batch_size: int | None = None, name: str = MEASURE,
    ):
        if not items:
            raise RequestError("no items: give at least one template and one occupation")
        if not 0 <= mass < 1:
            raise RequestError(f"mass={mass}: it is a probability below 1")
        encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
        self.name, self.items, self.mass = name, list(items), mass
        self._sides = len(he), len(she)
        requests = [_request(encoder, item.prompt, word) for item in items for word in (*he, *she)]
        self.scorer = Scorer(requests, batch_size=batch_size)
        self.digest = digest([MEASURE, 1, self.scorer.digest, self._sides, mass, [vars(i) for i in self.items]])

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        totals = self.scorer(model).total.reshape(len(self.items), sum(self._sides))
        with np.errstate(invalid="ignore"):  # a model that gives NaN gets NaN
            he = np.logaddexp.reduce(totals[:, : self._sides[0]], axis=1)
            she = np.logaddexp.reduce(totals[:, self._sides[0] :], axis=1)
        log_odds = she - he
        mass = np.exp(he) + np.exp(she)
        scored = np.isfinite(log_odds)
        preferred = np.where(scored, np.where(log_odds > 0, "she", "he"), "")
        stereotype = np.array([i.stereotype or "" for i in self.items])
        return pd.DataFrame({
            "measure": MEASURE,
            "group": [f"stereotype={s}" if s else "stereotype=none" for s in stereotype],
            "item": [f"{i.occupation}|{i.template or i.prompt}" for i in self.items],
            "score": log_odds,
            "outcome": judged(preferred == stereotype, scored & (stereotype != "")),
            "kept": scored & (mass > self.mass),
            "occupation": [i.occupation for i in self.items],
            "stereotype": stereotype,
            "log_p_he": he,
            "log_p_she": she,
            "mass": mass,
            "preferred": preferred,
        })


def _request(encoder: Encoder, prompt: str, word: str) -> Request:
    return encoder.requests([(prompt, word)])[0]
