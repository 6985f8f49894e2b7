"""Runs that differ in their seed: ribbons, how alike they are, whether their spread is more than item noise, and which
of them are outliers.

- ribbon: median and quartiles over seeds at every step.
- ICC(2,1) (Shrout & Fleiss 1979: two-way, random, agreement, single) of steps × seeds, for the whole curve and for the
  late window, since the rise alone makes the whole curve's near 1; intervals by their F approximation.
- spread: standard deviation between seeds in the late window, over the standard error of a value; about 1 or less: the
  seeds tell nothing that the items' noise does not.
- outliers: distance of a run = root mean square of its values minus the median of the others; z = distance minus the
  distances' median, over 1.4826 MAD. A run is flagged where z exceeds what the largest of so many clean runs reaches in
  5 % of simulations, and at least THRESHOLD. It parts at the first step where its distance to the median of the others
  exceeds THRESHOLD of their 1.4826 MAD.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import f as fisher

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.statistics import Estimate
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Row, Sentence, interval, listing, number, plural
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.series import Found, Series, SeriesOptions, aligned, by, curves, known, summarized

THRESHOLD = 6.0
FEWEST = 4
"""Runs below which none can be called an outlier."""
_NORMAL = 1.4826
"""MAD of normal values to their standard deviation."""
_CLEAN = 4000


@dataclass(frozen=True)
class SeedsOptions(SeriesOptions):
    """What is late, and from which step runs are compared."""

    late: float = option(0.5, "share of the checkpoints, from the end, that is the late window", minimum=0)
    late_from: int | None = option(None, "first step of the late window, in place of --late", minimum=0)
    compare_from: int | None = option(
        None, "first step at which runs are compared for outliers (default: a 150th of the last step, as the dense "
        "checkpoints of the start would outweigh all others)", minimum=0,
    )


@dataclass(frozen=True)
class Outlier:
    """A run's distance to the median of the others (unit of the metric), its z, whether it is flagged, and the step at
    which it first parts from the others (None: at none).
    """

    distance: float
    z: float
    flagged: bool
    parts: int | None


def icc(values: npt.ArrayLike, level: float = 0.95) -> Estimate:
    """ICC(2,1) of (steps, seeds) values, agreement between single runs, with Shrout & Fleiss' interval; n is the seeds.

    >>> round(icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]).value, 2)
    0.29
    """
    table = np.asarray(values, dtype=np.float64)
    n, k = table.shape
    if n < 2 or k < 2:
        return Estimate(np.nan, n=k, unit="seed")
    rows, columns, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    between = k * ((rows - grand) ** 2).sum() / (n - 1)
    judges = n * ((columns - grand) ** 2).sum() / (k - 1)
    rest = table - rows[:, None] - columns + grand
    error = max((rest**2).sum() / ((n - 1) * (k - 1)), 1e-300)
    value = (between - error) / (between + (k - 1) * error + k * (judges - error) / n)
    ratio, worth = judges / error, value if abs(value) < 1 else np.sign(value) * (1 - 1e-12)
    parts = k * worth * ratio, n * (1 + (k - 1) * worth) - k * worth
    freedom = (k - 1) * (n - 1) * sum(parts) ** 2 / ((n - 1) * parts[0] ** 2 + parts[1] ** 2)
    tail = (1 - level) / 2
    up, down = fisher.isf(tail, n - 1, freedom), fisher.isf(tail, freedom, n - 1)
    noise = k * judges + (k * n - k - n) * error
    low = n * (between - up * error) / (up * noise + n * between)
    high = n * (down * between - error) / (noise + n * down * between)
    return Estimate(float(value), float(low), float(high), k, "seed", f"shrout-fleiss{round(100 * level)}")


def outliers(steps: npt.ArrayLike, values: npt.ArrayLike) -> list[Outlier]:
    """Every run of (seeds, steps) values against the others. Fewer than FEWEST runs: NaN, none flagged.

    >>> runs = np.random.default_rng(0).normal(0, 0.01, (8, 5)) + np.linspace(0, 1, 5)
    >>> runs[3, 3:] -= 1
    >>> [(run, found.parts) for run, found in enumerate(outliers([1, 2, 4, 8, 16], runs)) if found.flagged]
    [(3, 8)]
    """
    table, at = np.asarray(values, dtype=np.float64), np.asarray(steps)
    if len(table) < FEWEST:
        return [Outlier(np.nan, np.nan, False, None) for _ in table]
    distances, scores = np.empty(len(table)), np.empty(table.shape)
    for run, curve in enumerate(table):
        others = np.delete(table, run, axis=0)
        middle = np.median(others, axis=0)
        distances[run] = np.sqrt(((curve - middle) ** 2).mean())
        scores[run] = np.abs(curve - middle) / np.maximum(_NORMAL * np.median(np.abs(others - middle), axis=0), 1e-300)
    z, limit = robust_z(distances), threshold(len(table))
    flagged = z > limit
    parts = [at[row > THRESHOLD] for row in scores]
    return [Outlier(float(d), float(far), bool(yes), int(where[0]) if yes and len(where) else None)
            for d, far, yes, where in zip(distances, z, flagged, parts, strict=True)]


def robust_z(values: np.ndarray) -> np.ndarray:
    """(…, n) distances from the median, in 1.4826 MAD."""
    apart = values - np.median(values, axis=-1, keepdims=True)
    return apart / np.maximum(_NORMAL * np.median(np.abs(apart), axis=-1, keepdims=True), 1e-300)


@cache
def threshold(runs: int) -> float:
    """The z that the most distant of so many clean runs exceeds in 5 % of simulations; at least THRESHOLD.

    Clean runs differ by one normal number each, as if all steps were one: no curve has heavier tails.
    """
    points = np.random.default_rng(runs).normal(size=(_CLEAN, runs))
    distances = np.stack([
        np.abs(points[:, run] - np.median(np.delete(points, run, axis=1), axis=1)) for run in range(runs)
    ], axis=1)
    return max(THRESHOLD, float(np.quantile(robust_z(distances).max(axis=1), 0.95)))


def late_steps(steps: np.ndarray, options: SeedsOptions) -> np.ndarray:
    """(k,) bool: which steps are late."""
    if options.late_from is not None:
        return steps >= options.late_from
    return np.arange(len(steps)) >= int(len(steps) * (1 - options.late))


def fit(table: pd.DataFrame, options: SeedsOptions) -> Fit:
    """Every group of curves that differ in their run alone, of at least two runs with three steps in common."""
    found, series = Found(), curves(table, options)
    for _, members in by(series, *_apart(series)):
        steps, values = aligned(members)
        if len(members) > 1 and len(steps) > 2:
            group = _Group(members, steps, values, late_steps(steps, options))
            _ribbon(found, group)
            _agreement(found, group)
            _spread(found, group)
            _strays(found, group, options.compare_from)
    if not found.rows:
        raise RequestError("no two runs differ in their seed alone and share three steps; give a column seed (or name "
                           "it with --seed-column), or one model per run")
    summary = summarized(found.rows, "seeds", METRICS)
    said = tuple(Sentence.of(text, summary.iloc[rows]) for text, rows in found.said)
    return Fit(pd.DataFrame(found.items), summary, said)


def _apart(series: list[Series]) -> tuple[str, ...]:
    """What tells runs apart: the seed where a model has several, else the model's name as well."""
    seeds: dict[str, set[str]] = {}
    for one in series:
        seeds.setdefault(str(one.keys.get("model")), set()).add(str(one.keys.get("seed")))
    return ("seed",) if max(map(len, seeds.values())) > 1 else ("seed", "model")


