"""Bias part: which pronoun follows an occupation, over training; and what a branch with swapped pronouns changes.

Templates are none of those that training sentences were made from; only items whose two pronouns hold most of the
probability count. Branch and control are compared item by item at each step that both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from pythia_tools import counts, plots
from pythia_tools.analyses import bias
from pythia_tools.micro import words
from pythia_tools.study.material import Material, exposures_of
from pythia_tools.study.parts import Drawing


class BiasPart:
    """Pronoun preference on held-out templates; paired differences of every intervention branch."""

    name = "bias"

    def __init__(self, material: Material):
        truth = material.truth
        self.material = material
        if truth is not None:
            templates = truth.templates["heldout"]
            occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
            he, she = truth.about["pronouns"]["he"], truth.about["pronouns"]["she"]
            lead = "\n"
        else:
            templates, occupations, he, she, lead = list(words.HELDOUT_TEMPLATES), list(words.OCCUPATIONS), " he", " she", ""
        items = bias.pronoun_items(templates, occupations, lead=lead)
        self._task = bias.PronounTask(material.tokenizer, items, he=(he,), she=(she,))
        self.branches = sorted({i.branch for i in material.suite.models.values()} - {"main"})
        self.method = (
            f"{len(items)} items: {len(occupations)} occupations in {len(templates)} templates, none of them in training. An item "
            "counts where P(he) + P(she) > 0.5; log-odds are log P(she) − log P(he). Branch and control are paired by item; intervals "
            "are bootstraps over items, p-values sign-flip tests with Holm's correction over all comparisons."
        )

    def tasks(self) -> list[Any]:
        return [self._task]

    def counted(self) -> pd.DataFrame | None:
        """Planted sentences with each occupation over the whole run, found as text: an occupation alone also occurs in
        real prose.
        """
        truth = self.material.truth
        if truth is None:
            return None
        sentences = [
            (number, template.replace("{occupation}", occupation).format(**forms))
            for number, occupation in enumerate(truth.pronouns["occupation"])
            for template in truth.templates["training"]
            for forms in words.PRONOUNS.values()
        ]
        last = max(max(self.material.suite.steps(m)) for m in self.material.suite.models)
        patterns = [counts.Text(text, label=str(i)) for i, (_, text) in enumerate(sentences)]
        seen = exposures_of(self.material.order, patterns, [last], self.material.tokenizer)
        owner = pd.Series([number for number, _ in sentences])
        totals = seen.groupby(owner[seen["item"]].to_numpy())["exposures"].sum()
        return pd.DataFrame({"table": "pronouns", "item": totals.index, "exposures": totals.to_numpy()})

    def tables(self, result: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
        items = bias.join({self._task.name: result[self._task.name]})  # type: ignore[arg-type]
        return items, bias.summarize(items)

    def draw(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Drawing]:
        yield Drawing("pronoun_preference", plots.branches_over_training(summary, "log_odds", label="log-odds of she over he"),
                      "Log-odds of the feminine pronoun over training, by size; dashed: the branch trained on swapped pronouns.")
        label = "share preferring the stereotyped pronoun"
        yield Drawing("stereotype", plots.branches_over_training(summary, "stereotype_share", label=label),
                      "Share of items whose stereotyped pronoun is preferred; one half is no preference.")
        if self.branches:
            yield Drawing("paired_difference", plots.paired_differences(summary),
                          "Branch minus control, paired by item: change in log-odds of she over he, with 95 % intervals.")
