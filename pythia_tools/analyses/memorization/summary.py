"""From memorization items to numbers: shares with Wilson intervals over distinct rows, exposures, sizes, bursts,
branches.

Cost: one pass over the table. Intervals are over rows (or the units named), never over tokens or checkpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, difference, mean, rank_correlation, wilson
from pythia_tools.core.tables import IDENTITY, by_identity

MEANS = {
    "memorized": "memorized_share", "matched": "mean_matched", "score": "mean_score",
    "edit_distance": "mean_edit_distance", "span": "mean_span",
}
TEXT = "text"
"""The unit of rows: those that share a document or their window are one text."""
GROUPS = ("task", "subset", "cohort", "exposures", "exposure_bins")
"""What `summarize` tells rows apart by; the last two by the column `exposures`."""


def with_exposures(
    table: pd.DataFrame, steps_per_item: Sequence[npt.ArrayLike], *, row_ids: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """The table with columns `exposures`, how often each line's row had been consumed by the line's step, and `since`,
    the steps since the last time (0: the checkpoint just after; <NA> before the first).

    steps_per_item: for each item the batches (0-based) that held it, one entry per exposure. A checkpoint at `step` has
    consumed batches 0 … step − 1, so batch `step` itself does not count yet. `row_ids`: the items' rows (default
    0 … n − 1). Raises RequestError for an unknown row.
    """
    numbers = np.arange(len(steps_per_item)) if row_ids is None else np.asarray(row_ids)
    place = pd.Index(numbers).get_indexer(pd.Index(table["row"]))
    if (place < 0).any():
        lost = table["row"].to_numpy()[place < 0][0]
        raise RequestError(f"row {lost} has no exposures; give steps for each row of the table")
    ordered = [np.sort(np.asarray(s, dtype=np.int64)) for s in steps_per_item]
    steps = table["step"].to_numpy(dtype=np.int64)
    count = np.array([np.searchsorted(ordered[p], s) for p, s in zip(place, steps, strict=True)], dtype=np.int64)
    last = np.array([ordered[p][c - 1] if c else -1 for p, c in zip(place, count, strict=True)], dtype=np.int64)
    since = pd.array(np.where(count > 0, steps - last - 1, 0), dtype="Int64")
    since[count == 0] = pd.NA
    return table.assign(exposures=count, since=since)


def exposure_bins(exposures: npt.ArrayLike) -> np.ndarray:
    """(n,) lower edges 0, 1, 2, 4, 8 … of counts: few groups, each with rows enough for an interval."""
    counts = np.asarray(exposures, dtype=np.int64)
    return np.where(counts > 0, 1 << np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)


def summarize(table: pd.DataFrame, *, by: str | Sequence[str] | None = None, unit: str = "row") -> pd.DataFrame:
    """A summary table: per checkpoint and group `memorized_share` (Wilson), `mean_matched`, and with the score
    `mean_score`, `mean_edit_distance`, `mean_span` (bootstrap).

    by: any of GROUPS; the default is task, subset and cohort where the table has them. unit: what is independent. When
    several lines of one group share a unit (copies of one canary), each unit counts once, by its mean, and the interval
    is a bootstrap over units. Undecided rows are left out and counted in `undecided`. Where a screen was used,
    `screen_overturned` is the share of its audited rejections that were wrong, n how many. Raises: RequestError for a
    column that the table lacks or that has no place in a summary.
    """
    columns = [c for c in GROUPS[:3] if c in table.columns] if by is None else [by] if isinstance(by, str) else list(by)
    strange = [c for c in columns if c not in GROUPS]
    if strange:
        raise RequestError(f"rows are not told apart by {strange[0]!r}; choose from: {', '.join(GROUPS)}")
    if "exposure_bins" in columns and "exposures" in table.columns:
        table = table.assign(exposure_bins=exposure_bins(table["exposures"]))
    absent = [c for c in [*columns, unit] if c not in table.columns]
    if absent:
        raise RequestError(f"the table has no column {absent[0]!r}; it has: {', '.join(map(str, table.columns))}")
    lines = []
    for identity, values, part in by_identity(table, *columns):
        start = {**identity, **_named(dict(zip(columns, values, strict=True)))}
        lines += [{**start, "metric": metric, **e.columns()} for metric, e in _estimates(part, unit)]
    return declared.summary(lines)


def _named(group: dict[str, object]) -> dict[str, object]:
    """A group's values under the columns of a summary."""
    for name in ("exposures", "exposure_bins"):
        if name in group:
            low = int(str(group.pop(name)))
            high = 2 * low - 1 if name == "exposure_bins" and low else low
            group |= {"exposures_low": low, "exposures_high": high}
    return group


def _estimates(part: pd.DataFrame, unit: str) -> Iterator[tuple[str, Estimate]]:
    known = part[part["memorized"].notna()]
    for column, metric in MEANS.items():
        if column in part.columns:
            values = known[column].astype(float)
            if unit != TEXT:
                values = values.groupby(known[unit], sort=False).mean()
            if column == "memorized" and len(values) == known[unit].nunique() == len(known):
                yield metric, wilson(float(values.sum()), len(values), unit=unit)
            else:
                yield metric, mean(values, **_units(known, unit), share=column in ("memorized", "score"))
    if "decided" in part.columns:
        audited = part[part["decided"] == "audit"]
        wrong = int(audited["memorized"].fillna(False).astype(bool).sum())
        yield "screen_overturned", wilson(wrong, len(audited), unit="row")
    undecided = len(part) - len(known)
    if undecided:
        yield "undecided", Estimate(float(undecided), n=len(part), unit="row")


