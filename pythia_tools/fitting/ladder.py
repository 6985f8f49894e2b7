"""The two-step ladder: size and tokens to a task's loss, that loss to accuracy; both from small runs, for large ones.

Step 1 is Hoffmann's law of the loss at the end of each run (mean of its last checkpoints), step 2 a sigmoid through
all checkpoints but each run's first tenth, smoothed, and one added point: no loss is full accuracy. Both are fitted as
OLMo's ladder fits them, from its starting point and within its bounds, so that its published predictions come out. It
has no intervals; those here are of resamples of whole runs and hold a run's scatter about both steps.
Source: Bhagia et al. 2024, arXiv:2412.04403; allenai/OLMo-ladder `src/scripts/step1.py`, `step2.py`, `predict.py`
(starting points, bounds, window 5, first tenth left out).
Cost: a second per task without intervals, some 20 ms per resample.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit, minimize

from pythia_tools.core import statistics, tables, words
from pythia_tools.core.errors import RequestError, few, unknown
from pythia_tools.core.options import option
from pythia_tools.core.tables import Metric
from pythia_tools.core.words import Sentence
from pythia_tools.fitting.columns import TableOptions, numbers, select
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.laws import HOFFMANN
from pythia_tools.fitting.minimize import DELTA, descend, huber
from pythia_tools.fitting.points import refusal

CHANCE, FULL = 0.25, 1.0
"""Where the sigmoid's search starts (its bounds do not depend on it), and accuracy at no loss."""
_STEP1_START = (3.0, 6.0, 0.1, 0.2, 1.0)
_STEP2_BOUNDS = ([-1.0, 0.0, 0.0, 0.0], [0.0, np.inf, np.inf, 1.0])
UNIT = "run"


@dataclass(frozen=True)
class LadderOptions(TableOptions):
    accuracy_column: str | None = option(None, "column of the accuracy", metavar="NAME")
    tasks: tuple[str, ...] = option((), "tasks, or weighted means of tasks as mmlu=A:0.4+B:0.6", metavar="TASK")
    loss_metric: str = option("bpb", "metric of a table of metrics that is the loss", metavar="NAME")
    accuracy_metric: str = option("len_norm", "metric of it that is the accuracy", metavar="NAME")
    runs: tuple[str, ...] = option((), "runs that are fitted, * allowed (default: all but the targets)", metavar="RUN")
    targets: tuple[str, ...] = option((), "runs that are predicted (default: those of the largest size)", metavar="RUN")
    window: int = option(5, "checkpoints that are averaged", minimum=1)
    skip: float = option(0.1, "share of each run's first checkpoints that step 2 leaves out")
    resamples: int = option(200, "resamples of the runs for the intervals", minimum=0, metavar="R")
    seed: int = option(0, "of the starts and resamples")


METRICS = {
    "predicted_accuracy": Metric("share", "accuracy that the two steps predict of the run that subset names"),
    "accuracy": Metric("share", "accuracy that it reached (its last checkpoints' mean)"),
    "accuracy_error": Metric("share", "predicted minus reached accuracy"),
    "predicted_loss": Metric("unit of the loss", "task loss that step 1 predicts of it"),
    "loss": Metric("unit of the loss", "task loss that it reached"),
    "A": Metric("1", "step 1: constant of the size term"),
    "B": Metric("1", "step 1: constant of the tokens term"),
    "alpha": Metric("1", "step 1: exponent of the size term"),
    "beta": Metric("1", "step 1: exponent of the tokens term"),
    "E": Metric("unit of the loss", "step 1: loss that neither size nor tokens remove"),
    "fall": Metric("share", "step 2: accuracy lost from no loss to much (negative)"),
    "middle": Metric("unit of the loss", "step 2: loss at the middle of the sigmoid"),
    "steepness": Metric("1 / unit of the loss", "step 2: steepness of the sigmoid"),
    "ceiling": Metric("share", "step 2: accuracy at low loss"),
}


@dataclass(frozen=True)
class Ends:
    """The end of each run: (n,) names, params, tokens, and the mean loss and accuracy of its last checkpoints."""

    table: pd.DataFrame

    @property
    def logs(self) -> np.ndarray:
        return np.log(self.table[["params", "tokens"]].to_numpy(float))


