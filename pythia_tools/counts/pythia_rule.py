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

Cost: 4 to 5 ns per token and core; only the few words after a number or a unit are ever decoded. Cleaned rows
are decoded whole, at 0.15 µs per token. Source: Biderman et al. 2023, section 4.3, and its published script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from pythia_tools.counts import pythia_scan as scan
from pythia_tools.counts.characters import character_classes, digit_values
from pythia_tools.counts.ngram_scan import table_of
from pythia_tools.counts.patterns import TIME_UNITS, PythiaRule
from pythia_tools.counts.pythia_scan import LARGEST, PAIR, TIME, PythiaMachine
from pythia_tools.counts.vocabulary import TokenBytes

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
    return compile_rule(vocabulary, ids, paired, rules[0].clean_up), table_of(codes)


def count_keys(rows: np.ndarray, group: np.ndarray, machine: KeyMachine, counts: np.ndarray) -> None:
    """counts[group[r], key] += how often the rule counts a key in row r. rows (n, length) of ids; counts int64."""
    rule, wanted = machine
    log, stats = logged(rows, group, rule, np.empty((1 << 14, 2), dtype=np.int64))
    scan.tally(log, stats[scan.LOGGED], *wanted, counts)


def key_code(key: str) -> int:
    """The number of a key in logs."""
    first, _, second = key.partition("-")
    if not second:
        return int(first)
    if second in TIME_UNITS:
        return TIME + int(first) * 8 + TIME_UNITS.index(second)
    return PAIR + int(first) * LARGEST + int(second)


def compile_rule(vocabulary: TokenBytes, ids: int, paired: np.ndarray, clean_up: bool) -> Rule:
    """The rule over token ids below `ids`. paired (LARGEST,) uint8: 1 for numbers whose pairs are wanted."""
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


def logged(
    rows: np.ndarray, group: np.ndarray, rule: Rule, log: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(log, statistics) of every key in rows (n, length) of ids, as `scan_windows` writes them.

    A log that turns out too short is made longer, and the rows are scanned again.
    """
    machine, pieces = rule
    rows = rows if pieces is None else _cleaned(rows, pieces)
    while True:
        stats = scan.scan_windows(rows, group, machine, log)
        if stats[scan.LOGGED] <= len(log):
            return log, stats
        log = np.empty((2 * int(stats[scan.LOGGED]), 2), dtype=np.int64)
