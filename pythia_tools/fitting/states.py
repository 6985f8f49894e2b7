"""Latent states of training (Hu et al. 2023; van der Wal et al. 2025): a hidden Markov model over their features.

Every run is a sequence of checkpoints, every checkpoint a vector of features (norms of tensors, metrics of tasks), put
to mean 0 and variance 1. States have a normal law with a diagonal covariance; one set of states serves all runs. It is
fitted by expectation maximization (Rabiner 1989; in logarithms) from several starts, and the number of states is the
one of least BIC. States are numbered by their mean step. Agreement: the adjusted Rand index (Hubert & Arabie 1985) of
the state sequences of two starts, averaged; where it is low, the states are one story among several.
Cost: O(iterations × starts × checkpoints × states × (states + features)); seconds for 16 runs of 27 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import comb

from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Row, Sentence, plural
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.series import RUN, SeriesOptions, long_rows, summarized

FLOOR = 1e-3
"""Least variance of a feature in a state, in units of its variance over all checkpoints."""
TOLERANCE = 1e-4
"""Gain of log-likelihood at which fitting stops."""
_ITERATIONS = 200
_FEATURE = ("task", "subset", "metric")
"""Columns of a long table that tell features apart, besides those that name runs and steps."""


@dataclass(frozen=True)
class StatesOptions(SeriesOptions):
    """What the features are, and how many states may be."""

    features: tuple[str, ...] = option((), "columns that are features, where each has one (else rows of a summary)",
                                       metavar="NAME")
    states: int | None = option(None, "exactly so many states (default: 1 to --most, by BIC)", minimum=1)
    most: int = option(8, "states at most", minimum=1)
    starts: int = option(8, "starts of the fit", minimum=2)
    seed: int = option(0, "of the starts")


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted hidden Markov model of k states over d features; probabilities are logarithms.

    start (k,), moves (k, k) from row to column, means (k, d), variances (k, d); score: the log-likelihood.
    """

    start: np.ndarray
    moves: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    score: float

    @property
    def parameters(self) -> int:
        k, d = self.means.shape
        return k - 1 + k * (k - 1) + 2 * k * d

    def bic(self, points: int) -> float:
        return float(self.parameters * np.log(points) - 2 * self.score)

    def aic(self) -> float:
        return 2 * self.parameters - 2 * self.score

    def emissions(self, points: np.ndarray) -> np.ndarray:
        """(…, k) log densities of (…, d) points."""
        apart = (points[..., None, :] - self.means) ** 2 / self.variances
        return -0.5 * (apart + np.log(2 * np.pi * self.variances)).sum(axis=-1)

    def paths(self, runs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(steps,) likeliest state sequence of each run (Viterbi)."""
        return [self._path(self.emissions(run)) for run in runs]

    def _path(self, seen: np.ndarray) -> np.ndarray:
        best, back = self.start + seen[0], np.zeros(seen.shape, dtype=np.int64)
        for t in range(1, len(seen)):
            ways = best[:, None] + self.moves
            back[t], best = ways.argmax(axis=0), ways.max(axis=0) + seen[t]
        path = np.empty(len(seen), dtype=np.int64)
        path[-1] = best.argmax()
        for t in range(len(seen) - 1, 0, -1):
            path[t - 1] = back[t, path[t]]
        return path


def fit_states(runs: Sequence[npt.ArrayLike], states: int, *, starts: int = 8, seed: int = 0) -> list[Model]:
    """Models of so many states of (steps, d) runs, one per start, the likeliest first.

    >>> run = np.repeat([[0.0], [5.0]], 10, axis=0) + np.random.default_rng(0).normal(0, 0.1, (20, 1))
    >>> fit_states([run], 2)[0].paths([run])[0][[0, 9]].tolist() in ([0, 0], [1, 1])
    True
    """
    held = _Runs.of([np.asarray(run, dtype=np.float64) for run in runs])
    rng = np.random.default_rng(seed)
    begun = [_start(held.points, states, rng) for _ in range(starts if states > 1 else 1)]
    stack = _Stack(*(np.stack([getattr(one, name) for one in begun]) for name in _PARTS))
    score = np.full(len(begun), -np.inf)
    for _ in range(_ITERATIONS):
        gained, shares, moved = _expected(stack, held)
        if (gained - score < TOLERANCE).all():
            break
        score, stack = gained, _updated(held, shares, moved)
    models = [Model(stack.start[i], stack.moves[i], stack.means[i], stack.variances[i], float(gained[i]))
              for i in range(len(begun))]
    return sorted(models, key=lambda model: -model.score)


_PARTS = ("start", "moves", "means", "variances")


class _Stack(NamedTuple):
    """The numbers of several models, one per start, along the first axis."""

    start: np.ndarray
    moves: np.ndarray
    means: np.ndarray
    variances: np.ndarray


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs side by side: (runs, steps, d) features, zeros where a run has ended; (runs, steps) bool there."""

    features: np.ndarray
    there: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[np.ndarray]) -> Self:
        longest = max(len(run) for run in runs)
        features = np.stack([np.pad(run, ((0, longest - len(run)), (0, 0))) for run in runs])
        return cls(features, np.arange(longest) < np.array([len(run) for run in runs])[:, None])

    @property
    def points(self) -> np.ndarray:
        """(checkpoints, d) those of all runs."""
        return self.features[self.there]


