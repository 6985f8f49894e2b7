"""Signatures equal datasketch's, value for value: every scheme, unit and length, and all of Unicode."""

from __future__ import annotations

import hashlib
import random
import struct
import sysconfig
from pathlib import Path

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools import dedup
from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.sha1 import sha1_words
from pythia_tools.dedup.shingles import SLACK, pack, split

ODD = "ab \n\u00a0\u3000é漢😀\ud800\udfff\u2028\u200b\x1f\x1c\u180e\u0085\u202f\u205f\u1680\u2000\u200a\x00"


def reference(document: str, num_perm: int, seed: int, n: int, scheme: str, unit: str = "word") -> np.ndarray:
    units = document.split() if unit == "word" else list(document)
    glue = " " if unit == "word" else ""
    shingles = {glue.join(units[i : i + n]) for i in range(max(1, len(units) - n + 1))} if units else set()
    sketch = datasketch.MinHash(num_perm=num_perm, seed=seed, scheme=scheme)
    sketch.update_batch([s.encode("utf-8", "surrogatepass") for s in shingles])
    return sketch.hashvalues


def odd_documents(count: int) -> list[str]:
    rng = random.Random("odd documents")
    made = ["".join(rng.choice(ODD) for _ in range(rng.randrange(90))) for _ in range(count)]
    return ["", " ", "\u3000\t", "a", "word", "two words", *made]


def real_documents(count: int) -> list[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [f.read_text(encoding="utf-8", errors="surrogateescape") for f in files[:count]]


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize(
    ("num_perm", "seed", "n", "unit"),
    [(128, 1, 5, "word"), (10, 7, 13, "word"), (37, 3, 1, "word"), (16, 2, 9, "char")],
)
def test_equal_to_datasketch(scheme: str, num_perm: int, seed: int, n: int, unit: str) -> None:
    documents = odd_documents(60) + real_documents(12 if unit == "word" else 2)
    ours = dedup.minhash_signatures(documents, num_perm, seed, n, scheme=scheme, unit=unit)
    assert ours.shape == (len(documents), num_perm)
    for document, signature in zip(documents, ours, strict=True):
        theirs = reference(document, num_perm, seed, n, scheme, unit)
        assert signature.dtype == theirs.dtype
        np.testing.assert_array_equal(signature, theirs, err_msg=repr(document[:60]))


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=60), st.integers(1, 6))
def test_any_text_of_unicode(document: str, n: int) -> None:
    ours = dedup.minhash_signatures([document], 8, 1, n)[0]
    np.testing.assert_array_equal(ours, reference(document, 8, 1, n, "affine32"))


def test_words_are_str_split_for_every_character() -> None:
    documents = [f"x{chr(c)}y" for c in range(0x3100)] + ["x\ud800y", "x\U0001f600y", "\u3000x", "x\u3000"]
    packed = pack(documents)
    text, starts, flags = np.empty(128, np.uint8), np.empty(64, np.int64), np.empty(64, np.uint8)
    for i, document in enumerate(documents):
        at, count = split(0, packed.data, packed.offsets[i], packed.offsets[i + 1], text, 0, starts, flags)
        words = bytes(text[:at]).decode("utf-8", "surrogatepass").split(" ")[:-1]
        assert words == document.split(), repr(document)
        assert count == len(words)


def test_sha1_of_every_length_around_the_blocks() -> None:
    raw = np.random.default_rng(5).integers(0, 256, 400 + SLACK, dtype=np.uint8)
    sizes = np.arange(330, dtype=np.int64)
    begins = np.arange(330, dtype=np.int64) % 60
    out = np.empty(330, np.uint32)
    sha1_words(raw, begins, sizes, 330, np.empty(330, np.int64), out)
    for begin, size, word in zip(begins, sizes, out, strict=True):
        digest = hashlib.sha1(raw[begin : begin + size].tobytes()).digest()
        assert struct.unpack("<I", digest[:4])[0] == word, size


def test_tokens_are_little_endian_words_of_four_bytes() -> None:
    ids = [[5, 70000, 5, 9], [], [1]]
    ours = dedup.minhash_signatures(ids, 16, ngram=2, unit="token")
    for document, signature in zip(ids, ours, strict=True):
        sketch = datasketch.MinHash(num_perm=16)
        count = max(1, len(document) - 1) if document else 0
        sketch.update_batch([np.array(document[i : i + 2], "<u4").tobytes() for i in range(count)])
        np.testing.assert_array_equal(signature, sketch.hashvalues)


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_mix64_is_another_hash_under_the_same_permutations(scheme: str) -> None:
    documents = [*odd_documents(20), *real_documents(8)]
    ours = dedup.minhash_signatures(documents, 64, scheme=scheme, hashing="mix64", workers=2)
    sets = dedup.shingle_sets(dedup.pack(documents))
    for i, signature in enumerate(ours):
        sketch = datasketch.MinHash(64, scheme=scheme, hashfunc=lambda value: value)
        sketch.update_batch([int(v) & 0xFFFFFFFF for v in sets[i]])
        np.testing.assert_array_equal(signature, sketch.hashvalues)


def test_threads_and_blocks_change_nothing() -> None:
    documents = [*odd_documents(20), " ".join(map(str, range(40000))), *real_documents(10)]
    whole = dedup.minhash_signatures(documents, 32, workers=1)
    np.testing.assert_array_equal(whole, dedup.minhash_signatures(documents, 32, workers=3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheme": "affine64"}, "scheme is 'affine64'; it is one of 'affine32', 'legacy'"),
        ({"hashing": "md5"}, "hashing is 'md5'; it is one of 'sha1', 'mix64'"),
        ({"unit": "byte"}, "unit is 'byte'; it is one of 'word', 'char', 'token'"),
        ({"num_perm": 0}, "num_perm is 0; it must be at least 1"),
        ({"ngram": 0}, "ngram is 0; it must be at least 1"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict, said: str) -> None:
    with pytest.raises(RequestError) as error:
        dedup.minhash_signatures(["a b"], **options)
    assert str(error.value) == said


def test_documents_must_be_text() -> None:
    with pytest.raises(RequestError, match="one string"):
        dedup.minhash_signatures("a b c")
    with pytest.raises(RequestError, match="a document is int"):
        dedup.minhash_signatures([3])
    with pytest.raises(RequestError, match="token ids lie between"):
        dedup.minhash_signatures([[-1]], unit="token")
