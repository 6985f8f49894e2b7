"""Words for numbers, and small readings of summary tables, for sentences that are computed.

A difference within its interval is called undetected, never a trend.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import pandas as pd

from pythia_tools.core.tables import at_last_step

__all__ = [
    "at_last_step", "average", "by_size", "clear_of", "compare_ends", "direction", "interval", "largest", "listing",
    "over", "percent", "plural", "records", "seen", "signed", "times", "units",
]

Row: TypeAlias = dict[Hashable, Any]
"""A row of a summary as a mapping: text, numbers, NaN or <NA> by column."""


def direction(
    value: float, low: float, high: float, words: tuple[str, str, str] = ("rises", "falls", "shows no clear change")
) -> str:
    """The word for an effect: positive, negative, or not told apart from zero by its interval."""
    if not all(map(math.isfinite, (value, low, high))):
        return words[2]
    if low > 0:
        return words[0]
    if high < 0:
        return words[1]
    return words[2]


def percent(share: float) -> str:
    return "–" if pd.isna(
        share
    ) else f"{100 * share:.0f} %" if share in (0, 1) or 0.095 <= share <= 0.995 else f"{100 * share:.1f} %"


def interval(row: Row, form: Callable[[float], str] = lambda v: f"{v:.2f}") -> str:
    """` (low to high)`, or nothing when the table holds no interval."""
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    return f" ({form(row['low'])} to {form(row['high'])})"


def signed(value: float) -> str:
    """A number with its sign and two digits; what is undefined is said to be."""
    return "undefined" if pd.isna(value) else f"{value:+.2f}"


def listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else "none"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def units(row: Row) -> str:
    """24 occupations: what was independent behind a number, and how many of them."""
    return plural(int(row["n"]), "unit" if pd.isna(row["unit"]) else str(row["unit"]))


def average(rows: pd.DataFrame) -> Row:
    """value, low and high of the mean of independent estimates: the bounds' distances add up in squares."""
    value, low, high = (rows[c].to_numpy(float) for c in ("value", "low", "high"))
    middle, k = float(value.mean()), len(rows)
    reach = [math.sqrt(float((distance**2).sum())) / k for distance in (value - low, high - value)]
    return {"value": middle, "low": middle - reach[0], "high": middle + reach[1]}


def over(rows: pd.DataFrame) -> str:
    """`95 % intervals over occupations`: what the intervals of these rows of a summary resample."""
    return f"95 % intervals over {listing([f'{unit}s' for unit in sorted(rows['unit'].dropna().unique())])}"


def times(count: float) -> str:
    """never, once, 16 times."""
    return {0: "never", 1: "once"}.get(int(count), f"{int(count):,} times")


def seen(count: float) -> str:
    """never seen, seen once, seen 16 times."""
    return "never seen" if int(count) == 0 else f"seen {times(count)}"


def records(table: pd.DataFrame) -> list[Row]:
    """Rows as plain mappings, in order."""
    return table.to_dict("records")


def by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Rows from the smallest model to the largest; unknown sizes last."""
    return table.sort_values(["params", "model"], na_position="last")


def largest(table: pd.DataFrame) -> str:
    """The name of the largest model."""
    return str(by_size(table)["model"].iloc[-1])


def clear_of(a: Row, b: Row) -> bool:
    """The two estimates' intervals do not overlap."""
    return bool(a["low"] > b["high"] or b["low"] > a["high"])


def compare_ends(rows: pd.DataFrame, words: tuple[str, str, str]) -> str:
    """A word for the change from the first row to the last, undetected when their intervals overlap."""
    first, last = records(rows.iloc[[0, -1]])
    if not clear_of(first, last):
        return words[2]
    return words[0] if last["value"] > first["value"] else words[1]
