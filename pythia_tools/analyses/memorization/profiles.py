"""Causal memorization profiles: what consuming a row did to it, by difference in differences.

Rows are grouped into cohorts by the first checkpoint that contains them (treatment). For cohort g and checkpoint c,

    effect(g, c) = [mean_g Y_c − mean_g Y_b] − [mean_control Y_c − mean_control Y_b],   b = the checkpoint before g,

with never-seen rows as controls. c = g: instantaneous memorization; c > g: persistent; c = the last: residual. For a
loss the sign is flipped, so that positive always means memorized. Effects at c < b are placebo: under parallel trends
(what the model learns in general helps treated and control rows alike) they are 0, and `trends` says how far they are
from it. This is Callaway and Sant'Anna's group-time effect with never-treated controls and no covariates.

Intervals: bootstrap over rows, each with all its checkpoints; treated rows are resampled within their cohort, and one
draw of controls serves all cohorts, so sums over cohorts have honest intervals too. Cost: rows × checkpoints ×
resamples multiply-adds. Source: Lesci et al. 2024, arXiv:2406.04327.

Forgetting curves put any per-row measure against the steps since the row was last consumed. A later exposure of the
same row starts a new stretch, so a row consumed again is never counted as remembered.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.summary import exposure_bins
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, from_draws, units
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
    """effects (G, S): cohort × checkpoint, NaN where a cohort has no checkpoint before it; draws (R, G, S) the
    bootstrap's.

    cohorts (G,) and steps (S,) are training steps; sizes (G,) rows per cohort; controls: how many control rows.
    """

    cohorts: np.ndarray
    steps: np.ndarray
    effects: np.ndarray
    draws: np.ndarray
    sizes: np.ndarray
    controls: int

    def mean(self, mask: np.ndarray) -> Estimate:
        """Mean effect over the (G, S) cells of a mask that has some, each cohort weighted by its rows."""
        weights = np.broadcast_to(self.sizes[:, None], mask.shape)[mask].astype(np.float64)
        weights = weights / weights.sum()
        n = int(self.sizes[mask.any(axis=1)].sum())
        return from_draws(self.effects[mask] @ weights, self.draws[:, mask] @ weights, n=n, unit="row")


def profiles(
    values: np.ndarray, steps: Sequence[int], cohorts: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Profiles:
    """Group-time effects of (n, S) values, larger where better known, of n rows at S steps (ascending); `cohorts` (n,)
    as from `cohort_of`.

    Raises RequestError without controls, without treated rows, or when a value is missing.
    """
    data = np.asarray(values, dtype=np.float64)
    order = np.asarray(steps, dtype=np.int64)
    _check(data, order, cohorts)
    rng = np.random.default_rng(seed)
    control = data[cohorts == NEVER]
    control_mean, control_draws = control.mean(axis=0), _resample(control, resamples, rng)
    named = np.unique(cohorts[cohorts != NEVER])
    effects = np.empty((len(named), len(order)))
    draws = np.empty((resamples, len(named), len(order)))
    for number, cohort in enumerate(named):
        treated = data[cohorts == cohort]
        base = int(np.searchsorted(order, cohort)) - 1
        if base < 0:
            effects[number], draws[:, number] = np.nan, np.nan
            continue
        effects[number] = _difference(treated.mean(axis=0), control_mean, base)
        draws[:, number] = _difference(_resample(treated, resamples, rng), control_draws, base)
    sizes = np.array([(cohorts == c).sum() for c in named])
    return Profiles(named, order, effects, draws, sizes, len(control))


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
        found = profiles(
            -wide.to_numpy()[keep], list(steps), cohorts[keep], resamples=resamples, seed=seed)
        lines += [*_cells(found, identities), *_means(found, identities[-1])]
    return declared.effects(lines)


def _means(found: Profiles, last: Mapping[Hashable, object]) -> Iterator[dict[str, object]]:
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
    for metric, since, mask in wanted:
        if mask.any():
            named = {str(k): v for k, v in last.items()}
            yield {**named, "metric": metric, "since": since, **found.mean(mask).columns()}


def _gap_bins(gaps: np.ndarray, steps: int) -> list[tuple[int, int]]:
    """(low, high): each gap by itself on an even grid of checkpoints, else bins that double."""
    distinct = np.unique(gaps)
    if len(distinct) <= steps:
        return [(int(g), int(g) + 1) for g in distinct]
    return list(pairwise([0, *(1 << k for k in range(int(distinct[-1]).bit_length() + 1))]))


def _cells(found: Profiles, identities: Sequence[Mapping[Hashable, object]]) -> Iterator[dict[str, object]]:
    """Summary lines of one model's profiles: each cohort at each checkpoint."""
    for g, s in np.argwhere(np.isfinite(found.effects)):
        cohort, last = int(found.cohorts[g]), s == len(found.steps) - 1
        cell = from_draws(found.effects[g, s], found.draws[:, g, s], n=found.sizes[g], unit="row")
        step = found.steps[s]
        named = {"effect": True, "instantaneous": step == cohort, "residual": last and step > cohort}
        for metric in (m for m, is_one in named.items() if is_one):
            yield {**identities[s], "cohort": cohort, "metric": metric, **cell.columns()}


def _difference(treated: np.ndarray, control: np.ndarray, base: int) -> np.ndarray:
    return (treated - treated[..., base, None]) - (control - control[..., base, None])


def _resample(data: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(R, S) means of rows drawn with replacement."""
    return units(len(data)).weights(resamples, rng) @ data / len(data)


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


def forgetting_curve(aligned: pd.DataFrame, measure: str, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of a column by exposures and steps since the last, per model: metric `MEASURE_after_exposure` of a summary.

    aligned: an item table from `with_exposures`. Each line has the lower edge of its bin of `since` (0, 1, 2, 4, 8 …);
    the identity's step is the last checkpoint that fell into the bin. Rows whose measure is missing are left out.
    """
    data = aligned[aligned["since"].notna() & aligned[measure].notna()]
    if data.empty:
        raise RequestError(f"no row was consumed before any checkpoint and has {measure!r}; there is nothing to align")
    data = data.assign(bin=exposure_bins(data["since"]))
    rng = np.random.default_rng(seed)
    lines = []
    for (*_, exposures), part in data.groupby(["suite", "model", "branch", "exposures"], sort=False):
        names, place = np.unique(part["row"], return_inverse=True)
        weights = units(len(names)).weights(resamples, rng)
        for since in np.unique(part["bin"]):
            here = (part["bin"] == since).to_numpy()
            inside, rows = part[here], place[here]
            values = inside[measure].to_numpy(dtype=np.float64)
            # a drawn row brings all its lines in this bin
            totals = weights @ np.bincount(rows, weights=values, minlength=len(names))
            held = weights @ np.bincount(rows, minlength=len(names))
            found = from_draws(values.mean(), totals[held > 0] / held[held > 0], n=len(np.unique(rows)), unit="row")
            start = {**inside.sort_values("step")[IDENTITY].iloc[-1], "since": since, "exposures_low": exposures}
            named = {"exposures_high": exposures, "metric": f"{measure}_after_exposure"}
            lines.append({**start, **named, **found.columns()})
    return declared.effects(lines)
