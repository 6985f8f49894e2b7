"""numpy's legacy shuffle, bit for bit, at the speed of memory.

GPT-NeoX shuffles with `numpy.random.RandomState.shuffle`: MT19937, then Fisher-Yates from the back, each index drawn by
masked rejection. The result is fixed by the seed; only the waiting is not. numpy waits for one cache miss per element.
Here the indices are drawn some hundred ahead and their places prefetched, so the misses overlap: 5-10 times faster
on arrays larger than the cache, in place, with no memory beyond the array.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

AHEAD = 512
WORDS = 624


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Ask for the cache line of `array[index]`; never faults, changes nothing."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(view.data, [args[1]])
        byte = builder.bitcast(place, cgutils.voidptr_t)
        i32 = ir.IntType(32)
        name = f"llvm.prefetch.{'p0' if getattr(byte.type, 'is_opaque', False) else 'p0i8'}"
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [byte, ir.Constant(i32, 1), ir.Constant(i32, 3), ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@numba.njit(nogil=True, cache=True, inline="never")
def _twist(key):  # type: ignore[no-untyped-def]
    """The next 624 words of MT19937, in place."""
    upper, lower, matrix = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
    one = np.uint32(1)
    for i in range(227):
        y = (key[i] & upper) | (key[i + 1] & lower)
        key[i] = key[i + 397] ^ (y >> one) ^ (np.uint32(-(y & one)) & matrix)
    for i in range(227, 623):
        y = (key[i] & upper) | (key[i + 1] & lower)
        key[i] = key[i - 227] ^ (y >> one) ^ (np.uint32(-(y & one)) & matrix)
    y = (key[623] & upper) | (key[0] & lower)
    key[623] = key[396] ^ (y >> one) ^ (np.uint32(-(y & one)) & matrix)


@numba.njit(nogil=True, cache=True, inline="never")
def _temper(key, words):  # type: ignore[no-untyped-def]
    """The output words of a state; a loop the compiler turns into vectors."""
    for i in range(key.size):
        y = key[i]
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
        y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
        y ^= y >> np.uint32(18)
        words[i] = y


@numba.njit(nogil=True, cache=True, boundscheck=False)
def _shuffle(array, key, position):  # type: ignore[no-untyped-def]
    """Shuffle `array` in place from MT19937 state (key, position); returns the new position."""
    words = np.empty(WORDS, np.uint32)
    _temper(key, words)
    draws = np.empty(AHEAD, np.int64)
    i = array.size - 1
    while i > 0:
        count = min(AHEAD, i)
        for k in range(count):
            limit = np.uint64(i - k)
            mask = limit
            for shift in (1, 2, 4, 8, 16, 32):
                mask |= mask >> np.uint64(shift)
            while True:
                if position == WORDS:
                    _twist(key)
                    _temper(key, words)
                    position = 0
                value = np.uint64(words[position])
                position += 1
                if limit > np.uint64(0xFFFFFFFF):
                    if position == WORDS:
                        _twist(key)
                        _temper(key, words)
                        position = 0
                    value = (value << np.uint64(32)) | np.uint64(words[position])
                    position += 1
                value &= mask
                if value <= limit:
                    break
            draws[k] = np.int64(value)
            prefetch(array, draws[k])
        for k in range(count):
            j = draws[k]
            kept = array[i - k]
            array[i - k] = array[j]
            array[j] = kept
        i -= count
    return position


class LegacyShuffler:
    """`RandomState(seed)` reduced to its `shuffle`; one generator serves several shuffles in turn.

    Raises: ValueError, as numpy does, for a seed outside [0, 2**32).
    """

    def __init__(self, seed: int):
        state: Any = np.random.RandomState(seed).get_state(legacy=False)
        self._key = state["state"]["key"].copy()
        self._position = int(state["state"]["pos"])

    def shuffle(self, array: np.ndarray) -> None:
        """Shuffle a contiguous 1-D array in place, exactly as `RandomState.shuffle` would from this state."""
        self._position = _shuffle(array, self._key, self._position)
