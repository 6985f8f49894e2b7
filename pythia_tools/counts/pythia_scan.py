"""The Pythia paper's windows, found and read without decoding rows; see `pythia_rule` for the rule.

The idea is three sieves, each for what the one before let through. Which tokens can hold the space at which a window
starts is worked out once from the vocabulary's bytes, so a row costs one look-up per token. Eight characters from
such a space tell whether a number or a time unit with a space behind it stands there. Only then the next few words
are gathered, and read as `re` would: number windows to the last number that fits, time windows to the first. What is
found goes into a log of (group, key) pairs, counted afterwards. Nothing is allocated per window.
"""

import re
from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.counts.characters import DIGIT, PUNCTUATION, SPACE, WORD, character_classes, next_char
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.ngram_scan import find
from pythia_tools.counts.patterns import TIME_UNITS
from pythia_tools.counts.vocabulary import TokenBytes

INSIDE, TAIL, HEAD, NOTHING = 1, 2, 4, 8
PAIR, TIME = 1 << 40, 1 << 41
LARGEST = 100_000
DECODED, WINDOWS, LOGGED, READ = 0, 1, 2, 3
"""Places in the statistics of a scan: tokens decoded (each once), windows, keys, and the row's tokens read so far."""
_PEEK_BYTES, _PEEK = 32, 8
"""Looked at before a whole window is gathered: bytes, and the characters that they hold at least."""


class PythiaMachine(NamedTuple):
    """The rule over one vocabulary."""

    flags: np.ndarray
    """(ids,) uint8: INSIDE: a window may start within the token; TAIL: it ends with a space; HEAD: it may follow that
    space; NOTHING: it spells nothing"""
    classes: np.ndarray
    digit_points: np.ndarray
    digit_values: np.ndarray
    units: np.ndarray
    """(7, 6) uint8, zero-filled"""
    unit_sizes: np.ndarray
    paired: np.ndarray
    """(100000,) uint8: numbers whose pairs are wanted"""
    flat: np.ndarray
    starts: np.ndarray


class Scratch(NamedTuple):
    """Room for one row's candidates and one window."""

    hits: np.ndarray
    text: np.ndarray
    """bytes of a window"""
    points: np.ndarray
    """its code points"""
    kinds: np.ndarray
    """and their character classes"""
    numbers: np.ndarray


def unit_table() -> tuple[np.ndarray, np.ndarray]:
    """The time units' letters, and how many each has."""
    units = np.zeros((len(TIME_UNITS), 6), dtype=np.uint8)
    for n, unit in enumerate(TIME_UNITS):
        units[n, :len(unit)] = np.frombuffer(unit.encode(), dtype=np.uint8)
    return units, np.array([len(u) for u in TIME_UNITS], dtype=np.int64)


def token_flags(vocabulary: TokenBytes, ids: int) -> np.ndarray:
    """(ids,) uint8: the flags of every token; 0.1 s for 50k tokens."""
    digits = {chr(p).encode()[:1] for p in np.flatnonzero(character_classes() & DIGIT)}
    units = [unit.encode() for unit in TIME_UNITS]
    begun = {unit[:k] for unit in units for k in range(1, len(unit) + 1)}  # the next token may go on with it
    start = b"%b|(?:%b) |(?:%b)\\Z" % tuple(b"|".join(map(re.escape, sorted(s))) for s in (digits, units, begun))
    head, inside = re.compile(start), re.compile(b" (?:%b)" % start)
    flags = np.full(ids, NOTHING, dtype=np.uint8)
    flat, bounds = vocabulary.flat, vocabulary.starts[: ids + 1]
    begins = np.isin(flat, list({first[0] for first in (*digits, *begun)}))  # of a text that could match at all
    space = flat == ord(" ")
    token_of = np.repeat(np.arange(len(vocabulary)), np.diff(vocabulary.starts))
    full = np.flatnonzero(np.diff(bounds))
    flags[full] = np.where(space[bounds[full + 1] - 1], TAIL, 0)
    for t in full[begins[bounds[full]]].tolist():
        flags[t] |= HEAD if head.match(vocabulary[t]) else 0
    for t in np.unique(token_of[:-1][space[:-1] & begins[1:]]).tolist():
        if t < ids and inside.search(vocabulary[t]):
            flags[t] |= INSIDE
    return flags


