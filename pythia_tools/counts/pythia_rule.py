"""The counting rule of the Pythia paper's term-frequency study, key for key, as its published script has it.

For each row, with one space put before its decoded text:

* a number window starts at every ` d `, d being one to five digits: then one to three words (runs of word characters or
  ASCII punctuation, each with the white space after it), as many as fit, then one to five digits;
* a time window is a number and, zero to three words later, a unit, or a unit and, zero to three words later, a number, as
  few words as will do (minute, hour, day, week, month, year, decade; `days` holds `day`);
* in a window every run of digits, cut into fives from the left, is a number (007 is 7);
* in a number window each number counts once under `7`, each two of them once under `7-12`, the smaller first; in a time
  window each number counts with each unit under `7-day`.

So the count of 7 is that of windows in which 7 stands near another number, not that of 7 itself. Digits, word characters
and white space are those of Python's `re` for Unicode text. Text is decoded with special tokens and without any clean-up
of spaces.

Cost: 4 to 5 ns per token and core; only the few words after a number or a unit are ever decoded, and the share is reported.
Source: Biderman et al. 2023, section 4.3, and its published script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.counts.characters import DIGIT, character_classes, digit_values
from pythia_tools.counts.ngram_scan import as_kernel_rows, hash_table, token_ids
from pythia_tools.counts.patterns import TIME_UNITS
from pythia_tools.counts.pythia_scan import LARGEST, PAIR, TIME, PythiaMachine, scan_windows, token_flags, unit_table
from pythia_tools.counts.reading import blocks, reader
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes
from pythia_tools.order import Rows
from pythia_tools.tokens import Openable


@dataclass(frozen=True, eq=False)
class PythiaPlan:
    """The rule for some wanted keys; `columns` are their pattern numbers."""

    machine: PythiaMachine
    columns: np.ndarray
    place: np.ndarray
    """the machine's column of each key"""

    def count(self, rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        found = np.zeros((len(counts), int(self.place.max()) + 1), dtype=np.int64)
        scan_windows(rows, group, self.machine, found, False, np.zeros((0, 2), dtype=np.int64), np.zeros(2, dtype=np.int64))
        counts[:, self.columns] = found[:, self.place]


def plan_keys(keys: Sequence[tuple[int, str]], vocabulary: TokenBytes, ids: int) -> PythiaPlan:
    """keys: (pattern number, key); equal keys under two labels are each counted."""
    codes = [key_code(k) for _, k in keys]
    distinct = {code: n for n, code in enumerate(dict.fromkeys(codes))}
    paired = np.zeros(LARGEST, dtype=np.uint8)
    for code in distinct:
        if PAIR <= code < TIME:
            paired[[(code - PAIR) // LARGEST, (code - PAIR) % LARGEST]] = 1
    columns, place = np.array([c for c, _ in keys]), np.array([distinct[c] for c in codes])
    return PythiaPlan(_machine(vocabulary, ids, distinct, paired), columns, place)


@dataclass(frozen=True)
class PythiaCounts:
    """All keys of the rule in some rows: `keys` (k,) int64 codes ascending, `counts` (k,) int64.

    `decoded` of `tokens` were read as text, in `windows` windows.
    """

    keys: np.ndarray
    counts: np.ndarray
    decoded: int
    tokens: int
    windows: int

    def __add__(self, other: PythiaCounts) -> PythiaCounts:
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return PythiaCounts(keys, counts, self.decoded + other.decoded, self.tokens + other.tokens, self.windows + other.windows)

    def to_dict(self) -> dict[str, int]:
        """As the published script saves them: `{"7": 12, "7-12": 3, "7-day": 1}`."""
        return {key_name(int(k)): int(c) for k, c in zip(self.keys, self.counts, strict=True)}

    def frame(self) -> pd.DataFrame:
        """term (the key), count; numbers first, then pairs, then times."""
        return pd.DataFrame({"term": pd.array([key_name(int(k)) for k in self.keys], dtype="string"), "count": self.counts})


class PythiaCounter:
    """The rule over one tokenizer, for every key that occurs.

    Memory grows with the number of distinct keys, not with the rows. To count chosen keys up to many steps, give `PythiaRule("7")` patterns to `count_terms` instead.
    """

    def __init__(self, tokenizer: TokenBytes | Openable, ids: int = 1 << 16):
        """`ids`: token ids in rows are below this."""
        self._machine = _machine(token_bytes(tokenizer), ids, {}, np.ones(LARGEST, dtype=np.uint8))
        self._log = np.empty((1 << 18, 2), dtype=np.int64)

    def count(self, rows: np.ndarray) -> PythiaCounts:
        """All keys in `rows` (n, length). Give a thousand rows at a time, and add the results up, or use `count_order`."""
        rows = as_kernel_rows(np.asarray(rows), len(self._machine.flags))
        group = np.zeros(len(rows), dtype=np.int64)
        nothing = np.zeros((1, 0), dtype=np.int64)
        while True:
            stats = np.zeros(2, dtype=np.int64)
            logged = scan_windows(rows, group, self._machine, nothing, True, self._log, stats)
            if logged <= len(self._log):
                break
            self._log = np.empty((2 * logged, 2), dtype=np.int64)
        keys, counts = np.unique(self._log[:logged, 1], return_counts=True)
        return PythiaCounts(keys, counts.astype(np.int64), int(stats[0]), rows.size, int(stats[1]))

    def count_order(self, order: Rows, start: int, stop: int) -> PythiaCounts:
        """All keys in rows [start, stop) of an order, read a block at a time."""
        read = reader(order)
        total = PythiaCounts(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0, 0, 0)
        for a, b in blocks(order, start, stop):
            total = total + self.count(read(a, b))
        return total


def pythia_totals(
    order: Rows, steps: Iterable[int], tokenizer: TokenBytes | Openable,
) -> dict[int, dict[str, int]]:
    """All keys up to each step, as the published per-checkpoint files hold them: step → key → count."""
    counter = PythiaCounter(tokenizer, token_ids(order))
    wanted = sorted(set(steps))
    total = counter.count_order(order, 0, 0)
    result = {}
    for before, step in zip([0, *wanted], wanted, strict=False):
        total = total + counter.count_order(order, before * order.batch_rows, step * order.batch_rows)
        result[step] = total.to_dict()
    return result


def key_code(key: str) -> int:
    first, _, second = key.partition("-")
    if not second:
        return int(first)
    if second in TIME_UNITS:
        return TIME + int(first) * 8 + TIME_UNITS.index(second)
    return PAIR + int(first) * LARGEST + int(second)


def key_name(code: int) -> str:
    if code >= TIME:
        return f"{(code - TIME) // 8}-{TIME_UNITS[(code - TIME) % 8]}"
    return f"{(code - PAIR) // LARGEST}-{(code - PAIR) % LARGEST}" if code >= PAIR else str(code)


def _machine(vocabulary: TokenBytes, ids: int, keys: dict[int, int], paired: np.ndarray) -> PythiaMachine:
    table = vocabulary.sized(ids)
    units, sizes = unit_table()
    begins = np.zeros(256, dtype=np.uint8)
    begins[[chr(p).encode()[0] for p in np.flatnonzero(character_classes() & DIGIT)]] |= 1
    points, values = digit_values()
    slots, columns = hash_table(keys)
    return PythiaMachine(
        token_flags(table.flat, table.starts, begins, units, sizes), character_classes(), points, values, units, sizes,
        slots, columns, paired, table.flat, table.starts,
    )
