"""Lists of facts, and templates, as items: a table of prompts and answers, closed answer sets where they are known."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pythia_tools.analyses.term_frequency.items import Item
from pythia_tools.core.errors import RequestError, unknown

Candidates = Mapping[str, Sequence[str]] | Sequence[str]


def fact_items(facts: pd.DataFrame, candidates: Candidates | None = None) -> list[Item]:
    """Items from a table with the columns prompt, answer, term, and optionally name and relation.

    candidates: the closed answer set, or one for each relation; None decodes greedily. Answers and candidates are the
    texts that follow the prompt, leading space included. Raises RequestError for a missing column or an answer outside
    its set.
    """
    missing = [c for c in ("prompt", "answer", "term") if c not in facts]
    if missing:
        raise RequestError(f"facts need the columns prompt, answer and term; missing: {', '.join(missing)}")
    names = facts["name"] if "name" in facts else range(len(facts))
    relations = facts["relation"] if "relation" in facts else [""] * len(facts)
    return [
        Item(str(p), (str(a),), str(t), str(n), tuple(_set_for(candidates, str(r))))
        for p, a, t, n, r in zip(facts["prompt"], facts["answer"], facts["term"], names, relations, strict=True)
    ]


def template_items(
    template: str, values: pd.DataFrame, *, answer: str, term: str, candidates: Candidates | None = None,
) -> list[Item]:
    """Items from a template such as `The capital of {country} is`, filled from the columns of `values`.

    answer, term: templates too (`" {capital}"`, `"{country}"`). Raises RequestError for a field that is no column.
    """
    for text in (template, answer, term):
        for _, name, _, _ in string.Formatter().parse(text):
            if name is not None and name not in values.columns:
                raise unknown("field of a template", name, list(values.columns))
    records: list[dict[str, Any]] = [{str(k): v for k, v in r.items()} for r in values.to_dict("records")]
    table = pd.DataFrame({
        "prompt": [template.format(**r) for r in records], "answer": [answer.format(**r) for r in records],
        "term": [term.format(**r) for r in records],
    })
    if "relation" in values:
        table["relation"] = values["relation"].to_numpy()
    return fact_items(table, candidates)


def _set_for(candidates: Candidates | None, relation: str) -> Sequence[str]:
    if candidates is None:
        return ()
    if isinstance(candidates, Mapping):
        if relation not in candidates:
            raise unknown("relation", relation, list(candidates))
        return candidates[relation]
    return candidates
