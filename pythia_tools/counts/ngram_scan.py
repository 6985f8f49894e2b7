"""Many token n-grams at once, counted or located in one pass over rows.

Single tokens are counted through a table, without a branch. Longer n-grams first pass a filter of one bit per hash,
of the first two tokens for pairs and of the first three for the rest; 16 kB in all, which stays in the first cache, and
few positions survive. Survivors are looked up exactly and followed through a trie.
Cost: 3 to 5 ns per token and core for 1,000 n-grams, 1 ns to locate a few. Memory: 4 bytes per token id, about 100 per
trie edge, and nothing that grows with the corpus.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.counts.compiled import kernel
from pythia_tools.order import Rows

SPREAD = 64
"""Waste slots, into which tokens of no pattern are counted; many, so that equal neighbours need not wait."""
FILTER_BITS = 1 << 16
ID_BITS = 21


class NgramMachine(NamedTuple):
    """A compiled set of n-grams."""

    single: np.ndarray
    """(ids,) uint32: slot of a token among the single-token patterns; the last SPREAD slots are waste"""
    single_leaf: np.ndarray
    """(singles,) int64: the n-gram of each slot"""
    filters: np.ndarray
    """(2, FILTER_BITS / 64) uint64: hashes of the pairs; of the first three tokens of longer n-grams"""
    keys: np.ndarray
    """(slots,) int64: two or three packed tokens, or -1; open addressing"""
    values: np.ndarray
    """(slots,) int32: leaf of a pair; node of three tokens"""
    edge_keys: np.ndarray
    """(slots,) int64: node << 21 | token, or -1"""
    edge_values: np.ndarray
    """(slots,) int32: node the edge leads to"""
    leaf: np.ndarray
    """(nodes,) int32: the n-gram that ends at a node; -1: none. Node 0 is unused"""
    fanout: np.ndarray
    """(nodes,) int32: edges that leave a node"""
    longer: bool
    """whether any n-gram has two tokens or more"""


def as_kernel_rows(rows: np.ndarray, ids: int) -> np.ndarray:
    """uint16 or int32, contiguous, writable: the two kinds that kernels are compiled for. Copies only other kinds.

    Raises: DataError for a token id that is not below `ids`, because kernels look up tables of that size unchecked.
    """
    if rows.size and np.iinfo(rows.dtype).max >= ids and int(rows.max()) >= ids:
        raise DataError(
            f"token id {int(rows.max())} is in the rows, where ids below {ids} are expected; "
            "are they of another vocabulary?"
        )
    if rows.size and rows.dtype.kind == "i" and int(rows.min()) < 0:
        raise DataError(f"token id {int(rows.min())} is in the rows; ids are not negative")
    rows = np.ascontiguousarray(rows, dtype=np.uint16 if rows.dtype == np.uint16 else np.int32)
    return rows if rows.flags.writeable else rows.copy()


def token_ids(order: Rows) -> int:
    """Token ids that rows can hold: 65,536 for 16-bit rows, else 2**20, more than any published vocabulary has."""
    return 1 << 16 if order.dtype.itemsize <= 2 else 1 << 20


def compile_ngrams(ngrams: Sequence[Sequence[int]], ids: int) -> NgramMachine:
    """A machine for distinct n-grams over token ids below `ids`, at most 2**ID_BITS. Raises RequestError for others."""
    beyond = max((max(g) for g in ngrams), default=0)
    if beyond >= ids:
        raise RequestError(f"token id {beyond} cannot stand in these rows, whose ids are 0 to {ids - 1}; count others")
    possible = [(n, tuple(g)) for n, g in enumerate(ngrams)]
    singles = [(n, g[0]) for n, g in possible if len(g) == 1]
    single = (len(singles) + np.arange(ids) % SPREAD).astype(np.uint32)
    single[[t for _, t in singles]] = np.arange(len(singles))
    pairs = {_packed(g): n for n, g in possible if len(g) == 2}
    heads, edges, leaf, fanout = _trie([(n, g) for n, g in possible if len(g) > 2])
    filters = np.zeros((2, FILTER_BITS // 64), dtype=np.uint64)
    for _, g in possible:
        if len(g) > 1:
            h = int(_hash2(g[0], g[1]) if len(g) == 2 else _hash3(g[0], g[1], g[2]))
            filters[int(len(g) > 2), h >> 6] |= np.uint64(1 << (h & 63))
    keys, values = table_of({**pairs, **heads})
    edge_keys, edge_values = table_of(edges)
    return NgramMachine(
        single, np.array([n for n, _ in singles], dtype=np.int64), filters, keys, values, edge_keys, edge_values,
        np.array(leaf, dtype=np.int32), np.array(fanout, dtype=np.int32), bool(filters.any()),
    )


def _trie(
    ngrams: Iterable[tuple[int, tuple[int, ...]]],
) -> tuple[dict[int, int], dict[int, int], list[int], list[int]]:
    """Heads (three packed tokens → node), edges (node << 21 | token → node), leaf and fanout of each node."""
    heads: dict[int, int] = {}
    edges: dict[int, int] = {}
    leaf, fanout = [-1], [0]

    def step(table: dict[int, int], key: int) -> int:
        if key not in table:
            table[key] = len(leaf)
            leaf.append(-1)
            fanout.append(0)
        return table[key]

    for number, ngram in ngrams:
        node = step(heads, _packed(ngram[:3]))
        for token in ngram[3:]:
            known = len(leaf)
            child = step(edges, node << ID_BITS | token)
            fanout[node] += child == known
            node = child
        leaf[node] = number
    return heads, edges, leaf, fanout


def _packed(tokens: Sequence[int]) -> int:
    """Two or three tokens as one key."""
    return int(packed2(*tokens) if len(tokens) == 2 else packed3(*tokens))


def table_of(entries: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The hash table of key → value."""
    size = len(entries)
    return hash_table(np.fromiter(entries.keys(), np.int64, size), np.fromiter(entries.values(), np.int64, size))


