"""Decisions by small runs: do they rank corpora as large runs come out, and which metric tells best?

- decision accuracy (DataDecide, Magnusson et al. 2025): share of pairs of corpora that a run of a small size ranks as
  the largest size does, by the mean of its seeds; a tie on either side counts half. Every seed of one corpus is
  compared with every seed of the other, as a lab has one small run each.
- signal to noise (Heineman et al. 2025): signal = (largest − smallest) / mean over the corpora's runs of a size; noise
  = standard deviation over the last checkpoints of a run / mean, averaged over runs.

Corpora are independent, and with them their seeds; intervals leave out one corpus after another (jackknife of a
U-statistic, Arvesen 1969, at Student's quantile). Cost: milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pythia_tools.core.errors import RequestError, few, unknown
from pythia_tools.core.options import option
from pythia_tools.core.statistics import Estimate, wilson
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Row, Sentence, interval, percent, records
from pythia_tools.fitting.columns import numbers
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.saturation import lower_is_better
from pythia_tools.fitting.series import SeriesOptions, long_rows, summarized

CORPORA = ("corpus", "data", "mixture", "dataset", "recipe", "data_recipe", "group")
"""What tables call the corpus a run was trained on."""
SIZES = ("params", "size", "model_size", "parameters", "N")
FEWEST = 4
"""Corpora below which decision accuracy has no interval."""


@dataclass(frozen=True)
class DecisionOptions(SeriesOptions):
    """What is ranked, by what, and how a run's end is read."""

    metrics: tuple[str, ...] = option((), "columns that are metrics, where each has one", metavar="NAME")
    corpus_column: str | None = option(None, "column of the corpora (or whatever is chosen between)", metavar="NAME")
    params_column: str | None = option(None, "column of the sizes", metavar="NAME")
    target_metric: str | None = option(None, "metric of the largest size to be predicted (default: the same metric)",
                                       metavar="NAME")
    last: int = option(1, "a run's result is the mean of so many last checkpoints", minimum=1)
    noise_over: int = option(5, "checkpoints at the end whose standard deviation is noise", minimum=2)


def agreement(small: npt.ArrayLike, large: npt.ArrayLike) -> np.ndarray:
    """(c, c) share of comparisons of two corpora that small runs (c, seeds; NaN where missing) rank as large ones (c,)
    do; ties ½, NaN on the diagonal.

    >>> agreement([[1.0], [2.0], [2.0]], [1.0, 3.0, 2.0])[0].tolist(), agreement([[1.], [2], [2]], [1, 3, 2])[1, 2]
    ([nan, 1.0, 1.0], np.float64(0.5))
    """
    runs, truth = np.asarray(small, dtype=np.float64), np.asarray(large, dtype=np.float64)
    apart = runs[:, None, :, None] - runs[None, :, None, :]
    right = np.sign(truth[:, None] - truth[None, :])[:, :, None, None]
    alike = np.where(np.isfinite(apart), (1 + np.sign(apart) * right) / 2, np.nan)
    compared = np.isfinite(alike).sum(axis=(2, 3))
    shares = np.nansum(alike, axis=(2, 3)) / np.maximum(compared, 1)
    return np.where((compared > 0) & ~np.eye(len(runs), dtype=bool), shares, np.nan)


def decision_accuracy(shares: np.ndarray, less: np.ndarray | None = None, level: float = 0.95) -> Estimate:
    """Mean over pairs of (c, c) shares of `agreement`, with its interval over corpora; less: those of another metric,
    whose mean is taken off.

    >>> found = decision_accuracy(agreement(np.arange(8.)[:, None] ** 2, np.arange(8.)))
    >>> found.value, round(float(found.low), 2), found.high, found.n
    (1.0, 0.68, 1.0, 8)
    """
    held = shares if less is None else shares - less
    value, n = float(np.nanmean(held)), len(held)
    if n < FEWEST:
        return Estimate(value, n=n, unit="corpus")
    rest = np.array([np.nanmean(np.delete(np.delete(held, c, 0), c, 1)) for c in range(n)])
    error = float(np.sqrt((n - 1) / n * ((rest - rest.mean()) ** 2).sum()))
    if less is None and error < 1e-12:  # pairs that all agree are no proof that all would
        return replace(wilson(value * n, n, unit="corpus", level=level), value=value)
    reach, least = float(student.ppf(0.5 + level / 2, n - 1)) * error, 0.0 if less is None else -1.0
    return Estimate(value, max(least, value - reach), min(1.0, value + reach), n, "corpus",
                    f"jackknife{round(100 * level)}")


