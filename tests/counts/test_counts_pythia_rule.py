"""The paper's counting rule against a direct re-implementation with regular expressions over decoded text."""

from __future__ import annotations

import itertools
import re
import string
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools import counts
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import PythiaRule, TokenBytes, token_bytes
from pythia_tools.counts.pythia_rule import Rule, compile_rule, key_code, logged
from pythia_tools.counts.pythia_scan import DECODED, LARGEST, LOGGED
from pythia_tools.order import ArrayRows

UNITS = "minute|hour|day|week|month|year|decade"
WORD = rf"((?:\w|[{re.escape(string.punctuation)}])+\s+)"
NUMBERS = re.compile(rf"(?=( \d{{1,5}} {WORD}{{1,3}}\d{{1,5}}))")
TIMES = [re.compile(rf"(?=( \d{{1,5}} {WORD}{{0,3}}?(?:{UNITS})))"),
         re.compile(rf"(?=( (?:{UNITS}) {WORD}{{0,3}}?\d{{1,5}}))")]
PIECES = [
    " ", "  ", "\n", "\t", "1", "12", "007", "123456", " 5", " 31 ", " days", " day ", "minute", "hour ", " year",
    "mon", "th", "a", "é",
    "中", ",", "-", ".", "_", " .", " ,", " '", "'s", " n't", "' ", "?", "\x1c", " \x1f", "\x85",
    "½", "²", "٣", "१२", "\u00a0", "\u2003", "x y", "", "", " w ", "dec", "ade ",
]
BYTES = [p.encode() for p in PIECES] + [b"\xd9", b"\xa3", b"\xe2", b"\x80", b"\x83", b"\xc2", b"\xff", b"\xe0\xa5"]
STARTS = np.cumsum([0, *map(len, BYTES)]).astype(np.int32)
VOCABULARY = TokenBytes(np.frombuffer(b"".join(BYTES), dtype=np.uint8), STARTS)


def direct(text: str) -> Counter[str]:
    """The rule as its authors' script states it: windows by look-ahead, numbers and pairs of each."""
    text = " " + text
    found: Counter[str] = Counter()
    for window in (m.group(1) for m in NUMBERS.finditer(text)):
        numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", window))
        found.update(map(str, numbers))
        found.update(f"{a}-{b}" for a, b in itertools.combinations(numbers, 2))
    for window in (m.group(1) for rule in TIMES for m in rule.finditer(text)):
        numbers = [int(n) for n in re.findall(r"\d{1,5}", window)]
        found.update(f"{n}-{unit}" for n in numbers for unit in re.findall(UNITS, window))
    return found


@settings(max_examples=600, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(BYTES) - 1), min_size=24, max_size=24), min_size=1, max_size=3))
def test_every_key_of_any_rows_equals_the_direct_rule(rows: list[list[int]]) -> None:
    expected = sum((direct(VOCABULARY.decode(r)) for r in rows), Counter())
    assert every_key(np.array(rows, dtype=np.uint16), RULE) == coded(expected)


def rule_of(vocabulary: TokenBytes, *, clean_up: bool = False) -> Rule:
    """The rule for every pair of numbers, over uint16 rows."""
    return compile_rule(vocabulary, 1 << 16, np.ones(LARGEST, dtype=np.uint8), clean_up)


def every_key(rows: np.ndarray, rule: Rule) -> Counter[int]:
    log, stats = logged(rows, np.zeros(len(rows), dtype=np.int64), rule, np.empty((8, 2), dtype=np.int64))
    return Counter(log[:stats[LOGGED], 1].tolist())


def coded(found: Counter[str]) -> Counter[int]:
    return Counter({key_code(key): n for key, n in found.items()})


