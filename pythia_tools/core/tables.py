"""The tables that analyses return and plots take: column names, units, and their checks.

Item tables: one row per checkpoint × item; they begin with IDENTITY and add columns of their own.
Summary tables: tidy, one row per number, exactly SUMMARY columns, so that any plot, report or
spreadsheet can read any analysis.

| column | type | meaning |
|---|---|---|
| suite, model | str | the family and the training run in it (`70m`, `160m-seed3`) |
| params | int | parameters, embeddings included; <NA> when unknown |
| step | int | optimizer steps taken |
| tokens | int | training tokens consumed up to that step; <NA> when unknown |
| branch | str | `main`, or the name of an intervention branch (`swap`) |
| group | str | the subset of items (`exposures=16`, `all`); free text, one meaning per metric |
| metric | str | what `value` is (`memorized_share`, `spearman`, `nll`) |
| value, low, high | float | the estimate and its interval |
| n | int | independent units behind it (canaries, terms, items), not tokens |
| interval | str | how low and high came about (`wilson95`, `bootstrap95 over canaries`, `none`) |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pythia_tools.core.errors import DataError


@dataclass(frozen=True)
class Column:
    """A documented column: its pandas dtype and what it holds, with the unit where it has one."""

    dtype: str
    meaning: str


@dataclass(frozen=True)
class Metric:
    """What a metric of a summary is: the unit of value, low and high, and its meaning."""

    unit: str
    meaning: str


IDENTITY = ["suite", "model", "params", "step", "tokens", "branch"]
SUMMARY = [*IDENTITY, "group", "metric", "value", "low", "high", "n", "interval"]
KEYS = [*IDENTITY, "group", "metric"]
_TYPES = {
    "suite": "string", "model": "string", "params": "Int64", "step": "Int64", "tokens": "Int64", "branch": "string",
    "group": "string", "metric": "string", "value": "float64", "low": "float64", "high": "float64", "n": "Int64",
    "interval": "string",
}


def summary(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A summary table from mappings; missing identity cells become <NA>, missing bounds NaN."""
    frame = pd.DataFrame(list(rows), columns=SUMMARY)
    return check_summary(frame)


def check_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its documented types. Raises DataError naming a missing column."""
    missing = [c for c in SUMMARY if c not in frame.columns]
    if missing:
        raise DataError(f"not a summary table: columns {missing} are missing; a summary has {SUMMARY}")
    return frame[SUMMARY].astype(_TYPES).reset_index(drop=True)


def check_items(frame: pd.DataFrame) -> pd.DataFrame:
    """The same item table with typed identity columns first. Raises DataError naming a missing column."""
    missing = [c for c in IDENTITY if c not in frame.columns]
    if missing:
        raise DataError(f"not an item table: columns {missing} are missing; an item table begins with {IDENTITY}")
    rest = [c for c in frame.columns if c not in IDENTITY]
    return frame[IDENTITY + rest].astype({c: _TYPES[c] for c in IDENTITY}).reset_index(drop=True)


def read_summary(path: Any) -> pd.DataFrame:
    """Read a `summary.csv` with its types. Raises DataError when it is missing or not one."""
    try:
        return check_summary(pd.read_csv(path, dtype=_TYPES, keep_default_na=True))  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not a summary table ({error})") from error
