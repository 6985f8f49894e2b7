"""Many text terms at once over token ids: one automaton over bytes, stepped a token at a time.

The terms' UTF-8 bytes make an Aho-Corasick automaton (Aho & Corasick 1975). Where it leads from its root through
every token of the vocabulary, and which terms end inside, is worked out once; most tokens then cost one look-up,
and only those that continue a term begun in an earlier token are walked byte by byte. A term is thus found through every
tokenization that spells it, at exactly the places at which the decoded row holds it. Memory: 4 bytes × states × distinct
byte values in the terms, and 8 per token id; nothing grows with the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.counts.characters import (
    WORD,
    byte_after,
    byte_before,
    bytes_after,
    bytes_before,
    char_before,
    character_classes,
    next_char,
    step_back,
)
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.patterns import Number, Text
from pythia_tools.counts.vocabulary import TokenBytes

WHOLE_WORD, NUMBER, STANDALONE, APART = 1, 2, 4, 8
NO_BYTES = 255


class ByteMachine(NamedTuple):
    """A compiled set of text terms and numbers over one vocabulary."""

    goto: np.ndarray
    """(states, classes) int32"""
    byte_class: np.ndarray
    """(256,) uint8; class 0 is every byte that no term holds"""
    out_start: np.ndarray
    """(states + 1,) int32: terms that end in a state are out_leaf[out_start[s]:out_start[s + 1]]"""
    out_leaf: np.ndarray
    """int32"""
    token_next: np.ndarray
    """(ids,) int32: state after a token read from the root"""
    token_start: np.ndarray
    """(ids + 1,) int32: what ends inside a token read from the root, as indexes into token_leaf"""
    token_leaf: np.ndarray
    """int32"""
    token_offset: np.ndarray
    """int32: offset in the token of the last byte of the term"""
    token_busy: np.ndarray
    """(ids,) uint8: 1 when a token changes the state or ends a term, read from the root"""
    first_class: np.ndarray
    """(ids,) uint8: class of a token's first byte; NO_BYTES for a token that spells nothing"""
    kind: np.ndarray
    """(leaves,) uint8: bits WHOLE_WORD, NUMBER, STANDALONE, APART"""
    length: np.ndarray
    """(leaves,) int32: bytes of a term"""
    lead: np.ndarray
    """(leaves,) int32: its leading ASCII white space, 0 when it is nothing else"""
    classes: np.ndarray
    """character classes, or one zero when no term needs them"""
    flat: np.ndarray
    starts: np.ndarray
    """the vocabulary's bytes, for the ids of the rows"""


def compile_texts(leaves: Sequence[Text | Number], vocabulary: TokenBytes, ids: int) -> ByteMachine:
    """A machine over rows of token ids below `ids`. Cost: one pass over the vocabulary's bytes and the terms'."""
    terms = [(leaf.text if isinstance(leaf, Text) else leaf.digits).encode() for leaf in leaves]
    spellings = sorted(set(terms))
    number = {t: n for n, t in enumerate(spellings)}
    owner = np.array([number[t] for t in terms], dtype=np.int64)
    by_spelling = np.argsort(owner, kind="stable").astype(np.int32)
    owned = np.searchsorted(owner[by_spelling], np.arange(len(spellings) + 1))
    byte_class = np.zeros(256, dtype=np.uint8)
    used = sorted(set(b"".join(terms)))
    byte_class[used] = np.arange(1, len(used) + 1)
    bounds = np.zeros(len(spellings) + 1, dtype=np.int64)
    np.cumsum([len(t) for t in spellings], out=bounds[1:])
    symbols = byte_class[np.frombuffer(b"".join(spellings), dtype=np.uint8)]
    goto, fail, order, ends = _automaton(symbols, bounds, len(used) + 1)
    out_start, out_leaf = _outputs(ends, fail, order, owned, by_spelling)
    table = vocabulary.sized(ids)
    kinds = np.array([_kind(leaf) for leaf in leaves], dtype=np.uint8)
    lengths = np.array([len(t) for t in terms], dtype=np.int32)
    token_next, token_start, token_leaf, token_offset = _through_tokens(
        goto, byte_class, out_start, out_leaf, kinds, lengths, table.flat, table.starts,
    )
    sizes = np.diff(table.starts)
    firsts = np.full(ids, NO_BYTES, dtype=np.uint8)
    firsts[sizes > 0] = byte_class[table.flat[table.starts[:-1][sizes > 0]]]
    return ByteMachine(
        goto, byte_class, out_start, out_leaf, token_next, token_start, token_leaf, token_offset,
        ((token_next > 0) | (np.diff(token_start) > 0)).astype(np.uint8), firsts,
        kinds, lengths, np.array([_lead(t) for t in terms], dtype=np.int32),
        character_classes() if (kinds & WHOLE_WORD).any() else np.zeros(1, dtype=np.uint8), table.flat, table.starts,
    )


def _kind(leaf: Text | Number) -> int:
    if isinstance(leaf, Number):
        return NUMBER | (STANDALONE if leaf.standalone else 0)
    return (WHOLE_WORD if leaf.whole_word else 0) | (0 if leaf.overlapping else APART)