RULE = rule_of(VOCABULARY)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(BYTES) - 1), min_size=24, max_size=24), min_size=1, max_size=3))
def test_cleaned_keys_equal_the_direct_rule_on_what_transformers_cleans_up(rows: list[list[int]]) -> None:
    clean_up = transformers_clean_up()
    expected = sum((direct(clean_up(VOCABULARY.decode(r))) for r in rows), Counter())
    array = np.array(rows, dtype=np.uint16)
    assert every_key(array, CLEANED) == coded(expected)
    keys = sorted(expected)[:20] or ["7"]
    both = [*(PythiaRule(k, clean_up=True) for k in keys), *map(PythiaRule, keys)]
    got = counts.count(ArrayRows(array, len(rows), tokenizer=VOCABULARY), both, [1]).matrix()[:, 0].tolist()
    plain = sum((direct(VOCABULARY.decode(r)) for r in rows), Counter())
    assert got == [expected[k] for k in keys] + [plain[k] for k in keys]


CLEANED = rule_of(VOCABULARY, clean_up=True)


@cache
def transformers_clean_up() -> Callable[[str], str]:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).clean_up_tokenization


@pytest.mark.parametrize("gap", [" \x1c", "\x1c \x1f", "\x1d\t\x1e ", " \x85 ", "\u3000\x1f "])
def test_white_space_of_any_kind_is_one_gap(gap: str) -> None:
    text = f" 5 {gap.join(['a', 'b' * 9, 'c,', '71'])} 8 day{gap}"
    row = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)[None]
    letters = TokenBytes(np.arange(256, dtype=np.uint8), np.arange(257, dtype=np.int32))
    assert direct(text)["5-71"] == 1
    assert every_key(row, rule_of(letters)) == coded(direct(text))


def test_text_full_of_numbers_with_the_real_tokenizer() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "20B_tokenizer.json"
    if not path.exists():
        pytest.skip("needs shared/data/pythia/20B_tokenizer.json")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    rng = np.random.default_rng(8)
    words = [
        "the", "cost", "of", "3.5", "days,", "1,000", "year", "(12)", "7", "42", "minutes", "and",
        "decades", "in", "1999", "2 x 3",
        "\n", "５", "x²",
    ]
    text = " ".join(rng.choice(words, 6000))
    ids = np.array(tokenizer.encode(text).ids, dtype=np.uint16)
    rows = ids[:len(ids) // 65 * 65].reshape(-1, 65)
    expected = sum((direct(tokenizer.decode(r.tolist(), skip_special_tokens=False)) for r in rows), Counter())
    rule, group = rule_of(token_bytes(str(path))), np.zeros(len(rows), dtype=np.int64)
    assert every_key(rows, rule) == coded(expected)
    assert 0 < logged(rows, group, rule, np.empty((8, 2), dtype=np.int64))[1][DECODED] <= rows.size
    assert sum(expected.values()) > 3000


def test_keys_as_patterns_give_exposures_up_to_each_step() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, len(BYTES), (60, 50)).astype(np.uint16)
    order = ArrayRows(rows, 10, tokenizer=VOCABULARY)
    steps = [0, 1, 4, 6]
    truth = {s: sum((direct(VOCABULARY.decode(r)) for r in rows[:10 * s]), Counter()) for s in steps}
    keys = [k for k, _ in truth[6].most_common(40)]
    assert any("-" in k for k in keys)
    got = counts.count(order, [*map(PythiaRule, keys), PythiaRule(keys[0], label="twice")], steps).matrix()
    np.testing.assert_array_equal(got, [[truth[s][k] for s in steps] for k in [*keys, keys[0]]])
    total = every_key(rows[:0], RULE)
    for a, b in itertools.pairwise(steps):
        total += every_key(rows[10 * a:10 * b], RULE)
        assert total == coded(truth[b])


@pytest.mark.parametrize("key", ["007", "5-3", "123456", "7-fortnight", "-3", "٣"])
def test_keys_that_the_rule_cannot_produce_are_refused(key: str) -> None:
    with pytest.raises(RequestError):
        PythiaRule(key)