@dataclass(frozen=True, eq=False)
class _Group:
    """Runs that differ in their seed alone: (k,) steps, (runs, k) values, (k,) bool late."""

    members: list[Series]
    steps: np.ndarray
    values: np.ndarray
    late: np.ndarray

    @property
    def name(self) -> str:
        """What the runs' names begin with, without `-seed`."""
        names = [str(one.keys.get("model", "")) for one in self.members]
        shared = "".join(first for first, *_ in takewhile(lambda c: len(set(c)) == 1, zip(*names, strict=False)))
        return shared.removesuffix("-seed").rstrip("-_ ") or "all runs"

    @property
    def what(self) -> str:
        """The group and what was measured, as a sentence says it."""
        return replace(self.members[0], keys={**self.members[0].keys, "seed": None, "model": self.name}).label

    @property
    def late_from(self) -> int:
        return int(self.steps[self.late][0])

    def row(self, metric: str, estimate: Estimate | float, **more: object) -> Row:
        shared = {**self.members[0].row(metric, 0.0), "model": self.name, "seed": None}
        told = estimate if isinstance(estimate, Estimate) else Estimate(estimate, n=len(self.members), unit="seed")
        shared.update({**told.columns(), **more}.items())
        return shared


def _ribbon(found: Found, group: _Group) -> None:
    low, middle, high = np.quantile(group.values, [0.25, 0.5, 0.75], axis=0)
    found.add(group.row("median", m, step=int(s), low=a, high=b, interval="quartiles")
              for s, m, a, b in zip(group.steps, middle, low, high, strict=True))


def _agreement(found: Found, group: _Group) -> None:
    found_icc = [icc(group.values.T), icc(group.values[:, group.late].T)]
    if len(group.members) < statistics.FEWEST:  # the approximation is too narrow there: .91 at four seeds
        found_icc = [replace(one, low=np.nan, high=np.nan, interval="none") for one in found_icc]
    pair = [group.row("icc", one, step=step)
            for one, step in zip(found_icc, (int(group.steps[0]), group.late_from), strict=True)]
    whole, late = (f"{number(one['value'], '.3f')}{interval(one, _three)}" for one in pair)
    found.add(pair, f"{group.what}: {plural(len(group.members), 'seed')} agree over all {len(group.steps)} checkpoints "
                    f"with ICC(2,1) {whole}, from step {group.late_from:,} on with {late}.")


