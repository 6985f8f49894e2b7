"""The Pythia paper's windows, found and read without decoding rows; see `pythia_rule` for the rule.

A window starts at a space before a number or a time unit. Which tokens can hold such a place is worked out once from the
vocabulary's bytes, so all other tokens cost one look-up. From a place that holds, only the bytes of the next few words
are gathered and read, character by character as `re` would. Nothing is allocated per window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.counts.characters import DIGIT, PUNCTUATION, SPACE, WORD, next_char
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.ngram_scan import find
from pythia_tools.counts.patterns import TIME_UNITS

INSIDE, TAIL, HEAD, NOTHING = 1, 2, 4, 8
PAIR, TIME = 1 << 40, 1 << 41
LARGEST = 100_000
UNIT_BYTES = tuple(unit.encode() for unit in TIME_UNITS)
_ROOM = 32
"""Bytes looked at before a whole window is gathered: five digits of four bytes, a space, and a character."""


class PythiaMachine(NamedTuple):
    """The rule over one vocabulary, and the keys to count (none: all)."""

    flags: np.ndarray
    """(ids,) uint8: INSIDE: a window may start within the token; TAIL: it ends with a space; HEAD: it may follow that space;
    NOTHING: it spells nothing"""
    classes: np.ndarray
    digit_points: np.ndarray
    digit_values: np.ndarray
    units: np.ndarray
    """(7, 6) uint8, zero-filled"""
    unit_sizes: np.ndarray
    keys: np.ndarray
    """(slots,) int64: wanted keys, open addressing"""
    columns: np.ndarray
    """(slots,) int32"""
    paired: np.ndarray
    """(100000,) uint8: numbers that are in a wanted pair; all ones when every key is counted"""
    flat: np.ndarray
    starts: np.ndarray


def unit_table() -> tuple[np.ndarray, np.ndarray]:
    units = np.zeros((len(UNIT_BYTES), 6), dtype=np.uint8)
    for n, unit in enumerate(UNIT_BYTES):
        units[n, :len(unit)] = np.frombuffer(unit, dtype=np.uint8)
    return units, np.array([len(u) for u in UNIT_BYTES], dtype=np.int64)


@njit(cache=True)
def token_flags(flat, starts, begins, units, unit_sizes):  # type: ignore[no-untyped-def]
    """Flags of every token. begins (256,) uint8: 1 for bytes that can begin a digit, 2 for those that begin a unit."""
    ids = len(starts) - 1
    flags = np.zeros(ids, dtype=np.uint8)
    for t in range(ids):
        a, b = starts[t], starts[t + 1]
        if a == b:
            flags[t] = NOTHING
            continue
        if flat[b - 1] == 32:
            flags[t] |= TAIL
        if _may_start(flat, a, b, begins, units, unit_sizes):
            flags[t] |= HEAD
        for p in range(a, b - 1):
            if flat[p] == 32 and _may_start(flat, p + 1, b, begins, units, unit_sizes):
                flags[t] |= INSIDE
    return flags


@njit(cache=True)
def _may_start(flat, a, b, begins, units, unit_sizes):  # type: ignore[no-untyped-def]
    """Whether bytes a … b (of one token) can begin a number or a unit that a space follows."""
    if begins[flat[a]] & 1:
        return True
    for u in range(len(unit_sizes)):
        size = unit_sizes[u]
        same = True
        for k in range(min(size, b - a)):
            if flat[a + k] != units[u, k]:
                same = False
                break
        if same and (b - a <= size or flat[a + size] == 32):
            return True
    return False


@kernel
def _gather(row, token, offset, flat, starts, buffer, least):  # type: ignore[no-untyped-def]
    """Bytes from a place on: at least `least`, or five runs of ASCII white space further, or to the row's end. (bytes, token after)"""
    n = 0
    runs = 0
    inside = False
    after = -1
    while token < len(row):
        at = starts[row[token]] + offset
        stop = starts[np.int64(row[token]) + 1]
        while at < stop:
            b = flat[at]
            buffer[n] = b
            n += 1
            at += 1
            if b == 32 or 9 <= b <= 13:
                runs += not inside
                inside = True
            elif b < 128:  # other bytes may be white space too, and must not end a run
                inside = False
                if runs == 4 and after < 0:
                    after = n
        token += 1
        offset = 0
        if least:
            if n >= least:
                break
        elif runs > 4 or (after >= 0 and n - after >= 24):
            break
    return n, token


