"""Term-frequency part: accuracy per term against its exposures up to each checkpoint, within each checkpoint.

With a truth manifest: planted facts (a term is an entity) and planted two-digit sums (a term is the first operand, its
questions are the pairs it was planted in), both with closed answer sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools import counts, plots
from pythia_tools.analyses import term_frequency
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.study.material import Material, exposures_of
from pythia_tools.study.parts import Drawing

BINS = tuple(float(2**k) for k in range(0, 22))
FACTS, SUMS = "facts", "sums"
_BIN = re.compile(r"^(?:(?P<task>[^:]+): )?exposures (?P<low>\d+)")


class TermFrequencyPart:
    """Closed questions about planted terms; exposures counted as text in the decoded rows of the order."""

    name = "term-frequency"

    def __init__(self, material: Material, steps: Iterable[int], *, cells: CellStore | None = None):
        truth = material.truth
        if truth is None:
            raise RequestError(
                f"{material.suite.name} has no truth manifest, so there are no planted terms to ask about; leave this analysis out "
                "(--analyses memorization bias learning), or use `pythia-tools term-frequency` with a task of your own"
            )
        self.truth, self.material = truth, material
        facts = truth.facts.assign(name=truth.facts["fact"].astype(str))
        fact_items = term_frequency.fact_items(facts, {r: truth.candidates(r) for r in facts["relation"].unique()})
        sums = truth.sums.assign(name=truth.sums["sum"].astype(str))
        sum_items = term_frequency.fact_items(sums, truth.candidates(SUMS))
        options = {"vocabulary": material.vocabulary}
        self._tasks = [
            term_frequency.ClosedTask(fact_items, material.tokenizer, name=FACTS, **options),
            term_frequency.ClosedTask(sum_items, material.tokenizer, name=SUMS, **options),
        ]
        terms = list(dict.fromkeys([*facts["term"], *sums["term"]]))
        pairs = list(truth.sums["prompt"])
        seen = exposures_of(material.order, [counts.Text(t) for t in [*terms, *pairs]], steps, material.tokenizer, cells)
        names = np.array([*terms, *pairs], dtype=object)
        seen["term"] = names[seen["item"]]
        self.pair_exposures = seen[seen["item"] >= len(terms)]
        self.exposures = seen[seen["item"] < len(terms)]
        chance = np.mean([1 / len(i.candidates) for i in fact_items])
        self.method = (
            f"{len(fact_items)} planted facts with closed answer sets (chance {chance:.2f}) and {len(sum_items)} planted sums with "
            "two-digit answers (chance 0.01): the candidate with the highest log-probability is the answer. Exposures are occurrences "
            "of the term in the decoded rows consumed before the checkpoint. Correlations and gaps are computed within each "
            "checkpoint, over terms, with bootstrap intervals over terms; checkpoints are never pooled, because exposures and skill "
            "both grow with training."
        )

    def tasks(self) -> list[Any]:
        return list(self._tasks)

    def counted(self) -> pd.DataFrame | None:
        """Facts by entity, sums by pair: what the truth manifest lists."""
        last = self.exposures["step"].max()
        final = self.exposures[self.exposures["step"] == last].set_index("term")["exposures"]
        pairs = self.pair_exposures[self.pair_exposures["step"] == last].set_index("term")["exposures"]
        facts = pd.DataFrame({"table": FACTS, "item": self.truth.facts["fact"], "exposures": self.truth.facts["term"].map(final)})
        sums = pd.DataFrame({"table": SUMS, "item": self.truth.sums["sum"], "exposures": self.truth.sums["prompt"].map(pairs)})
        return pd.concat([facts, sums], ignore_index=True)

    def tables(self, result: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
        items = term_frequency.gather(result, self._tasks)
        summary = term_frequency.summarize(items, self.exposures[["term", "step", "exposures"]], bins=BINS)
        summary["group"] = summary["group"].map(plain_group)
        items = items.merge(self.exposures[["term", "step", "exposures"]], on=["term", "step"], how="left", validate="many_to_one")
        return tables.check_items(items), tables.check_summary(summary)

    def draw(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Drawing]:
        for task, what in ((FACTS, "planted facts"), (SUMS, "planted sums")):
            own = summary[summary["group"].str.startswith(task)].copy()
            own["group"] = own["group"].str.removeprefix(f"{task}, ")
            yield Drawing(f"accuracy_by_exposures_{task}", plots.by_exposures(own, "accuracy", label=f"accuracy on {what}"),
                          f"Accuracy on {what} against exposures of their term, at each model's last step, with 95 % intervals.")
            yield Drawing(f"accuracy_over_training_{task}", plots.panels_over_training(own, "accuracy", label=f"accuracy on {what}"),
                          f"Accuracy on {what} over training, by exposures so far at each checkpoint.")
        yield Drawing("correlation_over_training", plots.correlation_over_training(summary, "spearman"),
                      "Rank correlation of accuracy with exposures within each checkpoint; ribbons are 95 % intervals over terms.")


def plain_group(group: str) -> str:
    """`facts: exposures 4-8` → `facts, exposures=4`; `facts: all` → `facts`."""
    found = _BIN.match(group)
    if found:
        return f"{found['task']}, exposures={found['low']}" if found["task"] else f"exposures={found['low']}"
    return group.removesuffix(": all")