@njit(cache=True, nogil=True)
def scan_windows(rows, group, machine, log):  # type: ignore[no-untyped-def]
    """Write (group[r], key) of every key in rows (n, length) to log (capacity, 2) int64; returns the statistics (4,).

    The number of keys is right even when they are more than the log holds.
    """
    longest = 1
    for t in range(len(machine.starts) - 1):
        longest = max(longest, machine.starts[t + 1] - machine.starts[t])
    size = longest * rows.shape[1] + _PEEK_BYTES
    scratch = Scratch(
        np.empty(rows.shape[1] + 1, dtype=np.int32), np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.int64),
    )
    stats = np.zeros(4, dtype=np.int64)
    _scan_rows(rows, group, machine, scratch, log, stats)
    return stats


@kernel
def tally(log, n, keys, columns, counts):  # type: ignore[no-untyped-def]
    """counts[group, column] += 1 for the first n entries of a log whose key is in the table (keys, columns)."""
    for i in range(n):
        column = find(keys, columns, log[i, 1])
        if column >= 0:
            counts[log[i, 0], column] += 1


@kernel
def _scan_rows(rows, group, machine, scratch, log, stats):  # type: ignore[no-untyped-def]
    flags, flat, starts, hits = machine.flags, machine.flat, machine.starts, scratch.hits
    for r in range(rows.shape[0]):
        row = rows[r]
        stats[READ] = 0
        for h in range(_candidates(row, flags, hits)):
            i = hits[h] >> 1
            if hits[h] & 1:
                _start(row, i, 0, group[r], machine, scratch, log, stats)
            if flags[row[i]] & INSIDE:
                begin = starts[row[i]]
                for at in range(begin + 1, starts[np.int64(row[i]) + 1]):
                    if flat[at - 1] == 32:
                        _start(row, i, at - begin, group[r], machine, scratch, log, stats)


@kernel
def _candidates(row, flags, hits):  # type: ignore[no-untyped-def]
    """Tokens in or at whose beginning a window may start, as 2 · position + 1 if at its beginning; returns how many.

    Without a branch: every token is written, and overwritten by the next one unless its flags say so.
    """
    found = np.uint64(0)
    before = np.uint8(TAIL)  # the rule puts a space before each row
    for i in range(len(row)):
        flag = flags[row[i]]
        at_head = (before >> np.uint8(1)) & (flag >> np.uint8(2)) & np.uint8(1)
        hits[found] = 2 * i + at_head
        found += np.uint64((at_head | flag) & np.uint8(INSIDE))
        before = before if flag & np.uint8(NOTHING) else flag
    return found


@kernel
def _start(row, token, offset, group, machine, scratch, log, stats):  # type: ignore[no-untyped-def]
    """The windows that start at the space before byte `offset` of token number `token`."""
    points, kinds = scratch.points, scratch.kinds
    n, after = _gather(row, token, offset, machine.flat, machine.starts, scratch.text, _PEEK_BYTES)
    n = _decode(scratch.text, n, machine.classes, points, kinds, _PEEK, SPACE | PUNCTUATION)
    digits = _digits(kinds, 0, n, 6)
    at = digits
    if digits == 0:
        unit = _unit(points, 0, n, machine.units, machine.unit_sizes)
        if unit < 0:
            return
        at = machine.unit_sizes[unit]
    if digits > 5 or at >= n or points[at] != 32:
        return
    n, after = _gather(row, token, offset, machine.flat, machine.starts, scratch.text, 0)
    n = _decode(scratch.text, n, machine.classes, points, kinds, n, 0)
    stats[DECODED] += max(0, after - max(token, stats[READ]))
    stats[READ] = max(stats[READ], after)
    at += 1
    number_end, time_end = -1, -1
    for words in range(4):
        if at >= n:
            break
        count = _digits(kinds, at, n, 5)
        if digits == 0:
            if count:
                time_end = at + count
                break
        else:
            if words and count:
                number_end = at + count  # greedy: the last one that fits
            if time_end < 0:
                unit = _unit(points, at, n, machine.units, machine.unit_sizes)
                if unit >= 0:
                    time_end = at + machine.unit_sizes[unit]  # lazy: the first one
        if words < 3:
            at = _after_word(kinds, at, n)
            if at < 0:
                break
    if number_end >= 0:
        _log_numbers(number_end, group, machine, scratch, log, stats)
    if time_end >= 0:
        _log_times(time_end, group, machine, scratch, log, stats)