def _spread(found: Found, group: _Group) -> None:
    """Standard deviation between seeds against the standard error of a value, in the late window."""
    between = float(np.sqrt(group.values[:, group.late].var(axis=0, ddof=1).mean()))
    rows = [group.row("seed_sd", between, step=group.late_from)]
    errors = np.stack([one.errors[np.isin(one.steps, group.steps)][group.late] for one in group.members])
    if not np.isfinite(errors).all():
        found.add(rows)
        return
    noise = float(np.sqrt((errors**2).mean()))
    rows += [group.row("item_error", noise, step=group.late_from),
             group.row("spread_over_noise", between / max(noise, 1e-300), step=group.late_from)]
    told = "more than" if between > noise else "no more than"
    found.add(rows, f"{group.what}: from step {group.late_from:,} on the seeds' standard deviation is {between:.3g}, "
                    f"{told} the standard error of a value, {noise:.3g}.")


def _strays(found: Found, group: _Group, compare_from: int | None) -> None:
    """Distance and verdict of every run, and a row of items for each of its steps."""
    first = group.steps[-1] / 150 if compare_from is None else compare_from
    compared = group.steps >= first
    if compared.sum() < 2:
        raise RequestError(f"--compare-from {first:g}: fewer than two checkpoints are left; the last is "
                           f"{group.steps[-1]}")
    strays = outliers(group.steps[compared], group.values[:, compared])
    middle = np.median(group.values, axis=0)
    rows, named = [], []
    for one, run, values in zip(group.members, strays, group.values, strict=True):
        rows += [one.row("distance", run.distance), one.row("distance_z", run.z),
                 one.row("outlier", float(run.flagged) if np.isfinite(run.z) else np.nan)]
        if run.flagged and run.parts is not None:
            rows.append(one.row("parts_from", float(run.parts)))
        if run.flagged:
            where = "" if run.parts is None else f", from step {run.parts:,} on"
            named.append(f"{_run(one)} (z = {run.z:.1f}{where})")
        found.items += [{**one.keys, "group": group.name, "step": int(s), "value": v, "median": m, "z": run.z,
                         "outlier": run.flagged, "parts_from": run.parts}
                        for s, v, m in zip(group.steps, values, middle, strict=True)]
    limit = f"z above {threshold(len(strays)):.1f}, which clean runs reach in 5 % of simulations or less"
    if len(strays) < FEWEST:
        found.add(rows, f"{group.what}: {plural(len(strays), 'run')} are too few to call one an outlier; {FEWEST} are "
                        "needed.")
    else:
        found.add(rows, f"{group.what}: {listing(named) if named else 'no run'} "
                        f"{'stray' if len(named) > 1 else 'strays'} from the others ({limit}).")


def _run(one: Series) -> str:
    seed = one.keys.get("seed")
    return f"seed {seed}" if known(seed) else str(one.keys.get("model", "a run"))


def _three(value: float) -> str:
    return f"{value:.3f}"


METRICS = {
    "median": Metric("that of the fitted metric", "median over seeds; low and high are the quartiles"),
    "icc": Metric("1", "ICC(2,1) of single seeds' curves from `step` on"),
    "seed_sd": Metric("that of the fitted metric", "standard deviation between seeds, from `step` on"),
    "item_error": Metric("that of the fitted metric", "standard error of a value by its items, from `step` on"),
    "spread_over_noise": Metric("1", "seed_sd over item_error"),
    "distance": Metric("that of the fitted metric", "root mean square distance of a run to the others' median"),
    "distance_z": Metric("1.4826 MAD", "the distance less the runs' median distance"),
    "outlier": Metric("0 or 1", "whether the run strays from the others"),
    "parts_from": Metric("step", "first step at which an outlier parts from the others"),
}
COLUMNS = {
    "group": Column("string", "the runs compared"),
    "median": Column("float64", "median over the group's seeds at the step"),
    "z": Column("float64", "the run's distance in 1.4826 MAD"),
    "outlier": Column("boolean", "whether the run strays"),
    "parts_from": Column("Int64", "first step at which it does; <NA> for none"),
}
FORM = Form(
    says="how alike are runs of several seeds, and does one of them stray?",
    fit=fit, options=SeedsOptions,
    columns={"step": "training step", "value": "the metric", "seed": "the run's seed (or one model per run)"},
    metrics=METRICS, items=COLUMNS,
    figures={"seeds": "Median and quartiles over seeds; runs that stray are drawn, with the step at which they part."},
    methods="ICC(2,1) after Shrout & Fleiss (1979), over all checkpoints and over the last {late} of them; runs stray "
            "where their root mean square distance to the others' median exceeds what clean runs reach.",
)
