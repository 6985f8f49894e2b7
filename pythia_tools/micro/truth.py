"""The truth manifest: what was planted, how often, in which rows and steps, and whether every copy survived packing.

`truth/` of a suite folder; rows are row numbers of the order, a step s is the batch s = row // batch_rows, so the first
checkpoint that has seen it is s + 1. Lists `rows` and `steps` have one entry per exposure, ascending by row.

canaries.parquet   canary (number), copies, burst (nullable int: the checkpoint right after its burst), text, tokens
                   (seq_length ids), rows, steps, intact. copies 0: a control, planted nowhere.
facts.parquet      fact (number), relation, entity, prompt, answer, term (count this text for exposures), mentions,
                   rows, steps, intact. Candidates of a relation: truth.json `candidates`.
sums.parquet       sum (number), a, b, prompt, answer, term (of operand a), operand_mentions (sums with first operand
                   a), mentions (of this pair), rows, steps, intact.
pronouns.parquet   occupation, stereotype ("he" or "she"), term, he_count, she_count, rows, steps, pronouns (one of
                   "he", "she" per entry of rows), intact.
templates.json     training (sentences with {occupation}, {he}, {his}, {him}, {He}) and heldout (contexts whose next
                   word is scored).
truth.json         counts, candidates, pronoun continuations, totals of planted and intact exposures, corpus,
                   fingerprint of the order.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import files
from pythia_tools.core.errors import DataError
from pythia_tools.core.manifests import Check, checked, list_of, mapping, number, text, whole
from pythia_tools.micro import words
from pythia_tools.micro.layout import Layout
from pythia_tools.micro.planted import Canary, Document, Fact, Items, Occupation, Sum
from pythia_tools.micro.recipe import Recipe
from pythia_tools.micro.windows import ngram_hashes
from pythia_tools.tokens import Tokenizer

TABLES: dict[str, type] = {"canaries": Canary, "facts": Fact, "sums": Sum, "pronouns": Occupation}
"""Table → its items, whose fields are columns."""
LANDED = ("rows", "steps", "intact")
"""Columns that say where the items' exposures landed."""


@dataclass(frozen=True)
class Truth:
    """The truth manifest of a suite; tables as in the module's description."""

    folder: Path
    canaries: pd.DataFrame
    facts: pd.DataFrame
    sums: pd.DataFrame
    pronouns: pd.DataFrame
    templates: dict[str, list[str]]
    about: dict[str, Any]

    def candidates(self, relation: str) -> list[str]:
        """The closed set of answers of a relation (or of "sums"), as texts that follow the prompt."""
        return list(self.about["candidates"][relation])

    def exposures(self, table: str, step: int) -> np.ndarray:
        """(n,) exposures of each item in rows that a checkpoint at `step` has consumed."""
        return np.array([int((np.asarray(steps) < step).sum()) for steps in getattr(self, table)["steps"]])

    @property
    def planted_rows(self) -> np.ndarray:
        """Numbers of the order's rows that hold a planted item, ascending."""
        rows = pd.concat([getattr(self, table)["rows"] for table in TABLES])
        return np.unique(np.concatenate([np.empty(0), *rows])).astype(np.int64)

    @property
    def planted(self) -> dict[str, int]:
        """Exposures planted, by table."""
        return {table: int(counts["planted"]) for table, counts in self.about["exposures"].items()}


def load_truth(folder: str | Path) -> Truth:
    """The truth of a suite folder (or of its `truth/`). Raises: DataError when a table is missing or damaged."""
    path = Path(folder)
    path = path if (path / "truth.json").is_file() else path / "truth"
    if not (path / "truth.json").is_file():
        raise DataError(f"{folder}: no truth manifest, the truth/ folder of a suite that `pythia-tools train` made")
    tables = {name: _read(path / f"{name}.parquet", kind) for name, kind in TABLES.items()}
    texts = list_of(text)
    templates = _checked(path / "templates.json", {"training": texts, "heldout": texts})
    counts = {name: partial(checked, required={"planted": whole(0), "intact": whole(0)}) for name in TABLES}
    about = _checked(path / "truth.json", {
        "exposures": partial(checked, required=counts),
        "pronouns": partial(checked, required={"he": text, "she": text}),
        "candidates": lambda where, value: {k: texts(f"{where}: {k}", v) for k, v in mapping(where, value).items()},
        "order_fingerprint": text, **dict.fromkeys(("batch_rows", "seq_length", "steps"), whole()),
        **dict.fromkeys(("skew", "tokens", "texts", "modules"), number),
    })
    return Truth(path, **tables, templates=templates, about=about)


def write_truth(
    folder: Path, tables: dict[str, pd.DataFrame], templates: dict[str, list[str]], about: dict[str, Any],
) -> None:
    """Write the manifest into `folder`; truth.json last."""
    for name in TABLES:
        with files.atomic_write(folder / f"{name}.parquet") as out:
            tables[name].to_parquet(out, index=False)
    files.write_json(folder / "templates.json", templates)
    files.write_json(folder / "truth.json", about)


