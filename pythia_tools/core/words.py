"""Words for numbers, and small readings of summary tables, for sentences that are computed.

A difference within its interval is called undetected, never a trend; what has no value, or no interval to judge it by,
is called undefined, never undetected. No size is claimed of models whose sizes are not known.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import pandas as pd

Row: TypeAlias = dict[Hashable, Any]
"""A row of a summary as a mapping: text, numbers, NaN or <NA> by column."""
Words: TypeAlias = tuple[str, str, str, str]
"""For an effect that is positive, negative, not told apart from zero by its interval, or without value or interval."""
TREND: Words = ("rises", "falls", "does not change detectably", "has no defined trend")


@dataclass(frozen=True)
class Sentence:
    """A finding in words, and the rows of summary.csv (0-based) that it was read off."""

    text: str
    rows: tuple[int, ...]

    @classmethod
    def of(cls, text: str, *read: pd.DataFrame) -> Self:
        """The sentence that was read off these rows of a summary (which keep the summary's index)."""
        return cls(text, tuple(sorted({int(i) for table in read for i in table.index})))

    def __str__(self) -> str:
        return self.text


def direction(value: float, low: float, high: float, words: Words = TREND) -> str:
    """The word for an effect, by where its interval lies."""
    if any(pd.isna(number) or not math.isfinite(number) for number in (value, low, high)):
        return words[3]
    return words[0] if low > 0 else words[1] if high < 0 else words[2]


def number(value: float, form: str) -> str:
    """A number in a format of `format`; what is undefined is said to be."""
    return "undefined" if pd.isna(value) else format(value, form)


def percent(share: float) -> str:
    if pd.isna(share):
        return "undefined"
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.095 <= share <= 0.995 else f"{100 * share:.1f} %"


def interval(row: Row, form: Callable[[float], str] = lambda v: f"{v:.2f}") -> str:
    """` (low to high)`, or nothing when the table holds no interval."""
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    return f" ({form(row['low'])} to {form(row['high'])})"


def listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else "none"


def plural(count: int, one: str) -> str:
    return f"{count:,} {one if count == 1 else one + 's'}"


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
    units = sorted(rows.loc[rows["low"].notna(), "unit"].dropna().unique())
    return f"95 % intervals over {listing([f'{unit}s' for unit in units])}" if units else "without intervals"


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
    """The name of the largest model, or of one of the largest; of the last one by name where no size is known."""
    known = table.dropna(subset=["params"])
    return str(by_size(known if len(known) else table)["model"].iloc[-1])


def sized(table: pd.DataFrame) -> bool:
    """Whether one model is known to be the smallest and another one the largest."""
    sizes = table.drop_duplicates("model")["params"]
    ends = [int((sizes == end).sum()) for end in (sizes.min(), sizes.max())] if sizes.notna().all() else []
    return len(sizes) > 1 and ends == [1, 1]


def compare_ends(rows: pd.DataFrame, words: Words = TREND) -> str:
    """A word for the change from the first row to the last, undetected when their intervals overlap; one row has none.
    """
    first, last = records(rows.iloc[[0, -1]])
    if len(rows) < 2:
        return words[3]
    return direction(last["value"] - first["value"], last["low"] - first["high"], last["high"] - first["low"], words)
