"""The counting rule of the Pythia paper's term-frequency study, key for key, as its published script states it.

For each row, with one space put before its decoded text:

* a number window starts at every ` d `, d being one to five digits: then one to three words (runs of word characters or
  ASCII punctuation, each with the white space after it), as many as fit, then one to five digits;
* a time window is a number and, zero to three words later, a unit, or a unit and, zero to three words later, a
  number, as few words as will do (minute, hour, day, week, month, year, decade; `days` holds `day`);
* in a window every run of digits, cut into fives from the left, is a number (007 is 7);
* in a number window each number counts once under `7`, each two of them once under `7-12`, the smaller first; in a time
  window each number counts with each unit under `7-day`.

So the count of 7 is that of windows in which 7 stands near another number, not that of 7 itself. Digits, word
characters and white space are those of Python's `re` for Unicode text, and special tokens are shown.

Which text: the script of 2023 decoded with transformers' `clean_up_tokenization_spaces`, then on by default. It takes
the space from before . ? ! , n't 'm 's 've 're and both from around a lone apostrophe, and so makes other words of a
row: 0.4 % of the keys' counts differed on prose, 6 % on Python code. `clean_up=True` does the same; by default the rule
reads what the rows say.

Cost: 4 to 5 ns per token and core; only the few words after a number or a unit are ever decoded, and the share is
reported. Cleaned rows are decoded whole, at 0.15 µs per token. Source: Biderman et al. 2023, section 4.3, and its
published script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pythia_tools.counts import pythia_scan as scan
from pythia_tools.counts.characters import character_classes, digit_values
from pythia_tools.counts.ngram_scan import as_kernel_rows, table_of
from pythia_tools.counts.patterns import TIME_UNITS, PythiaRule
from pythia_tools.counts.pythia_scan import LARGEST, PAIR, TIME, PythiaMachine
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes
from pythia_tools.tokens import Openable

CLEAN_UP = {
    b" .": b".", b" ?": b"?", b" !": b"!", b" ,": b",", b" ' ": b"'",
    b" n't": b"n't", b" 'm": b"'m", b" 's": b"'s", b" 've": b"'ve", b" 're": b"'re",
}
"""What `clean_up_tokenization_spaces` replaces, one after the other."""
BYTES = TokenBytes(np.arange(256, dtype=np.uint8), np.arange(257, dtype=np.int32))
"""The vocabulary of cleaned rows; one id more spells nothing."""
Rule: TypeAlias = tuple[PythiaMachine, "list[bytes] | None"]
"""The rule over one vocabulary, and what each token spells when rows are cleaned first."""
KeyMachine: TypeAlias = tuple[Rule, tuple[np.ndarray, np.ndarray]]
"""The rule, and the table of the wanted keys with the column of each."""


def compile_keys(rules: Sequence[PythiaRule], vocabulary: TokenBytes, ids: int) -> KeyMachine:
    """A machine for distinct keys, cleaned up as the first of them, over token ids below `ids`."""
    codes = {key_code(rule.key): n for n, rule in enumerate(rules)}
    paired = np.zeros(LARGEST, dtype=np.uint8)
    for code in codes:
        if PAIR <= code < TIME:
            paired[[(code - PAIR) // LARGEST, (code - PAIR) % LARGEST]] = 1
    return _rule(vocabulary, ids, paired, rules[0].clean_up), table_of(codes)


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

    def __init__(self, tokenizer: TokenBytes | Openable, ids: int = 1 << 16, *, clean_up: bool = False):
        """`ids`: token ids in rows are below this. `clean_up`: as in `PythiaRule`."""
        self._ids = ids
        self._rule = _rule(token_bytes(tokenizer), ids, np.ones(LARGEST, dtype=np.uint8), clean_up)
        self._log = np.empty((1 << 18, 2), dtype=np.int64)

    def count(self, rows: np.ndarray) -> PythiaCounts:
        """All keys in `rows` (n, length). Give a thousand rows at a time and add the results."""
        rows = as_kernel_rows(np.asarray(rows), self._ids)
        self._log, stats = _logged(rows, np.zeros(len(rows), dtype=np.int64), self._rule, self._log)
        keys, counts = np.unique(self._log[:stats[scan.LOGGED], 1], return_counts=True)
        decoded = rows.size if self._rule[1] else int(stats[scan.DECODED])
        return PythiaCounts(keys, counts.astype(np.int64), decoded, rows.size, int(stats[scan.WINDOWS]))


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


def _rule(vocabulary: TokenBytes, ids: int, paired: np.ndarray, clean_up: bool) -> Rule:
    pieces = None
    if clean_up:
        table = vocabulary.sized(ids)
        pieces, vocabulary, ids = [table[t] for t in range(ids)], BYTES, len(BYTES) + 1
    table, flags = vocabulary.sized(ids), scan.token_flags(vocabulary, ids)
    shapes = (character_classes(), *digit_values(), *scan.unit_table())
    return PythiaMachine(flags, *shapes, paired, table.flat, table.starts), pieces


def _cleaned(rows: np.ndarray, pieces: list[bytes]) -> np.ndarray:
    """(n, longest) uint16: the bytes of each row's text after the clean-up, then ids that spell nothing."""
    texts = [b"".join(map(pieces.__getitem__, row)) for row in rows.tolist()]
    for spaced, close in CLEAN_UP.items():
        texts = [text.replace(spaced, close) for text in texts]
    cleaned = np.full((len(texts), max(map(len, texts), default=0)), len(BYTES), dtype=np.uint16)
    for row, text in zip(cleaned, texts, strict=True):
        row[:len(text)] = np.frombuffer(text, dtype=np.uint8)
    return cleaned


def _logged(
    rows: np.ndarray, group: np.ndarray, rule: Rule, log: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(log, statistics) of the rows; a log that turns out too short is made longer, and the rows are scanned again."""
    machine, pieces = rule
    rows = rows if pieces is None else _cleaned(rows, pieces)
    while True:
        stats = scan.scan_windows(rows, group, machine, log)
        if stats[scan.LOGGED] <= len(log):
            return log, stats
        log = np.empty((2 * int(stats[scan.LOGGED]), 2), dtype=np.int64)
