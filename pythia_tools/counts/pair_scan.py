"""Pairs of terms within a window, and sets of entities that share a row.

Each row's occurrences are found first, by the same machines that count (`byte_scan`, `ngram_scan`), and sorted by
place. A pair in a window of tokens compares token numbers. A window of words counts the words begun between two
occurrences, byte by byte as `str.split` does on the decoded row, and stops as soon as the window is left: a row
without two near occurrences costs nothing more. Memory: a row's occurrences.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.counts.byte_scan import scan_texts
from pythia_tools.counts.characters import SPACE, bytes_after, bytes_before, next_char, step_back, step_on
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.ngram_scan import ID_BITS, find, find_ngrams, hit_room, table_of


class PairMachine(NamedTuple):
    """All pairs that share one window and unit."""

    keys: np.ndarray
    """(slots,) int64: smaller leaf << 21 | larger leaf, or -1"""
    values: np.ndarray
    """(slots,) int32: number of the pair's pattern"""
    member: np.ndarray
    """(leaves,) uint8: 1 for terms of these pairs"""
    lead: np.ndarray
    """(n-grams,) int32: their leading white space in bytes; that of a text is left out when it is found"""
    window: int
    in_words: bool


class SetMachine(NamedTuple):
    """Sets of entities; each set is looked at only in rows that hold its rarest-looking member."""

    entity_start: np.ndarray
    """(leaves + 1,) int32: entities of a leaf are entity[entity_start[leaf]:…]"""
    entity: np.ndarray
    anchor_start: np.ndarray
    """(entities + 1,) int32: sets anchored at an entity"""
    anchored: np.ndarray
    member_start: np.ndarray
    """(sets + 1,) int32"""
    member: np.ndarray
    pattern: np.ndarray
    """(sets,) int32: number of the set's pattern"""


def compile_pairs(
    pairs: list[tuple[int, int, int]], leaves: int, lead: list[int], window: int, unit: str,
) -> PairMachine:
    """pairs: (leaf, leaf, pattern number). unit: words or tokens."""
    keys, values = table_of({min(a, b) << ID_BITS | max(a, b): p for a, b, p in pairs})
    member = np.zeros(leaves, dtype=np.uint8)
    member[[leaf for a, b, _ in pairs for leaf in (a, b)]] = 1
    return PairMachine(keys, values, member, np.array(lead, dtype=np.int32), window, unit == "words")


def compile_sets(sets: list[tuple[list[tuple[int, ...]], int]], leaves: int, size_of_leaf: list[int]) -> SetMachine:
    """sets: (members, each a tuple of alternative leaves; pattern number).

    The anchor of a set is the member whose shortest spelling is longest.
    """
    entities: dict[tuple[int, ...], int] = {}
    members = [[entities.setdefault(tuple(sorted(set(m))), len(entities)) for m in group] for group, _ in sets]
    of_leaf: list[list[int]] = [[] for _ in range(leaves)]
    for spellings, number in entities.items():
        for leaf in spellings:
            of_leaf[leaf].append(number)
    shortest = [min(size_of_leaf[leaf] for leaf in spellings) for spellings in entities]
    anchored: list[list[int]] = [[] for _ in entities]
    for number, group in enumerate(members):
        anchored[max(group, key=lambda e: shortest[e])].append(number)
    patterns = np.array([p for _, p in sets], dtype=np.int32)
    return SetMachine(*_lists(of_leaf), *_lists(anchored), *_lists([sorted(set(m)) for m in members]), patterns)


def _lists(values: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    start = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(v) for v in values], out=start[1:])
    return start, np.array([x for v in values for x in v], dtype=np.int32)


@kernel
def _sort(found, n):  # type: ignore[no-untyped-def]
    """By place in the row; nearly sorted already, so by insertion."""
    for i in range(1, n):
        leaf, token, offset = found[i, 0], found[i, 1], found[i, 2]
        j = i
        while j > 0 and (found[j - 1, 1] > token or (found[j - 1, 1] == token and found[j - 1, 2] > offset)):
            found[j, 0], found[j, 1], found[j, 2] = found[j - 1, 0], found[j - 1, 1], found[j - 1, 2]
            j -= 1
        found[j, 0], found[j, 1], found[j, 2] = leaf, token, offset


@kernel
def _to_characters(row, found, first, n, lead, texts, room):  # type: ignore[no-untyped-def]
    """Move n-grams on past their leading white space, and back to the beginning of a character that they cut."""
    flat, starts = texts.flat, texts.starts
    for k in range(first, n):
        token, offset = step_on(row, found[k, 1], lead[found[k, 0] - len(texts.kind)], starts)
        if bytes_after(row, token, offset, flat, starts, room[:1]) and room[0] & 0xC0 == 0x80:
            back = 1
            known = bytes_before(row, token, offset, flat, starts, room)
            while back < known and room[4 - back] & 0xC0 == 0x80:
                back += 1
            if known and room[4 - back] >= 0xC0:
                begin, at = step_back(row, token, offset, back, starts)
                if next_char(room, 0, bytes_after(row, begin, at, flat, starts, room))[1] > back:
                    token, offset = begin, at
        found[k, 1], found[k, 2] = token, offset


