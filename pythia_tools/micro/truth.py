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

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import files
from pythia_tools.core.errors import DataError

TABLES = ("canaries", "facts", "sums", "pronouns")


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
    def planted(self) -> dict[str, int]:
        """Exposures planted, by table."""
        return {table: int(counts["planted"]) for table, counts in self.about["exposures"].items()}

    @property
    def intact(self) -> dict[str, int]:
        """Exposures found whole in the packed rows, by table."""
        return {table: int(counts["intact"]) for table, counts in self.about["exposures"].items()}


def load_truth(folder: str | Path) -> Truth:
    """The truth of a suite folder (or of its `truth/`). Raises: DataError when a table is missing or damaged."""
    path = Path(folder)
    path = path if (path / "truth.json").is_file() else path / "truth"
    if not (path / "truth.json").is_file():
        raise DataError(f"{folder}: no truth manifest, the truth/ folder of a suite that `pythia-tools train` made")
    tables = {name: _read(path / f"{name}.parquet") for name in TABLES}
    templates, about = (files.read_json(path / name) for name in ("templates.json", "truth.json"))
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


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; the truth manifest is incomplete, train the suite again") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable parquet file ({error})") from error