@kernel
def _digits(buffer, at, n, classes, most):  # type: ignore[no-untyped-def]
    """(how many digits, up to `most`, stand at `at`; offset after them)."""
    count = 0
    while at < n and count < most:
        point, after = next_char(buffer, at, n)
        if not classes[point] & DIGIT:
            break
        count += 1
        at = after
    return count, at


@kernel
def _unit(buffer, at, n, units, unit_sizes):  # type: ignore[no-untyped-def]
    """Number of the unit that stands at `at`, or -1."""
    for u in range(len(unit_sizes)):
        if at + unit_sizes[u] > n:
            continue
        same = True
        for k in range(unit_sizes[u]):
            if buffer[at + k] != units[u, k]:
                same = False
                break
        if same:
            return u
    return -1


@kernel
def _word(buffer, at, n, classes):  # type: ignore[no-untyped-def]
    """Offset after one word and the white space behind it, or -1. A word: word characters and ASCII punctuation."""
    begin = at
    while at < n:
        point, after = next_char(buffer, at, n)
        if not classes[point] & (WORD | PUNCTUATION):
            break
        at = after
    if at == begin:
        return -1
    gap = at
    while at < n:
        point, after = next_char(buffer, at, n)
        if not classes[point] & SPACE:
            break
        at = after
    return at if at > gap else -1


@kernel
def _numbers(buffer, end, classes, points, values, numbers):  # type: ignore[no-untyped-def]
    """Every run of digits in buffer[:end], cut into fives from the left, as ints; returns how many."""
    found = 0
    at = 0
    size = 0
    value = 0
    while at < end:
        point, after = next_char(buffer, at, end)
        at = after
        if classes[point] & DIGIT:
            digit = point - 48 if point < 58 else values[np.searchsorted(points, point)]
            value = 10 * value + digit
            size += 1
            if size < 5:
                continue
        elif size == 0:
            continue
        numbers[found] = value
        found += 1
        size = 0
        value = 0
    if size:
        numbers[found] = value
        found += 1
    return found


@njit(cache=True, nogil=True)
def scan_windows(rows, group, machine, counts, every, log, stats):  # type: ignore[no-untyped-def]
    """Count the rule's keys in rows (n, length).

    every False: counts[group[r], column] += 1 for wanted keys. every True: (group, key) pairs are written to log
    (capacity, 2) int64 instead. Returns how many pairs there were, or would have been, had log been longer.
    stats: tokens gathered (each once), windows.
    """
    longest = 1
    for t in range(len(machine.starts) - 1):
        longest = max(longest, machine.starts[t + 1] - machine.starts[t])
    room = np.empty(longest * rows.shape[1] + _ROOM, dtype=np.uint8)
    numbers = np.empty(len(room), dtype=np.int64)
    hits = np.empty(rows.shape[1] + 1, dtype=np.int32)
    return _scan_rows(rows, group, machine, counts, every, log, stats, room, numbers, hits)


@kernel
def _scan_rows(rows, group, machine, counts, every, log, stats, room, numbers, hits):  # type: ignore[no-untyped-def]
    flags, classes, units, unit_sizes = machine.flags, machine.classes, machine.units, machine.unit_sizes
    points, values, keys, columns, paired = machine.digit_points, machine.digit_values, machine.keys, machine.columns, machine.paired
    flat, starts = machine.flat, machine.starts
    logged = 0
    for r in range(rows.shape[0]):
        row = rows[r]
        covered = 0
        for h in range(_candidates(row, flags, hits)):
            i = hits[h] >> 1
            if hits[h] & 1:
                logged, covered = _start(
                    row, i, 0, flat, starts, classes, units, unit_sizes, points, values, keys, columns, paired,
                    room, numbers, counts, group[r], every, log, logged, covered, stats,
                )
            if not flags[row[i]] & INSIDE:
                continue
            begin = starts[row[i]]
            for at in range(begin + 1, starts[np.int64(row[i]) + 1]):
                if flat[at - 1] == 32:
                    logged, covered = _start(
                        row, i, at - begin, flat, starts, classes, units, unit_sizes, points, values, keys, columns, paired,
                        room, numbers, counts, group[r], every, log, logged, covered, stats,
                    )
    return logged


