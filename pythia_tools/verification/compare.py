"""Numbers of a run beside published ones: which belong together, and one of three verdicts for each.

Numbers belong together that name the same model, step, task, filter, shots and metric; the suite counts where the
published table states one. Whatever was published for a checkpoint of the run and has no counterpart in it is listed as
not compared, with the reason.
Cost: a join, and a band per number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from pythia_tools.core import words as say
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import IDENTITY
from pythia_tools.core.words import Row
from pythia_tools.verification.columns import EQUAL, NUMBER, OUTSIDE, UNCOMPARED, WITHIN
from pythia_tools.verification.noise import Band, band, rounding
from pythia_tools.verification.outcomes import SHARE, outcomes

FALSE_ALARMS = 0.01
"""How often at most a clean comparison may call any of its numbers outside."""
RIVALS = {r"wsc": r"wsc273", r"lambada_openai": r"lambada_standard", r"hendrycksTest-(.+)": r"mmlu_(.*_)?\1(_.*)?"}
"""Published task → tasks of today that are taken for it and are other ones."""
NAMES = ["model", "step", "task", "subset", "metric"]


def ours(summary: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The run's numbers: IDENTITY, task, subset, shots, metric, ours, documents. Agreements of runs are none."""
    shots = items.groupby("task", sort=False)["shots"].first()
    kept = summary[summary["reference"].isna() & summary["value"].notna()]
    found = kept[[*IDENTITY, "task", "subset", "metric"]].assign(
        shots=kept["task"].map(shots).astype("Int64"), ours=kept["value"], documents=kept["n"],
    )
    return found.reset_index(drop=True)


def theirs(published: pd.DataFrame) -> pd.DataFrame:
    """The published numbers under the names that lm-eval has for them now, with the digits they were printed with.

    documents_published: those that the standard error gives, else those that are stated.
    """
    frame = published.assign(
        published_task=published["task"], task=published["task_now"].fillna(published["task"]),
        published_metric=published["metric"], metric=published["metric_now"].fillna(published["metric"]),
        published=published["value"], documents_published=published["n_items"].fillna(published["n_published"]),
    )
    printed = frame["value"].map(_digits)
    frame["digits"] = printed.groupby([frame["collection"], frame["source"], frame["metric"]], dropna=False).transform(
        "max"
    )
    return frame.drop(columns="value").reset_index(drop=True)


def _digits(value: float) -> int:
    """Digits after the point that a value was printed with; 15 where it was not rounded."""
    text = f"{value:.15g}" if np.isfinite(value) else ""
    if "e" in text:
        return 15
    return len(text.partition(".")[2])


