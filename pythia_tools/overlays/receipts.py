"""What an overlay did: every occurrence it matched, changed or missed and why, and in which rows.

One Occurrence per whole word (or row, for rules that place rows). Counts are exact; the list of occurrences is kept
up to a stated number, so that a receipt over ten million rows stays small. A receipt is an account to be read, not work
kept to be resumed as in `core.results`: it is made in one read, and made again when the rows are.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

CHANGED = "changed"
MISSED = "missed"
CUT = "cut"


class Occurrence(NamedTuple):
    """One thing a rule matched.

    `position` is the token offset in the row before the rule, `landed` the one after it (-1 when it is no longer
    there).
    `status`: changed; missed (left as it was, for `reason`); cut (changed or not, it fell off the row's end).
    """

    rule: str
    row: int
    position: int
    landed: int
    found: str
    put: str
    status: str
    reason: str
    removed: tuple[int, ...] = ()
    placed: tuple[int, ...] = ()


class Lengths(NamedTuple):
    """How a row kept its length: tokens cut off its end, and padding ids added to it."""

    rule: str
    row: int
    cut: int
    padded: int
    tail: tuple[int, ...] = ()


@dataclass
class Receipt:
    """Counts and occurrences of one overlay over the rows asked for."""

    rules: list[dict[str, Any]]
    fingerprint: str
    rows_read: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    """reason → occurrences left as they were."""
    forms: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(rule, found, put) → changed occurrences, those that then fell off the end of their row included."""
    changed_rows: set[int] = field(default_factory=set)
    tokens_cut: int = 0
    tokens_padded: int = 0
    occurrences: list[Occurrence] = field(default_factory=list)
    keep: int = 1_000_000

    def add(self, occurrences: list[Occurrence], lengths: Iterable[Lengths], rows_read: int) -> None:
        self.rows_read += rows_read
        for item in occurrences:
            if item.status == MISSED:
                self.missed[item.reason] += 1
            else:
                self.forms[item.rule, item.found, item.put] += 1
                self.changed_rows.add(item.row)
        self.occurrences += occurrences[: max(0, self.keep - len(self.occurrences))]
        for length in lengths:
            self.tokens_cut += length.cut
            self.tokens_padded += length.padded

    @property
    def changed(self) -> int:
        return self.forms.total()

    @property
    def matched(self) -> int:
        return self.changed + self.missed.total()

    def table(self) -> pd.DataFrame:
        """One row per kept occurrence: rule, row, position, landed, found, put, status, reason."""
        frame = pd.DataFrame(self.occurrences, columns=list(Occurrence._fields))
        return frame.drop(columns=["removed", "placed"])

    def summary(self) -> dict[str, Any]:
        """JSON-able: the counts, the forms, the rows, the lengths, and whether every occurrence is listed."""
        forms = {f"{found} → {put}": n for (_, found, put), n in sorted(self.forms.items()) if len(found) < 40}
        return {
            "fingerprint": self.fingerprint, "rules": self.rules, "rows_read": self.rows_read,
            "rows_changed": len(self.changed_rows), "matched": self.matched, "changed": self.changed,
            "missed": dict(sorted(self.missed.items())), "forms": forms, "tokens_cut": self.tokens_cut,
            "tokens_padded": self.tokens_padded, "all_listed": self.matched == len(self.occurrences),
        }

    def __str__(self) -> str:
        missed = ", ".join(f"{n} {reason}" for reason, n in sorted(self.missed.items())) or "none"
        return (
            f"{self.matched} matched, {self.changed} changed in {len(self.changed_rows)} of {self.rows_read} rows; "
            f"missed: {missed}; {self.tokens_cut} tokens cut, {self.tokens_padded} padded"
        )
