"""MinHash signatures in bulk, equal to datasketch's value for value.

Schemes: `affine32` (datasketch's default since 2.0; uint32 values) and `legacy` (before 2.0; with its multiplication
that wraps at 64 bits before the remainder by 2^61 − 1, which equality needs; values below 2^32, given as uint64).
Hashes of a shingle: `sha1` (datasketch's default), or `mix64`, the low 32 bits of our own hash, 1.7 times as fast; its
signatures find the same duplicates but are not datasketch's and cannot be compared with them.
An empty document's signature is all ones (the largest value), as in datasketch.
Cost: see scripts/benchmarks/dedup.py; memory is the input, the output, and a few MB per thread.
Source: Broder 1997; datasketch 2.0 `MinHash(num_perm, seed, scheme)` with its SHA-1 hash.
"""

import numpy as np
from numba import njit

from pythia_tools.core.parallel import map_threads, worker_count
from pythia_tools.dedup.config import HASHES, UNITS, DedupConfig
from pythia_tools.dedup.hashes import shingle_hashes
from pythia_tools.dedup.sha1 import sha1_words
from pythia_tools.dedup.shingles import SLACK, Documents, Packed, pack, shingle_count, spans, split

MERSENNE_PRIME = (1 << 61) - 1
_PRIME = np.uint64(MERSENNE_PRIME)
_LOW = np.uint64(0xFFFFFFFF)
_GROUP = 8  # shingles per pass over the permutations
BLOCK_BYTES = 1 << 16  # text handled at once, so that scratch stays in the second-level cache


def minhash_signatures(
    texts: Documents, num_perm: int = 128, seed: int = 1, ngram: int = 5, *, scheme: str = "affine32",
    hashing: str = "sha1", unit: str = "word", workers: int | None = None,
) -> np.ndarray:
    """Signatures of documents.

    Args:
        texts: documents; lists of token ids with `unit="token"`.
        num_perm: permutations, so values per document.
        seed, ngram, scheme, hashing, unit: as in DedupConfig; signatures of different schemes cannot be compared.
        workers: threads; one per core by default.

    Returns:
        (n, num_perm) uint32 for affine32, uint64 for legacy: `MinHash(num_perm, seed, scheme=scheme).hashvalues`
        after an update with every shingle's UTF-8 bytes.

    Raises: RequestError on a scheme, unit or number that is not allowed.
    """
    config = DedupConfig(num_perm=num_perm, seed=seed, ngram=ngram, scheme=scheme, hashing=hashing, unit=unit)
    return sign(pack(texts, unit), config, worker_count(workers))


def sign(packed: Packed, config: DedupConfig, threads: int) -> np.ndarray:
    """As minhash_signatures, for documents that are packed already."""
    a, b = permutations(config.num_perm, config.seed, config.scheme)
    out = np.empty((len(packed), config.num_perm), a.dtype)
    kind, hashing, legacy = UNITS.index(packed.unit), HASHES.index(config.hashing), config.scheme == "legacy"

    def work(span: tuple[int, int]) -> None:
        _sign(packed.data, packed.offsets, span[0], span[1], kind, config.ngram, hashing, legacy, a, b, out)

    map_threads(work, spans(packed, 8 * threads), threads)
    return out