@kernel
def _candidates(row, flags, hits):  # type: ignore[no-untyped-def]
    """Tokens in or at whose beginning a window may start, as 2 · position + 1 if it may start at the beginning; returns how many."""
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
def _start(  # type: ignore[no-untyped-def]
    row, token, offset, flat, starts, classes, units, unit_sizes, points, values, keys, columns, paired,
    buffer, numbers, counts, g, every, log, logged, covered, stats,
):
    """The windows that start at the space before byte `offset` of token number `token`."""
    n, after = _gather(row, token, offset, flat, starts, buffer, _ROOM)
    digits, at = _digits(buffer, 0, n, classes, 6)
    unit = -1
    if digits == 0:
        unit = _unit(buffer, 0, n, units, unit_sizes)
        if unit < 0:
            return logged, covered
        at = unit_sizes[unit]
    if digits > 5 or at >= n or buffer[at] != 32:
        return logged, covered
    first = at + 1
    n, after = _gather(row, token, offset, flat, starts, buffer, 0)
    stats[0] += max(0, after - max(token, covered))
    covered = max(covered, after)
    at = first
    numeric_end, timed_end = -1, -1
    for k in range(4):
        if at >= n:
            break
        if digits:
            if k:
                count, end = _digits(buffer, at, n, classes, 5)
                if count:
                    numeric_end = end  # greedy: the last one that fits
            if timed_end < 0:
                u = _unit(buffer, at, n, units, unit_sizes)
                if u >= 0:
                    timed_end = at + unit_sizes[u]  # lazy: the first one
        else:
            count, end = _digits(buffer, at, n, classes, 5)
            if count:
                timed_end = end
                break
        if k < 3:
            at = _word(buffer, at, n, classes)
            if at < 0:
                break
    if numeric_end >= 0:
        stats[1] += 1
        logged = _emit_numbers(buffer, numeric_end, classes, points, values, keys, columns, paired, numbers, counts, g, every, log, logged)
    if timed_end >= 0:
        stats[1] += 1
        logged = _emit_times(
            buffer, timed_end, classes, units, unit_sizes, points, values, keys, columns, numbers, counts, g, every, log, logged,
        )
    return logged, covered


@kernel
def _emit(key, keys, columns, counts, g, every, log, logged):  # type: ignore[no-untyped-def]
    if every:
        if logged < len(log):
            log[logged, 0] = g
            log[logged, 1] = key
        return logged + 1
    column = find(keys, columns, key)
    if column >= 0:
        counts[g, column] += 1
    return logged


@kernel
def _emit_numbers(buffer, end, classes, points, values, keys, columns, paired, numbers, counts, g, every, log, logged):  # type: ignore[no-untyped-def]
    found = _numbers(buffer, end, classes, points, values, numbers)
    kept = 0
    for k in range(found):
        logged = _emit(numbers[k], keys, columns, counts, g, every, log, logged)
        if paired[numbers[k]]:
            numbers[kept] = numbers[k]
            kept += 1
    for j in range(kept):
        for k in range(j):
            low, high = min(numbers[j], numbers[k]), max(numbers[j], numbers[k])
            logged = _emit(PAIR + low * LARGEST + high, keys, columns, counts, g, every, log, logged)
    return logged


@kernel
def _emit_times(buffer, end, classes, units, unit_sizes, points, values, keys, columns, numbers, counts, g, every, log, logged):  # type: ignore[no-untyped-def]
    found = _numbers(buffer, end, classes, points, values, numbers)
    at = 0
    while at < end:
        u = _unit(buffer, at, end, units, unit_sizes)
        if u < 0:
            at += 1
            continue
        for k in range(found):
            logged = _emit(TIME + numbers[k] * 8 + u, keys, columns, counts, g, every, log, logged)
        at += unit_sizes[u]
    return logged
