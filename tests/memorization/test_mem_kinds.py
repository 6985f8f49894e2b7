"""Recitation, reconstruction, recollection; near-verbatim; counterfactual runs; the interchange format; choosing rows.
"""

from __future__ import annotations

import base64
import difflib
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.analyses.memorization import counterfactual, mean_memorization, public_format, select_rows
from pythia_tools.analyses.memorization.rows import parse_rows
from pythia_tools.analyses.memorization.taxonomy import (
    edit_distance,
    features,
    is_incrementing,
    is_repeating,
    kinds,
    longest_common_span,
    near_verbatim,
)
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.order import ArrayRows


@pytest.mark.parametrize("text", [
    "x 1, x 2, x 3, x 4, x", "0x10 0x11 0x12 0x13 0x14", "10 8 6 4 2 0", "a1 b5 a2 b7 a3 b9 a4", "1 2 3",
    "case 3: break; case 4: break; case 5: break;",
])
def test_texts_that_step(text: str) -> None:
    assert is_incrementing(text)


@pytest.mark.parametrize(
    "text", ["1 1 1 1 1 1", "1 2 4 8 16 32 64", "the cat sat on the mat", "", "7", "x 1 y 2 z 3 w 9"]
)
def test_texts_that_do_not_step(text: str) -> None:
    assert not is_incrementing(text)


REPEATS = [("abcabcab", True), ("--------", True), ("abcd", False), ("a", False), ("abcabd", False), (" abab ", True),
    ("xababab,", True), ("ab", False), ("aaa", False)]


