"""An overlay: an order whose chosen steps pass through rules when they are read. The store is never rewritten.

It plays `order.Rows`, so whatever reads rows reads an overlay, another overlay included; what an order knows about the
documents of its store it does not offer. Rows outside the chosen steps are the store's own, bit for bit; every row keeps its
place and its length. The result depends on the row, the rules and the steps alone: not on how many rows are read at once.
Cost: two look-ups per token plus a few microseconds per word that a rule looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest, write_json
from pythia_tools.order.rows import Rows
from pythia_tools.overlays.receipts import MISSED, Lengths, Occurrence, Receipt
from pythia_tools.overlays.rules import Applied, Chosen, Rule

BLOCK_ROWS = 4096


class Overlay(Rows):
    """An order with rules applied to the rows of chosen steps.

    Args:
        order: a DataOrder, or another Overlay.
        rules: one rule or several, applied in the order given; each sees the rows as the one before left them.
        steps: batches to touch: `range(133_000, 143_000)`, "133000:143000", a list, or None for all of them.
            Step N is the batch consumed by the update from N to N+1.
    """

    def __init__(self, order: Rows, rules: Rule | Sequence[Rule], *, steps: str | Iterable[int] | None = None):
        self.order = order
        self.seq_length, self.dtype = order.seq_length, order.dtype
        self.batch_rows, self.n_rows, self.steps = order.batch_rows, order.n_rows, order.steps
        self.tokenizer, self.remote = order.tokenizer, order.remote
        self.chosen = Chosen(parse_steps(steps, order), order.batch_rows, order.n_rows)
        given = list(rules) if isinstance(rules, Sequence) else [rules]
        if not given:
            raise RequestError("an overlay needs at least one rule")
        self.rules: list[Rule] = []
        for rule in given:
            self.rules.append(rule.bind(self.chosen, self._reader(len(self.rules))))
        self.name = f"{order.name}+{'+'.join(r.name for r in self.rules)}"

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact rows served: the order's fingerprint, the rules, and the chosen steps."""
        steps = self.chosen.steps
        runs = np.flatnonzero(np.diff(steps, prepend=-2, append=-2) != 1)
        spans = [[int(steps[a]), int(steps[b - 1]) + 1] for a, b in pairwise(runs)] if steps.size else []
        return digest({"order": self.order.fingerprint, "rules": [r.config for r in self.rules], "steps": spans})

    def take(self, numbers: npt.ArrayLike) -> np.ndarray:
        """Rows by number, in the order asked: (n, L + 1). Raises RequestError for a row that does not exist."""
        return self.apply(numbers).rows

    def apply(self, numbers: npt.ArrayLike) -> Applied:
        """Rows by number, with what the rules did to them."""
        return self._content(self.check_numbers(numbers), len(self.rules))

    def _reader(self, level: int) -> Any:
        return lambda numbers: self._content(np.asarray(numbers, dtype=np.int64), level).rows

    def _content(self, numbers: np.ndarray, level: int) -> Applied:
        """Rows as they are after the first `level` rules; the account of all of them."""
        if level == 0:
            return Applied(self.order.take(numbers), [], [])
        below = _Recorder(self, level - 1)
        inside = self.chosen.has(numbers)
        rule = self.rules[level - 1]
        if not inside.any():
            return Applied(below(numbers), below.occurrences, below.lengths)
        done = rule.apply(numbers[inside], below)
        rows = done.rows
        if not inside.all():
            outside = below(numbers[~inside])
            rows = np.empty((len(numbers), outside.shape[1]), dtype=outside.dtype)
            rows[inside], rows[~inside] = done.rows, outside
        return Applied(rows, below.occurrences + done.occurrences, below.lengths + done.lengths)

    def receipt(self, rows: Iterable[int] | None = None, *, keep: int = 1_000_000) -> Receipt:
        """What this overlay's rules do over the chosen rows (or some of them): one read of those rows; lists up to `keep` occurrences.

        An overlay beneath this one has a receipt of its own.
        """
        numbers = self.chosen.numbers() if rows is None else np.asarray(list(rows), dtype=np.int64)
        receipt = Receipt([r.config for r in self.rules], self.fingerprint, keep=keep)
        for start in range(0, len(numbers), BLOCK_ROWS):
            block = numbers[start : start + BLOCK_ROWS]
            done = self.apply(block)
            receipt.add(done.occurrences, done.lengths, len(block))
        return receipt

    def diff(self, tokenizer: Any, *, rows: Iterable[int] | None = None, limit: int = 10, context: int = 8) -> str:
        """Changed rows as text, before and after, a line each, with `context` tokens round every change."""
        return "\n".join(_diffs(self, tokenizer, rows, limit, context))

    def save_receipt(self, folder: str | Path, receipt: Receipt | None = None) -> Receipt:
        """Write `receipt.json` (counts) and `occurrences.parquet` (one row each) into a folder."""
        from pythia_tools.core.files import atomic_write

        receipt = self.receipt() if receipt is None else receipt
        with atomic_write(Path(folder) / "occurrences.parquet") as handle:
            receipt.table().to_parquet(handle, index=False)
        write_json(Path(folder) / "receipt.json", receipt.summary())
        return receipt


class _Recorder:
    """Reads rows beneath a rule and keeps the account of the rules under it."""

    def __init__(self, overlay: Overlay, level: int):
        self.overlay, self.level = overlay, level
        self.occurrences: list[Occurrence] = []
        self.lengths: list[Lengths] = []

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        done = self.overlay._content(np.asarray(numbers, dtype=np.int64), self.level)
        self.occurrences += done.occurrences
        self.lengths += done.lengths
        return done.rows