@dataclass(frozen=True, eq=False)
class _Runs:
    """Results of one metric and task. sizes, rising; ends: size → (corpora, seeds) results of runs, NaN where there is
    none; noise: size → relative standard deviation over the last checkpoints, NaN where runs have too few.
    """

    task: object
    metric: str
    corpora: list[str]
    sizes: list[float]
    ends: dict[float, np.ndarray]
    noise: dict[float, float]


def _runs(rows: pd.DataFrame, options: DecisionOptions) -> Iterator[_Runs]:
    """The runs of every task and metric."""
    if "task" not in rows.columns:
        rows = rows.assign(task=None)
    for (task, metric), part in rows.groupby(["task", "metric"], sort=False, dropna=False):
        corpora, sizes = sorted(part["corpus"].unique()), sorted(part["size"].unique())
        ends, noise = {}, {}
        for size in sizes:
            held = part[part["size"] == size]
            runs = [(corpus, own.sort_values("step")["value"].to_numpy(float))
                    for (corpus, _), own in held.groupby(["corpus", "run"], dropna=False)]
            results = {c: [curve[-options.last :].mean() for name, curve in runs if name == c] for c in corpora}
            seeds = max(map(len, results.values()))
            ends[size] = np.array([found + [np.nan] * (seeds - len(found)) for found in results.values()])
            tails = [curve[-options.noise_over :] for _, curve in runs if len(curve) >= options.noise_over]
            spread = [np.std(tail, ddof=1) / max(abs(tail.mean()), 1e-300) for tail in tails]
            noise[size] = float(np.mean(spread)) if spread else np.nan
        yield _Runs(task, str(metric), corpora, sizes, ends, noise)


def fit(table: pd.DataFrame, options: DecisionOptions) -> Fit:
    """Decision accuracy of every size below the largest, and signal to noise of every size, by task and metric."""
    runs = list(_runs(_rows(table, options), options))
    rows, items = [], []
    for one in runs:
        target = _target(one, runs, options.target_metric)
        for size in one.sizes:
            rows += list(_signal(one, size))
        kept = _accuracies(one, target)
        rows += [_row(one, size, "decision_accuracy", found) for size, (found, _) in kept.items()]
        items += [{"task": one.task, "metric": one.metric, "params": size, "corpus": corpus, "value": value,
                   "target": wanted} for size in kept for corpus, value, wanted in
                  zip(one.corpora, np.nanmean(one.ends[size], axis=1), _truth(target, one.corpora), strict=True)]
    if not items:
        raise RequestError("no corpus is there at two sizes; a table for decisions has columns corpus, params, value, "
                           "and seed where there are several")
    rows += list(_behind(runs, options.target_metric))
    summary = summarized(rows, "decision", METRICS)
    return Fit(pd.DataFrame(items), summary, tuple(_sentences(summary)))


def _rows(table: pd.DataFrame, options: DecisionOptions) -> pd.DataFrame:
    """Rows with corpus, size, run, step, task, metric and value."""
    rows = long_rows(table, options, options.metrics, ("value",))
    corpus = options.corpus_column or next((c for c in CORPORA if c in rows.columns), None)
    size = options.params_column or next((c for c in SIZES if c in rows.columns), None)
    for what, place in (("corpus", corpus), ("params", size)):
        if place is None:
            raise RequestError(f"no column of the {what}: the table has {few(table.columns, 20)}; name it with "
                               f"--{what}-column")
        if place not in rows.columns:
            raise unknown("column", place, rows.columns)
    named = rows.assign(corpus=rows[corpus].astype(str), size=numbers(rows[size]))  # type: ignore[index]
    seed = named["seed"].astype("string").fillna("") if "seed" in named.columns else ""
    model = named["model"].astype("string").fillna("") if "model" in named.columns else ""
    named = named.assign(run=seed + model if isinstance(model, str) else model + " " + seed)
    twice = named.duplicated(["corpus", "size", "run", "step", "metric", *(["task"] if "task" in named else [])])
    if twice.any():
        raise RequestError(f"{twice.sum()} rows have the corpus, size, run and step of another; name a --task or "
                           "--subset, or the column of seeds with --seed-column")
    return named


def _target(one: _Runs, runs: list[_Runs], metric: str | None) -> _Runs:
    """Where the truth is read: the same task's target metric."""
    if metric is None:
        return one
    same = {other.metric: other for other in runs if str(other.task) == str(one.task)}
    if metric not in same:
        raise unknown("metric to predict", metric, same)
    return same[metric]


def _truth(target: _Runs, corpora: list[str]) -> np.ndarray:
    """(corpora,) results of the largest size, mean over seeds."""
    held = dict(zip(target.corpora, target.ends[target.sizes[-1]], strict=True))
    return np.array([np.nanmean(held[c]) if c in held and np.isfinite(held[c]).any() else np.nan for c in corpora])


