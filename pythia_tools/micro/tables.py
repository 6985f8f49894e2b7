"""The truth tables, made from the layout and checked against the rows that training reads."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pythia_tools.core.errors import DataError
from pythia_tools.micro import words
from pythia_tools.micro.layout import Layout
from pythia_tools.micro.planted import Document, Fact, Occupation, Sum
from pythia_tools.micro.recipe import Recipe

if TYPE_CHECKING:
    from pythia_tools.micro.build import Canary

Found = dict[tuple[str, int], list[tuple[int, int, int, bool]]]
"""(kind, item) → (row, offset, length, intact) of each exposure, by rising row."""


def truth_tables(
    recipe: Recipe, layout: Layout, contents: list[Document], canaries: list[Canary], facts: list[Fact], sums: list[Sum],
    occupations: list[Occupation], rows: np.ndarray, tokenizer: Any,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The four tables and the summary. `rows` (n, seq_length) are the rows as the order gives them.

    Raises: DataError when an exposure was not where it should be, or a term occurs where it was not planted.
    """
    found = _read_back(layout, contents, rows)
    decode = tokenizer.decode
    tables = {
        "canaries": _table(recipe, found, "canary", [
            {"canary": i, "copies": c.copies, "burst": c.burst, "text": decode(c.tokens.tolist()), "tokens": c.tokens.astype(np.int32)}
            for i, c in enumerate(canaries)
        ]).astype({"burst": "Int64"}),
        "facts": _table(recipe, found, "fact", [
            {"fact": f.number, "relation": f.relation, "entity": f.entity, "prompt": f.prompt, "answer": f.answer, "term": f.term,
             "mentions": f.mentions}
            for f in facts
        ]),
        "sums": _table(recipe, found, "sum", [
            {"sum": s.number, "a": s.a, "b": s.b, "prompt": s.prompt, "answer": s.answer, "term": s.term,
             "operand_mentions": s.operand_mentions, "mentions": s.mentions}
            for s in sums
        ]),
        "pronouns": _table(recipe, found, "pronoun", [
            {"occupation": o.occupation, "stereotype": o.stereotype, "term": f" {o.occupation}", "he_count": o.he_count,
             "she_count": o.she_count}
            for o in occupations
        ]),
    }
    tables["pronouns"]["pronouns"] = _pronouns(found, occupations, rows, tokenizer)
    about = _about(tables, recipe)
    _check(tables, about, rows, tokenizer)
    return tables, about


def _read_back(layout: Layout, contents: list[Document], rows: np.ndarray) -> Found:
    found: Found = defaultdict(list)
    for d, content in enumerate(contents):
        row = int(layout.landing[d])
        for kind, item, offset, length in content.items:
            intact = row >= 0 and bool((rows[row, offset : offset + length] == content.tokens[offset : offset + length]).all())
            found[kind, item].append((row, offset, length, intact))
    return {key: sorted(places) for key, places in found.items()}


def _table(recipe: Recipe, found: Found, kind: str, records: list[dict[str, Any]]) -> pd.DataFrame:
    for i, record in enumerate(records):
        places = found.get((kind, i), [])
        rows = np.array([p[0] for p in places], dtype=np.int64)
        record |= {"rows": rows, "steps": rows // recipe.batch_rows, "intact": sum(p[3] for p in places)}
    return pd.DataFrame.from_records(records)


def _pronouns(found: Found, occupations: list[Occupation], rows: np.ndarray, tokenizer: Any) -> list[list[str]]:
    """Which pronoun each exposure's sentence holds, as read from the row."""
    feminine = {tokenizer.encode(f" {w}", add_special_tokens=False).ids[0] for w in ("she", "She", "her")}


    def read(row: int, offset: int, length: int) -> str:
        return "she" if feminine & set(rows[row, offset : offset + length].tolist()) else "he"

    return [[read(row, offset, length) for row, offset, length, _ in found.get(("pronoun", o.number), [])] for o in occupations]


def _about(tables: dict[str, pd.DataFrame], recipe: Recipe) -> dict[str, Any]:
    planted = {"canaries": tables["canaries"]["copies"], "facts": tables["facts"]["mentions"], "sums": tables["sums"]["mentions"],
               "pronouns": tables["pronouns"]["he_count"] + tables["pronouns"]["she_count"]}
    used = set(tables["facts"]["relation"])
    return {
        "exposures": {name: {"planted": int(n.sum()), "intact": int(tables[name]["intact"].sum())} for name, n in planted.items()},
        "candidates": {
            **{name: [f" {a}" for a in answers] for name, _, answers in words.RELATIONS if name in used},
            "sums": [str(n) for n in range(10, 100)],
        },
        "pronouns": {"he": " he", "she": " she"},
        "skew": recipe.pronouns.skew,
        "batch_rows": recipe.batch_rows, "seq_length": recipe.seq_length, "steps": recipe.steps,
    }


def _check(tables: dict[str, pd.DataFrame], about: dict[str, Any], rows: np.ndarray, tokenizer: Any) -> None:
    """Every exposure intact, and the terms of facts and sums nowhere else."""
    for name, counts in about["exposures"].items():
        if counts["planted"] != counts["intact"]:
            planted, intact = counts["planted"], counts["intact"]
            raise DataError(f"micro: {planted} exposures of {name} were planted, {intact} are intact; the packing is at fault")
    facts, sums = tables["facts"], tables["sums"]
    expected = dict(zip(facts["term"], facts["mentions"], strict=True))
    expected |= dict(zip(sums["term"], sums["operand_mentions"], strict=True))
    for term, count in count_terms(rows, {t: tokenizer.encode(t, add_special_tokens=False).ids for t in expected}).items():
        if count != expected[term]:
            raise DataError(f"micro: {term!r} was planted {expected[term]} times and occurs {count} times; choose another seed")


def count_terms(rows: np.ndarray, terms: dict[str, list[int]]) -> dict[str, int]:
    """Occurrences of each term's ids in the rows, by a look-up of all n-grams of each length."""
    counts = {}
    for n in {len(ids) for ids in terms.values()}:
        grams = np.lib.stride_tricks.sliding_window_view(rows, n, axis=1).reshape(-1, n)
        base = np.array([65_536**k % 2**64 for k in range(n)], dtype=np.uint64)
        keys = (grams.astype(np.uint64) * base).sum(axis=1, dtype=np.uint64) if n <= 4 else None
        for term, ids in terms.items():
            if len(ids) != n:
                continue
            if keys is None:
                counts[term] = int((grams == np.array(ids)).all(axis=1).sum())
            else:
                counts[term] = int((keys == (np.array(ids, dtype=np.uint64) * base).sum(dtype=np.uint64)).sum())
    return counts
