"""Many text terms at once over token ids: one automaton over bytes, stepped a token at a time.

The idea: the terms' UTF-8 bytes make an Aho-Corasick automaton (Aho & Corasick 1975). Where it leads from its root
through every token of the vocabulary, and which terms end inside, is worked out once; most tokens then cost one
look-up, and only those that continue a term begun in an earlier token are walked byte by byte. A term is thus found
through every tokenization that spells it, at exactly the places at which the decoded row holds it. What a term's kind
asks of its neighbours is looked at only where its bytes stand. Memory: 4 bytes × states × distinct byte values in the
terms, and 8 per token id; nothing grows with the corpus.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.counts import characters as chars
from pythia_tools.counts.compiled import kernel
from pythia_tools.counts.ngram_scan import note
from pythia_tools.counts.patterns import Number, Text
from pythia_tools.counts.vocabulary import TokenBytes

WHOLE_WORD, NUMBER = 1, 2
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
    """(leaves,) uint8: WHOLE_WORD, NUMBER, or 0 for a text anywhere"""
    length: np.ndarray
    """(leaves,) int32: bytes of a term"""
    lead: np.ndarray
    """(leaves,) int32: its leading white space in bytes, 0 when it is nothing else"""
    classes: np.ndarray
    """character classes"""
    flat: np.ndarray
    starts: np.ndarray
    """the vocabulary's bytes, for the ids of the rows"""


def compile_texts(leaves: Sequence[Text | Number], vocabulary: TokenBytes, ids: int) -> ByteMachine:
    """A machine over rows of token ids below `ids`. Cost: one pass over the vocabulary's bytes and the terms'."""
    texts = [leaf.text if isinstance(leaf, Text) else leaf.digits for leaf in leaves]
    terms = [text.encode() for text in texts]
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
        goto, byte_class, out_start, out_leaf, kinds, chars.character_classes(), lengths, table.flat, table.starts,
    )
    sizes = np.diff(table.starts)
    firsts = np.full(ids, NO_BYTES, dtype=np.uint8)
    firsts[sizes > 0] = byte_class[table.flat[table.starts[:-1][sizes > 0]]]
    return ByteMachine(
        goto, byte_class, out_start, out_leaf, token_next, token_start, token_leaf, token_offset,
        ((token_next > 0) | (np.diff(token_start) > 0)).astype(np.uint8), firsts,
        kinds, lengths, np.array([leading_space(t) for t in texts], dtype=np.int32),
        chars.character_classes(), table.flat, table.starts,
    )


def _kind(leaf: Text | Number) -> int:
    if isinstance(leaf, Number):
        return NUMBER
    return WHOLE_WORD if leaf.whole_word else 0


def leading_space(text: str) -> int:
    """Bytes of the white space with which a text begins; 0 when it is nothing else."""
    rest = text.lstrip()
    return len(text.encode()) - len(rest.encode()) if rest else 0


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


@njit(cache=True)
def _through_tokens(goto, byte_class, out_start, out_leaf, kind, classes, length, flat, starts):  # type: ignore[no-untyped-def]
    """State after each token read from the root, and what ends inside it (start, leaf, offset).

    Terms whose neighbours within the token already forbid them are left out.
    """
    ids = len(starts) - 1
    after = np.zeros(ids, dtype=np.int32)
    start = np.zeros(ids + 1, dtype=np.int32)
    leaf, offset = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
    for fill in range(2):  # count, then fill
        if fill:
            leaf, offset = np.empty(start[ids], dtype=np.int32), np.empty(start[ids], dtype=np.int32)
        at = 0
        for t in range(ids):
            s = 0
            for p in range(starts[t], starts[t + 1]):
                s = goto[s, byte_class[flat[p]]]
                for k in range(out_start[s], out_start[s + 1]):
                    ends = out_leaf[k]
                    if _may_stand(flat, starts[t], p, starts[t + 1], kind[ends], classes, length[ends]):
                        if fill:
                            leaf[at] = ends
                            offset[at] = p - starts[t]
                        at += 1
            after[t] = s
            start[t + 1] = at
    return after, start, leaf, offset


@kernel
def _may_stand(flat, begin, last, end, kind, classes, length):  # type: ignore[no-untyped-def]
    """Whether a term whose last byte is flat[last] may stand, by its ASCII neighbours in flat[begin:end]."""
    for at in (last - length, last + 1):
        if begin <= at < end and flat[at] < 128 and _joins(flat[at], kind, classes):
            return False
    return True