def _accuracies(one: _Runs, target: _Runs) -> dict[float, tuple[Estimate, np.ndarray]]:
    """Size → decision accuracy, and the shares of agreement behind it; sizes below the target's largest."""
    truth, found = _truth(target, one.corpora), {}
    way = -1 if lower_is_better(one.metric) != lower_is_better(target.metric) else 1
    for size in one.sizes:
        there = np.isfinite(truth) & np.isfinite(one.ends[size]).any(axis=1)
        if size < target.sizes[-1] and there.sum() > 1:
            shares = agreement(way * one.ends[size][there], truth[there])
            found[size] = decision_accuracy(shares), shares
    return found


def _behind(runs: list[_Runs], metric: str | None) -> Iterator[Row]:
    """How far each metric's decision accuracy is behind the best one's, of the same task, size and corpora."""
    by_task: dict[str, list[tuple[_Runs, dict[float, tuple[Estimate, np.ndarray]]]]] = {}
    for one in runs:
        by_task.setdefault(str(one.task), []).append((one, _accuracies(one, _target(one, runs, metric))))
    for members in by_task.values():
        for size in sorted({size for _, found in members for size in found}):
            there = [(one, found[size]) for one, found in members if size in found]
            best, (_, shares) = max(there, key=lambda member: member[1][0].value)
            for one, (_, own) in there:
                if one is not best and own.shape == shares.shape:
                    yield _row(one, size, "behind_best", decision_accuracy(shares, own))


def _signal(one: _Runs, size: float) -> Iterator[Row]:
    ends = np.nanmean(one.ends[size], axis=1)
    kept = ends[np.isfinite(ends)]
    if len(kept) < 2:
        return
    signal = float(np.ptp(kept) / max(abs(kept.mean()), 1e-300))
    found = {"signal": signal, "noise": one.noise[size], "signal_to_noise": signal / one.noise[size]
             if one.noise[size] > 0 else np.nan}
    for name, value in found.items():
        if np.isfinite(value):
            yield _row(one, size, name, Estimate(value, n=len(kept), unit="corpus"))


def _row(one: _Runs, size: float, metric: str, found: Estimate) -> Row:
    row: Row = {"task": one.task, "params": int(size), "reference": one.metric, "metric": metric}
    row.update(found.columns().items())
    return row


def _sentences(summary: pd.DataFrame) -> Iterator[Sentence]:
    told = summary[summary["metric"] == "decision_accuracy"]
    for task, part in told.groupby("task", dropna=False, sort=False):
        for size, rows in part.groupby("params", sort=True):
            row = max(records(rows), key=lambda one: float(one["value"]))
            behind = summary[(summary["metric"] == "behind_best") & (summary["params"] == size)
                             & (summary["task"].fillna("") == ("" if pd.isna(task) else task))]
            beaten = int((behind["low"] > 0).sum())
            others = (f"; of {len(behind)} other metrics {beaten} are detectably worse" if len(behind) else "")
            where: str = "" if pd.isna(row["task"]) else f"{row['task']}: "
            where += f"at {int(row['params']):,} parameters"
            yield Sentence.of(f"{where} {row['reference']} ranks {percent(row['value'])} of pairs of"
                              f" {row['n']} corpora as the largest size does{interval(row, percent)}{others}.",
                              rows, behind)


METRICS = {
    "decision_accuracy": Metric("share", "pairs of corpora that runs of `params` rank as the largest size comes out, "
                                         "by the metric `reference`"),
    "behind_best": Metric("share", "decision accuracy of the size's best metric, less that of `reference`"),
    "signal": Metric("1", "range over corpora, over their mean"),
    "noise": Metric("1", "standard deviation over a run's last checkpoints, over their mean"),
    "signal_to_noise": Metric("1", "signal over noise"),
}
COLUMNS = {
    "corpus": Column("string", "what the run was trained on"),
    "target": Column("float64", "the corpus' result at the largest size"),
}
FORM = Form(
    says="do small runs rank corpora as large ones come out, and which metric tells best?",
    fit=fit, options=DecisionOptions,
    columns={"corpus": "what is chosen between", "params": "size of the run", "value": "its result (or --metrics)",
             "seed": "where there are several", "step": "where there are several checkpoints"},
    metrics=METRICS, items=COLUMNS,
    figures={"decisions": "Share of pairs of corpora ranked as at the largest size, by size and metric."},
    methods="Pairs of corpora were compared by every pair of small runs and by the mean of the largest runs, ties "
            "counting half; results are means of the last {last} checkpoints; intervals are over corpora.",
)
