"""Curves over training out of a table: a summary, a table of items, published numbers, or a plain CSV with a column of
steps; every model, seed, task, subset and metric is a curve of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError, few, unknown
from pythia_tools.core.options import Options, option
from pythia_tools.core.tables import Metric
from pythia_tools.core.words import Row
from pythia_tools.fitting.columns import numbers

Z = NormalDist().inv_cdf(0.975)
NAMES = {
    "step": ("step", "steps", "_step", "train_step", "iteration"),
    "value": ("value", "score", "acc", "accuracy", "loss"),
    "stderr": ("stderr", "se", "standard_error"),
    "item": ("doc_id", "item", "item_id", "instance_id"),
    "model": ("model", "run", "run_name", "run_id", "name"),
}
"""What tables call a column; the first that a table has is taken."""
KEYS = [
    "suite", "model", "params", "branch", "seed", "analysis", "task", "subset", "reference", "exposures_low",
    "exposures_high", "cohort", "since", "metric",
]
"""Columns that tell curves apart, those of them that a table has."""
RUN = ["suite", "model", "params", "branch", "seed"]
_KINDS = {"release": "{}", "collection": "{}", "shots": "{} shots"}
"""Columns of published results that tell curves of one task apart; a summary has their words in its subset."""


@dataclass(frozen=True)
class SeriesOptions(Options):
    """Which curves of a table, and where in it they are."""

    value_column: str | None = option(None, "column of the numbers, where it is not called value", metavar="NAME")
    step_column: str | None = option(None, "column of the training steps", metavar="NAME")
    error_column: str | None = option(None, "column of the standard errors", metavar="NAME")
    run_column: str | None = option(None, "column that names the run", metavar="NAME")
    seed_column: str | None = option(None, "column of the seeds", metavar="NAME")
    item_column: str | None = option(None, "column of the items, where a row is an item at a step", metavar="NAME")
    metric: str | None = option(None, "only this metric", metavar="NAME")
    task: str | None = option(None, "only this task", metavar="NAME")
    subset: str | None = option(None, "only this subset", metavar="NAME")

    def named(self) -> dict[str, str | None]:
        """Column → what the user says it is called."""
        return {"value": self.value_column, "step": self.step_column, "stderr": self.error_column,
                "model": self.run_column, "seed": self.seed_column, "item": self.item_column}


@dataclass(frozen=True, eq=False)
class Series:
    """A curve over training.

    keys: columns of KEYS that name it. steps (k,) int64, rising; values (k,) float64; errors (k,) standard errors, NaN
    where unknown. items: (n, k) the items' values, where they are at hand. n, unit: what is independent behind a value.
    told: the keys that a sentence names.
    """

    keys: Mapping[str, object]
    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    items: np.ndarray | None = None
    n: int = 0
    unit: str = ""
    told: tuple[str, ...] = ("model", "seed", "task", "subset", "metric")

    @property
    def label(self) -> str:
        """`70m lambada_openai acc`: what a sentence calls it."""
        parts = {name: self.keys[name] for name in self.told if known(self.keys.get(name))}
        if "seed" in parts:
            shown = str(parts.get("model")).endswith(f"seed{parts['seed']}")
            parts["seed"] = "" if shown else f"seed {parts['seed']}"
        return " ".join(str(p) for p in parts.values() if p not in ("", "all", "main")) or "the curve"

    def row(self, metric: str, value: float, **more: object) -> Row:
        """A row of the fit's summary: the curve's keys, its own metric as `reference`."""
        named: Row = {name: self.keys[name] for name in (*RUN, "task", "subset") if name in self.keys}
        named.update({"reference": self.keys.get("metric"), "metric": metric, "value": value, "n": self.n or None,
                      "unit": self.unit or None, "interval": "none"})
        named.update(more.items())
        return named

    def noise(self, resamples: int, rng: np.random.Generator) -> np.ndarray | None:
        """(resamples, k) errors of the curve as other items would have made them: items drawn again, else normal ones
        of the standard errors; None where neither is known.
        """
        if self.items is not None:
            drawn = rng.multinomial(len(self.items), np.full(len(self.items), 1 / len(self.items)), resamples)
            return drawn @ self.items / len(self.items) - self.values
        if np.isfinite(self.errors).all():
            return rng.normal(size=(resamples, len(self.steps))) * self.errors
        return None


@dataclass
class Found:
    """Rows of a fit's summary, its items, and what is said of them; sentences name the rows read."""

    rows: list[Row] = field(default_factory=list)
    items: list[Mapping[str, object]] = field(default_factory=list)
    said: list[tuple[str, list[int]]] = field(default_factory=list)

    def add(self, rows: Iterable[Row], say: str = "") -> None:
        """Rows, and one sentence that was read off them."""
        start = len(self.rows)
        self.rows += rows
        if say:
            self.said.append((say, list(range(start, len(self.rows)))))