@kernel
def number_words(row, found, n, most, texts, room, words):  # type: ignore[no-untyped-def]
    """words[k]: number of the word in which found[k] begins. Differences up to `most` are exact, others just larger.

    The characters from one occurrence to the next are walked, white space being that of `str.split`; a word begins at
    the first character after it, and white space belongs to the word before it. When too many words have begun to
    matter, the walk starts afresh at the occurrence. A character of several bytes may be spelled by several tokens.
    """
    flat, starts, classes = texts.flat, texts.starts, texts.classes
    token, offset, word, inside = 0, 0, 0, False
    for k in range(n):
        goal, goal_offset = found[k, 1], found[k, 2]
        far = word + most + 1
        while (token < goal or (token == goal and offset < goal_offset)) and word <= far:
            begin = starts[row[token]]
            stop = begin + goal_offset if token == goal else starts[np.int64(row[token]) + 1]
            at = begin + offset
            while at < stop and flat[at] < 128:
                if classes[flat[at]] & SPACE:
                    inside = False
                elif not inside:
                    word += 1
                    inside = True
                at += 1
            offset = at - begin
            if at == stop:
                if token < goal:
                    token, offset = token + 1, 0
                continue
            point, size = next_char(room, 0, bytes_after(row, token, offset, flat, starts, room))
            token, offset = step_on(row, token, offset + size, starts)
            if classes[point] & SPACE:
                inside = False
            elif not inside:
                word += 1
                inside = True
        if word > far:
            token, offset, word, inside = goal, goal_offset, far + 1, False
        words[k] = word
        if not inside:  # the occurrence begins the next word, unless it is white space itself
            known = bytes_after(row, goal, goal_offset, flat, starts, room)
            words[k] += known > 0 and classes[next_char(room, 0, known)[0]] & SPACE == 0


@kernel
def _number(row, found, first, n, pairs, texts, room, place):  # type: ignore[no-untyped-def]
    """Sort `found` by place; place[k]: number of the word, or the token, in which found[k] begins."""
    if pairs.in_words:
        _to_characters(row, found, first, n, pairs.lead, texts, room)
    _sort(found, n)
    if pairs.in_words:
        number_words(row, found, n, pairs.window, texts, room, place)
    else:
        for k in range(n):
            place[k] = found[k, 1]


@kernel
def _count_pairs(found, place, n, keys, values, member, window, out):  # type: ignore[no-untyped-def]
    """place ascending. out[pattern] += 1 for each two occurrences at most `window` apart."""
    for k in range(n):
        if not member[found[k, 0]]:
            continue
        j = k - 1
        while j >= 0 and place[k] - place[j] <= window:
            a, b = found[j, 0], found[k, 0]
            if member[a]:
                low, high = (a, b) if a < b else (b, a)
                pair = find(keys, values, np.int64(low) << ID_BITS | np.int64(high))
                if pair >= 0:
                    out[pair] += 1
            j -= 1


@kernel
def _count_sets(found, n, row_number, machine, seen, out):  # type: ignore[no-untyped-def]
    for k in range(n):
        leaf = found[k, 0]
        for e in range(machine.entity_start[leaf], machine.entity_start[leaf + 1]):
            seen[machine.entity[e], 0] = row_number
    for k in range(n):
        leaf = found[k, 0]
        for e in range(machine.entity_start[leaf], machine.entity_start[leaf + 1]):
            anchor = machine.entity[e]
            if seen[anchor, 1] == row_number:
                continue
            seen[anchor, 1] = row_number
            for a in range(machine.anchor_start[anchor], machine.anchor_start[anchor + 1]):
                group = machine.anchored[a]
                whole = True
                for m in range(machine.member_start[group], machine.member_start[group + 1]):
                    if seen[machine.member[m], 0] != row_number:
                        whole = False
                        break
                if whole:
                    out[machine.pattern[group]] += 1


@njit(cache=True, nogil=True)
def count_together(rows, group, counts, texts, ngrams, pairs, sets):  # type: ignore[no-untyped-def]
    """counts[group[r], pattern] += pairs in their window and sets that row r holds whole.

    rows (n, length) of ids; counts (groups, patterns) int64; texts a ByteMachine whose leaves come first, ngrams an
    NgramMachine whose leaves follow; pairs a PairMachine; sets a SetMachine.
    """
    length = rows.shape[1]
    room = np.zeros(4, dtype=np.uint8)
    hits2, hits3 = hit_room(length)
    seen = np.full((max(1, len(sets.anchor_start) - 1), 2), -1, dtype=np.int64)
    capacity = 4 * length + 64
    r = 0
    while r < rows.shape[0]:  # again from a row whose occurrences did not fit
        found = np.empty((capacity, 3), dtype=np.int32)
        place = np.empty(capacity, dtype=np.int64)
        scratch = room, hits2, hits3, seen, found, place
        r = _count_from(r, rows, group, texts, ngrams, pairs, sets, counts, scratch)
        capacity *= 2


@kernel
def _count_from(first, rows, group, texts, ngrams, pairs, sets, counts, scratch):  # type: ignore[no-untyped-def]
    """Rows from `first` on; returns the first one whose occurrences `found` cannot hold, or the number of rows."""
    room, hits2, hits3, seen, found, place = scratch
    shift = len(texts.kind)
    any_pairs = pairs.member.any()
    any_ngrams = len(ngrams.single_leaf) > 0 or ngrams.filters.any()
    for r in range(first, rows.shape[0]):
        row = rows[r]
        out = counts[group[r]]
        texts_found = scan_texts(row, texts, room, out, found, 0) if shift else 0
        n = texts_found
        if n >= 0 and any_ngrams:
            n = find_ngrams(row, ngrams, shift, hits2, hits3, out, found, n)
        if n < 0:
            return r
        if n and len(sets.pattern):
            _count_sets(found, n, r, sets, seen, out)
        if n > 1 and any_pairs:
            _number(row, found, texts_found, n, pairs, texts, room, place)
            _count_pairs(found, place, n, pairs.keys, pairs.values, pairs.member, pairs.window, out)
    return rows.shape[0]
