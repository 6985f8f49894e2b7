"""Lists of facts, and templates, as items: a table of prompts and answers, closed answer sets where they are known."""

from collections.abc import Mapping, Sequence

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
        Item(str(p), (str(a),), str(t), str(n), tuple(_set_for(candidates, str(r))), str(r))
        for p, a, t, n, r in zip(facts["prompt"], facts["answer"], facts["term"], names, relations, strict=True)
    ]


def template_items(
    template: str, values: pd.DataFrame, *, answer: str, term: str, candidates: Candidates | None = None,
) -> list[Item]:
    """Items from a template such as `The capital of {country} is`, filled from the columns of `values`.

    answer, term: templates too (`" {capital}"`, `"{country}"`). Raises RequestError for a field that is no column.
    """
    texts = {"prompt": template, "answer": answer, "term": term}
    records = values.to_dict("records")
    try:
        table = pd.DataFrame({name: [text.format_map(r) for r in records] for name, text in texts.items()})
    except (KeyError, IndexError) as error:
        raise unknown("field of a template", error.args[0], list(values.columns)) from None
    except ValueError as error:
        raise RequestError(f"{', '.join(texts.values())}: not templates ({error}); {{column}} is filled in") from None
    if "relation" in values:
        table["relation"] = values["relation"].to_numpy()
    return fact_items(table, candidates)


def _set_for(candidates: Candidates | None, relation: str) -> Sequence[str]:
    if not isinstance(candidates, Mapping):
        return candidates or ()
    if relation not in candidates:
        raise unknown("relation", relation, list(candidates))
    return candidates[relation]
