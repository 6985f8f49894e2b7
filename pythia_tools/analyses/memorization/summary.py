"""From memorization items to tidy numbers: shares with Wilson intervals over distinct rows, by group or by exposures so far.

Cost: one pass over the table. Intervals are over rows (or the units named), never over tokens or checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, mean, wilson
from pythia_tools.core.tables import IDENTITY

SHARES = {"memorized": "memorized_share"}
MEANS = {"matched": "mean_matched", "score": "mean_score", "edit_distance": "mean_edit_distance", "span": "mean_span"}


def exposures_at(steps_per_item: Sequence[Any], step: int) -> np.ndarray:
    """(n,) times each item had been consumed by a checkpoint.

    steps_per_item: for each item the batches (0-based) that held it, one entry per exposure. A checkpoint at `step` has
    consumed batches 0 … step − 1, so batch `step` itself does not count yet.
    """
    return np.array([int((np.asarray(s, dtype=np.int64) < step).sum()) for s in steps_per_item], dtype=np.int64)


def with_exposures(
    table: pd.DataFrame, steps_per_item: Sequence[Any], *, row_ids: Sequence[int] | np.ndarray | None = None
) -> pd.DataFrame:
    """The table with a column `exposures`: how often each line's row had been consumed by the line's step.

    `row_ids`: the rows' numbers in the order of steps_per_item (default 0 … n−1). Raises RequestError for an unknown row.
    """
    numbers = np.arange(len(steps_per_item)) if row_ids is None else np.asarray(row_ids)
    place = pd.Index(numbers).get_indexer(pd.Index(table["row"]))
    if (place < 0).any():
        raise RequestError(f"row {table['row'].to_numpy()[place < 0][0]} has no exposures; give steps for each row of the table")
    counts = np.zeros(len(table), np.int64)
    steps = table["step"].to_numpy(dtype=np.int64)
    for step in np.unique(steps):
        here = steps == step
        counts[here] = exposures_at(steps_per_item, int(step))[place[here]]
    return table.assign(exposures=counts)


def exposure_bins(exposures: pd.Series | np.ndarray) -> np.ndarray:
    """(n,) labels `0`, `1`, `2-3`, `4-7` … of counts: few groups, each with rows enough for an interval."""
    counts = np.asarray(exposures, dtype=np.int64)
    low = np.where(counts > 0, 1 << np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
    return np.array([f"{a}-{2 * a - 1}" if a > 1 else str(a) for a in low], dtype=object)


def summarize(table: pd.DataFrame, *, by: str | Sequence[str] | None = None, unit: str = "row", level: float = 0.95) -> pd.DataFrame:
    """A summary table: per checkpoint and group, `memorized_share` (Wilson), `mean_matched`, and with the score `mean_score`,
    `mean_edit_distance`, `mean_span` (bootstrap).

    by: columns to group by (`group`, `exposures`, …); the default is `group` when the table has one, else all rows together.
    unit: what is independent. When several lines of one group share a unit (copies of one canary), each unit counts once, by
    its mean, and the interval is a bootstrap over units. Undecided rows are left out and counted in `undecided`.
    Where a screen was used, `screen_overturned` is the share of its audited rejections that were wrong, n how many were audited.
    """
    if table.empty:
        return tables.summary([])
    columns = [by] if isinstance(by, str) else list(by) if by is not None else ["group"] if "group" in table.columns else []
    absent = [c for c in [*columns, unit] if c not in table.columns]
    if absent:
        raise RequestError(f"the table has no column {absent[0]!r} to group by; it has: {', '.join(map(str, table.columns))}")
    lines = []
    for keys, part in table.groupby([*IDENTITY, *columns], sort=False, dropna=False):
        identity = dict(zip(IDENTITY, keys, strict=False))
        group = label(columns, keys[len(IDENTITY) :])
        for metric, estimate in _estimates(part, unit, level):
            lines.append({**identity, "group": group, "metric": metric, **estimate.columns()})
    return tables.summary(lines)


def label(columns: Sequence[str], values: Sequence[Any]) -> str:
    """`exposures=16`; a column called group speaks for itself; `all` for none."""
    parts = [str(v) if c == "group" else f"{c}={v}" for c, v in zip(columns, values, strict=True)]
    return ", ".join(parts) or "all"


def _estimates(part: pd.DataFrame, unit: str, level: float) -> Iterator[tuple[str, Estimate]]:
    known = part[part["memorized"].notna()]
    for column, metric in SHARES.items():
        yield metric, _share(known[column].to_numpy(dtype=np.float64), known[unit].to_numpy(), unit, level)
    for column, metric in MEANS.items():
        if column in part.columns:
            values, _ = per_unit(known[column].to_numpy(dtype=np.float64), known[unit].to_numpy())
            yield metric, mean(values, unit=unit, level=level, by_frequency=True)
    if "decided" in part.columns:
        yield "screen_overturned", _overturned(part)
    undecided = len(part) - len(known)
    if undecided:
        yield "undecided", Estimate(float(undecided), n=len(part), unit="row")


def _overturned(part: pd.DataFrame) -> Estimate:
    """Share of audited rejections of a screen that were wrong, with an interval for all its rejections (see screen.py)."""
    audited = part[part["decided"] == "audit"]
    return wilson(int(audited["memorized"].fillna(False).astype(bool).sum()), len(audited), unit="row")


def _share(flags: np.ndarray, units: np.ndarray, unit: str, level: float) -> Estimate:
    values, repeated = per_unit(flags, units)
    if repeated:
        return mean(values, unit=unit, level=level, by_frequency=True)
    return wilson(float(values.sum()), len(values), unit=unit, level=level)


def per_unit(values: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, bool]:
    """Each unit's mean, and whether any unit occurred more than once."""
    names, place = np.unique(units, return_inverse=True)
    if len(names) == len(values):
        return values, False
    return np.bincount(place, weights=values) / np.bincount(place), True