@kernel
def _joins(point, kind, classes):  # type: ignore[no-untyped-def]
    """Whether a neighbouring character makes the term part of a longer number, or of a longer word."""
    return 48 <= point < 58 if kind == NUMBER else kind and classes[point] & chars.WORD != 0


@kernel
def _stands(row, token, offset, kind, length, classes, flat, starts, room):  # type: ignore[no-untyped-def]
    """Whether the term that ends with byte `offset` of token number `token` has the neighbours its kind asks for."""
    after = chars.byte_after(row, token, offset + 1, flat, starts)
    if 0 <= after < 128 and _joins(after, kind, classes):
        return False
    begin, at = chars.step_back(row, token, offset + 1, length, starts)
    before = chars.byte_before(row, begin, at, flat, starts)
    if 0 <= before < 128 and _joins(before, kind, classes):
        return False
    if kind == NUMBER or (after < 128 and before < 128):
        return True
    n = chars.bytes_after(row, token, offset + 1, flat, starts, room)
    if n and _joins(chars.next_char(room, 0, n)[0], kind, classes):
        return False
    n = chars.bytes_before(row, begin, at, flat, starts, room)
    return not (n and _joins(chars.char_before(room[len(room) - n:], n), kind, classes))


@njit(cache=True, nogil=True)
def count_texts(rows, group, machine, counts):  # type: ignore[no-untyped-def]
    """counts[group[r], leaf] += occurrences in row r. rows (n, length) of ids below len(token_next); counts int64."""
    _count_rows(rows, group, machine, counts, np.zeros(4, dtype=np.uint8), np.zeros((0, 3), dtype=np.int32))


@kernel
def _count_rows(rows, group, machine, counts, room, nowhere):  # type: ignore[no-untyped-def]
    for r in range(rows.shape[0]):
        scan_texts(rows[r], machine, room, counts[group[r]], nowhere, 0)


@kernel
def scan_texts(row, machine, room, out, found, n):  # type: ignore[no-untyped-def]
    """Occurrences in one row, counted or listed as `note` does; returns the new n, or -1 when `found` is full.

    Listed is (leaf, token, byte offset) of the first byte that is not leading white space. Scratch:
    room (4,) uint8.
    """
    goto, byte_class, out_start, out_leaf = machine.goto, machine.byte_class, machine.out_start, machine.out_leaf
    token_next, token_start, token_leaf = machine.token_next, machine.token_start, machine.token_leaf
    token_offset, busy, first_class = machine.token_offset, machine.token_busy, machine.first_class
    kind, length, lead, classes = machine.kind, machine.length, machine.lead, machine.classes
    flat, starts = machine.flat, machine.starts
    s = np.int32(0)
    for i in range(len(row)):
        t = row[i]
        if s:  # inside a term that an earlier token began
            c = first_class[t]
            if c == NO_BYTES:
                continue
            if goto[s, c] != goto[0, c]:  # the token goes on with it: byte by byte
                for p in range(starts[t], starts[np.int64(t) + 1]):
                    s = goto[s, byte_class[flat[p]]]
                    for k in range(out_start[s], out_start[s + 1]):
                        leaf, offset = out_leaf[k], p - starts[t]
                        if kind[leaf] == 0 or _stands(
                            row, i, offset, kind[leaf], length[leaf], classes, flat, starts, room,
                        ):
                            n = _note(row, i, offset, leaf, length[leaf] - lead[leaf], starts, out, found, n)
                            if n < 0:
                                return n
                continue
            s = np.int32(0)
        if busy[t]:  # from the root, as worked out for every token
            s = token_next[t]
            for k in range(token_start[t], token_start[np.int64(t) + 1]):
                leaf, offset = token_leaf[k], token_offset[k]
                if kind[leaf] == 0 or _stands(row, i, offset, kind[leaf], length[leaf], classes, flat, starts, room):
                    n = _note(row, i, offset, leaf, length[leaf] - lead[leaf], starts, out, found, n)
                    if n < 0:
                        return n
    return n


@kernel
def _note(row, token, offset, leaf, back, starts, out, found, n):  # type: ignore[no-untyped-def]
    """As `note`; listed is the place `back` bytes before the end of byte `offset`."""
    if len(found):
        token, offset = chars.step_back(row, token, offset + 1, back, starts)
    return note(leaf, token, offset, out, found, n)
