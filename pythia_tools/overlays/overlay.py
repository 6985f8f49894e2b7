"""An overlay: an order whose chosen steps pass through rules when they are read. The store is never rewritten.

It plays `order.Rows`, so whatever reads rows reads an overlay, another overlay included; what an order knows about the
documents of its store it does not offer. Rows outside the chosen steps are the store's own, bit for bit; every row
keeps its place and its length. The result depends on the row, the rules and the steps alone: not on how many rows are
read at once. Cost: two look-ups per token plus a few microseconds per word that a rule looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import atomic_write, digest, write_json
from pythia_tools.order.rows import Rows
from pythia_tools.overlays.receipts import MISSED, Occurrence, Receipt
from pythia_tools.overlays.rules import Applied, BoundRule, Chosen, Rule, WordRule, read_split
from pythia_tools.overlays.words import Spelling
from pythia_tools.suites.steps import expand
from pythia_tools.tokens import Openable

BLOCK_ROWS = 4096


class Overlay(Rows):
    """An order with rules applied to the rows of chosen steps.

    Args:
        order: a DataOrder, or another Overlay.
        rules: one rule or several, applied in the order given; each sees the rows as the one before left them.
        steps: batches to touch: `range(133_000, 143_000)`, "133000:142999" (both ends included), a list, or None for
            all of them. Step N is the batch consumed by the update from N to N+1.
    """

    def __init__(self, order: Rows, rules: Rule | Sequence[Rule], *, steps: str | Iterable[int] | None = None):
        self.order = order
        self.seq_length, self.dtype = order.seq_length, order.dtype
        self.batch_rows, self.n_rows, self.steps = order.batch_rows, order.n_rows, order.steps
        self.tokenizer, self.remote = order.tokenizer, order.remote
        self.chosen = Chosen(parse_steps(steps, order), order.batch_rows, order.n_rows)
        self.rules: list[BoundRule] = []
        for level, rule in enumerate(rules if isinstance(rules, Sequence) else [rules]):
            self.rules.append(rule.bind(self.chosen, partial(self._read, level, Applied(np.empty(0), [], []))))
        if not self.rules:
            raise RequestError("an overlay needs at least one rule")
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

    def documents(self, numbers: npt.ArrayLike) -> np.ndarray:
        """As `Rows.documents`, of the order below."""
        return self.order.documents(numbers)

    def apply(self, numbers: npt.ArrayLike) -> Applied:
        """Rows by number, with what the rules did to them."""
        account = Applied(np.empty(0), [], [])
        return account._replace(rows=self._read(len(self.rules), account, self.check_numbers(numbers)))

    def _read(self, level: int, account: Applied, numbers: np.ndarray) -> np.ndarray:
        """Rows as they are after the first `level` rules; what these did is added to the account."""
        if level == 0:
            return self.order.take(numbers)
        below = partial(self._read, level - 1, account)

        def ruled(inside: np.ndarray) -> np.ndarray:
            done = self.rules[level - 1].apply(inside, below)
            account.occurrences.extend(done.occurrences)
            account.lengths.extend(done.lengths)
            return done.rows

        return read_split(numbers, self.chosen.has(numbers), ruled, below)

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[np.ndarray, Applied]]:
        """(row numbers, what became of them) over the chosen rows, `size` at a time."""
        numbers = self.chosen.numbers()
        for start in range(0, len(numbers), size):
            block = numbers[start : start + size]
            yield block, self.apply(block)

    def receipt(self, *, keep: int = 1_000_000) -> Receipt:
        """What this overlay's rules do over the chosen rows, with up to `keep` occurrences.

        An overlay beneath this one has a receipt of its own. Cost: one read of those rows.
        """
        receipt = Receipt([r.config for r in self.rules], self.fingerprint, keep=keep)
        for block, done in self.blocks():
            receipt.add(done.occurrences, done.lengths, len(block))
        return receipt

    def save_receipt(self, folder: str | Path, receipt: Receipt) -> None:
        """Write `receipt.json` (counts) and `occurrences.parquet` (one row each) into a folder."""
        with atomic_write(Path(folder) / "occurrences.parquet") as handle:
            receipt.table().to_parquet(handle, index=False)
        write_json(Path(folder) / "receipt.json", receipt.summary())

    def diff(self, tokenizer: Openable | Spelling, *, limit: int = 10, context: int = 8) -> str:
        """Changed rows as text, before and after, a line each, with `context` tokens round every change."""
        return "\n".join(islice(self._differences(Spelling.of(tokenizer), context), limit))

    def _differences(self, spelling: Spelling, context: int) -> Iterator[str]:
        for block, done in self.blocks(256):
            before = self.order.take(block)
            for i, number in enumerate(block.tolist()):
                items = [o for o in done.occurrences if o.row == number and o.status != MISSED]
                if items:
                    step, place = divmod(number, self.batch_rows)
                    head = f"row {number} (step {step}, row {place} of its batch): {len(items)} changes"
                    yield "\n".join([head, *(_shown(spelling, before[i], done.rows[i], o, context) for o in items)])


def _shown(spelling: Spelling, before: np.ndarray, after: np.ndarray, item: Occurrence, context: int) -> str:
    if not item.removed and item.found.startswith("row "):  # a whole row stands in for another
        old, new = before[: 2 * context], after[: 2 * context]
    else:
        old = before[max(0, item.position - context) : item.position + len(item.removed) + context]
        new = after[max(0, item.landed - context) : item.landed + len(item.placed) + context]
    old_text, new_text = (spelling.text(ids).replace("\n", "⏎") for ids in (old, new))
    return f"  - …{old_text}…\n" + (f"  + …{new_text}…" if item.landed >= 0 else "  + (cut off the row's end)")


def parse_steps(steps: str | Iterable[int] | None, order: Rows) -> np.ndarray:
    """Sorted distinct batch numbers, (n,) int64; None for all. Raises RequestError for what is none of the order's."""
    if isinstance(steps, str):
        items = [f"{item}:1" if item.count(":") == 1 else item for item in steps.replace(" ", "").split(",")]
        try:
            chosen = np.array(expand(int(item) if item.isdecimal() else item for item in items), dtype=np.int64)
        except ValueError:
            allowed = "a:b or a:b:stride, both ends included, or a,b,c"
            raise RequestError(f"steps {steps!r}: give {allowed} (batch numbers)") from None
        if not chosen.size:
            raise RequestError(f"steps {steps!r} name no batch")
    else:  # rows beyond the last step are there to be a reserve
        chosen = np.unique(np.fromiter(range(order.steps) if steps is None else steps, dtype=np.int64))
    if chosen.size and (chosen[0] < 0 or chosen[-1] >= order.steps):
        raise RequestError(f"steps {chosen[0]}…{chosen[-1]} are not within the order's batches 0…{order.steps - 1}")
    return chosen