def summarized(rows: Iterable[Row], analysis: str, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The summary table of a fit's rows."""
    return tables.summary(({str(k): v for k, v in row.items()} for row in rows), analysis=analysis, metrics=metrics)


def known(value: object) -> bool:
    return value is not None and not pd.isna(value)  # type: ignore[call-overload, no-any-return]


def curves(table: pd.DataFrame, options: SeriesOptions, *, fewest: int = 3) -> list[Series]:
    """Every curve of a table that has at least `fewest` steps, in the table's order.

    Raises RequestError when a column is missing, a cell is no number, a step occurs twice in a curve, or no curve has
    so many steps.
    """
    rows = rows_of(table, options)
    keys = [k for k in KEYS if k in rows.columns]
    groups = rows.groupby(keys, sort=False, dropna=False) if keys else [((), rows)]
    found = [_series(dict(zip(keys, names, strict=True)), part) for names, part in groups]
    long_enough = [one for one in found if len(one.steps) >= fewest]
    if not long_enough:
        most = max((len(one.steps) for one in found), default=0)
        raise RequestError(f"no curve has {fewest} steps; the longest has {most}; give a table with more checkpoints")
    apart = [k for k in ("suite", "branch", "seed", "subset") if len({str(one.keys.get(k)) for one in long_enough}) > 1]
    told = tuple(k for k in ("suite", "model", "branch", "seed", "task", "subset", "metric")
                 if k in apart or k in ("model", "task", "metric"))
    return [replace(one, told=told) for one in long_enough]


def rows_of(table: pd.DataFrame, options: SeriesOptions, needed: Sequence[str] = ("step", "value")) -> pd.DataFrame:
    """The table's rows asked for, with columns step, value, stderr, those of KEYS it has, and item where rows are
    items. Rows without a value are left out; where no step is needed and none there, it is 0.
    """
    places = {name: _place(table, name, called) for name, called in options.named().items()}
    for name in needed:
        if places[name] is None:
            raise RequestError(f"no column of {name}s: the table has {few(table.columns, 20)}; name it with "
                               f"--{name}-column")
    taken = {place: name for name, place in places.items() if place is not None}
    hidden = [name for name in taken.values() if name in table.columns and name not in taken]
    rows = table.drop(columns=hidden).rename(columns=taken)
    if "metric" not in rows.columns:
        rows = rows.assign(metric=places["value"])
    for column in ("metric", "task", "subset"):
        rows = _only(rows, column, getattr(options, column))
    rows = _with_kinds(rows)
    rows = rows[rows["value"].notna() & (rows["value"].astype(str) != "")]
    if "step" not in rows.columns:
        rows = rows.assign(step=0)
    return rows.assign(step=numbers(rows["step"], positive=False), value=numbers(rows["value"], positive=False),
                       stderr=_errors(rows))


def long_rows(
    table: pd.DataFrame, options: SeriesOptions, columns: Sequence[str], needed: Sequence[str] = ("step", "value")
) -> pd.DataFrame:
    """`rows_of` a table that has a column per metric: the named columns one below the other. None named: `rows_of`."""
    for name in columns:
        if name not in table.columns:
            raise unknown("column", name, table.columns)
    parts = [rows_of(table.assign(metric=name), replace(options, value_column=name, metric=None), needed)
             for name in columns]
    return pd.concat(parts, ignore_index=True) if parts else rows_of(table, options, needed)


def _place(table: pd.DataFrame, name: str, called: str | None) -> str | None:
    if called is not None:
        if called not in table.columns:
            raise unknown("column", called, table.columns)
        return called
    return next((alias for alias in NAMES.get(name, (name,)) if alias in table.columns), None)


def _only(rows: pd.DataFrame, column: str, asked: str | None) -> pd.DataFrame:
    if asked is None:
        return rows
    there = sorted(rows[column].dropna().astype(str).unique()) if column in rows.columns else []
    if asked not in there:
        raise unknown(f"{column} of this table", asked, there)
    return rows[rows[column].astype(str) == asked]


def _with_kinds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their subset's name completed by the _KINDS that differ among them."""
    told = [column for column in _KINDS if column in rows.columns and rows[column].nunique(dropna=False) > 1]
    if not told:
        return rows
    subset = rows["subset"].astype("string").fillna("all") if "subset" in rows.columns else "all"
    names = pd.Series(subset, index=rows.index, dtype="string")
    for column in told:
        names = names + " " + rows[column].astype("string").fillna("unknown").map(_KINDS[column].format)
    return rows.assign(subset=names)


def _errors(rows: pd.DataFrame) -> np.ndarray:
    """(n,) standard errors: as given, or from the bounds of 95 % intervals; NaN where there are none."""
    if "stderr" in rows.columns:
        return pd.to_numeric(rows["stderr"], errors="coerce").to_numpy(float)
    if set(tables.SUMMARY) <= set(rows.columns):
        return (rows["high"].to_numpy(float) - rows["low"].to_numpy(float)) / (2 * Z)
    return np.full(len(rows), np.nan)


def _series(keys: dict[str, object], rows: pd.DataFrame) -> Series:
    if "item" in rows.columns:
        return _of_items(keys, rows)
    rows = rows.sort_values("step")
    if rows["step"].duplicated().any():
        twice = rows.loc[rows["step"].duplicated(), "step"].iloc[0]
        raise RequestError(f"step {twice:.0f} occurs more than once in {keys or 'the table'}; name what tells "
                           "the curves apart with --run-column, --task, --subset, --metric; or items, --item-column")
    n, unit = (rows[c].iloc[0] if c in rows.columns and known(rows[c].iloc[0]) else None for c in ("n", "unit"))
    return Series(keys, rows["step"].to_numpy(np.int64), rows["value"].to_numpy(float), rows["stderr"].to_numpy(float),
                  n=int(n or 0), unit=str(unit or ""))


def _of_items(keys: dict[str, object], rows: pd.DataFrame) -> Series:
    """The curve of the means over those items that every step has."""
    wide = rows.pivot_table(index="item", columns="step", values="value", aggfunc="mean").dropna()
    held = wide.to_numpy(float)
    if len(held) < 2:
        raise RequestError(f"fewer than two items of {keys or 'the table'} are at every step; drop the steps that lack "
                           "items, or take the curve of a summary")
    errors = held.std(axis=0, ddof=1) / np.sqrt(len(held))
    return Series(keys, wide.columns.to_numpy(np.int64), held.mean(axis=0), errors, held, len(held), "item")


def by(series: Iterable[Series], *apart: str) -> Iterator[tuple[dict[str, object], list[Series]]]:
    """Curves that differ in nothing but the columns `apart`, and the columns they share; in order of appearance."""
    groups: dict[tuple[object, ...], list[Series]] = {}
    for one in series:
        shared = tuple((k, str(v)) for k, v in one.keys.items() if k not in apart)
        groups.setdefault(shared, []).append(one)
    for members in groups.values():
        yield {k: v for k, v in members[0].keys.items() if k not in apart}, members


def aligned(members: list[Series]) -> tuple[np.ndarray, np.ndarray]:
    """The steps that all curves have (k,), and the curves' values there (curves, k)."""
    steps = members[0].steps
    for one in members[1:]:
        steps = np.intersect1d(steps, one.steps)
    return steps, np.stack([one.values[np.isin(one.steps, steps)] for one in members])
