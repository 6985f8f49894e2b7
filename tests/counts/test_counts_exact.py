"""Counts against a slow, obvious counter that decodes every row and looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools import counts
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.counts import CoOccurrence, Ngram, Number, Pair, Text, TokenBytes
from pythia_tools.counts.ngram_scan import as_kernel_rows
from pythia_tools.order import ArrayRows

PIECES = ["a", "b", "ab", "ba", " a", " b", " ", "  ", "\n", "1", "2", "12", " 12", "3", ".", ",", "_", "é",
          "x y", "", " the", "cat", "s"]
BYTES = [p.encode() for p in PIECES] + [
    b"\xc3", b"\xa9", b"\xe2", b"\x80", b"\x83", b"\xc2", b"\xa0", b"\xa3", b"\xe2\x80", b"\xff",
    b"\xe3\x80\x80", b"\x1c",
]


def vocabulary() -> TokenBytes:
    starts = np.cumsum([0, *map(len, BYTES)]).astype(np.int32)
    return TokenBytes(np.frombuffer(b"".join(BYTES), dtype=np.uint8), starts)


VOCABULARY = vocabulary()
ROWS = st.lists(st.lists(st.integers(0, len(BYTES) - 1), min_size=12, max_size=12), min_size=1, max_size=6)


def slow(pattern: object, row: list[int]) -> int:
    """The definition, word for word, on one row."""
    text = VOCABULARY.decode(row)
    if isinstance(pattern, Ngram):
        n = len(pattern.ids)
        return sum(tuple(row[i:i + n]) == pattern.ids for i in range(len(row) - n + 1))
    if isinstance(pattern, Text | Number):
        return len(places(pattern, text))
    if isinstance(pattern, CoOccurrence):
        return int(all(any(slow(leaf, row) for leaf in member) for member in pattern.members))
    assert isinstance(pattern, Pair)
    here, there = slow_places(pattern.first, row, pattern.unit), slow_places(pattern.second, row, pattern.unit)
    if pattern.first == pattern.second:
        return sum(abs(x - y) <= pattern.window for i, x in enumerate(here) for y in here[:i])
    return sum(abs(x - y) <= pattern.window for x in here for y in there)


def places(leaf: object, text: str) -> list[int]:
    if isinstance(leaf, Number):
        body = f"(?<![0-9]){leaf.digits}(?![0-9])"
    else:
        assert isinstance(leaf, Text)
        body = re.escape(leaf.text)
        if leaf.whole_word:
            body = rf"(?<!\w){body}(?!\w)"
    return [m.start() for m in re.finditer(f"(?={body})", text)]


def slow_places(leaf: object, row: list[int], unit: str) -> list[int]:
    """Number of the word or token in which each occurrence begins, leading white space left out."""
    raw, text = VOCABULARY.spelled(row), VOCABULARY.decode(row)
    ends = np.cumsum([0, *(len(VOCABULARY[t]) for t in row)])
    if isinstance(leaf, Ngram):
        n = len(leaf.ids)
        found = [i for i in range(len(row) - n + 1) if tuple(row[i:i + n]) == leaf.ids]
        lead = leading(VOCABULARY.decode(leaf.ids)).encode()
        return found if unit == "tokens" else [word_of(text, character(raw, ends[i] + len(lead))) for i in found]
    spelled = leaf.text if isinstance(leaf, Text) else leaf.digits
    lead = leading(spelled)
    if unit == "words":
        return [word_of(text, p + len(lead)) for p in places(leaf, text)]
    starts = [m.start() + len(lead.encode()) for m in re.finditer(b"(?=" + re.escape(spelled.encode()) + b")", raw)]
    return [int(np.searchsorted(ends[1:], p, side="right")) for p in starts]


def leading(text: str) -> str:
    return text[:len(text) - len(text.lstrip())] if text.strip() else ""


def character(raw: bytes, p: int) -> int:
    """Number of the character that holds byte p."""
    return len(raw[:p + 1].decode(errors="replace")) - (p < len(raw))


def word_of(text: str, p: int) -> int:
    """Words begun at or before character p; before it when that is white space."""
    return len(text[:p].split()) if text[p:p + 1].isspace() else len(text[:p + 1].split())


PATTERNS = [
    Text("a"), Text("ab"), Text("aba"), Text("aa"), Text("é"), Text(" 12"), Text("a b"),
    Text("cat", whole_word=True), Text("a", whole_word=True, label="a whole"),
    Text("é", whole_word=True, label="é whole"),
    Text(" the", whole_word=True), Text("\n"),
    Number("1"), Number("12"), Number("3"),
    Ngram((0,), "t0"), Ngram((1,), "t1"), Ngram((0, 1)), Ngram((0, 0)), Ngram((0, 1, 0)),
    Ngram((0, 0, 0, 0)), Ngram((0, 1, 0, 1, 0)),
    Ngram((900,), label="absent"), Ngram((0, 1), label="the same once more"),
    Pair("a", "b", 1), Pair("a", "b", 0), Pair("a", "a", 2), Pair("1", Number("12"), 3), Pair("ab", "ba", 2, "tokens"),
    Pair((4,), "a", 1), Pair((14, 20), (0,), 2), Pair((6, 4), (2, 1), 0), Pair((7,), (33,), 1), Pair((19,), (34, 0), 1),
    Pair((29,), " a", 1), Pair("\u3000a", "b", 1), Pair("\u3000", (29,), 1), Pair("\x1c1", "b", 1),
    Pair("\u3000a", "b", 1, "tokens"), Pair(" a", (29,), 2, "tokens"), Pair((26,), (27,), 2), Pair("b", "a", 1),
    Pair("a", Text("b", label="B"), 1, label="the same pair once more"),
    Pair("é", " a", 2), Pair("a", "a", 3, "tokens"), Pair(Ngram((0,)), Ngram((1, 0)), 4, "tokens"), Pair(" a", "£", 1),
    CoOccurrence(("a", "b"), whole_word=False), CoOccurrence((("cat", "12"), "é"), whole_word=False, label="aliases"),
    CoOccurrence(("the",)),
    CoOccurrence((Ngram((4, 5)), "a"), label="mixed"),
]


@settings(max_examples=250, deadline=None)
@given(ROWS)
def test_every_pattern_equals_its_definition(rows: list[list[int]]) -> None:
    array = np.array(rows, dtype=np.uint16)
    order = ArrayRows(array, 1, tokenizer=VOCABULARY)
    steps = range(len(rows) + 1)
    got = counts.count(order, PATTERNS, steps, workers=1).matrix()
    for p, pattern in enumerate(PATTERNS):
        expected = np.cumsum([0, *(slow(pattern, row) for row in rows)])
        np.testing.assert_array_equal(got[p], expected, err_msg=f"{pattern} in {[VOCABULARY.decode(r) for r in rows]}")


def test_dense_numbers_and_pairs_on_longer_rows() -> None:
    rng = np.random.default_rng(5)
    digits = [BYTES.index(b) for b in (b"1", b"2", b"12", b" 12", b"3", b" ", b".", b" a", b"cat")]
    array = rng.choice(digits, (40, 80)).astype(np.uint16)
    order = ArrayRows(array, 8, tokenizer=VOCABULARY)
    got = counts.count(order, PATTERNS, [1, 3, 5], workers=2).matrix()
    for p, pattern in enumerate(PATTERNS):
        per_row = np.array([slow(pattern, row) for row in array.tolist()])
        np.testing.assert_array_equal(got[p], [per_row[:8 * s].sum() for s in (1, 3, 5)], err_msg=str(pattern))


def test_exposures_are_what_batches_before_the_step_held() -> None:
    rows = np.array([[7, 7, 1], [7, 2, 3], [1, 2, 3], [7, 7, 7]], dtype=np.uint16)
    frame = counts.count_terms(ArrayRows(rows, 2), [Ngram((7,)), Ngram((7, 7)), (2, 3)], [2, 0, 1])
    assert frame.columns.tolist() == ["term", "step", "exposures"]
    assert frame.pivot(index="term", columns="step", values="exposures").to_dict("index") == {
        "7": {0: 0, 1: 3, 2: 6}, "7 7": {0: 0, 1: 1, 2: 3}, "2 3": {0: 0, 1: 1, 2: 2},
    }


def test_the_label_only_token_counts_unless_inputs_only() -> None:
    rows = np.array([[1, 2, 9], [9, 3, 9]], dtype=np.uint16)
    order = ArrayRows(rows, 1)
    assert counts.count_terms(order, [(9,), (3, 9)], [2])["exposures"].tolist() == [3, 1]
    assert counts.count_terms(order, [(9,), (3, 9)], [2], inputs_only=True)["exposures"].tolist() == [1, 0]


def test_nothing_is_counted_across_two_rows() -> None:
    rows = np.array([[0, 0, 0], [1, 0, 0]], dtype=np.uint16)
    order = ArrayRows(rows, 1, tokenizer=VOCABULARY)
    assert counts.count_terms(order, [(0, 1), "ab", Pair("a", "b", 1), "ba"], [2])["exposures"].tolist() == [0, 0, 2, 1]


def test_large_ids_are_counted() -> None:
    rows = np.array([[150_000, 3, 150_000]], dtype=np.int32)
    terms = [(150_000,), (3, 150_000), (150_000, 3, 150_000)]
    assert counts.count_terms(ArrayRows(rows, 1), terms, [1])["exposures"].tolist() == [2, 1, 1]


def test_ids_beyond_the_vocabulary_are_refused_before_any_table_is_read() -> None:
    with pytest.raises(DataError, match="token id 2000000 is in the rows, where ids below 1048576 are expected"):
        counts.count_terms(ArrayRows(np.array([[1, 2_000_000]]), 1), [(1,)], [1])
    with pytest.raises(DataError, match="token id 70000 is in the rows, where ids below 65536 are expected"):
        as_kernel_rows(np.array([[70_000, 1]]), 1 << 16)
    with pytest.raises(DataError, match="token id -1 is in the rows; ids are not negative"):
        as_kernel_rows(np.array([[-1, 1]]), 1 << 16)


@pytest.mark.parametrize(("terms", "steps", "message"), [
    ([], [1], "no terms were given; give at least one"),
    ("a", [1], "terms must be a list; got the single string 'a', write ['a']"),
    ([(1,)], [], "no steps were given; give at least one"),
    ([(1,)], [3], "step 3: this order has steps 0 to 2"),
    ([(1,)], [-1], "step -1: this order has steps 0 to 2"),
    ([(1,), (1,)], [1], "term '1' is given twice"),
    (["the cat"], [1], "'the cat' is counted in text, which needs the order's tokenizer; "
                       "give tokenizer=… (a tokenizer.json or its folder), or token ids"),
    ([""], [1], "a text term must not be empty"),
    ([3.5], [1], "3.5 is not a term; give a string, an int, token ids, or a pattern"),
])
def test_wrong_requests_say_what_is_allowed(terms: object, steps: list[int], message: str) -> None:
    order = ArrayRows(np.zeros((2, 3), dtype=np.uint16), 1)
    with pytest.raises(RequestError, match=re.escape(message) + "$"):
        counts.count_terms(order, terms, steps)  # type: ignore[arg-type]


TEXT = " 😀 naïve aaaaaa 1,023 3.14 007 -5 5 05 \n line\n\nline  two   spaces 😀😀 über"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint32])
def test_odd_terms_in_rows_of_the_real_tokenizer(dtype: type) -> None:
    """Emoji over several tokens, leading spaces and newlines, overlaps, numbers in numbers, unknown ids."""
    tokenizer = real_tokenizer()
    ids = tokenizer.encode(TEXT).ids
    text = tokenizer.decode(ids, skip_special_tokens=False)
    terms = ["😀", " 😀", "😀😀", "ï", "aaaa", "\n", "\n\n", " line", "  two", "-5", "x" * 5000]
    numbers = {"5": 2, "05": 1, "7": 0, "007": 1, "023": 1, "14": 1}
    order = ArrayRows(np.array([[*ids, 50_300, 60_000]], dtype=dtype), 1, tokenizer=tokenizer)
    long = Ngram(tuple(range(500)), label="long")
    found = counts.count_terms(order, [*terms, *map(Number, numbers), long], [1])["exposures"].tolist()
    expected = [sum(text.startswith(t, k) for k in range(len(text))) for t in terms]
    assert found == [*expected, *numbers.values(), 0]
    assert expected[:3] == [3, 2, 1] and expected[4] == 3


def real_tokenizer() -> Any:
    path = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "20B_tokenizer.json"
    if not path.exists():
        pytest.skip("needs shared/data/pythia/20B_tokenizer.json")
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def test_tokenizers_that_are_not_byte_level_are_refused() -> None:
    from tokenizers import Tokenizer, decoders, models

    order = ArrayRows(np.zeros((1, 3), dtype=np.uint16), 1)
    pieces = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    fallback = Tokenizer(models.BPE({"a": 0, "<0x41>": 1}, [], byte_fallback=True))
    fallback.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bare = Tokenizer(models.BPE())
    for tokenizer, kind in ((pieces, "WordPiece"), (fallback, "Replace, ByteFallback, Fuse"), (bare, "nothing")):
        with pytest.raises(RequestError, match=f"this one decodes by {kind}. Count token n-grams instead"):
            counts.count_terms(order, ["a"], [1], tokenizer=tokenizer)
        assert counts.count_terms(order, [(0,)], [1], tokenizer=tokenizer)["exposures"].tolist() == [3]
    wrapped = Tokenizer(models.BPE({"a": 0, "Ġ": 1}, []))
    wrapped.decoder = decoders.Sequence([decoders.ByteLevel()])
    rows = ArrayRows(np.array([[0, 1, 0]], dtype=np.uint16), 1, tokenizer=wrapped)
    assert counts.count_terms(rows, ["a a", " "], [1])["exposures"].tolist() == [1, 1]
