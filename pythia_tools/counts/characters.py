"""UTF-8 as decoders read it, and what `re` calls a digit, a word character and white space; for compiled code.

Bytes that are not UTF-8 become U+FFFD, one for each maximal part of a broken sequence, exactly as
`bytes.decode(errors="replace")` and the Rust decoder of `tokenizers` do (Unicode 15, section 3.9, U+FFFD substitution).
"""

import string
import unicodedata
from functools import lru_cache

import numpy as np

from pythia_tools.counts.compiled import kernel

WORD, DIGIT, SPACE, PUNCTUATION = 1, 2, 4, 8


@lru_cache(maxsize=1)
def character_classes() -> np.ndarray:
    """(0x110000,) uint8: bits of each code point, 0.1 s once.

    WORD (`\\w`), DIGIT (`\\d`), SPACE (`\\s`, what `str.split` splits at), PUNCTUATION (ASCII's 32).
    """
    points = np.arange(0x110000, dtype=np.uint32).view("=U1")
    classes = np.zeros(0x110000, dtype=np.uint8)
    classes[np.strings.isalnum(points)] |= WORD
    classes[ord("_")] |= WORD
    classes[np.strings.isdecimal(points)] |= DIGIT
    classes[np.strings.isspace(points)] |= SPACE
    classes[[ord(c) for c in string.punctuation]] |= PUNCTUATION
    return classes


@lru_cache(maxsize=1)
def digit_values() -> tuple[np.ndarray, np.ndarray]:
    """Code points of every decimal digit of Unicode, ascending, and the value 0-9 of each."""
    points = np.flatnonzero(character_classes() & DIGIT).astype(np.int64)
    return points, np.array([unicodedata.decimal(chr(p)) for p in points], dtype=np.int64)


@kernel
def next_char(data, at, end):  # type: ignore[no-untyped-def]
    """(code point, offset after it) of the character at data[at], at < end."""
    b = np.int64(data[at])
    if b < 0x80:
        return b, at + 1
    low, high, more, point = 0x80, 0xBF, 0, 0
    if 0xC2 <= b <= 0xDF:
        more, point = 1, b & 0x1F
    elif 0xE0 <= b <= 0xEF:
        more, point = 2, b & 0x0F
        if b == 0xE0:
            low = 0xA0
        elif b == 0xED:
            high = 0x9F
    elif 0xF0 <= b <= 0xF4:
        more, point = 3, b & 0x07
        if b == 0xF0:
            low = 0x90
        elif b == 0xF4:
            high = 0x8F
    else:
        return np.int64(0xFFFD), at + 1
    at += 1
    for _ in range(more):
        if at >= end or not low <= np.int64(data[at]) <= high:
            return np.int64(0xFFFD), at
        point = point << 6 | (np.int64(data[at]) & 0x3F)
        low, high = 0x80, 0xBF
        at += 1
    return np.int64(point), at


@kernel
def char_before(data, end):  # type: ignore[no-untyped-def]
    """The code point that ends at data[:end], end > 0; U+FFFD when those bytes are no character."""
    at = end - 1
    while at > 0 and end - at < 4 and 0x80 <= data[at] < 0xC0:
        at -= 1
    point, after = next_char(data, at, end)
    return point if after == end else np.int64(0xFFFD)


@kernel
def byte_after(row, token, offset, flat, starts):  # type: ignore[no-untyped-def]
    """The first byte of the row from byte `offset` of token number `token` on; -1 at the row's end."""
    while token < len(row):
        at = starts[row[token]] + offset
        if at < starts[np.int64(row[token]) + 1]:
            return np.int64(flat[at])
        token += 1
        offset = 0
    return np.int64(-1)


@kernel
def byte_before(row, token, offset, flat, starts):  # type: ignore[no-untyped-def]
    """The byte before byte `offset` of token number `token`; -1 at the row's start."""
    while offset == 0:
        token -= 1
        if token < 0:
            return np.int64(-1)
        offset = starts[np.int64(row[token]) + 1] - starts[row[token]]
    return np.int64(flat[starts[row[token]] + offset - 1])


@kernel
def bytes_after(row, token, offset, flat, starts, out):  # type: ignore[no-untyped-def]
    """Up to len(out) bytes of the row from byte `offset` of token number `token` on; returns how many there were."""
    n = 0
    while n < len(out) and token < len(row):
        at = starts[row[token]] + offset
        stop = starts[np.int64(row[token]) + 1]
        while at < stop and n < len(out):
            out[n] = flat[at]
            n += 1
            at += 1
        token += 1
        offset = 0
    return n


@kernel
def bytes_before(row, token, offset, flat, starts, out):  # type: ignore[no-untyped-def]
    """Up to len(out) bytes before byte `offset` of token number `token`, at the end of out; returns how many."""
    n = 0
    at = starts[row[token]] + offset
    while n < len(out):
        begin = starts[row[token]]
        while at > begin and n < len(out):
            at -= 1
            n += 1
            out[len(out) - n] = flat[at]
        token -= 1
        if token < 0:
            break
        at = np.int64(starts[np.int64(row[token]) + 1])
    return n


@kernel
def step_back(row, token, offset, back, starts):  # type: ignore[no-untyped-def]
    """(token, offset) of the byte `back` bytes before byte `offset` of token number `token`."""
    offset -= back
    while offset < 0:
        token -= 1
        offset += starts[np.int64(row[token]) + 1] - starts[row[token]]
    return token, offset


@kernel
def step_on(row, token, offset, starts):  # type: ignore[no-untyped-def]
    """(token, offset) of byte `offset` from the start of token number `token`, which may lie in a later one."""
    while token < len(row) and offset >= starts[np.int64(row[token]) + 1] - starts[row[token]]:
        offset -= starts[np.int64(row[token]) + 1] - starts[row[token]]
        token += 1
    return token, offset