def joined(numbers: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Published numbers of the run's checkpoints, each with the run's where it has one (`ours`, else NaN).

    Raises RequestError when the two have no checkpoint in common.
    """
    here = numbers[IDENTITY].drop_duplicates()
    mine = of_suites(table, here)
    of_run = mine.merge(here, on=["model", "step"], suffixes=("_published", ""))
    if of_run.empty:
        raise RequestError(
            f"the run has {_some(here)} and the published table {_some(table)}: no checkpoint of one name; choose "
            "--models and --steps that were published"
        )
    found = of_run.merge(numbers[[*NAMES, "shots", "ours", "documents"]], on=NAMES, how="left", suffixes=("", "_ours"))
    other = (found["shots"].ne(found["shots_ours"]) & found["shots"].notna() & found["shots_ours"].notna()).astype(bool)
    found = found.assign(other_shots=other, ours=found["ours"].mask(other))
    return _of_interest(found, set(numbers["task"]))


def _of_interest(pairs: pd.DataFrame, tasks: set[str]) -> pd.DataFrame:
    """Without tasks that the run did not ask, unless it asked one that is taken for them; and without numbers of other
    shots where the ones of these shots are there.
    """
    rivalled = {name for name in pairs["published_task"].unique() if rival_of(name, tasks)}
    asked = pairs["task"].isin(tasks) | pairs["published_task"].isin(rivalled)
    at = [*NAMES, "suite", "collection", "source"]
    answered = pairs["ours"].notna().groupby([pairs[c] for c in at], dropna=False).transform("any")
    return pairs[asked & ~(pairs["other_shots"] & answered)].reset_index(drop=True)


def rival_of(published: str, tasks: Iterable[str]) -> str | None:
    """The one of these tasks that is taken for a published one and is another; None where there is none."""
    for name, rival in RIVALS.items():
        found = re.fullmatch(name, published)
        if found and published not in tasks:
            taken = sorted(task for task in tasks if re.fullmatch(found.expand(rival), task))
            return taken[0] if taken else None
    return None


def of_suites(table: pd.DataFrame, here: pd.DataFrame) -> pd.DataFrame:
    """Rows of the run's suites; without any, those of folders (lm-eval's files of one's own), which name no suite."""
    mine = table["suite"].isin(here["suite"])
    return table[mine] if mine.any() else table[table["suite"].isna() | (table["collection"] == "lm-eval")]


def _some(table: pd.DataFrame) -> str:
    models = table["model"].dropna().astype(str).unique()
    return f"{', '.join(models[:3])}{' …' if len(models) > 3 else ''} at steps up to {table['step'].max()}"


def judged(pairs: pd.DataFrame, items: pd.DataFrame, apart: pd.DataFrame | None) -> pd.DataFrame:
    """The pairs with bands and verdicts."""
    xs, measured = Contributions(items), Measured(apart)
    level = FALSE_ALARMS / max(1, int(pairs["ours"].notna().sum()))
    rows = [_verdict(row, xs, measured, level) for row in say.records(pairs)]
    found = pd.DataFrame(rows, columns=["rounding", "low", "high", "may_flip", "basis", "verdict"], index=pairs.index)
    return pairs.assign(**{str(name): found[name] for name in found}, difference=pairs["ours"] - pairs["published"])


class Contributions:
    """Checkpoint, task, metric → (n,) margins or values of its documents."""

    def __init__(self, items: pd.DataFrame):
        by = ["model", "step", "task", "metric"]
        self._x = {key: part["x"].to_numpy() for key, part in outcomes(items).groupby(by, sort=False, dropna=False)}

    def of(self, row: Row) -> np.ndarray | None:
        """None where the metric rests on neither margins nor values that items hold."""
        return self._x.get((row["model"], row["step"], row["task"], row["metric"]))


class Measured:
    """Model, task, metric → measured differences between number formats; of other models where it was not measured."""

    def __init__(self, apart: pd.DataFrame | None):
        self._own: dict[object, np.ndarray] = {}
        self._any: dict[object, np.ndarray] = {}
        if apart is not None:
            for key, part in apart.groupby(["model", "task", "metric"], sort=False):
                self._own[key] = part["apart"].to_numpy()
            for other, part in apart.groupby(["task", "metric"], sort=False):
                self._any[other] = part["apart"].to_numpy()

    def of(self, row: Row) -> np.ndarray:
        """Empty where nothing was measured."""
        own = self._own.get((row["model"], row["task"], row["metric"]))
        found = self._any.get((row["task"], row["metric"])) if own is None or not np.isfinite(own).any() else own
        return np.empty(0) if found is None else found


def _verdict(
    row: Row, xs: Contributions, measured: Measured, level: float
) -> tuple[float, float, float, int | None, str, str]:
    value, published, metric = float(row["ours"]), float(row["published"]), str(row["metric"])
    if np.isnan(value):
        return np.nan, np.nan, np.nan, None, "none", UNCOMPARED
    x, apart = xs.of(row), measured.of(row)
    near = rounding(value, int(row["digits"]), metric, x)
    found = Band(value, value, None) if x is None else band(x, apart, value=value, metric=metric, level=level)
    basis = "none" if x is None or not len(apart) else "margins" if metric in SHARE else "values"
    if abs(value - published) <= near:
        verdict = EQUAL
    else:
        verdict = WITHIN if found.low - near <= published <= found.high + near else OUTSIDE
    return near, found.low, found.high, found.may_flip, basis, verdict


def tidy(pairs: pd.DataFrame) -> pd.DataFrame:
    """IDENTITY and NUMBER, typed, in the order of the run's checkpoints."""
    return pairs[[*IDENTITY, *NUMBER]].astype({n: c.dtype for n, c in NUMBER.items()}).reset_index(drop=True)
