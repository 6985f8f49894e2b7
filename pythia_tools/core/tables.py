"""The tables that analyses return and plots take: columns, units, and their checks. Meaning is in columns, never in
text to parse.

Item tables: one row per checkpoint × item; they begin with IDENTITY and add columns that their analysis documents.
Summary tables: tidy, one row per number, exactly the columns of SUMMARY, so that any plot, report or spreadsheet can
read any analysis. COLUMNS is the dictionary of both; `docs/columns.md` is written from it.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from pythia_tools.core.errors import DataError, RequestError


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


COLUMNS: dict[str, Column] = {
    "suite": Column("string", "the family of models"),
    "model": Column("string", "the training run in it (`70m`, `160m-seed3`); <NA> for numbers over several models"),
    "params": Column("Int64", "parameters, embeddings included; <NA> when unknown"),
    "branch": Column("string", "`main`, or the name of an intervention branch (`swap`)"),
    "seed": Column("Int64", "the run's seed; <NA> when unknown"),
    "step": Column("Int64", "optimizer steps taken"),
    "tokens": Column("Int64", "training tokens consumed up to that step; <NA> when unknown"),
    "analysis": Column("string", "the analysis that measured it (`memorization`)"),
    "task": Column("string", "task, measure or set of items (`facts`, `crows_pairs`); <NA> where an analysis has one"),
    "subset": Column("string", "which of the task's items, by kind (`gender`, `heldout`); `all` for all of them"),
    "reference": Column("string", "what a difference or ratio is against: model, branch, task or subset; else <NA>"),
    "exposures_low": Column("Int64", "items with at least so many exposures up to the step; <NA> where not told apart"),
    "exposures_high": Column("Int64", "items with at most so many exposures; <NA>: no upper end, or not told apart"),
    "cohort": Column("Int64", "rows consumed before this step, and not before the previous cohort's; else <NA>"),
    "since": Column("Int64", "steps since the exposure, at least (up to the next line's); negative before it; or <NA>"),
    "metric": Column("string", "what `value` is (`memorized_share`, `spearman`, `nll`)"),
    "metric_unit": Column("string", "the unit of value, low and high (`share`, `nats per token`)"),
    "value": Column("float64", "the estimate"),
    "low": Column("float64", "lower end of its interval; NaN without one"),
    "high": Column("float64", "upper end of its interval; NaN without one"),
    "n": Column("Int64", "independent units behind the estimate"),
    "unit": Column("string", "what is independent and resampled: canary, row, term, sentence pair, occupation, run"),
    "interval": Column("string", "how low and high came about (`wilson95`, `bootstrap95`, `none`)"),
}
IDENTITY = ["suite", "model", "params", "branch", "seed", "step", "tokens"]
SUMMARY = list(COLUMNS)
KEYS = SUMMARY[: SUMMARY.index("metric") + 1]
"""The columns that together name a number of a summary."""
_TYPES = {name: column.dtype for name, column in COLUMNS.items()}
_OF_0_1 = "group"
"""A column that summaries of version 0.1 had, in which meaning was text."""


def summary(
    rows: Iterable[Mapping[str, object]], *, analysis: str | None = None, metrics: Mapping[str, Metric] | None = None
) -> pd.DataFrame:
    """A summary table from mappings of column names; cells left out become <NA>, bounds NaN, `subset` "all".

    `analysis` and `metrics` (name → unit) fill the columns analysis and metric_unit. Raises KeyError for a metric that
    the analysis does not declare, which is a fault of the analysis.
    """
    frame = pd.DataFrame(list(rows), columns=SUMMARY)
    if analysis is not None:
        frame["analysis"] = analysis
    if metrics is not None:
        frame["metric_unit"] = [metrics[name].unit for name in frame["metric"]]
    frame["subset"] = frame["subset"].astype("string").fillna("all")
    return check_summary(frame)


def check_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its documented types. Raises DataError naming a missing column."""
    missing = [c for c in SUMMARY if c not in frame.columns]
    if missing and _OF_0_1 in frame.columns:
        raise DataError("this summary was written by version 0.1 (a column `group`); run its command again")
    if missing:
        raise DataError(f"not a summary table: columns {missing} are missing; a summary has {SUMMARY}")
    return frame[SUMMARY].astype(_TYPES).reset_index(drop=True)


def concat(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Summary tables one after the other; an empty table for none."""
    kept = [part for part in parts if len(part)]
    return check_summary(pd.concat(kept, ignore_index=True)) if kept else summary([])


def check_items(frame: pd.DataFrame) -> pd.DataFrame:
    """The same item table with typed identity columns first. Raises DataError naming a missing column."""
    missing = [c for c in IDENTITY if c not in frame.columns]
    if missing:
        raise DataError(f"not an item table: columns {missing} are missing; an item table begins with {IDENTITY}")
    rest = [c for c in frame.columns if c not in IDENTITY]
    return frame[IDENTITY + rest].astype({c: _TYPES[c] for c in IDENTITY}).reset_index(drop=True)


def by_identity(
    frame: pd.DataFrame, *more: str
) -> Iterable[tuple[dict[str, object], tuple[object, ...], pd.DataFrame]]:
    """Groups of an item table: the identity columns as a mapping, the values of `more`, and the rows; in order of
    appearance.
    """
    for keys, part in frame.groupby([*IDENTITY, *more], sort=False, dropna=False):
        yield dict(zip(IDENTITY, keys, strict=False)), tuple(keys[len(IDENTITY) :]), part


def at_last_step(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's last step."""
    return table[table["step"] == table.groupby("model")["step"].transform("max")]


def read_table(path: str | os.PathLike[str], required: Iterable[str] = ()) -> pd.DataFrame:
    """A user's table: .parquet, .json (a list of records), .jsonl, .tsv, or else .csv; cells of the last two are text.

    Raises RequestError when there is no such file, DataError when it cannot be read, or has not the required columns.
    """
    kind = os.path.splitext(path)[1]
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind in (".json", ".jsonl"):
            frame = pd.read_json(path, dtype=False, lines=kind == ".jsonl")
        else:
            frame = pd.read_csv(path, sep="\t" if kind == ".tsv" else ",", dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({str(error)[:200]})") from error
    missing = [c for c in required if c not in frame.columns]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; needed are {', '.join(required)}, "
                        f"and it has {', '.join(map(str, frame.columns))}")
    return frame


def read_summary(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a `summary.csv` with its types. Raises DataError when it is missing, of version 0.1, or not one."""
    try:
        return check_summary(pd.read_csv(path, dtype=_TYPES))  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a summary table ({error})") from error
