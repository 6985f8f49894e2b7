"""The runs that a law is fitted to, and what is refused: points that cannot carry one.

A law of size and tokens needs six budgets (distinct pairs of size and tokens) of four sizes, as three sizes leave
nothing that could speak against it. Checkpoints within a run whose learning rate has not decayed are not what a run of
so many tokens would reach; where columns tell (`step`, or `lr` and `last_step`), they are refused beside finished runs.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from pythia_tools.core.errors import RequestError
from pythia_tools.fitting.columns import TableOptions, is_summary, numbers, rows_of_summary, select
from pythia_tools.fitting.laws import FLOPS, Law

FEWEST_BUDGETS = 6
FEWEST_SIZES = 4
SAME = 1.01
"""Sizes (and tokens) that differ by a smaller factor are one, as those read off a figure are."""
DECAYED = 0.5
"""A learning rate that has fallen below this share of its run's highest is in its decay."""


@dataclass(frozen=True)
class Points:
    """n points: (n,) params, tokens, flops and loss, the runs they are of, and the table they were read from.

    `table` has the columns run, params, tokens, flops, loss, in its rows' order, and others that a form asked for.
    """

    table: pd.DataFrame

    def logs(self, law: Law) -> np.ndarray:
        """(n, k) logs of the law's variables."""
        return np.log(self.table[list(law.variables)].to_numpy(float))

    @property
    def log_loss(self) -> np.ndarray:
        return np.log(self.table["loss"].to_numpy(float))

    @property
    def runs(self) -> np.ndarray:
        return np.asarray(self.table["run"])

    def where(self, mask: np.ndarray) -> Self:
        return replace(self, table=self.table[mask].reset_index(drop=True))


def read_points(table: pd.DataFrame, law: Law, options: TableOptions, checkpoints: str, drop: int) -> Points:
    """The points of a table. checkpoints: `refuse`, `last` or `all`; drop: how many of the largest losses are left out.

    Raises RequestError for a table that cannot carry the law, and for numbers that are none.
    """
    rows = table
    if is_summary(table):
        rows = rows_of_summary(table, options.metric, options.task, options.subset)
    rows = rows.reset_index(drop=True)
    if rows.empty:
        raise RequestError("the table is empty; a fit needs rows of size, tokens and loss")
    further = ("params", "tokens", "flops", "run", "step", "last_step", "lr", "error")
    has = select(rows, ("loss",), further, options.named())
    points = pd.DataFrame({"run": _runs(has)})
    for name in ("params", "tokens", "flops"):
        if name in has:
            points[name] = numbers(has[name])
    points = _completed(points, law)
    points["loss"] = numbers(has["loss"])
    for name in ("step", "last_step", "lr", "error"):
        if name in has and has[name].notna().all():
            points[name] = numbers(has[name], positive=False)
    _check(points, law)
    points = _finished(points, checkpoints)
    if drop:
        points = points.drop(points["loss"].nlargest(drop).index).reset_index(drop=True)
    _check(points, law)
    return Points(points.drop(columns=["step", "last_step", "lr"], errors="ignore"))


def _runs(has: pd.DataFrame) -> pd.Series:
    if "run" in has:
        return has["run"].astype(str).reset_index(drop=True)
    return pd.Series([f"row {k + 1}" for k in range(len(has))])


def _completed(points: pd.DataFrame, law: Law) -> pd.DataFrame:
    """With that of params, tokens and flops which follows from the other two."""
    if "flops" not in points and {"params", "tokens"} <= set(points):
        points["flops"] = FLOPS * points["params"] * points["tokens"]
    elif "tokens" not in points and {"params", "flops"} <= set(points):
        points["tokens"] = points["flops"] / (FLOPS * points["params"])
    missing = [name for name in law.variables if name not in points]
    if missing:
        raise RequestError(
            f"{law.name} needs {' and '.join(law.variables)}, and the table has no column for {' and '.join(missing)}; "
            f"rename one, or say --{missing[0]}-column NAME"
        )
    return points


def _finished(points: pd.DataFrame, checkpoints: str) -> pd.DataFrame:
    """The points without checkpoints inside a run, where they are to be left out; refused where a choice is needed."""
    if checkpoints == "all":
        return points
    further = "step" if "step" in points else "tokens" if "tokens" in points else "flops"
    last = points[further] == points.groupby("run")[further].transform("max")
    if checkpoints == "last":
        return points[last].reset_index(drop=True)
    inside = _inside(points, last)
    if inside.any() and not inside.all():
        raise RequestError(
            f"{int(inside.sum())} of {len(points)} rows are checkpoints within a run, the others ends of runs: before "
            "its learning rate has decayed, a run is not what a shorter run would have reached; "
            "fit ends of runs alone (--checkpoints last), or all of them if the rate is constant (--checkpoints all)"
        )
    return points


def _inside(points: pd.DataFrame, last: pd.Series) -> pd.Series:
    """Which rows the columns tell to be checkpoints before the end of their run's schedule."""
    runs = points.groupby("run")
    if "last_step" in points and "step" in points:
        return points["step"] < points["last_step"]
    if "lr" in points:
        decays = runs["lr"].transform("min") < DECAYED * runs["lr"].transform("max")
        return decays & (points["lr"] > 1.05 * runs["lr"].transform("min"))
    return ~last if "step" in points else pd.Series(False, index=points.index)


def _check(points: pd.DataFrame, law: Law) -> None:
    if reason := refusal(points, law):
        raise RequestError(reason)


def refusal(points: pd.DataFrame, law: Law) -> str:
    """Why the points cannot carry the law, in one line; nothing where they can."""
    if not law.sized:
        budgets = len(np.unique(_levels(points["flops"])))
        fewer = budgets < FEWEST_BUDGETS
        return f"{budgets} budgets carry no law: {law.name} needs {FEWEST_BUDGETS} different FLOPs" if fewer else ""
    pairs = np.stack([_levels(points["params"]), _levels(points["tokens"])], axis=1)
    sizes, tokens = (len(np.unique(column)) for column in pairs.T)
    budgets = len(np.unique(pairs, axis=0))
    wanted = f"{law.name} needs {FEWEST_SIZES} sizes and {FEWEST_BUDGETS} budgets (sizes x tokens)"
    if sizes < FEWEST_SIZES:
        count = ("no size carries", "one size carries", "two sizes carry", "three sizes carry")[sizes]
        return (f"{count} no law: {wanted}, and this table has {budgets} budgets; train more sizes, or fit compute "
                "alone (--form flops)")
    if tokens < 3 or budgets < FEWEST_BUDGETS:
        return (f"{budgets} budgets carry no law: {wanted}, with at least 3 different counts of tokens; this table has "
                f"{sizes} sizes and {tokens} counts of tokens")
    return ""


def _levels(values: pd.Series) -> np.ndarray:
    """(n,) which of the different levels each value is, from the smallest."""
    logs = np.log(values.to_numpy(float))
    order = np.argsort(logs, kind="stable")
    levels = np.empty(len(logs), dtype=np.int64)
    levels[order] = np.cumsum(np.diff(logs[order], prepend=logs[order][:1]) > np.log(SAME))
    return levels