def roundtrip(
    order: Rows, rule: WordRule, inverse: Rule, *, steps: str | Iterable[int] | None = None,
) -> dict[str, Any]:
    """Apply a rule, then its inverse over it, and say what came back and what did not.

    Returns: rows (read), restored_rows (equal to the original, bit for bit), and `not_restored`: (row, position in the
    original, original text, text now, why), one for each word or row's end that did not come back.
    """
    there = Overlay(order, rule, steps=steps)
    back = Overlay(there, inverse, steps=steps)
    lost: list[tuple[int, int, str, str, str]] = []
    read = restored = 0
    for block, first in there.blocks():
        second = back.apply(block)
        same = (order.take(block) == second.rows).all(axis=1)
        read, restored = read + len(block), restored + int(same.sum())
        lost += _not_restored(set(block[~same].tolist()), first, second.occurrences, rule.spelling)
    return {"rows": read, "restored_rows": restored, "not_restored": sorted(lost)}


def _not_restored(
    broken: set[int], first: Applied, returned: list[Occurrence], spelling: Spelling,
) -> Iterator[tuple[int, int, str, str, str]]:
    back = {(o.row, o.position): o for o in returned if o.row in broken}
    for item in first.occurrences:
        answer = back.pop((item.row, item.landed), None)
        if item.row not in broken or item.status == MISSED:
            continue
        if item.landed < 0:
            yield item.row, item.position, item.found, "", "it fell off the row's end"
        elif answer is None or answer.status == MISSED:
            why = f"the inverse leaves it ({answer.reason if answer else 'not seen'})"
            yield item.row, item.position, item.found, item.put, why
        elif answer.put != item.found:
            yield item.row, item.position, item.found, answer.put, f"{item.put} stands for more than one form"
    for answer in back.values():
        if answer.status != MISSED:
            yield answer.row, answer.position, answer.found, answer.put, "it was of the other gender before"
    for length in first.lengths:
        if length.row in broken and length.tail:
            yield length.row, -length.cut, spelling.text(length.tail), "", "it was cut off the row's end"
