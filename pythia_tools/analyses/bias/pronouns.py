"""Which pronoun follows an occupation: P(he) against P(she) as the next word after a template, item by item.

An item is a template with an occupation in it. Its log-odds are log P(she) − log P(he); its mass P(he) + P(she) says
whether the model expects a pronoun there at all. An item counts in shares and means only where its mass is above one
half: below that the ratio of two small numbers says little. How many items pass is part of the result.
Cost: one forward pass and one row of logits per item and checkpoint.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_tools.analyses.bias.columns import PRONOUNS
from pythia_tools.analyses.bias.measure import Measure, judged
from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Loglikelihoods
from pythia_tools.tokens import Openable

MASS = 0.5


@dataclass(frozen=True)
class PronounItem:
    """A context whose next word is scored; `stereotype` is "he", "she", or None where none is claimed."""

    prompt: str
    occupation: str
    stereotype: str | None
    template: str = ""


def pronoun_items(
    templates: Iterable[str], occupations: Iterable[tuple[str, str | None]], *, lead: str = ""
) -> list[PronounItem]:
    """Every template (with {occupation}) × every (occupation, stereotype). `lead` goes before each prompt (a newline).
    """
    templates, occupations = list(templates), list(occupations)
    bad = [t for t in templates if "{occupation}" not in t]
    if bad:
        raise RequestError(f"template {bad[0]!r} has no {{occupation}} in it")
    return [
        PronounItem(lead + template.replace("{occupation}", occupation), occupation, stereotype, template)
        for occupation, stereotype in occupations
        for template in templates
    ]


class PronounTask(Measure):
    """Pronoun preference as a sweep's task; subsets are the stereotypes: he, she, none.

    items: what to ask (`pronoun_items`). he, she: continuations that count for each side, with their leading space;
    alternatives are added up. mass: an item is `kept` where P(he) + P(she) is above it.
    """

    measure = PRONOUNS

    def __init__(
        self, tokenizer: Openable, items: Sequence[PronounItem], *, he: Sequence[str] = (" he",),
        she: Sequence[str] = (" she",), mass: float = MASS,
    ):
        if not items:
            raise RequestError("no items: give at least one template and one occupation")
        self.items, self.mass, self._masculine = list(items), mass, len(he)
        texts = [[(item.prompt, word) for word in (*he, *she)] for item in items]
        super().__init__(tokenizer, texts, [len(he), mass, [vars(i) for i in self.items]])

    def columns(self, items: slice, totals: np.ndarray, found: Loglikelihoods) -> dict[str, object]:
        here = self.items[items]
        with np.errstate(invalid="ignore"):  # a model that gives NaN gets NaN
            he = np.logaddexp.reduce(totals[:, : self._masculine], axis=1)
            she = np.logaddexp.reduce(totals[:, self._masculine :], axis=1)
        log_odds, mass = she - he, np.exp(he) + np.exp(she)
        scored = np.isfinite(log_odds)
        preferred = np.where(scored, np.where(log_odds > 0, "she", "he"), "")
        stereotype = np.array([i.stereotype or "" for i in here])
        return {
            "subset": np.where(stereotype == "", "none", stereotype),
            "item": [f"{i.occupation}|{i.template or i.prompt}" for i in here], "score": log_odds,
            "outcome": judged(preferred == stereotype, scored & (stereotype != "")),
            "kept": scored & (mass > self.mass),
            "occupation": [i.occupation for i in here], "stereotype": stereotype, "log_p_he": he, "log_p_she": she,
            "mass": mass, "preferred": preferred,
        }