def hash_table(entries: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values) of a table with open addressing, at most a quarter full, searched by `find`.

    entries: (n,) int64, distinct and not negative; numbers: (n,) their values below 2^31.
    """
    slots = 16
    while slots < 4 * len(entries):
        slots *= 2
    keys = np.full(slots, -1, dtype=np.int64)
    values = np.zeros(slots, dtype=np.int32)
    _fill(keys, values, entries, numbers.astype(np.int32))
    return keys, values


@kernel
def _slot(key, mask):  # type: ignore[no-untyped-def]
    return ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask


@kernel
def _fill(keys, values, new_keys, new_values):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(keys) - 1)
    for n in range(len(new_keys)):
        slot = _slot(new_keys[n], mask)
        while keys[slot] != -1:
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = new_keys[n]
        values[slot] = new_values[n]


@kernel
def find(keys, values, key):  # type: ignore[no-untyped-def]
    """The value of a key, or -1."""
    mask = np.uint64(len(keys) - 1)
    slot = _slot(key, mask)
    while keys[slot] != key:
        if keys[slot] == -1:
            return np.int32(-1)
        slot = (slot + np.uint64(1)) & mask
    return values[slot]


@kernel
def packed2(a, b):  # type: ignore[no-untyped-def]
    return np.int64(a) << ID_BITS | np.int64(b)


@kernel
def packed3(a, b, c):  # type: ignore[no-untyped-def]
    """One int64 below 2**63; the first token plus one keeps three tokens apart from two, whose third field is 0."""
    return (np.int64(a) + 1) << (2 * ID_BITS) | np.int64(b) << ID_BITS | np.int64(c)


@kernel
def _hash2(a, b):  # type: ignore[no-untyped-def]
    h = np.uint64(a) * np.uint64(0x9E3779B1) + np.uint64(b) * np.uint64(0x85EBCA77)
    return (h >> np.uint64(16)) & np.uint64(FILTER_BITS - 1)


@kernel
def _hash3(a, b, c):  # type: ignore[no-untyped-def]
    h = np.uint64(a) * np.uint64(0x9E3779B1) + np.uint64(b) * np.uint64(0x85EBCA77)
    h += np.uint64(c) * np.uint64(0xC2B2AE3D)
    return (h >> np.uint64(16)) & np.uint64(FILTER_BITS - 1)


@kernel
def _bit(bits, h):  # type: ignore[no-untyped-def]
    return (bits[h >> np.uint64(6)] >> (h & np.uint64(63))) & np.uint64(1)


@kernel
def survivors(row, filters, hits2, hits3):  # type: ignore[no-untyped-def]
    """Positions that pass the filters of pairs and of three tokens, in hits2 and hits3; returns how many of each.

    Every position is written and the next one overwrites it unless its bit was set: no branch, so nothing is
    mispredicted.
    """
    two, three = filters[0], filters[1]
    found2 = np.uint64(0)
    found3 = np.uint64(0)
    for i in range(len(row) - 2):
        a, b, c = row[i], row[i + 1], row[i + 2]
        hits2[found2] = i
        found2 += _bit(two, _hash2(a, b))
        hits3[found3] = i
        found3 += _bit(three, _hash3(a, b, c))
    if len(row) > 1:
        last = len(row) - 2
        hits2[found2] = last
        found2 += _bit(two, _hash2(row[last], row[last + 1]))
    return found2, found3


@njit(cache=True, nogil=True)
def count_ngrams(rows, group, machine, counts):  # type: ignore[no-untyped-def]
    """counts[group[r], leaf] += occurrences in row r. rows (n, length) of ids below len(single); group ascending."""
    if len(machine.single_leaf):
        _count_singles(rows, group, machine, counts, np.zeros(len(machine.single_leaf) + SPREAD, dtype=np.uint32))
    if machine.longer:
        hits2, hits3 = hit_room(rows.shape[1])
        _count_longer(rows, group, machine, counts, hits2, hits3, np.empty((0, 3), dtype=np.int32))


@njit(cache=True, nogil=True)
def locate_ngrams(rows, ngrams, bounds):  # type: ignore[no-untyped-def]
    """(hits, 3) int32: n-gram, offset in its row, and row of `rows` (n, length) of every occurrence.

    N-gram g is ngrams[bounds[g]:bounds[g + 1]]. For the few n-grams of one question: their first tokens are compared,
    which is faster than any table. Rows are counted first, and looked through again where something was found.
    """
    found = np.empty((256, 3), dtype=np.int32)
    n = 0
    for g in range(len(bounds) - 1):
        ngram = ngrams[bounds[g]:bounds[g + 1]]
        for r in range(rows.shape[0]):
            hits = _occurrences(rows[r], ngram)
            while n + hits > len(found):
                found = np.concatenate((found, np.empty_like(found)))
            if hits:
                n = _list_occurrences(rows[r], ngram, g, r, found, n)
    return found[:n].copy()


@kernel
def _occurrences(row, ngram):  # type: ignore[no-untyped-def]
    """How often an n-gram stands in a row."""
    first, size, hits = ngram[0], len(ngram), 0
    for i in range(len(row) - size + 1):
        if row[i] == first:
            k = 1
            while k < size and row[i + k] == ngram[k]:
                k += 1
            hits += k == size
    return hits


@kernel
def _list_occurrences(row, ngram, leaf, number, found, n):  # type: ignore[no-untyped-def]
    """Write (leaf, offset, number) of each to found, from n on; returns the new n."""
    for i in range(len(row) - len(ngram) + 1):
        k = 0
        while k < len(ngram) and row[i + k] == ngram[k]:
            k += 1
        if k == len(ngram):
            found[n, 0], found[n, 1], found[n, 2] = leaf, i, number
            n += 1
    return n


@njit(cache=True, nogil=True)
def hit_room(length):  # type: ignore[no-untyped-def]
    """Scratch of `survivors`."""
    return np.empty(length + 1, dtype=np.int32), np.empty(length + 1, dtype=np.int32)


@kernel
def _count_singles(rows, group, machine, counts, slots):  # type: ignore[no-untyped-def]
    """One increment per token, whatever it is: tokens of no pattern go to waste slots. Slots are emptied per group."""
    single, single_leaf = machine.single, machine.single_leaf
    for r in range(rows.shape[0]):
        row = rows[r]
        for i in range(len(row)):
            slots[single[row[i]]] += np.uint32(1)
        if r + 1 == rows.shape[0] or group[r + 1] != group[r] or (r & 0xFFF) == 0xFFF:
            out = counts[group[r]]
            for s in range(len(single_leaf)):
                out[single_leaf[s]] += slots[s]
            slots[:] = 0


@kernel
def _count_longer(rows, group, machine, counts, hits2, hits3, nowhere):  # type: ignore[no-untyped-def]
    for r in range(rows.shape[0]):
        _find_longer(rows[r], machine, 0, hits2, hits3, counts[group[r]], nowhere, 0)


@kernel
def find_ngrams(row, machine, shift, hits2, hits3, out, found, n):  # type: ignore[no-untyped-def]
    """Occurrences in one row as (shift + leaf, token, 0), for `note`; the new n, or -1 when `found` is full."""
    single, singles = machine.single, len(machine.single_leaf)
    if singles:
        for i in range(len(row)):
            slot = single[row[i]]
            if slot < singles:
                n = note(shift + machine.single_leaf[slot], i, 0, out, found, n)
                if n < 0:
                    return n
    return _find_longer(row, machine, shift, hits2, hits3, out, found, n) if machine.longer else n


@kernel
def _find_longer(row, machine, shift, hits2, hits3, out, found, n):  # type: ignore[no-untyped-def]
    """As `find_ngrams`, of two tokens and more: the filters choose places, tables and the trie decide."""
    keys, values, edge_keys, edge_values = machine.keys, machine.values, machine.edge_keys, machine.edge_values
    leaf, fanout = machine.leaf, machine.fanout
    length = np.uint64(len(row))
    found2, found3 = survivors(row, machine.filters, hits2, hits3)
    for h in range(found2):
        i = np.uint64(hits2[h])
        pair = find(keys, values, packed2(row[i], row[i + np.uint64(1)]))
        if pair >= 0:
            n = note(shift + pair, i, 0, out, found, n)
            if n < 0:
                return n
    for h in range(found3):
        i = np.uint64(hits3[h])
        node = find(keys, values, packed3(row[i], row[i + np.uint64(1)], row[i + np.uint64(2)]))
        k = i + np.uint64(3)
        while node > 0:
            if leaf[node] >= 0:
                n = note(shift + leaf[node], i, 0, out, found, n)
                if n < 0:
                    return n
            if fanout[node] == 0 or k >= length:
                break
            node = find(edge_keys, edge_values, np.int64(node) << ID_BITS | np.int64(row[k]))
            k += np.uint64(1)
    return n


@kernel
def note(leaf, token, offset, out, found, n):  # type: ignore[no-untyped-def]
    """Count an occurrence in out[leaf] if `found` (capacity, 3) is empty, else list it; the new n, or -1 when full."""
    if len(found) == 0:
        out[leaf] += 1
        return n
    if n == len(found):
        return -1
    found[n, 0], found[n, 1], found[n, 2] = leaf, token, offset
    return n + 1