def parse_steps(steps: str | Iterable[int] | None, order: Rows) -> np.ndarray:
    """Sorted distinct batch numbers. Raises RequestError when one is not a whole batch of the order."""
    whole = order.steps  # rows beyond the last step are there to be a reserve
    if steps is None:
        return np.arange(whole, dtype=np.int64)
    if isinstance(steps, str):
        steps, given = _parse(steps, whole), steps
        if not steps:
            raise RequestError(f"steps {given!r} name no batch")
    chosen = np.unique(np.fromiter((int(s) for s in steps), dtype=np.int64))
    if chosen.size and (chosen[0] < 0 or chosen[-1] >= whole):
        raise RequestError(f"steps {chosen[0]}…{chosen[-1]} are not within the order's batches 0…{whole - 1}")
    return chosen


def _parse(text: str, whole: int) -> Iterable[int]:
    """`a:b`, `a:b:c`, `a:`, or `a,b,c`."""
    try:
        if ":" in text:
            parts = [int(p) if p.strip() else None for p in text.split(":")]
            return range(*slice(*parts).indices(whole)) if (parts[1] or 0) <= whole else range(parts[0] or 0, parts[1] or whole)
        return [int(p) for p in text.split(",")]
    except (ValueError, TypeError):
        raise RequestError(f"steps {text!r}: give a:b, a:b:stride, or a,b,c (batch numbers)") from None


def _diffs(overlay: Overlay, tokenizer: Any, rows: Iterable[int] | None, limit: int, context: int) -> Iterator[str]:
    from pythia_tools.overlays.words import Spelling

    spelling = tokenizer if isinstance(tokenizer, Spelling) else Spelling(tokenizer)
    shown = 0
    numbers = overlay.chosen.numbers() if rows is None else np.asarray(list(rows), dtype=np.int64)
    for start in range(0, len(numbers), 256):
        block = numbers[start : start + 256]
        done = overlay.apply(block)
        before = overlay.order.take(block)
        marks: dict[int, list[Occurrence]] = {}
        for item in done.occurrences:
            if item.status != MISSED:
                marks.setdefault(item.row, []).append(item)
        for i, number in enumerate(block.tolist()):
            if number not in marks:
                continue
            if shown == limit:
                return
            shown += 1
            step, place = divmod(number, overlay.batch_rows)
            yield f"row {number} (step {step}, row {place} of its batch): {len(marks[number])} changes"
            yield from _show(spelling, before[i], done.rows[i], marks[number], context)


def _show(spelling: Any, before: np.ndarray, after: np.ndarray, items: list[Occurrence], context: int) -> Iterator[str]:
    for item in items:
        whole_row = not item.removed and item.found.startswith("row ")
        old = before[: 2 * context] if whole_row else before[max(0, item.position - context) : item.position + len(item.removed) + context]
        start = max(0, item.landed - context)
        new = after[: 2 * context] if whole_row else after[start : item.landed + len(item.placed) + context]
        yield f"  - …{_line(spelling.text(old))}…"
        yield f"  + …{_line(spelling.text(new))}…" if item.landed >= 0 else "  + (cut off the row's end)"


def _line(text: str) -> str:
    return text.replace("\n", "⏎")


def roundtrip(order: Rows, rule: Any, inverse: Any, *, steps: str | Iterable[int] | None = None) -> dict[str, Any]:
    """Apply a rule, then its inverse over it, and say what came back and what did not.

    Returns: rows (read), restored_rows (equal to the original, bit for bit), and `not_restored`: (row, position in the
    original, original text, text now, why), one for each word or row's end that did not come back.
    """
    there = Overlay(order, rule, steps=steps)
    back = Overlay(there, inverse, steps=steps)
    lost: list[tuple[int, int, str, str, str]] = []
    restored = 0
    numbers = there.chosen.numbers()
    for start in range(0, len(numbers), BLOCK_ROWS):
        block = numbers[start : start + BLOCK_ROWS]
        first, second = there.apply(block), back.apply(block)
        same = (order.take(block) == second.rows).all(axis=1)
        restored += int(same.sum())
        broken = set(block[~same].tolist())
        lost += _not_restored(broken, first, second.occurrences, rule.spelling)
    return {"rows": len(numbers), "restored_rows": restored, "not_restored": sorted(lost)}


def _not_restored(broken: set[int], first: Applied, returned: list[Occurrence], spelling: Any) -> Iterator[tuple[int, int, str, str, str]]:
    back = {(o.row, o.position): o for o in returned if o.row in broken}
    for item in first.occurrences:
        answer = back.pop((item.row, item.landed), None)
        if item.row not in broken or item.status == MISSED:
            continue
        if item.landed < 0:
            yield item.row, item.position, item.found, "", "it fell off the row's end"
        elif answer is None or answer.status == MISSED:
            yield item.row, item.position, item.found, item.put, f"the inverse leaves it ({answer.reason if answer else 'not seen'})"
        elif answer.put != item.found:
            yield item.row, item.position, item.found, answer.put, f"{item.put} stands for more than one form"
    for answer in back.values():
        if answer.status != MISSED:
            yield answer.row, answer.position, answer.found, answer.put, "it was of the other gender before"
    for length in first.lengths:
        if length.row in broken and length.tail:
            yield length.row, -length.cut, spelling.text(length.tail), "", "it was cut off the row's end"