def _lead(term: bytes) -> int:
    lead = len(term) - len(term.lstrip(b" \t\n\r\v\f"))
    return lead if lead < len(term) else 0


@njit(cache=True)
def _automaton(symbols, bounds, classes):  # type: ignore[no-untyped-def]
    """(goto, fail, states by depth, the spelling that ends in each state or -1)."""
    limit = len(symbols) + 1
    goto = np.zeros((limit, classes), dtype=np.int32)
    ends = np.full(limit, -1, dtype=np.int32)
    states = 1
    for t in range(len(bounds) - 1):
        s = 0
        for p in range(bounds[t], bounds[t + 1]):
            c = symbols[p]
            if goto[s, c] == 0:
                goto[s, c] = states
                states += 1
            s = goto[s, c]
        ends[s] = t
    fail = np.zeros(states, dtype=np.int32)
    order = np.zeros(states, dtype=np.int32)
    done = 1
    for head in range(states):  # every state is reached, so the queue never runs dry
        s = order[head]
        for c in range(classes):
            n = goto[s, c]
            if n:
                fail[n] = goto[fail[s], c] if s else 0
                order[done] = n
                done += 1
            elif s:
                goto[s, c] = goto[fail[s], c]
    return goto[:states].copy(), fail, order, ends[:states].copy()


@njit(cache=True)
def _outputs(ends, fail, order, owned, by_spelling):  # type: ignore[no-untyped-def]
    """Terms that end in each state, the longest first, as (start, leaf): its own and those of its failure state."""
    states = len(ends)
    start = np.zeros(states + 1, dtype=np.int32)
    for s in order:
        own = owned[ends[s] + 1] - owned[ends[s]] if ends[s] >= 0 else 0
        start[s + 1] = own + (start[fail[s] + 1] if s else 0)
    for s in range(states):
        start[s + 1] += start[s]
    leaf = np.empty(start[states], dtype=np.int32)
    for s in order:
        at = start[s]
        if ends[s] >= 0:
            for k in range(owned[ends[s]], owned[ends[s] + 1]):
                leaf[at] = by_spelling[k]
                at += 1
        if s:
            for k in range(start[fail[s]], start[fail[s] + 1]):
                leaf[at] = leaf[k]
                at += 1
    return start, leaf


@kernel
def _joins(b, k):  # type: ignore[no-untyped-def]
    """Whether an ASCII neighbour makes the term part of a longer number, or of a longer word."""
    digit = 48 <= b < 58
    return digit if k & NUMBER else (digit or 65 <= b < 91 or 97 <= b < 123 or b == 95)


@njit(cache=True)
def _through_tokens(goto, byte_class, out_start, out_leaf, kind, length, flat, starts):  # type: ignore[no-untyped-def]
    """State after each token read from the root, and what ends inside it (start, leaf, offset).

    Terms whose neighbours within the token already forbid them are left out.
    """
    ids = len(starts) - 1
    after = np.zeros(ids, dtype=np.int32)
    start = np.zeros(ids + 1, dtype=np.int32)
    for t in range(ids):
        s = 0
        found = 0
        for p in range(starts[t], starts[t + 1]):
            s = goto[s, byte_class[flat[p]]]
            for k in range(out_start[s], out_start[s + 1]):
                found += _may_stand(flat, starts[t], p, starts[t + 1], kind[out_leaf[k]], length[out_leaf[k]])
        after[t] = s
        start[t + 1] = start[t] + found
    leaf = np.empty(start[ids], dtype=np.int32)
    offset = np.empty(start[ids], dtype=np.int32)
    for t in range(ids):
        s = 0
        at = start[t]
        for p in range(starts[t], starts[t + 1]):
            s = goto[s, byte_class[flat[p]]]
            for k in range(out_start[s], out_start[s + 1]):
                if _may_stand(flat, starts[t], p, starts[t + 1], kind[out_leaf[k]], length[out_leaf[k]]):
                    leaf[at] = out_leaf[k]
                    offset[at] = p - starts[t]
                    at += 1
    return after, start, leaf, offset


@kernel
def _may_stand(flat, begin, last, end, kind, length):  # type: ignore[no-untyped-def]
    """Whether a term whose last byte is flat[last] may stand, by its ASCII neighbours in flat[begin:end]."""
    if not kind & (WHOLE_WORD | NUMBER):
        return True
    if last + 1 < end and flat[last + 1] < 128 and _joins(flat[last + 1], kind):
        return False
    before = last - length
    return not (before >= begin and flat[before] < 128 and _joins(flat[before], kind))


