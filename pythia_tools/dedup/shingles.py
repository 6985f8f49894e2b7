"""Documents as packed bytes, and their shingles: n consecutive words, characters or tokens.

A shingle is never built: it is a range of bytes. Words are `str.split()`, Unicode spaces included; a document is
rewritten once with one space between words, so that n words are one stretch of bytes, equal to `" ".join(words)`.
A document shorter than n units is one shingle of all of them; an empty one (no word, no character) has no shingle.
Lone surrogates, which UTF-8 has no form for, count as characters and are encoded in three bytes each (Python's
`surrogatepass`), so that every `str` can be deduplicated and equal strings stay equal.
Cost: splitting runs at about 0.6 GB/s on one core.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numba import njit

from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.config import check_choice

SLACK = 64  # readable bytes behind the last string: kernels load whole vectors
_COPY = 16  # bytes copied at once


@dataclass(frozen=True)
class Packed:
    """Documents back to back. `data`: uint8 with SLACK spare bytes; document i is data[offsets[i] : offsets[i + 1]].

    With `unit="token"` the bytes are little-endian uint32 ids, four per token.
    """

    data: np.ndarray
    offsets: np.ndarray
    unit: str = "word"

    def __len__(self) -> int:
        return len(self.offsets) - 1


Documents: TypeAlias = Sequence[str] | Sequence[Sequence[int]] | Sequence[np.ndarray] | np.ndarray | Packed
"""Texts, or with `unit="token"` lists (or rows) of token ids."""


def pack(documents: Documents, unit: str = "word") -> Packed:
    """Texts (or lists of token ids, for `unit="token"`) as packed bytes. Raises RequestError on anything else."""
    if isinstance(documents, Packed):
        return documents
    check_choice("unit", unit)
    if isinstance(documents, str):
        raise RequestError("texts is one string; give a list of documents, one string each")
    pieces = [_tokens(d) for d in documents] if unit == "token" else [_text(d) for d in documents]
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pieces.append(bytes(SLACK))
    return Packed(np.frombuffer(b"".join(pieces), np.uint8), offsets, unit)


def take(packed: Packed, documents: np.ndarray) -> Packed:
    """Some documents, packed anew in the order given."""
    pieces = [packed.data[packed.offsets[d] : packed.offsets[d + 1]] for d in documents.tolist()]
    offsets = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return Packed(np.concatenate([*pieces, np.zeros(SLACK, np.uint8)]), offsets, packed.unit)


def spans(packed: Packed, most: int, smallest_bytes: int = 1 << 18) -> list[tuple[int, int]]:
    """Document ranges of about equal bytes, for threads to take."""
    total = int(packed.offsets[-1] - packed.offsets[0])
    count = max(1, min(most, total // smallest_bytes, len(packed)))
    cuts = np.searchsorted(packed.offsets, packed.offsets[0] + total * np.arange(1, count) / count)
    edges = np.unique(np.concatenate([[0], cuts, [len(packed)]]))
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _text(document: object) -> bytes:
    if not isinstance(document, str):
        what = type(document).__name__
        raise RequestError(f"a document is {what}; documents are str (for token ids say unit='token')")
    try:
        return document.encode()
    except UnicodeEncodeError:
        return document.encode("utf-8", "surrogatepass")


def _tokens(document: object) -> bytes:
    ids = np.asarray(document)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise RequestError("a document of tokens is a flat sequence of ids; for text say unit='word'")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) > 0xFFFFFFFF):
        raise RequestError(f"token ids lie between 0 and 2^32 - 1; one is {int(ids.min())}, one {int(ids.max())}")
    return ids.astype("<u4").tobytes()


@njit(nogil=True, cache=True)
def _long_space(data, i, end):  # type: ignore[no-untyped-def]
    """Bytes of the Unicode space that begins at i, 0 when it is none.

    The spaces are U+0085, 00A0, 1680, 2000 to 200A, 2028, 2029, 202F, 205F and 3000.
    """
    first, one = data[i], np.uint64(1)
    if first == 0xC2:
        return 2 if i + one < end and (data[i + one] == 0x85 or data[i + one] == 0xA0) else 0
    if i + one + one >= end:
        return 0
    second, third = data[i + one], data[i + one + one]
    if first == 0xE2:
        general = second == 0x80 and (third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF)
        return 3 if general or (second == 0x81 and third == 0x9F) else 0
    if first == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    return 3 if second == 0x80 and third == 0x80 else 0


@njit(nogil=True, cache=True)
def _mark_spaces(data, begin, size, flags):  # type: ignore[no-untyped-def]
    """flags[1 + i] = 1 where byte begin + i belongs to a space; flags[0] and the one behind the end are spaces."""
    begin = np.uint64(begin)
    leads = np.uint8(0)
    for i in range(np.uint64(size)):
        byte = data[begin + i]
        control = np.uint8(np.uint8(byte - 0x09) <= 0x04) | np.uint8(np.uint8(byte - 0x1C) <= 0x03)
        flags[i + np.uint64(1)] = np.uint8(byte == 0x20) | control
        leads |= np.uint8(byte == 0xC2) | np.uint8(np.uint8(byte - 0xE1) <= 0x02)
    flags[0] = 1
    flags[size + 1] = 1
    if leads == 0:
        return  # no byte that could begin a longer space
    i = np.uint64(0)
    while i < np.uint64(size):
        byte = data[begin + i]
        if byte == 0xC2 or np.uint8(byte - 0xE1) <= 0x02:
            for j in range(_long_space(data, begin + i, begin + np.uint64(size))):
                flags[i + np.uint64(j + 1)] = 1
        i += np.uint64(1)


@njit(nogil=True, cache=True)
def split_words(data, begin, end, text, at, starts, flags):  # type: ignore[no-untyped-def]
    """Write data[begin:end] to `text` from `at` with one space behind each word, and to `starts` where each starts.

    Three passes without unpredictable branches: which bytes are spaces; where words begin and end; copy word by word,
    in vectors that overrun into what is written next. Returns (next free byte, number of words).
    """
    size = end - begin
    _mark_spaces(data, begin, size, flags)
    edges = np.uint64(0)
    for i in range(np.uint64(size + 1)):
        starts[edges] = i
        edges += np.uint64(flags[i] ^ flags[i + np.uint64(1)])
    words = np.int64(edges) // 2
    to = np.uint64(at)
    for word in range(words):
        first, length = np.uint64(begin + starts[2 * word]), np.uint64(starts[2 * word + 1] - starts[2 * word])
        starts[word] = to
        copied = np.uint64(0)
        while copied < length:
            for j in range(np.uint64(_COPY)):
                text[to + copied + j] = data[first + copied + j]
            copied += np.uint64(_COPY)
        to += length
        text[to] = 0x20
        to += np.uint64(1)
    return np.int64(to), words


@njit(nogil=True, cache=True)
def split(kind, data, begin, end, text, at, starts, flags):  # type: ignore[no-untyped-def]
    """`kind` 0 words, 1 characters, 2 tokens, the last two as they stand. For a document of s bytes `text` needs
    s + 1 + SLACK bytes behind `at`, `starts` and `flags` s + 2 entries. The end marker starts[count] = next free byte
    is the caller's."""
    if kind == 0:
        return split_words(data, begin, end, text, at, starts, flags)
    count = 0
    for i in range(end - begin):
        byte = data[begin + i]
        starts[count] = at + i
        count += (byte & 0xC0) != 0x80 if kind == 1 else i & 3 == 0  # a character begins, a token of four bytes begins
        text[at + i] = byte
    return at + end - begin, count


@njit(inline="always")
def shingle_count(units, n):  # type: ignore[no-untyped-def]
    """How many shingles of n units a document of `units` units has."""
    return 0 if units == 0 else max(1, units - n + 1)
