"""A user's table as the columns that a form needs: found by name or common alias, or as an option says; checked.

Names are compared without case, blanks and punctuation (`Model Size`, `model_size`, `N`). A summary of this package is
read as well: its rows of one metric, whose value is the loss, and whose run is model, branch and seed together.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError, few, unknown
from pythia_tools.core.options import Options, option

ALIASES: dict[str, tuple[str, ...]] = {
    "params": ("params", "parameters", "n_params", "num_params", "model_size", "size", "model_params", "n_parameters",
               "non_embedding_params", "N"),
    "tokens": ("tokens", "training_tokens", "n_tokens", "num_tokens", "total_tokens", "tokens_seen", "train_tokens",
               "throughput/total_tokens", "dataset_size", "D"),
    "flops": ("flops", "flop", "training_flops", "training_flop", "compute", "total_flops", "train_flops", "C"),
    "loss": ("loss", "val_loss", "validation_loss", "eval_loss", "test_loss", "final_loss", "loss_c4_val", "bpb",
             "bits_per_byte", "nll", "cross_entropy", "train_loss", "L", "value"),
    "accuracy": ("accuracy", "acc", "acc_norm", "score"),
    "error": ("error", "err", "error_rate", "top_1_error", "downstream_error"),
    "run": ("run", "run_name", "run_id", "name", "model", "experiment", "id"),
    "step": ("step", "steps", "_step", "train_step", "iteration"),
    "last_step": ("last_step", "max_step", "max_steps", "total_steps", "n_steps", "train_steps"),
    "lr": ("lr", "learning_rate", "optim/learning_rate_group0"),
    "task": ("task", "task_name", "benchmark"),
}
"""What users call the columns; the first that a table has is taken."""
SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class TableOptions(Options):
    """Where in a table the numbers are."""

    params_column: str | None = option(None, "column of sizes, where it is called otherwise", metavar="NAME")
    tokens_column: str | None = option(None, "column of training tokens", metavar="NAME")
    flops_column: str | None = option(None, "column of training FLOPs (else 6 x params x tokens)", metavar="NAME")
    loss_column: str | None = option(None, "column of the loss, or of any other number to fit", metavar="NAME")
    run_column: str | None = option(None, "column that names the run (else every row is a run)", metavar="NAME")
    metric: str | None = option(None, "which metric of a summary is fitted", metavar="NAME")
    task: str | None = option(None, "which task of a summary", metavar="NAME")
    subset: str | None = option(None, "which subset of a summary", metavar="NAME")

    def named(self) -> dict[str, str | None]:
        """Column → what the user says it is called."""
        return {"params": self.params_column, "tokens": self.tokens_column, "flops": self.flops_column,
                "loss": self.loss_column, "run": self.run_column}


def is_summary(table: pd.DataFrame) -> bool:
    return set(tables.SUMMARY) <= set(table.columns)


def rows_of_summary(table: pd.DataFrame, metric: str | None, task: str | None, subset: str | None) -> pd.DataFrame:
    """The rows of one metric, task and subset of a summary, with a column `run`; each must be named where several are.

    Raises RequestError naming those there are.
    """
    rows = table
    for column, asked in (("metric", metric), ("task", task), ("subset", subset)):
        found = sorted(rows[column].dropna().unique())
        if asked is not None:
            if asked not in found:
                raise unknown(f"{column} of this summary", asked, found)
            rows = rows[rows[column] == asked]
        elif len(found) > 1 and not (column == "subset" and "all" in found):
            raise RequestError(f"this summary holds several of {column}; name one with --{column}: {few(found, 12)}")
        elif len(found) > 1:
            rows = rows[rows[column] == "all"]
    seeds = rows["seed"].astype("string").fillna("")
    return rows.assign(run=rows["model"].fillna("") + " " + rows["branch"].fillna("") + " " + seeds)


def select(
    table: pd.DataFrame, needed: Iterable[str], optional: Iterable[str] = (),
    named: Mapping[str, str | None] | None = None,
) -> pd.DataFrame:
    """The needed and, where the table has them, the optional columns under their own names, in the table's order.

    named: column → what this table calls it. Raises RequestError for a column that is missing.
    """
    called = named or {}
    found = {name: _place(table, name, called.get(name)) for name in (*needed, *optional)}
    for name in needed:
        if found[name] is None:
            raise RequestError(
                f"no column for {name}: the table has {few(table.columns, 20)}; rename one to {name!r}"
                + (f", or say --{name}-column NAME" if name in called else "")
            )
    return pd.DataFrame({name: table[place] for name, place in found.items() if place is not None})


def _place(table: pd.DataFrame, name: str, called: str | None) -> str | None:
    """What the table calls a column; None when it has none."""
    if called is not None:
        if called not in table.columns:
            raise unknown("column", called, table.columns)
        return called
    plain = {_plain(str(column)): str(column) for column in reversed(list(table.columns))}
    return next((plain[_plain(alias)] for alias in ALIASES.get(name, (name,)) if _plain(alias) in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def numbers(column: pd.Series, *, positive: bool = True) -> np.ndarray:
    """(n,) float64 of a column of numbers or text (`70m`, `1.4B`, `3e11`).

    Raises RequestError for what is missing, no finite number or, if asked, not positive: with its row.
    """
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
    else:
        values = np.array([_number(cell) for cell in column])
    wrong = ~np.isfinite(values) | (positive & ~(values > 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise RequestError(
            f"{wrong.sum()} of {len(values)} rows have no {'positive' if positive else 'finite'} {column.name} (the "
            f"first is row {first + 1}: {column.iloc[first]!r}); drop those rows or fill them in"
        )
    return values


def _number(cell: object) -> float:
    if pd.isna(cell):  # type: ignore[call-overload]
        return np.nan
    match = re.fullmatch(r"\s*([-+]?[\d._,]*\d[\d.]*(?:e[-+]?\d+)?)\s*([kmbgt]?)\s*", str(cell).lower())
    if match is None:
        return np.nan
    try:
        return float(match[1].replace(",", "").replace("_", "")) * SUFFIXES[match[2]]
    except ValueError:
        return np.nan