@kernel
def _stands(row, token, offset, leaf, kind, length, classes, flat, starts, last, room):  # type: ignore[no-untyped-def]
    """Whether the term whose last byte is byte `offset` of token number `token` has the neighbours that its kind asks for."""
    k = kind[leaf]
    if k & (WHOLE_WORD | NUMBER):
        after = byte_after(row, token, offset + 1, flat, starts)
        if 0 <= after < 128 and _joins(after, k):
            return False
    begin, at = step_back(row, token, offset + 1, length[leaf], starts)
    if k & (WHOLE_WORD | NUMBER):
        before = byte_before(row, begin, at, flat, starts)
        if 0 <= before < 128 and _joins(before, k):
            return False
        beyond = after >= 128 or before >= 128
        if k & WHOLE_WORD and beyond and _beyond_ascii(row, token, offset + 1, begin, at, classes, flat, starts, room):
            return False
        split = _splits(after) or _splits(before)
        if k & STANDALONE and split and _part_of_longer(row, token, offset + 1, begin, at, flat, starts, room):
            return False
    if k & APART:
        if begin < last[leaf, 0] or (begin == last[leaf, 0] and at < last[leaf, 1]):
            return False
        last[leaf, 0] = token
        last[leaf, 1] = offset + 1
    return True


@kernel
def _splits(b):  # type: ignore[no-untyped-def]
    return b == 44 or b == 46


@kernel
def _beyond_ascii(row, token, offset, begin, at, classes, flat, starts, room):  # type: ignore[no-untyped-def]
    """Whether a character next to the term is a word character, by Unicode."""
    after, before = room[:4], room[4:]
    n = bytes_after(row, token, offset, flat, starts, after)
    if n and classes[next_char(after, 0, n)[0]] & WORD:
        return True
    m = bytes_before(row, begin, at, flat, starts, before)
    return bool(m and classes[char_before(before[4 - m:], m)] & WORD)


@kernel
def _part_of_longer(row, token, offset, begin, at, flat, starts, room):  # type: ignore[no-untyped-def]
    """Whether a point or comma with a digit beyond it is next to the term."""
    after, before = room[:4], room[4:]
    if bytes_after(row, token, offset, flat, starts, after) > 1 and _splits(after[0]) and 48 <= after[1] < 58:
        return True
    return bytes_before(row, begin, at, flat, starts, before) > 1 and _splits(before[3]) and 48 <= before[2] < 58


@njit(cache=True, nogil=True)
def count_texts(rows, group, machine, counts):  # type: ignore[no-untyped-def]
    """counts[group[r], leaf] += occurrences in row r. rows (n, length) of ids below len(token_next); counts int64."""
    last = np.zeros((len(machine.kind), 2), dtype=np.int32)
    room = np.zeros(8, dtype=np.uint8)
    nowhere = np.zeros((0, 3), dtype=np.int32)
    _count_rows(rows, group, machine, counts, last, room, nowhere)


@kernel
def _count_rows(rows, group, machine, counts, last, room, nowhere):  # type: ignore[no-untyped-def]
    for r in range(rows.shape[0]):
        scan_texts(rows[r], machine, last, room, counts[group[r]], nowhere, 0)


@kernel
def scan_texts(row, machine, last, room, out, found, n):  # type: ignore[no-untyped-def]
    """Occurrences in one row, counted or listed: with an empty `found`, out[leaf] += 1 for each; else they are appended to
    found (capacity, 3) int32 from n on as (leaf, token, byte offset) of the first byte that is not leading ASCII white space.
    Returns the new n, or -1 when the capacity does not suffice. last (leaves, 2) int32 and room (8,) uint8 are scratch.
    """
    goto, byte_class, out_start, out_leaf = machine.goto, machine.byte_class, machine.out_start, machine.out_leaf
    token_next, token_start, token_leaf, token_offset = machine.token_next, machine.token_start, machine.token_leaf, machine.token_offset
    busy, first_class, kind, length, lead = machine.token_busy, machine.first_class, machine.kind, machine.length, machine.lead
    classes, flat, starts = machine.classes, machine.flat, machine.starts
    last[:] = 0
    s = np.int32(0)
    for i in range(len(row)):
        t = row[i]
        if s:
            c = first_class[t]
            if c == NO_BYTES:
                continue
            if goto[s, c] != goto[0, c]:
                for p in range(starts[t], starts[np.int64(t) + 1]):
                    s = goto[s, byte_class[flat[p]]]
                    for k in range(out_start[s], out_start[s + 1]):
                        leaf, offset = out_leaf[k], p - starts[t]
                        if kind[leaf] == 0 or _stands(row, i, offset, leaf, kind, length, classes, flat, starts, last, room):
                            n = _note(row, i, offset, leaf, length, lead, starts, out, found, n)
                            if n < 0:
                                return n
                continue
            s = np.int32(0)
        if busy[t]:
            s = token_next[t]
            for k in range(token_start[t], token_start[np.int64(t) + 1]):
                leaf, offset = token_leaf[k], token_offset[k]
                if kind[leaf] == 0 or _stands(row, i, offset, leaf, kind, length, classes, flat, starts, last, room):
                    n = _note(row, i, offset, leaf, length, lead, starts, out, found, n)
                    if n < 0:
                        return n
    return n


@kernel
def _note(row, token, offset, leaf, length, lead, starts, out, found, n):  # type: ignore[no-untyped-def]
    if len(found) == 0:
        out[leaf] += 1
        return n
    if n == len(found):
        return -1
    found[n, 0] = leaf
    found[n, 1], found[n, 2] = step_back(row, token, offset + 1, length[leaf] - lead[leaf], starts)
    return n + 1