@pytest.mark.parametrize(("text", "repeats"), REPEATS)
def test_texts_that_repeat(text: str, repeats: bool) -> None:
    assert is_repeating(text) == repeats


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab ", min_size=0, max_size=14))
def test_repeating_is_a_period_of_at_most_half(text: str) -> None:
    plain = text[1:-1] if len(text) > 4 else text
    slow = any(all(plain[i] == plain[i + p] for i in range(len(plain) - p)) for p in range(1, len(plain) // 2 + 1))
    assert is_repeating(text) == (slow and len(text) > 3)


INCREMENTING = (
    "oAAIAiCBQAAQAAAAAIYQAAIQAgAAAAEECABCAQAACAgAgIQABsABAABIIAgCAECgCUAiEIBACAAQAEABAAAEhJACCAAAEkAAACAAAAgAIAAwgQ"
    "AIAIAAAggAAEQyAAEAEEshASUAABACCAAACAFAAACEAIAABAJBAAQAgCDACACAAUAAAAEAAAABCAIAAIAAABAAEEYAAAAYAAAIAJDAIRABAgAA"
    "AQAAAAAEARAAAAEIAAAoAEIwCAACIAAAQBAAAGgCAABAAIBAAAAAAA0EFyAAIQAABEgIAQgAAAIBACBAACAABAEAoAAACACEIgAGCASAiAAJgA"
    "EAwIAACIIQIAAAQIAAAABAAAAACAIEAARANEQABAAACAEQIDBEAIgCAgQgSgDAAFBBIAAgAABAAKEABAIAEEobQAAAEgAAQgAgQGAAQgCEAAAA"
    "AEQBAAAAEQAACAACAEBBAIAiAAAEgAFBgQAAAgACAAAAAgGAEAAIQgAhChDA"
)
TEMPLATE = (
    "/Go+hvLZeayeadfzqocZTIrf5gBeXYf1egZuU+wofltopNRyN/jrDLZe+Rwey+ih6Vq6u/DffDkYF3bXrcBurdgGfHSqN+fyt34sBQjK4lb+x2"
    "H5SNKg2ptV2VYzr/XGEf91ZT0DBFGTqq1xPNX/EIKX7K93ravtP2y12nnRv1PfD8ldK9W4/jiZvcesVNVs1rvofG/9jUPcrwzvmPPWZ9vJi8gB"
    "9yGQ1sR1uxpPoUf6s/Gs9/a332kP9s/r+/ffyO16q/l7otXTdl0/Y60X33TP58my701+eT6RujJVPv7aDmDtH6M9os/sz0WXtrgm2JW+/PvroR"
    "+k5c2InpZfs/XGbvj9Drz0Sf2CLT9Mw9bstuRut9f+KzH9PvX1Rdrvb2Xpa/31ZdvZ4G6prsZ7ROu+BIIVVE57w9x4EkQxXkNzzmKbZpPHfvgE"
    "Zc7lpm/bGXJpfVSvE033d933UcYXmTtR2d78zkDKbQUTS92t9AXK6/e//pr8"
)
"""Packed bits: what the original's own code (EleutherAI/semantic-memorization, filters/pattern.py at 84ab8c0) said of
`made_texts()`: incrementing, and incrementing or repeating.
"""


def made_texts() -> list[str]:
    """3,000 texts of words and numbers with a period, some broken, some cut off, some of random digits."""
    rng, texts = random.Random(11), []
    words = ["a", "b", "item", "x:", ",", "(", "it's", '"q"', "\\n", "v1.", "No", "٣", "\u200b", "-", "1,", "0b1"]
    for _ in range(3000):
        period = [rng.choice([*words, None, None]) for _ in range(rng.randint(1, 4))]
        start, step = rng.randint(-3, 40), rng.choice([0, 1, 1, 2, 5, -1, 10**6])
        base = rng.choice(["d", "d", "d", "#x", "#b", "03d"])
        made = []
        for i in range(rng.choice([1, 2, 3, 4, 5, 7, 12])):
            at = start + i * step if rng.random() < 0.97 else rng.randint(0, 99)
            made += [word if word is not None else format(at, base) for word in period]
        if rng.random() < 0.15:
            made = [str(rng.randint(0, 9)) for _ in range(rng.choice([2, 3, 3, 4, 6, 20]))]
        text = rng.choice([" ", " ", "", ", ", "\n", "-"]).join(made)
        texts.append(text[rng.randint(0, 2) :] if rng.random() < 0.3 else text)
    return texts


def test_kinds_of_texts_are_those_of_the_original_code() -> None:
    texts = made_texts()
    steps = [is_incrementing(text) for text in texts]
    made = [step or is_repeating(text) for step, text in zip(steps, texts, strict=True)]
    for found, said in ((steps, INCREMENTING), (made, TEMPLATE)):
        wanted = np.unpackbits(np.frombuffer(base64.b64decode(said), np.uint8))[: len(texts)].astype(bool)
        wrong = [text for text, mine, theirs in zip(texts, found, wanted, strict=True) if mine != theirs]
        assert not wrong, wrong[:5]


def test_random_numbers_do_not_step() -> None:
    rng = random.Random(1)
    texts = [" ".join(str(rng.randint(0, 999)) for _ in range(20)) for _ in range(200)]
    assert not any(is_incrementing(text) for text in texts)


def test_kinds_are_decided_in_order() -> None:
    texts = ["x 1, x 2, x 3, x 4, x", "x 1, x 2, x 3, x 4, x", "abcabcabc", "nothing of the sort"]
    assert kinds([6, 5, 0, 5], texts).tolist() == ["recitation", "reconstruction", "reconstruction", "recollection"]
    with pytest.raises(RequestError, match="1 duplicate counts for 4 texts"):
        kinds([1], texts)


def _distance(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(_distance(a[1:], b) + 1, _distance(a, b[1:]) + 1, _distance(a[1:], b[1:]) + (a[0] != b[0]))


ids = st.lists(st.integers(0, 2), min_size=5, max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=4))
def test_distances_and_spans_equal_the_slow_ones(pairs: list[tuple[list[int], list[int]]]) -> None:
    x, y = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assert edit_distance(x, y).tolist() == [_distance(a, b) for a, b in pairs]
    assert edit_distance(x, y[:, :3]).tolist() == [_distance(a, b[:3]) for a, b in pairs]
    spans = [difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size for a, b in pairs]
    assert longest_common_span(x, y).tolist() == spans


def test_a_shifted_copy_is_nearly_verbatim() -> None:
    truth = np.arange(10)[None]
    table = near_verbatim(np.roll(truth, -1, axis=1), truth)
    assert table.loc[0, "agree"] == 0 and table.loc[0, "edit_distance"] == 2 and table.loc[0, "span"] == 9


def test_features_use_each_part_own_ids() -> None:
    nll = np.array([[1.0, 1.0, 2.0, 2.0]])
    table = features([[0, 1, 2, 0, 1]], context=3, nll=nll, token_counts=np.array([10, 20, 60]), duplicates=[4])
    assert table.loc[0, "prompt_perplexity"] == pytest.approx(np.e)
    assert table.loc[0, "continuation_perplexity"] == pytest.approx(np.e**2)
    assert table.loc[0, "sequence_perplexity"] == pytest.approx(np.exp(1.5))
    assert table.loc[
        0, ["token_count_min", "token_count_median", "token_count_max", "token_count_mean"]
    ].tolist() == [10, 20, 60, 24]


def test_counterfactual_memorization_is_the_difference_inclusion_makes() -> None:
    rng = np.random.default_rng(0)
    held = rng.random((24, 60)) < 0.5
    effect = np.linspace(0, 0.6, 60)
    values = 0.2 + held * effect + rng.normal(0, 0.02, held.shape)
    found = counterfactual(values, held)
    assert found["memorization"].to_numpy() == pytest.approx(effect, abs=0.03)
    assert ((found["low"] <= effect) & (effect <= found["high"])).mean() > 0.85
    one = found.iloc[7]
    assert one["memorization"] == pytest.approx(values[held[:, 7], 7].mean() - values[~held[:, 7], 7].mean())
    mean = mean_memorization(values, held)
    assert mean.low < effect.mean() < mean.high and mean.n == 60
    held[:, 0] = True
    assert np.isnan(counterfactual(values, held).loc[0, "memorization"])
    with pytest.raises(RequestError, match=r"both must be runs × rows"):
        counterfactual(values, held[:, :5])


ORDER = ArrayRows(np.random.default_rng(1).integers(0, 500, (42, 70)).astype(np.uint16), 4)


def test_the_public_format_is_written(tmp_path: Path) -> None:
    identity = {"suite": "s", "model": "70m", "params": 10, "step": 6, "tokens": 0, "branch": "main", "seed": 1}
    flags = pd.array([True, None, False, True], dtype="boolean")
    items = tables.check_items(pd.DataFrame({**identity, "row": [7, 8, 9, 3], "memorized": flags}))
    numbers = np.arange(2, 12)
    (made,) = public_format.exports(items, numbers, ORDER.array[2:12, :64], "duped")
    assert made.path == Path("exchange/data/duped.70m.6-00000-of-00001.parquet")
    made.content.to_parquet(tmp_path / made.path.name, index=False)
    stored = pq.read_table(tmp_path / made.path.name)
    assert stored.column_names == ["index", "tokens", "__index_level_0__"]
    assert [str(f.type) for f in stored.schema] == [
        "int64", "list<element: int64>", "int64"
    ] or "list<item: int64>" in str(stored.schema)
    back = stored.to_pandas()
    assert back["index"].tolist() == [3, 7]
    assert back["tokens"].iloc[0].tolist() == ORDER.array[3, :64].tolist() and len(back["tokens"].iloc[0]) == 64
    several = public_format.exports(pd.concat([items, items.assign(step=7)]), numbers, ORDER.array[2:12, :64], "duped")
    assert [e.path.name[:11] for e in several] == ["duped.70m.6", "duped.70m.7"], "a split is of one checkpoint"


def test_rows_are_chosen_by_range_step_sample_and_cohort() -> None:
    order = ORDER
    assert select_rows(order).rows.tolist() == list(range(40)) and select_rows(order).consecutive
    assert select_rows(order, steps=(2, 4)).rows.tolist() == list(range(8, 16))
    sample = select_rows(order, rows=(0, 42), sample=20, seed=3).rows
    assert len(set(sample.tolist())) == 20 and (np.diff(sample) > 0).all()
    assert (sample == select_rows(order, rows=(0, 42), sample=20, seed=3).rows).all()
    cohorts = select_rows(order, **parse_rows("cohorts=0:10:5,sample=6"))
    assert pd.Series(cohorts.cohorts).value_counts().to_dict() == {5: 6, 10: 6}
    assert (cohorts.rows[:6] < 20).all() and (cohorts.rows[6:] >= 20).all()
    assert parse_rows("0:512") == {"rows": (0, 512)} and parse_rows("steps=0:9,sample=4") == {
        "steps": (0, 10), "sample": 4
    }
    for bad in ("all", "0:1:2", "sample=x", "rows=3"):
        with pytest.raises(RequestError, match="cannot be read"):
            parse_rows(bad)
    with pytest.raises(RequestError, match="not in order rows"):
        select_rows(order, rows=(0, 43))
    with pytest.raises(RequestError, match="a sample of 9"):
        select_rows(order, steps=(0, 2), sample=9)