def _start(points: np.ndarray, states: int, rng: np.random.Generator) -> _Stack:
    """Means at points far apart (k-means++), equal variances, states that tend to stay."""
    means = points[rng.integers(len(points))][None]
    while len(means) < states:
        far = ((points[:, None] - means) ** 2).sum(axis=2).min(axis=1)
        chance = far / far.sum() if far.sum() > 0 else None
        means = np.vstack([means, points[rng.choice(len(points), p=chance)]])
    stay = np.full((states, states), 0.1 / max(1, states - 1))
    np.fill_diagonal(stay, 0.9 if states > 1 else 1.0)
    variances = np.tile(np.maximum(points.var(axis=0), FLOOR), (states, 1))
    return _Stack(np.full(states, -np.log(states)), np.log(stay), means, variances)


def _expected(stack: _Stack, runs: _Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each start: log-likelihood (starts,), probabilities of states (starts, runs, steps, k), moves (starts, k, k).
    """
    precise = 1 / stack.variances
    seen = -0.5 * (
        np.einsum("rtd,skd->srtk", runs.features**2, precise)
        - 2 * np.einsum("rtd,skd->srtk", runs.features, precise * stack.means)
        + (stack.means**2 * precise + np.log(2 * np.pi * stack.variances)).sum(axis=2)[:, None, None]
    )
    there, moves = runs.there[None, :, :, None], stack.moves[:, None]
    ahead, behind = np.empty_like(seen), np.zeros_like(seen)
    ahead[:, :, 0] = stack.start[:, None] + seen[:, :, 0]
    for t in range(1, seen.shape[2]):
        step = _logsum(ahead[:, :, t - 1, :, None] + moves, 2) + seen[:, :, t]
        ahead[:, :, t] = np.where(there[:, :, t], step, ahead[:, :, t - 1])
    for t in range(seen.shape[2] - 2, -1, -1):
        step = _logsum(moves + (seen[:, :, t + 1] + behind[:, :, t + 1])[:, :, None, :], 3)
        behind[:, :, t] = np.where(there[:, :, t + 1], step, 0.0)
    score = _logsum(ahead[:, :, -1], 2)
    moved = (ahead[:, :, :-1, :, None] + moves[:, :, None] + (seen + behind)[:, :, 1:, None, :]
             - score[:, :, None, None, None])
    shares = np.where(there, np.exp(ahead + behind - score[:, :, None, None]), 0.0)
    return score.sum(axis=1), shares, np.where(there[:, :, 1:, None], np.exp(moved), 0.0).sum(axis=(1, 2))


def _logsum(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(values - top).sum(axis=axis))


def _updated(runs: _Runs, shares: np.ndarray, moved: np.ndarray) -> _Stack:
    weight = np.maximum(shares.sum(axis=(1, 2)), 1e-12)[:, :, None]
    means = np.einsum("srtk,rtd->skd", shares, runs.features) / weight
    squares = np.einsum("srtk,rtd->skd", shares, runs.features**2) / weight
    moves, start = moved + 1e-12, shares[:, :, 0].sum(axis=1) + 1e-12
    return _Stack(np.log(start / start.sum(axis=1, keepdims=True)), np.log(moves / moves.sum(axis=2, keepdims=True)),
                  means, np.maximum(squares - means**2, FLOOR))


def adjusted_rand(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Agreement of two labellings of (n,) points: 1 for the same groups under any names, 0 expected by chance.

    >>> adjusted_rand([0, 0, 1, 1], [5, 5, 2, 2]), round(adjusted_rand([0, 0, 1, 2], [0, 0, 1, 1]), 2)
    (1.0, 0.57)
    """
    table = pd.crosstab(np.asarray(one), np.asarray(other)).to_numpy()
    both, pairs = comb(table, 2).sum(), comb(table.sum(), 2)
    rows, columns = comb(table.sum(axis=1), 2).sum(), comb(table.sum(axis=0), 2).sum()
    chance, middle = rows * columns / max(pairs, 1), (rows + columns) / 2
    return 1.0 if middle == chance else float((both - chance) / (middle - chance))


def fit(table: pd.DataFrame, options: StatesOptions) -> Fit:
    """States of the runs of a table, all of whose checkpoints have every feature."""
    wide, features = _features(table, options)
    values = wide[features].to_numpy(float)
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    place = wide.groupby([c for c in RUN if c in wide.columns], sort=False, dropna=False).ngroup().to_numpy()
    runs = [scaled[place == run] for run in range(place.max() + 1)]
    counts = range(1, options.most + 1) if options.states is None else (options.states,)
    tried = {count: fit_states(runs, count, starts=options.starts, seed=options.seed)
             for count in counts if count <= len(wide)}
    chosen = min(tried, key=lambda count: tried[count][0].bic(len(wide)))
    paths = [np.concatenate(model.paths(runs)) for model in tried[chosen]]
    order = pd.Series(wide["step"].to_numpy()).groupby(paths[0]).mean().sort_values().index.to_list()
    wide = wide.assign(state=[order.index(state) + 1 for state in paths[0]])
    agreement = float(np.mean([adjusted_rand(a, b) for a, b in combinations(paths, 2)])) if len(paths) > 1 else 1.0
    rows = [_row("states", float(len(order)), wide), _row("agreement", agreement, wide)]
    rows += [{**_row(name, value, wide), "subset": f"{count} states"} for count, models in tried.items()
             for name, value in (("bic", models[0].bic(len(wide))), ("aic", models[0].aic()))]
    moved = _entered(wide, place)
    summary = summarized([*rows, *moved], "states", METRICS)
    return Fit(wide, summary, _sentences(summary, wide, len(runs), len(features)))


def _features(table: pd.DataFrame, options: StatesOptions) -> tuple[pd.DataFrame, list[str]]:
    """One row per run and step with a column per feature, in order of run and step; and the features."""
    long = long_rows(table, options, options.features)
    who = [c for c in RUN if c in long.columns]
    told = [c for c in _FEATURE if c in long.columns]
    long["feature"] = long[told].astype("string").fillna("").agg(" ".join, axis=1).str.strip()
    keyed = long.assign(**{c: long[c].astype("string").fillna("") for c in who})
    wide = keyed.pivot_table(index=[*who, "step"], columns="feature", values="value", sort=False).reset_index()
    features = [c for c in wide.columns if c not in (*who, "step")]
    kept = wide.dropna(subset=features).sort_values([*who, "step"]).reset_index(drop=True)
    if len(kept) < 3:
        raise RequestError(f"{len(kept)} checkpoints have all {len(features)} features; give fewer features (--metric, "
                           "--features) or more checkpoints")
    return kept.rename_axis(columns=None), features


def _row(metric: str, value: float, wide: pd.DataFrame) -> Row:
    return {"metric": metric, "value": value, "n": len(wide), "unit": "checkpoint", "interval": "none"}


def _entered(wide: pd.DataFrame, place: np.ndarray) -> list[Row]:
    """A row where a run changes its state: the state entered, `step` the checkpoint before."""
    rows: list[Row] = []
    for run in range(place.max() + 1):
        part = wide[place == run]
        keys: Row = {c: (part[c].iloc[0] or None) for c in RUN if c in part.columns}
        steps, states = part["step"].to_numpy(), part["state"].to_numpy()
        for t in np.flatnonzero(np.diff(states)) + 1:
            rows += [{**keys, "step": int(steps[t - 1]), "subset": f"{states[t]}", "metric": "state_from",
                      "value": float(steps[t]), "low": float(steps[t - 1]), "high": float(steps[t]), "n": len(part),
                      "unit": "checkpoint", "interval": "neighbouring checkpoints"}]
    return rows


def _sentences(summary: pd.DataFrame, wide: pd.DataFrame, runs: int, features: int) -> tuple[Sentence, ...]:
    first, tried = summary.iloc[:2], int(summary["metric"].isin(["aic", "bic"]).sum())
    count, agreement = first["value"]
    least = " (least BIC)" if tried > 2 else ""
    told = "agree" if agreement >= 0.8 else "agree only in part"
    said = [Sentence.of(
        f"{plural(int(count), 'state')} of training{least} in {plural(runs, 'run')} of {len(wide)} checkpoints "
        f"and {plural(features, 'feature')}; fits from other starts {told} (adjusted Rand index {agreement:.2f}).",
        first,
    )]
    routes = wide.groupby([c for c in RUN if c in wide.columns] or np.zeros(len(wide)), sort=False, dropna=False)[
        "state"].agg(lambda s: "-".join(str(v) for v in s[s != s.shift()]))
    common = routes.value_counts()
    others = plural(int(common.iloc[1:].sum()), "run")
    rest = "" if len(common) == 1 else f"; {plural(len(common) - 1, 'other route')} of {others}"
    moved = summary[summary["metric"] == "state_from"]
    said.append(Sentence.of(f"{plural(int(common.iloc[0]), 'run')} of {runs} pass through states {common.index[0]}"
                            f"{rest}.", moved if len(moved) else first))
    return tuple(said)


METRICS = {
    "states": Metric("count", "states of the model of least BIC"),
    "agreement": Metric("adjusted Rand index", "mean agreement of the state sequences of two starts"),
    "bic": Metric("nats", "Bayesian information criterion, of as many states as `subset` says"),
    "aic": Metric("nats", "Akaike's information criterion, of as many states as `subset` says"),
    "state_from": Metric("step", "first checkpoint of a run in the state that `subset` names; low and high are the "
                                 "checkpoints between which it was entered"),
}
COLUMNS = {"state": Column("Int64", "the checkpoint's state; states are numbered by their mean step")}
FORM = Form(
    says="which states does training pass through, by several features at once (hidden Markov model)?",
    fit=fit, options=StatesOptions,
    columns={"step": "training step", "value": "the features, one per task, subset and metric; or columns --features"},
    metrics=METRICS, items=COLUMNS,
    figures={"states": "The state of every run at every checkpoint, states numbered by their mean step."},
    methods="A hidden Markov model with diagonal normal emissions was fitted by expectation maximization from {starts} "
            "starts, with the number of states of least BIC.",
)