@kernel
def _gather(row, token, offset, flat, starts, text, least):  # type: ignore[no-untyped-def]
    """(bytes, token after) from a place on: `least` bytes, or five runs of ASCII white space further, or the rest."""
    n = 0
    runs = 0
    inside = False
    fourth = -1
    while token < len(row):
        at = starts[row[token]] + offset
        stop = starts[np.int64(row[token]) + 1]
        while at < stop:
            b = flat[at]
            text[n] = b
            n += 1
            at += 1
            if b == 32 or 9 <= b <= 13 or 28 <= b <= 31:
                runs += not inside
                inside = True
            elif b < 128:  # other bytes may be white space too, and must not end a run
                inside = False
                if runs == 4 and fourth < 0:
                    fourth = n
        token += 1
        offset = 0
        if least:
            if n >= least:
                break
        elif runs > 4 or (fourth >= 0 and n - fourth >= 24):
            break
    return n, token


@kernel
def _decode(text, n, classes, points, kinds, most, last):  # type: ignore[no-untyped-def]
    """Code points and classes of text[:n], `most` at most or to the first of a class in `last`; returns how many."""
    at, count = 0, 0
    while at < n and count < most:
        point, at = next_char(text, at, n)
        points[count] = point
        kinds[count] = classes[point]
        count += 1
        if kinds[count - 1] & last:
            break
    return count


@kernel
def _digits(kinds, at, n, most):  # type: ignore[no-untyped-def]
    """How many digits, up to `most`, stand at `at`."""
    count = 0
    while at + count < n and count < most and kinds[at + count] & DIGIT:
        count += 1
    return count


@kernel
def _unit(points, at, n, units, sizes):  # type: ignore[no-untyped-def]
    """Number of the unit that stands at `at`, or -1."""
    for u in range(len(sizes)):
        k = 0
        while k < sizes[u] and at + k < n and points[at + k] == units[u, k]:
            k += 1
        if k == sizes[u]:
            return u
    return -1


@kernel
def _after_word(kinds, at, n):  # type: ignore[no-untyped-def]
    """Place after one word and the white space behind it, or -1. A word: word characters and ASCII punctuation."""
    begin = at
    while at < n and kinds[at] & (WORD | PUNCTUATION):
        at += 1
    gap = at
    while at < n and kinds[at] & SPACE:
        at += 1
    return at if begin < gap < at else -1


@kernel
def _numbers(end, machine, scratch):  # type: ignore[no-untyped-def]
    """Every run of digits before `end`, cut into fives from the left, into scratch.numbers; returns how many."""
    found, at = 0, 0
    while at < end:
        count = _digits(scratch.kinds, at, end, 5)
        if count:
            value = 0
            for k in range(at, at + count):
                point = scratch.points[k]
                digit = point - 48 if point < 58 else machine.digit_values[np.searchsorted(machine.digit_points, point)]
                value = 10 * value + digit
            scratch.numbers[found] = value
            found += 1
        at += max(count, 1)
    return found


@kernel
def _log_numbers(end, group, machine, scratch, log, stats):  # type: ignore[no-untyped-def]
    """Each number of a number window, and each two of those whose pairs are wanted."""
    numbers = scratch.numbers
    found, kept = _numbers(end, machine, scratch), 0
    stats[WINDOWS] += 1
    for k in range(found):
        _note(numbers[k], group, log, stats)
        if machine.paired[numbers[k]]:
            numbers[kept] = numbers[k]
            kept += 1
    for j in range(kept):
        for k in range(j):
            low, high = min(numbers[j], numbers[k]), max(numbers[j], numbers[k])
            _note(PAIR + low * LARGEST + high, group, log, stats)


@kernel
def _log_times(end, group, machine, scratch, log, stats):  # type: ignore[no-untyped-def]
    """Each number of a time window with each unit in it."""
    found, at = _numbers(end, machine, scratch), 0
    stats[WINDOWS] += 1
    while at < end:
        unit = _unit(scratch.points, at, end, machine.units, machine.unit_sizes)
        if unit >= 0:
            for k in range(found):
                _note(TIME + scratch.numbers[k] * 8 + unit, group, log, stats)
        at += machine.unit_sizes[unit] if unit >= 0 else 1


@kernel
def _note(key, group, log, stats):  # type: ignore[no-untyped-def]
    if stats[LOGGED] < len(log):
        log[stats[LOGGED], 0] = group
        log[stats[LOGGED], 1] = key
    stats[LOGGED] += 1