def _units(rows: pd.DataFrame, unit: str) -> dict[str, Any]:
    """What statistics over rows resample: whole texts, where rows share some."""
    return {"unit": unit, "clusters": rows[TEXT] if unit == TEXT else None}


def correlations(items: pd.DataFrame, unit: str = "row") -> pd.DataFrame:
    """Within each checkpoint: Spearman's rho of matched continuation tokens with exposures, over rows."""
    lines = []
    for identity, (task,), part in by_identity(items, "task"):
        known = part[part["matched"].notna()]
        exposures, matched = known["exposures"].astype(float), known["matched"].astype(float)
        found = rank_correlation(exposures, matched, **_units(known, unit))
        lines.append({**identity, "task": task, "metric": "spearman_exposures", **found.columns()})
    return declared.summary(lines)


def size_differences(main: pd.DataFrame, unit: str = "row") -> pd.DataFrame:
    """At each step, each model's memorized share minus the smallest one's, paired by row. main: main runs only."""
    known = main[main["memorized"].notna()].sort_values("params", kind="stable", na_position="last")
    names = [str(name) for name in known["model"].unique()]
    lines = []
    for start, pair in _paired(known, {name: names[0] for name in names[1:]}, unit):
        found = difference(pair["own"].astype(float), pair["other"].astype(float), **_units(pair, unit))
        named = {"task": known["task"].iloc[0], "metric": "memorized_share_difference"}
        lines.append({**start, **named, **found.columns()})
    return declared.summary(lines)


def burst_gains(main: pd.DataFrame, canaries: pd.DataFrame) -> pd.DataFrame:
    """What a burst of exposures right before a checkpoint leaves: tokens reproduced after it minus before it.

    canaries: canary, copies, burst (the checkpoint right after its burst, or <NA>). One row per model, burst and number
    of copies, which are its exposures, over canaries. `mean_burst_gain`, at the last burst, is over all of several
    bursts: canaries of one burst share what befell the model there, so bursts are its unit.
    """
    bursts = canaries.dropna(subset=["burst"])
    lines = []
    for _, here in main.groupby("model", sort=False):
        gains: dict[object, dict[object, pd.Series]] = {}
        last: dict[object, dict[str, object]] = {}
        steps = sorted(here["step"].astype("int64").unique().tolist())
        matched = {s: here[here["step"] == s].set_index("row")["matched"].astype(float) for s in steps}
        for (step, copies), chosen in bursts.astype({"burst": "int64"}).groupby(["burst", "copies"]):
            earlier = [s for s in steps if s < step]
            if step not in matched or not earlier:
                continue
            rows = chosen["canary"].to_numpy()
            gain = (matched[step].loc[rows] - matched[earlier[-1]].loc[rows]).dropna()
            at = here[here["step"] == step].iloc[0]
            start = {**at[IDENTITY], "task": at["task"], "exposures_low": copies, "exposures_high": copies}
            lines.append({**start, "metric": "burst_gain", **mean(gain, unit="canary").columns()})
            gains.setdefault(copies, {})[step] = gain
            last[copies] = start
        for copies, told in gains.items():
            if len(told) > 1:
                every = pd.concat(told)
                found = mean(every, unit="burst", clusters=every.index.get_level_values(0))
                lines.append({**last[copies], "metric": "mean_burst_gain", **found.columns()})
    return declared.summary(lines)


def branch_differences(items: pd.DataFrame, bases: Mapping[str, str], unit: str = "row") -> pd.DataFrame:
    """`memorized_difference`: share of rows that a branch memorized minus its base's, paired by row at the same step.

    bases: branch model → the model it left (`m-swap` → `m`), which becomes the reference. One line per branch and step
    that both have. Rows that either leaves undecided are left out.
    """
    lines = []
    for start, pair in _paired(items, bases, unit):
        found = difference(pair["own"].astype(float), pair["other"].astype(float), **_units(pair, unit))
        lines.append({**start, "metric": "memorized_difference", **found.columns()})
    return declared.summary(lines)


def _paired(
    items: pd.DataFrame, references: Mapping[str, str], unit: str
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Per checkpoint of a model with a reference: a line's beginning, and the rows that both decided at the same step
    with its flags `own`, the reference's `other`, and what the unit is read off.
    """
    known = items[items["memorized"].notna()]
    for identity, _, part in by_identity(known[known["model"].isin(list(references))]):
        reference = references[str(identity["model"])]
        there = known[(known["model"] == reference) & (known["step"] == identity["step"])]
        other = there.set_index("row")["memorized"].astype(bool).rename("other")
        pair = part.astype({"memorized": bool}).rename(columns={"memorized": "own"}).join(other, on="row", how="inner")
        if len(pair):
            yield {**identity, "reference": reference}, pair