def fit_ladder(table: pd.DataFrame, options: LadderOptions) -> Fit:
    """A ladder for each task, as Form.fit."""
    points = _points(table, options)
    targets = _targets(points, options)
    rows: list[dict[str, object]] = []
    items = []
    for task, own in points.groupby("task", sort=False):
        found, smooth = _ladder(own, targets, options)
        rows += [{"task": str(task), **row} for row in found]
        items.append(smooth.assign(task=str(task)))
    rows.sort(key=lambda row: list(METRICS).index(str(row["metric"])) > list(METRICS).index("loss"))
    summary = tables.summary(rows, analysis="fit", metrics=METRICS)
    return Fit(pd.concat(items, ignore_index=True), summary, tuple(_sentences(summary)))


def _points(table: pd.DataFrame, options: LadderOptions) -> pd.DataFrame:
    """run, params, tokens, loss, accuracy, task of every checkpoint, from a table of either columns or metrics."""
    columns = ("run", "params", "tokens")
    if {"task", "metric", "value"} <= set(table.columns):
        table = _by_metric(table, options)
    named = {**options.named(), "accuracy": options.accuracy_column}
    has = select(table, (*columns, "loss", "accuracy"), ("task",), named).reset_index(drop=True)
    has["run"], has["task"] = has["run"].astype(str), has["task"].astype(str) if "task" in has else "task"
    if options.runs:
        wanted = [*options.runs, *options.targets]
        has = has[[any(fnmatch.fnmatchcase(run, glob) for glob in wanted) for run in has["run"]]]
    points = has[["run", "task"]].copy()
    for name in ("params", "tokens", "loss", "accuracy"):
        points[name] = numbers(has[name], positive=name in ("params", "loss"))
    return _combined(points, options.tasks)


def _by_metric(table: pd.DataFrame, options: LadderOptions) -> pd.DataFrame:
    """A table of metrics (a summary, or public results) with loss and accuracy side by side."""
    wanted = {options.loss_metric: "loss", options.accuracy_metric: "accuracy"}
    for metric in wanted:
        if metric not in set(table["metric"]):
            raise unknown("metric of this table", metric, sorted(table["metric"].dropna().unique()),
                          hint="(--loss-metric, --accuracy-metric)")
    run = "model" if "run" not in table.columns else "run"
    rows = table[table["metric"].isin(wanted)].rename(columns={run: "run"})
    keys = ["run", "params", "tokens", "task"]
    rows = rows.drop_duplicates([*keys, "metric"])
    wide = rows.pivot(index=keys, columns="metric", values="value").rename(columns=wanted)
    return wide.dropna().reset_index()


def _combined(points: pd.DataFrame, asked: tuple[str, ...]) -> pd.DataFrame:
    """The asked tasks, weighted means of several among them; all when none is asked for."""
    if not asked:
        return points
    known, parts = set(points["task"]), []
    for text in asked:
        label, equals, spec = text.rpartition("=")
        weights = [part.partition(":") for part in spec.split("+")] if equals else [(text, "", "1")]
        total: pd.DataFrame | None = None
        for task, _, weight in weights:
            if task not in known:
                raise unknown("task of this table", task, sorted(known))
            share = float(numbers(pd.Series([weight or "1"], name="weight"))[0])
            own = points[points["task"] == task].set_index(["run", "params", "tokens"])[["loss", "accuracy"]]
            total = share * own if total is None else total + share * own
        assert total is not None
        scale = sum(float(weight or 1) for _, _, weight in weights)
        parts.append((total / scale).reset_index().assign(task=label or text))
    return pd.concat(parts, ignore_index=True)


def _targets(points: pd.DataFrame, options: LadderOptions) -> list[str]:
    """The runs to predict: those that were named, else those of the largest size."""
    known = list(dict.fromkeys(points["run"]))
    if not options.targets:
        return sorted(points.loc[points["params"] == points["params"].max(), "run"].unique())
    missing = [run for run in options.targets if run not in known]
    if missing:
        raise unknown("run of this table", missing[0], known)
    return list(options.targets)


