"""Causal memorization profiles: what consuming a row did to it, by difference in differences.

Rows are grouped into cohorts by the first checkpoint that contains them (treatment). For cohort g and checkpoint c,

    effect(g, c) = [mean_g Y_c − mean_g Y_b] − [mean_control Y_c − mean_control Y_b],   b = the checkpoint before g,

with never-seen rows as controls. c = g: instantaneous memorization; c > g: persistent; c = the last: residual. For a
loss the sign is flipped, so that positive always means memorized. Effects at c < b are placebo: under parallel trends
(what the model learns in general helps treated and control rows alike) they are 0, and `trends` says how far they are
from it. This is Callaway and Sant'Anna's group-time effect with never-treated controls and no covariates.

Intervals: studentized bootstrap over rows, each with all its checkpoints, at Welch's degrees of freedom, as a cohort
is often small and its controls are many; treated rows are resampled within their cohort, and one draw of controls
serves all cohorts, so means over cohorts have honest intervals too. A cohort of one row has no interval, and
joins others in those of means. Cost: rows × checkpoints × resamples multiply-adds. Source: Lesci et al. 2024,
arXiv:2406.04327.

Forgetting curves put any per-row measure against the steps since the row was last consumed. A later exposure of the
same row starts a new stretch, so a row consumed again is never counted as remembered. Where the measure is compared
with that of controls, these are resampled too.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.summary import exposure_bins
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, sums_of_means
from pythia_tools.core.tables import IDENTITY

NEVER = -1
"""The cohort of rows that no checkpoint contains."""


def cohort_of(batches: npt.ArrayLike, steps: Sequence[int]) -> np.ndarray:
    """(n,) first checkpoint step that contains each row, or NEVER.

    batches: (n,) 0-based batch that consumed the row (`order.step_of`), negative for never. A checkpoint at step N
    contains batches 0 … N − 1, so a row of batch b is first in the smallest step above b.
    """
    ordered = np.sort(np.asarray(steps, dtype=np.int64))
    place = np.searchsorted(ordered, np.asarray(batches, dtype=np.int64), side="right")
    inside = (place < len(ordered)) & (np.asarray(batches) >= 0)
    return np.where(inside, ordered[np.minimum(place, len(ordered) - 1)], NEVER)


@dataclass(frozen=True)
class Profiles:
    """effects (G, S): cohort × checkpoint, NaN where a cohort has no checkpoint before it.

    cohorts and bases (G,): training steps and the place of the checkpoint before; steps (S,) are training steps.
    changes: of each cohort (rows, S), each treated row's values minus those at the base, NaN without one; control
    (rows, S): the values of the control rows.
    """

    cohorts: np.ndarray
    bases: np.ndarray
    steps: np.ndarray
    effects: np.ndarray
    changes: Sequence[np.ndarray]
    control: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(G,) rows per cohort."""
        return np.array([len(c) for c in self.changes])

    def cells(self, number: int, *, resamples: int = 1000, seed: int = 0) -> list[Estimate]:
        """One cohort's effect at each of the S checkpoints; n is its rows."""
        change = self.changes[number]
        samples = [change, self.control[:, self.bases[number], None] - self.control]
        found = sums_of_means(samples, unit="row", resamples=resamples, seed=seed)
        return [replace(e, n=len(change)) for e in found]

    def mean(self, mask: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Estimate:
        """As `means`, of one (G, S) mask."""
        return self.means([mask], resamples=resamples, seed=seed)[0]

    def means(self, masks: Sequence[np.ndarray], *, resamples: int = 1000, seed: int = 0) -> list[Estimate]:
        """Mean effect over the cells of each (G, S) mask, which has some; cohorts weigh as their rows, which are n."""
        sizes, held = self.sizes, np.array(masks)
        shares = held * sizes[:, None] / (held * sizes[:, None]).sum(axis=(1, 2), keepdims=True)  # (masks, G, S)
        used = np.flatnonzero(held.any(axis=(0, 2))).tolist()
        # what each row adds: a cohort's sum is its mean, and cohorts of one row are a sample together
        added = {g: np.nan_to_num(self.changes[g]) @ shares[:, g].T / sizes[g] for g in used}
        groups = _strata(list(added.values()))
        at_bases = shares[:, used].sum(axis=2) @ self.control[:, self.bases[used]].T
        controls = self.control @ shares.sum(axis=1).T - at_bases.T
        samples = [*(len(part) * part for part in groups), -controls]
        found = sums_of_means(samples, unit="row", resamples=resamples, seed=seed)
        rows = held.any(axis=2) @ sizes
        return [
            replace(e, n=int(n)) if n > 1 else Estimate(e.value, n=1, unit="row")
            for e, n in zip(found, rows, strict=True)
        ]


def _strata(parts: list[np.ndarray]) -> list[np.ndarray]:
    """The groups of rows resampled: cohorts of one row join each other, a single one the smallest of the others."""
    groups, lone = ([p for p in parts if (len(p) == 1) == alone] for alone in (False, True))
    if len(lone) == 1 and groups:
        groups.sort(key=len)
        lone.append(groups.pop(0))
    return [*groups, np.concatenate(lone)] if lone else groups


def profiles(values: np.ndarray, steps: Sequence[int], cohorts: np.ndarray) -> Profiles:
    """Group-time effects of (n, S) values, larger where better known, of n rows at S steps (ascending); `cohorts` (n,)
    as from `cohort_of`.

    Raises RequestError without controls, without treated rows, or when a value is missing.
    """
    data = np.asarray(values, dtype=np.float64)
    order = np.asarray(steps, dtype=np.int64)
    _check(data, order, cohorts)
    control = data[cohorts == NEVER]
    named = np.unique(cohorts[cohorts != NEVER])
    bases = np.searchsorted(order, named) - 1
    changes = []
    for cohort, base in zip(named, bases, strict=True):
        treated = data[cohorts == cohort]
        changes.append(treated - treated[:, base, None] if base >= 0 else np.full_like(treated, np.nan))
    usual = control.mean(axis=0)
    effects = np.array([
        change.mean(axis=0) - (usual - usual[base]) for change, base in zip(changes, bases, strict=True)
    ])
    return Profiles(named, bases, order, effects, changes, control)


def event_mask(found: Profiles, what: str) -> np.ndarray:
    """(G, S) bool: `instantaneous` c = g, `residual` the last step if after g, `before` placebo: before b."""
    late = found.steps[None] - found.cohorts[:, None]
    number = np.arange(len(found.steps))[None] - np.searchsorted(found.steps, found.cohorts)[:, None]
    masks = {
        "instantaneous": late == 0, "residual": (found.steps[None] == found.steps[-1]) & (late > 0),
        "before": number < -1,
    }
    return np.isfinite(found.effects) & masks[what]


def summarize_profiles(
    table: pd.DataFrame, batches: npt.ArrayLike, *, controls: npt.ArrayLike, row_ids: npt.ArrayLike | None = None,
    resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """Profiles of the loss under every model of a per-row item table (from `row_scores`), as a summary.

    batches: (n,) the batch of each row (`order.step_of(rows)`); controls: (n,) bool, rows never consumed and filtered
    by exposure; row_ids: their numbers in the table (default 0 … n − 1). Rows that are neither controls nor consumed by
    the last checkpoint are left out, and so are rows with a missing value anywhere.

    Metrics per cohort: `effect` (a line per checkpoint), `instantaneous` (at its own step), `residual` (at the last
    step). Over all cohorts: `persistent_effect` and the placebo `before_effect` by `since` (steps after the cohort's,
    negative before it; in doubling bins when checkpoints are unevenly spaced), `mean_instantaneous`, `mean_residual`,
    `mean_before`.
    """
    consumed, held = np.asarray(batches), np.asarray(controls, dtype=bool)
    numbers = np.arange(len(consumed)) if row_ids is None else np.asarray(row_ids)
    lines: list[dict[str, object]] = []
    for _, part in table.groupby(["suite", "model", "branch"], sort=False, dropna=False):
        wide = part.pivot(index="row", columns="step", values="nll").sort_index(axis=1)
        wide = wide.reindex(numbers).astype(np.float64)
        lost = list(wide.columns[wide.isna().all()])
        if lost:
            said = f"no row has nll at steps {', '.join(map(str, lost))}; profiles leave them out"
            progress.warn(f"{part['model'].iloc[0]}: {said}")
            wide = wide.drop(columns=lost)
        steps = wide.columns.to_numpy(dtype=np.int64)
        identities = part[IDENTITY].drop_duplicates("step").set_index("step", drop=False).loc[steps].to_dict("records")
        cohorts = np.where(held, NEVER, cohort_of(consumed, list(steps)))
        keep = wide.notna().all(axis=1).to_numpy() & (held | (cohorts != NEVER))
        found, drawn = profiles(-wide.to_numpy()[keep], list(steps), cohorts[keep]), (resamples, seed)
        lines += [*_cells(found, identities, *drawn), *_means(found, identities[-1], *drawn)]
    return declared.effects(lines)


def _means(
    found: Profiles, last: Mapping[Hashable, object], resamples: int, seed: int
) -> Iterator[dict[str, object]]:
    """Summary lines of one model's profiles: means over cells, at its last step."""
    defined, placebo = np.isfinite(found.effects), event_mask(found, "before")
    gaps = found.steps[None] - found.cohorts[:, None]
    wanted: list[tuple[str, int | None, np.ndarray]] = []
    for low, high in _gap_bins(np.abs(gaps[defined]), len(found.steps)):
        size = (np.abs(gaps) >= low) & (np.abs(gaps) < high)
        wanted.append(("persistent_effect", low, size & defined & (gaps >= 0)))
        wanted.append(("before_effect", -low, size & placebo & (gaps < 0)))
    wanted.append(("mean_instantaneous", None, event_mask(found, "instantaneous")))
    wanted.append(("mean_residual", None, event_mask(found, "residual")))
    wanted.append(("mean_before", None, placebo))
    told = [(metric, since, mask) for metric, since, mask in wanted if mask.any()]
    means = found.means([mask for *_, mask in told], resamples=resamples, seed=seed) if told else []
    for (metric, since, _), mean in zip(told, means, strict=True):
        yield {**{str(k): v for k, v in last.items()}, "metric": metric, "since": since, **mean.columns()}


def _gap_bins(gaps: np.ndarray, steps: int) -> list[tuple[int, int]]:
    """(low, high): each gap by itself on an even grid of checkpoints, else bins that double."""
    distinct = np.unique(gaps)
    if len(distinct) <= steps:
        return [(int(g), int(g) + 1) for g in distinct]
    return list(pairwise([0, *(1 << k for k in range(int(distinct[-1]).bit_length() + 1))]))


def _cells(
    found: Profiles, identities: Sequence[Mapping[Hashable, object]], resamples: int, seed: int
) -> Iterator[dict[str, object]]:
    """Summary lines of one model's profiles: each cohort at each checkpoint."""
    for number in np.flatnonzero(found.bases >= 0).tolist():
        cohort = int(found.cohorts[number])
        for identity, step, cell in zip(
            identities, found.steps, found.cells(number, resamples=resamples, seed=seed), strict=True
        ):
            last = step == found.steps[-1]
            named = {"effect": True, "instantaneous": step == cohort, "residual": last and step > cohort}
            for metric in (m for m, is_one in named.items() if is_one):
                yield {**{str(k): v for k, v in identity.items()}, "cohort": cohort, "metric": metric, **cell.columns()}


def _check(data: np.ndarray, steps: np.ndarray, cohorts: np.ndarray) -> None:
    if data.shape != (len(cohorts), len(steps)):
        raise RequestError(f"values have shape {data.shape}; {len(cohorts)} rows × {len(steps)} steps were expected")
    if (np.diff(steps) <= 0).any():
        raise RequestError("steps must ascend, each once")
    if not np.isfinite(data).all():
        raise RequestError("some values are missing; leave those rows out")
    if not (cohorts == NEVER).any():
        raise RequestError("no control rows: difference in differences needs rows that were never consumed")
    if (cohorts == NEVER).all():
        raise RequestError("no treated rows: none of the rows was consumed by these checkpoints")


def forgetting_curve(
    aligned: pd.DataFrame, measure: str, *, controls: npt.ArrayLike = (), resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean of a column by exposures and steps since the last, per model: metric `MEASURE_after_exposure` of a summary.

    aligned: an item table from `with_exposures`. Each line has the lower edge of its bin of `since` (0, 1, 2, 4, 8 …);
    the identity's step is the last checkpoint that fell into the bin. Rows whose measure is missing are left out.
    controls: rows with whose mean at the same checkpoint the measure was compared, which is 0 for them and as sure as
    they are many.
    """
    data = aligned[aligned["since"].notna() & aligned[measure].notna()]
    if data.empty:
        raise RequestError(f"no row was consumed before any checkpoint and has {measure!r}; there is nothing to align")
    data = data.assign(bin=exposure_bins(data["since"]))
    usual = aligned[aligned["row"].isin(np.asarray(controls)) & aligned[measure].notna()]
    lines = []
    for (suite, model, branch, exposures), part in data.groupby(["suite", "model", "branch", "exposures"], sort=False):
        same = (usual["suite"] == suite) & (usual["model"] == model) & (usual["branch"] == branch)
        beside = usual[same].pivot(index="row", columns="step", values=measure)
        for since, inside in part.groupby("bin"):
            shares = inside["step"].value_counts(normalize=True)
            at_steps = beside.reindex(columns=shares.index).dropna().to_numpy(dtype=np.float64) @ shares.to_numpy()
            values = inside[measure].to_numpy(dtype=np.float64)[:, None]
            samples, clusters = [values, -at_steps[:, None]], [inside["row"], None]
            kept = len(samples) if len(at_steps) else 1
            found = sums_of_means(
                samples[:kept], unit="row", clusters=clusters[:kept], resamples=resamples, seed=seed)[0]
            start = {**inside.sort_values("step")[IDENTITY].iloc[-1], "since": since, "exposures_low": exposures}
            named = {"exposures_high": exposures, "metric": f"{measure}_after_exposure"}
            lines.append({**start, **named, **replace(found, n=inside["row"].nunique()).columns()})
    return declared.effects(lines)