def _checked(path: Path, required: dict[str, Check]) -> dict[str, Any]:
    return checked(path, files.read_json(path), required)


def _read(path: Path, kind: type) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
        table[[*(f.name for f in dataclasses.fields(kind)), *LANDED]]  # a KeyError names those that are missing
        return table
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a readable table of the truth ({error}); train the suite again") from error


# making the tables from the layout, checked against the rows that training reads

Found = dict[tuple[str, int], list[tuple[int, int, int, bool]]]
"""(kind, item) → (row, offset, length, intact) of each exposure, by rising row."""


def read_back(layout: Layout, contents: list[Document], rows: np.ndarray) -> Found:
    """Every planted exposure as it stands in `rows` (n, seq_length), the rows as the order gives them."""
    found: Found = defaultdict(list)
    for d, content in enumerate(contents):
        row = int(layout.landing[d])
        for kind, item, offset, length in content.items:
            there = slice(offset, offset + length)
            intact = row >= 0 and bool((rows[row, there] == content.tokens[there]).all())
            found[kind, item].append((row, offset, length, intact))
    return {key: sorted(places) for key, places in found.items()}


def truth_tables(
    recipe: Recipe, found: Found, canaries: list[Canary], items: Items, rows: np.ndarray, tokenizer: Tokenizer,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The four tables and the summary. `rows` (n, seq_length) are the rows as the order gives them.

    Raises: DataError when an exposure was not where it should be, or a term occurs where it was not planted.
    """
    tables = {
        "canaries": _table(recipe, found, "canary", canaries).astype({"burst": "Int64"}),
        "facts": _table(recipe, found, "fact", items.facts),
        "sums": _table(recipe, found, "sum", items.sums),
        "pronouns": _table(recipe, found, "pronoun", items.occupations),
    }
    feminine = [tokenizer.one_id(f" {w}") for w in ("she", "She", "her")]
    tables["pronouns"]["pronouns"] = [
        ["she" if np.isin(feminine, rows[row, offset : offset + length]).any() else "he" for row, offset, length, _ in
         found.get(("pronoun", i), [])]
        for i in range(len(items.occupations))
    ]
    used = set(tables["facts"]["relation"])
    candidates = {name: [f" {a}" for a in answers] for name, _, answers in words.RELATIONS if name in used}
    about = {
        "exposures": _exposures(tables), "candidates": {**candidates, "sums": [str(n) for n in range(10, 100)]},
        "pronouns": {"he": " he", "she": " she"}, "skew": recipe.pronouns.skew,
        "batch_rows": recipe.batch_rows, "seq_length": recipe.seq_length, "steps": recipe.steps,
    }
    _check_terms(tables, rows, tokenizer)
    return tables, about


def _table(
    recipe: Recipe, found: Found, kind: str, items: Sequence[Canary | Fact | Sum | Occupation],
) -> pd.DataFrame:
    """One row per item: its fields, and where its exposures landed."""
    records = []
    for i, item in enumerate(items):
        places = found.get((kind, i), [])
        rows = np.array([p[0] for p in places], dtype=np.int64)
        landed = {"rows": rows, "steps": rows // recipe.batch_rows, "intact": sum(p[3] for p in places)}
        records.append({**vars(item), **landed})
    return pd.DataFrame.from_records(records)


def _exposures(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    """Planted and intact exposures by table. Raises: DataError when they differ."""
    columns = {name: ["mentions"] for name in ("facts", "sums")}
    columns |= {"canaries": ["copies"], "pronouns": ["he_count", "she_count"]}
    counts = {}
    for name, planted in columns.items():
        counts[name] = {"planted": int(tables[name][planted].sum().sum()), "intact": int(tables[name]["intact"].sum())}
        if counts[name]["planted"] != counts[name]["intact"]:
            raise DataError(f"micro: exposures of {name}: {counts[name]}; the packing is at fault")
    return counts


def _check_terms(tables: dict[str, pd.DataFrame], rows: np.ndarray, tokenizer: Tokenizer) -> None:
    """The terms of facts and sums occur where they were planted, and nowhere else."""
    facts, sums = tables["facts"], tables["sums"]
    expected = dict(zip(facts["term"], facts["mentions"], strict=True))
    expected |= dict(zip(sums["term"], sums["operand_mentions"], strict=True))
    for term, count in count_terms(rows, {t: tokenizer.encode(t) for t in expected}).items():
        if count != expected[term]:
            planted = f"{term!r} was planted {expected[term]} times and occurs {count} times"
            raise DataError(f"micro: {planted}; choose another seed")


def count_terms(rows: np.ndarray, terms: dict[str, list[int]]) -> dict[str, int]:
    """Occurrences of each term's ids in the rows, by hashes of n-grams: not by `counts`, which the truth is to test."""
    counts = {}
    for n in {len(ids) for ids in terms.values()}:
        found = np.sort(ngram_hashes(rows, n), axis=None)
        for term, ids in terms.items():
            if len(ids) == n:
                wanted = ngram_hashes(np.array(ids), n)[0]
                counts[term] = int(np.searchsorted(found, wanted, "right") - np.searchsorted(found, wanted))
    return counts