def _ladder(
    points: pd.DataFrame, targets: list[str], options: LadderOptions
) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """Summary rows of one task's ladder, and its smoothed checkpoints with what step 2 says of each."""
    chosen = points[~points["run"].isin(targets)]
    ends = _ends(chosen, options.window)
    if reason := refusal(ends.table, HOFFMANN):
        raise RequestError(f"the ladder's runs: {reason} (runs: {few(ends.table['run'], 6)})")
    smooth = _smoothed(chosen, options.window, options.skip)
    first = step1(ends.logs, ends.table["loss"].to_numpy(float))
    second = step2(smooth["loss"].to_numpy(), smooth["accuracy"].to_numpy())
    goal = _ends(points[points["run"].isin(targets)], options.window)
    chained = _draws(ends, smooth, first, second, goal, options)
    rows = list(_predicted(goal, first, second, chained, len(ends.table)))
    named = {"A": np.exp(first[0]), "B": np.exp(first[1]), "alpha": first[2], "beta": first[3], "E": first[4],
             **dict(zip(("fall", "middle", "steepness", "ceiling"), second, strict=True))}
    shared = {"n": len(ends.table), "unit": UNIT, "interval": "none"}
    rows += [{"metric": name, "value": float(value), **shared} for name, value in named.items()]
    said = smooth.assign(fitted=sigmoid(smooth["loss"].to_numpy(), *second))
    return rows, said


def _ends(points: pd.DataFrame, window: int) -> Ends:
    """Each run's last tokens, and the means of its last checkpoints."""
    ordered = points.sort_values("tokens", kind="stable")
    last = ordered.groupby("run", sort=False).tail(window).groupby("run", sort=False)
    table = last.agg(params=("params", "last"), tokens=("tokens", "last"), loss=("loss", "mean"),
                     accuracy=("accuracy", "mean"))
    return Ends(table.sort_values(["params", "tokens"]).reset_index())


def _smoothed(points: pd.DataFrame, window: int, skip: float) -> pd.DataFrame:
    """Moving averages of each run's checkpoints after the first `skip` of them; shorter ones at its beginning."""
    parts = []
    for _, own in points.sort_values("tokens", kind="stable").groupby("run", sort=False):
        kept = own.iloc[int(np.ceil(skip * len(own))):]
        means = kept[["loss", "accuracy"]].rolling(window, min_periods=1).mean()
        parts.append(kept.assign(loss=means["loss"], accuracy=means["accuracy"]))
    return pd.concat(parts, ignore_index=True)


def step1(logs: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """(5,) ln A, ln B, alpha, beta, E of Hoffmann's law from the ladder's start and within its bounds (all >= 0)."""
    x, z = logs.T
    target = np.log(loss)

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        size, data = np.exp(p[0] - p[2] * x), np.exp(p[1] - p[3] * z)
        predicted = size + data + p[4]
        rest = np.log(predicted) - target
        pull = np.clip(rest, -DELTA, DELTA) / predicted
        slopes = (size, data, -size * x, -data * z, np.ones_like(x))
        return float(huber(rest).sum()), np.array([(pull * slope).sum() for slope in slopes])

    options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 1_000_000}
    found = minimize(objective, _STEP1_START, jac=True, method="L-BFGS-B", bounds=[(0, None)] * 5, options=options)
    return np.asarray(found.x)


def sigmoid(loss: np.ndarray, fall: float, middle: float, steepness: float, ceiling: float) -> np.ndarray:
    """Accuracy at a loss: the ceiling where it is low, ceiling + fall (fall < 0) where it is high."""
    return np.asarray(fall / (1 + np.exp(-steepness * (loss - middle))) + ceiling)


def step2(
    loss: np.ndarray, accuracy: np.ndarray, weights: np.ndarray | None = None, start: np.ndarray | None = None
) -> np.ndarray:
    """(4,) fall, middle, steepness and ceiling by least squares through the points and full accuracy at no loss."""
    x, y = np.append(loss, 0.0), np.append(accuracy, FULL)
    sigma = None if weights is None else 1 / np.sqrt(np.append(weights, weights.mean()))
    first = (CHANCE - 1, 0.9, 3.0, FULL) if start is None else start
    try:
        return np.asarray(curve_fit(sigmoid, x, y, p0=first, bounds=_STEP2_BOUNDS, sigma=sigma, maxfev=500_000)[0])
    except RuntimeError as error:
        raise RequestError(f"no sigmoid goes through these accuracies ({error}); look at the table") from error