def permutations(num_perm: int, seed: int, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """datasketch's (a, b) for a seed: uint32, drawn as two arrays, for affine32; uint64, drawn in turns, for legacy."""
    rng = np.random.RandomState(seed)
    if scheme == "affine32":
        a = rng.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        return a, rng.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    drawn = np.array([rng.randint(low, MERSENNE_PRIME, dtype=np.uint64) for _ in range(num_perm) for low in (1, 0)])
    return drawn[::2].copy(), drawn[1::2].copy()


@njit(nogil=True, cache=True)
def _block_end(offsets, first, last):  # type: ignore[no-untyped-def]
    """The document behind the last one of a block: BLOCK_BYTES of text, or a single longer document."""
    end = first + 1
    while end < last and offsets[end + 1] - offsets[first] <= BLOCK_BYTES:
        end += 1
    return end


@njit(nogil=True, cache=True)
def _shingles_of_block(data, offsets, first, end, kind, n, text, starts, flags,  # type: ignore[no-untyped-def]
                       begins, sizes, counts):
    """Byte ranges of every shingle of documents first to end-1 into begins and sizes; how many each has into counts."""
    gap = 1 if kind == 0 else 0
    at, total = 0, 0
    for d in range(first, end):
        at, units = split(kind, data, offsets[d], offsets[d + 1], text, at, starts, flags)
        starts[units] = at
        shingles = shingle_count(units, n)
        reach = min(n, units)
        for s in range(shingles):
            begins[total + s] = starts[s]
            sizes[total + s] = starts[s + reach] - gap - starts[s]
        total += shingles
        counts[d - first] = shingles
    return total


@njit(nogil=True, cache=True)
def _hash_block(hashing, data, offsets, first, end, kind, n, text, starts, flags,  # type: ignore[no-untyped-def]
                begins, sizes, order, hashes, counts):
    """32-bit hashes of every shingle of documents first to end-1, by SHA-1 (`hashing` 0) or mix64 (1); and counts."""
    if hashing == 0:
        total = _shingles_of_block(data, offsets, first, end, kind, n, text, starts, flags, begins, sizes, counts)
        sha1_words(text, begins, sizes, total, order, hashes)
        return
    units, wide = begins.view(np.uint64), sizes.view(np.uint64)
    total = 0
    for d in range(first, end):
        count = shingle_hashes(kind, data, offsets[d], offsets[d + 1], n, text, starts, flags, units, wide)
        for i in range(count):
            hashes[total + i] = np.uint32(wide[i] & _LOW)
        counts[d - first] = count
        total += count


@njit(nogil=True, cache=True)
def _mix32(hashes):  # type: ignore[no-untyped-def]
    """MurmurHash3's finalizer of each hash, in place."""
    for i in range(len(hashes)):
        h = hashes[i]
        h = np.uint32(h ^ (h >> np.uint32(16)))
        h = np.uint32(h * np.uint32(0x85EBCA6B))
        h = np.uint32(h ^ (h >> np.uint32(13)))
        h = np.uint32(h * np.uint32(0xC2B2AE35))
        hashes[i] = np.uint32(h ^ (h >> np.uint32(16)))


@njit(inline="always")
def _permuted(legacy, x, y, h):  # type: ignore[no-untyped-def]
    """x·h + y mod 2^32, of a hash that `_mix32` has mixed; `legacy`: (x·h + y mod 2^64) mod (2^61 − 1), low 32 bits."""
    if not legacy:
        return np.uint32(x * h + y)
    v = np.uint64(x * np.uint64(h) + y)  # fold the top three bits, subtract the prime once if due
    v = (v >> np.uint64(61)) + (v & _PRIME)
    return np.uint32((v + np.uint64(v >= _PRIME)) & _LOW)


@njit(nogil=True, cache=True)
def _minima(legacy, hashes, a, b, signature):  # type: ignore[no-untyped-def]
    """signature[k] = min over hashes of the k-th permutation's value."""
    count = len(hashes)
    signature[:] = _LOW
    whole = count - count % _GROUP
    for i in range(0, whole, _GROUP):  # several hashes per pass, so that a signature is loaded and stored less often
        for k in range(len(a)):
            least = signature[k]
            for j in range(_GROUP):
                least = min(least, _permuted(legacy, a[k], b[k], hashes[i + j]))
            signature[k] = least
    for i in range(whole, count):
        for k in range(len(a)):
            signature[k] = min(signature[k], _permuted(legacy, a[k], b[k], hashes[i]))


@njit(nogil=True, cache=True)
def _scratch(offsets, lo, hi):  # type: ignore[no-untyped-def]
    """Work space for any block of a span: text, unit starts, flags, shingle begins and sizes, order, hashes, counts."""
    longest = np.max(offsets[lo + 1 : hi + 1] - offsets[lo:hi])
    room = max(BLOCK_BYTES, longest) + (hi - lo) + SLACK
    return (
        np.empty(room + SLACK, np.uint8), np.empty(room + 2, np.int64), np.empty(room + 2, np.uint8),
        np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint32),
        np.empty(hi - lo, np.int64),
    )


@njit(nogil=True, cache=True)
def _sign(data, offsets, lo, hi, kind, n, hashing, legacy, a, b, out):  # type: ignore[no-untyped-def]
    """Signatures of documents lo to hi-1 into out[lo:hi], a block of text at a time."""
    text, starts, flags, begins, sizes, order, hashes, counts = _scratch(offsets, lo, hi)
    first = lo
    while first < hi:
        end = _block_end(offsets, first, hi)
        _hash_block(
            hashing, data, offsets, first, end, kind, n, text, starts, flags, begins, sizes, order, hashes, counts
        )
        at = 0
        for d in range(first, end):
            own = hashes[at : at + counts[d - first]]
            if not legacy:
                _mix32(own)
            _minima(legacy, own, a, b, out[d])
            at += counts[d - first]
        first = end
