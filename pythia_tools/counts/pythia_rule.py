"""The counting rule of the Pythia paper's term-frequency study, key for key, as its published script has it.

For each row, with one space put before its decoded text:

* a number window starts at every ` d `, d being one to five digits: then one to three words (runs of word characters or
  ASCII punctuation, each with the white space after it), as many as fit, then one to five digits;
* a time window is a number and, zero to three words later, a unit, or a unit and, zero to three words later, a
  number, as few words as will do (minute, hour, day, week, month, year, decade; `days` holds `day`);
* in a window every run of digits, cut into fives from the left, is a number (007 is 7);
* in a number window each number counts once under `7`, each two of them once under `7-12`, the smaller first; in a time
  window each number counts with each unit under `7-day`.

So the count of 7 is that of windows in which 7 stands near another number, not that of 7 itself. Digits, word
characters and white space are those of Python's `re` for Unicode text. Text is decoded with special tokens and
without any clean-up of spaces.

Cost: 4 to 5 ns per token and core; only the few words after a number or a unit are ever decoded, and the share is
reported. Source: Biderman et al. 2023, section 4.3, and its published script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pythia_tools.counts import pythia_scan as scan
from pythia_tools.counts.characters import character_classes, digit_values
from pythia_tools.counts.ngram_scan import as_kernel_rows, table_of
from pythia_tools.counts.patterns import TIME_UNITS
from pythia_tools.counts.pythia_scan import LARGEST, PAIR, TIME, PythiaMachine
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes
from pythia_tools.tokens import Openable

KeyMachine: TypeAlias = tuple[PythiaMachine, tuple[np.ndarray, np.ndarray]]
"""The rule, and the table of the wanted keys with the column of each."""


def compile_keys(keys: Sequence[str], vocabulary: TokenBytes, ids: int) -> KeyMachine:
    """A machine for distinct keys over token ids below `ids`."""
    codes = {key_code(key): n for n, key in enumerate(keys)}
    paired = np.zeros(LARGEST, dtype=np.uint8)
    for code in codes:
        if PAIR <= code < TIME:
            paired[[(code - PAIR) // LARGEST, (code - PAIR) % LARGEST]] = 1
    return _machine(vocabulary, ids, paired), table_of(codes)


def count_keys(rows: np.ndarray, group: np.ndarray, machine: KeyMachine, counts: np.ndarray) -> None:
    """counts[group[r], key] += how often the rule counts a key in row r. rows (n, length) of ids; counts int64."""
    rule, wanted = machine
    log, stats = _logged(rows, group, rule, np.empty((1 << 14, 2), dtype=np.int64))
    scan.tally(log, stats[scan.LOGGED], *wanted, counts)


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
        both = (self.decoded + other.decoded, self.tokens + other.tokens, self.windows + other.windows)
        return PythiaCounts(keys, counts, *both)

    def to_dict(self) -> dict[str, int]:
        """As the published script saves them: `{"7": 12, "7-12": 3, "7-day": 1}`."""
        return {key_name(int(k)): int(c) for k, c in zip(self.keys, self.counts, strict=True)}


class PythiaCounter:
    """The rule over one tokenizer, for every key that occurs.

    Memory grows with the number of distinct keys, not with the rows. To count chosen keys up to many steps, give
    `PythiaRule("7")` patterns to `count_terms` instead.
    """

    def __init__(self, tokenizer: TokenBytes | Openable, ids: int = 1 << 16):
        """`ids`: token ids in rows are below this."""
        self._machine = _machine(token_bytes(tokenizer), ids, np.ones(LARGEST, dtype=np.uint8))
        self._log = np.empty((1 << 18, 2), dtype=np.int64)

    def count(self, rows: np.ndarray) -> PythiaCounts:
        """All keys in `rows` (n, length). Give a thousand rows at a time and add the results."""
        rows = as_kernel_rows(np.asarray(rows), len(self._machine.flags))
        self._log, stats = _logged(rows, np.zeros(len(rows), dtype=np.int64), self._machine, self._log)
        keys, counts = np.unique(self._log[:stats[scan.LOGGED], 1], return_counts=True)
        decoded, windows = int(stats[scan.DECODED]), int(stats[scan.WINDOWS])
        return PythiaCounts(keys, counts.astype(np.int64), decoded, rows.size, windows)


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


def _machine(vocabulary: TokenBytes, ids: int, paired: np.ndarray) -> PythiaMachine:
    table, flags = vocabulary.sized(ids), scan.token_flags(vocabulary, ids)
    shapes = (character_classes(), *digit_values(), *scan.unit_table())
    return PythiaMachine(flags, *shapes, paired, table.flat, table.starts)


def _logged(
    rows: np.ndarray, group: np.ndarray, machine: PythiaMachine, log: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(log, statistics) of the rows; a log that turns out too short is made longer, and the rows are scanned again."""
    while True:
        stats = scan.scan_windows(rows, group, machine, log)
        if stats[scan.LOGGED] <= len(log):
            return log, stats
        log = np.empty((2 * int(stats[scan.LOGGED]), 2), dtype=np.int64)