def _draws(
    ends: Ends, smooth: pd.DataFrame, first: np.ndarray, second: np.ndarray, goal: Ends, options: LadderOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(R, m) losses and accuracies of the m targets in resamples of the runs, with the scatter of a run."""
    many, rng = options.resamples, np.random.default_rng(options.seed)
    n, centre = len(ends.table), ends.logs.mean(axis=0)
    target = np.log(ends.table["loss"].to_numpy(float))
    if not many:
        return np.empty((0, len(goal.table))), np.empty((0, len(goal.table)))
    weights = statistics.units(n).smooth_weights(many, options.seed)
    start = np.array([first[0] - first[2] * centre[0], first[1] - first[3] * centre[1], np.log(max(first[4], 1e-6)),
                      first[2], first[3]])
    theta, _ = descend(HOFFMANN.terms(ends.logs - centre), target, np.tile(start, (many, 1)), weights, steps=100)
    logs = HOFFMANN.terms(goal.logs - centre)(theta)[0]
    rests = target - HOFFMANN.terms(ends.logs - centre)(start[None])[0][0]
    wider = np.sqrt(n / max(1, n - len(first)))
    losses = np.exp(logs + wider * rng.choice(rests - np.median(rests), logs.shape))
    place = ends.table.reset_index().set_index("run")["index"].loc[smooth["run"]].to_numpy()
    off = ends.table["accuracy"].to_numpy() - sigmoid(ends.table["loss"].to_numpy(), *second)
    accuracies = np.empty_like(losses)
    for k in range(many):
        own = step2(smooth["loss"].to_numpy(), smooth["accuracy"].to_numpy(), weights[k][place], second)
        accuracies[k] = sigmoid(losses[k], *own) + rng.choice(off - np.median(off), losses.shape[1])
    return losses, accuracies


def _predicted(
    goal: Ends, first: np.ndarray, second: np.ndarray, draws: tuple[np.ndarray, np.ndarray], n: int
) -> Iterator[dict[str, object]]:
    """What was predicted of each target, and what it reached."""
    x, z = goal.logs.T
    loss = np.exp(first[0] - first[2] * x) + np.exp(first[1] - first[3] * z) + first[4]
    accuracy = sigmoid(loss, *second)
    estimate = partial(statistics.fitted, n=n, freedom=max(1, n - len(first)), unit=UNIT)
    for k, run in enumerate(goal.table.to_dict("records")):
        shared = {"subset": run["run"], "params": round(run["params"]), "tokens": round(run["tokens"])}
        found = estimate(float(accuracy[k]), draws[1][:, k])
        yield {**shared, "metric": "predicted_accuracy", **found.columns()}
        yield {**shared, "metric": "accuracy", "value": run["accuracy"], "interval": "none"}
        off = estimate(float(accuracy[k]) - run["accuracy"], draws[1][:, k] - run["accuracy"])
        yield {**shared, "metric": "accuracy_error", **off.columns()}
        lost = estimate(float(loss[k]), draws[0][:, k])
        yield {**shared, "metric": "predicted_loss", **lost.columns()}
        yield {**shared, "metric": "loss", "value": run["loss"], "interval": "none"}


def _sentences(summary: pd.DataFrame) -> Iterator[Sentence]:
    errors = summary[summary["metric"] == "accuracy_error"]
    for run, rows in errors.groupby("subset", sort=False):
        each = [f"{row['task']} {100 * row['value']:+.1f}{words.interval(row, lambda v: f'{100 * v:+.1f}')}"
                for row in words.records(rows)]
        mean = 100 * float(rows["value"].abs().mean())
        text = f"Accuracy of {run}, predicted minus reached, in points: {words.listing(each)}"
        yield Sentence.of(f"{text}; {mean:.1f} on average without their signs.", rows)


LADDER = Form(
    "two steps, as OLMo's ladder: size and tokens to task loss, task loss to accuracy of runs held out",
    fit_ladder, LadderOptions,
    columns={"params": "parameters", "tokens": "training tokens", "run": "the run", "loss": "a task's loss",
             "accuracy": "its accuracy", "task": "the task (optional)"},
    metrics=METRICS,
    figures={"ladder_accuracy": "Accuracy by task loss: checkpoints of the fitted runs, the sigmoid through them, "
             "and the runs that were predicted (cross: reached, circle: predicted)."},
    methods="Step 1 is Hoffmann's law of the mean loss of each run's last {window} checkpoints, step 2 a sigmoid "
            "through all checkpoints but each run's first {skip:.0%}, averaged over {window}, from the ladder's own "
            "start. Intervals are of {resamples} resamples of whole runs and hold a run's scatter about both steps.",
)
