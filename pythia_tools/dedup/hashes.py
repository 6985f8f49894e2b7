"""64-bit hashes of shingles, not cryptographic: each unit is hashed once, then n units by a rolling polynomial.

Different shingles of a corpus with s distinct ones are taken for one with probability about s²/2⁶⁵ (all 64 bits used).
Not meant against an adversary. Cost: about 10 ns per shingle, the splitting included; SHA-1 takes 30 ns more.
"""

import numpy as np
from numba import njit

from pythia_tools.dedup.shingles import shingle_count, split

_M1, _M2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_STEP = np.uint64(0xA0761D6478BD642F)
_TAIL = np.array([(1 << (8 * i)) - 1 for i in range(8)], np.uint64)


@njit(inline="always")
def mix64(x):  # type: ignore[no-untyped-def]
    """A bijection of 64 bits that spreads every input bit (after Stafford's variants of MurmurHash3's finalizer)."""
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(x ^ (x >> np.uint64(31)))


@njit(inline="always")
def _load8(data, at):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for i in range(np.uint64(8)):
        word |= np.uint64(data[np.uint64(at) + i]) << (i << np.uint64(3))
    return word


@njit(nogil=True, cache=True)
def _hash_unit(data, begin, end):  # type: ignore[no-untyped-def]
    """64-bit hash of data[begin:end]; needs eight readable bytes behind it."""
    h = np.uint64(end - begin) * _M1
    while end - begin >= 8:
        h = mix64(h ^ _load8(data, begin)) + _M2
        begin += 8
    if end > begin:
        h = mix64(h ^ (_load8(data, begin) & _TAIL[end - begin])) + _M2
    return h


@njit(nogil=True, cache=True)
def shingle_hashes(kind, data, begin, end, n, text, starts, flags, units, out):  # type: ignore[no-untyped-def]
    """Hashes of the shingles of data[begin:end] into out, repeats included; returns how many. Scratch: see `split`."""
    gap = 1 if kind == 0 else 0
    at, count = split(kind, data, begin, end, text, 0, starts, flags)
    starts[count] = at
    for i in range(count):
        units[i] = _hash_unit(text, starts[i], starts[i + 1] - gap)
    top = np.uint64(1)
    for _ in range(n):
        top = np.uint64(top * _STEP)
    reach = min(n, count)
    rolling = np.uint64(0)
    for i in range(count):
        rolling = np.uint64(rolling * _STEP + units[i])
        if i >= n:
            rolling = np.uint64(rolling - top * units[i - n])
        if i + 1 >= reach:
            out[i + 1 - reach] = mix64(rolling)
    return shingle_count(count, n)
