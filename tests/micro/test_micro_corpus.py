"""Text, words, windows and layout: the parts of the data, each against what it promises."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import RequestError
from pythia_tools.micro import planted, tiny_recipe, words
from pythia_tools.micro.corpus import Text, clean, collect
from pythia_tools.micro.layout import landing_rows, lay_out, place_bursts
from pythia_tools.micro.truth import count_terms
from pythia_tools.micro.windows import SHARED, distinct_windows, ngram_hashes, training_hashes
from pythia_tools.order import packed_order
from pythia_tools.tokens import StoreWriter, open_store


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    return collect(150_000, 40_000, 0.7)


def test_the_corpus_is_clean_distinct_and_split_by_module(texts: list[Text]) -> None:
    train, heldout = ({t.source for t in texts if t.heldout is part} for part in (False, True))
    assert train and heldout and not train & heldout
    assert sum(len(t.text) for t in texts if not t.heldout) > 100_000
    for text in texts:
        assert text.text == text.text.strip() and all(c == "\n" or c.isprintable() for c in text.text)
        assert not text.source.startswith(("test/", "lib2to3/", "encodings/"))
    shingles = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (t.text.split() for t in texts)]
    for i, a in enumerate(shingles[:120]):
        for b in shingles[i + 1 : 120]:
            assert not a or not b or len(a & b) < 0.7 * len(a | b)


def test_a_corpus_repeats(texts: list[Text]) -> None:
    assert collect(150_000, 40_000, 0.7) == texts


def test_cleaning() -> None:
    assert clean("a\tb\x00\x07\n\n\n\n        deep  \n=========\n") == "a   b\n\n  deep\n==="


def test_answers_names_and_templates_are_distinct() -> None:
    answers = [a for _, _, group in words.RELATIONS for a in group]
    assert len(set(answers)) == len(answers) == 60
    assert len(set(words.names())) == len(words.names()) >= 240
    names = sorted(words.names())
    assert not any(b.startswith(a) for a, b in pairwise(names)), "a name that begins another would be counted in it"
    assert len({o for o, _ in words.OCCUPATIONS}) == 24 and {s for _, s in words.OCCUPATIONS} == {"he", "she"}
    assert len(words.TRAINING_TEMPLATES) >= 18
    for heldout in words.HELDOUT_TEMPLATES:
        assert not any(t.startswith(heldout) for t in words.TRAINING_TEMPLATES)


def test_facts_follow_zipf_and_their_answers_go_round() -> None:
    recipe = tiny_recipe(facts=dataclasses.replace(tiny_recipe().facts, entities=60, top=500, exponent=1.2))
    facts = planted.make_facts(recipe, np.random.default_rng(0))
    for relation, _, answers in words.RELATIONS[:2]:
        mine = [f for f in facts if f.relation == relation]
        assert Counter(f.answer for f in mine) == {
            f" {a}": 3 for a in answers
        }, "every answer is right equally often: chance is 1 in 20"
        slope = np.polyfit(np.log(np.arange(1, 31)), np.log([f.mentions for f in mine[:30]]), 1)[0]
        assert slope == pytest.approx(-1.2, abs=0.03)
    assert len({f.entity for f in facts}) == len(facts)


def test_sums_are_right_and_shared_evenly() -> None:
    sums = planted.make_sums(tiny_recipe(), np.random.default_rng(0))
    for s in sums:
        assert s.prompt == f"\n{s.a}+{s.b}=" and int(s.answer) == s.a + s.b < 100
    for a in {s.a for s in sums}:
        mine = [s for s in sums if s.a == a]
        assert sum(s.mentions for s in mine) == mine[0].operand_mentions and len(mine) == 9
        assert max(s.mentions for s in mine) - min(s.mentions for s in mine) <= 1


def test_pronouns_have_the_skew_they_say() -> None:
    recipe = tiny_recipe()
    occupations, sentences = planted.make_pronouns(recipe, np.random.default_rng(0))
    feminine = Counter(i for i, text in sentences if {"she", "She", "her"} & set(text.replace(".", "").split()))
    masculine = Counter(i for i, text in sentences if {"he", "He", "his", "him"} & set(text.replace(".", "").split()))
    for number, o in enumerate(occupations):
        assert (masculine[number], feminine[number]) == (o.he_count, o.she_count)
        assert max(o.he_count, o.she_count) == round(0.85 * (o.he_count + o.she_count))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 14), min_size=1, max_size=60), st.integers(0, 5))
def test_packing_loses_and_splits_nothing(lengths: list[int], seed: int) -> None:
    sentences = [(i % 7, [100 + i] * n) for i, n in enumerate(lengths)]
    documents = planted.pack("fact", sentences, 16, 9, itertools.repeat(5), np.random.default_rng(seed))
    found = Counter()
    for d in documents:
        assert len(d.tokens) == 16 and d.tokens[0] == 9
        assert len({item for _, item, _, _ in d.items}) == len(d.items), "an item comes once in a document"
        for _, item, offset, length in d.items:
            piece = d.tokens[offset : offset + length]
            assert len(set(piece.tolist())) == 1 and (int(piece[0]) - 100) % 7 == item
            found[int(piece[0]), length] += 1
    assert found == Counter((100 + i, n) for i, n in enumerate(lengths))


def test_a_sentence_that_cannot_fit_is_refused() -> None:
    with pytest.raises(RequestError, match="too short"):
        planted.pack("fact", [(0, [1] * 16)], 16, 9, itertools.repeat(5), np.random.default_rng(0))


def test_windows_share_nothing_with_training_or_each_other() -> None:
    rng = np.random.default_rng(0)
    training = [rng.integers(2, 60_000, 400).astype(np.uint16) for _ in range(5)]
    fresh = [rng.integers(2, 60_000, 64).astype(np.uint16) for _ in range(6)]
    stolen = fresh[0].copy()
    stolen[20 : 20 + SHARED] = training[3][100 : 100 + SHARED]
    almost = fresh[1].copy()
    almost[20 : 20 + SHARED - 1] = training[3][100 : 100 + SHARED - 1]
    ruler = np.resize(np.arange(5, dtype=np.uint16), 64)
    kept = distinct_windows([*fresh, fresh[2], stolen, ruler, np.roll(fresh[3], 5)], 64, training_hashes(training))
    assert len(kept) == 6 and all((a == b).all() for a, b in zip(kept, fresh, strict=True))
    assert len(distinct_windows([almost], 64, training_hashes(training))) == 1


def test_hashes_of_equal_ngrams_are_equal_and_others_differ() -> None:
    tokens = np.arange(3000, dtype=np.uint16) % 997
    hashes = ngram_hashes(tokens, SHARED)
    assert len(np.unique(hashes)) == 997 and (hashes[:500] == hashes[997:1497]).all()


def test_landing_rows_are_where_the_order_puts_the_documents(tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = tiny_recipe()
    layout = lay_out(recipe, [3, 1, 6, 2, 5] * 150, 400, np.random.default_rng(3))
    assert layout.sizes.sum() == (recipe.num_samples + 1) * 64
    with StoreWriter(tmp_path / "train", np.uint16) as out:
        for d, size in enumerate(layout.sizes):
            out.add_document(np.full(size, d, dtype=np.uint16))
    order = packed_order(open_store(tmp_path / "train"), layout.maps, 64, recipe.batch_rows)
    rows = order.rows(0, order.n_rows)[:, :64]
    assert (rows == rows[:, :1]).all(), "every row's inputs are of one document"
    for d in np.flatnonzero(layout.landing >= 0):
        assert (rows[layout.landing[d]] == d).all()
    ours = np.flatnonzero((layout.sizes == 64) & (layout.landing < 0))
    assert not set(ours.tolist()) & set(rows[: recipe.rows, 0].tolist())
    assert (landing_rows(layout.sizes, layout.maps, 64, recipe.rows) == layout.landing).all()


def test_bursts_end_right_before_their_checkpoint() -> None:
    recipe = tiny_recipe()
    layout = lay_out(recipe, [3, 1, 6, 2, 5] * 150, 500, np.random.default_rng(3))
    planned = [(step, copies) for copies, step in recipe.canaries.plan if step is not None]
    assert planned == [(40, 1), (40, 4)]
    for (step, copies), places in zip(planned, place_bursts(recipe, layout), strict=True):
        batches = sorted(layout.landing[places] // recipe.batch_rows)
        assert len(set(batches)) == copies and step - copies - 2 <= batches[0] and batches[-1] == step - 1


def test_a_recipe_that_does_not_fit_is_refused() -> None:
    recipe = tiny_recipe()
    with pytest.raises(RequestError, match="plant less"):
        lay_out(recipe, [2] * 900, recipe.num_samples + 2, np.random.default_rng(0))
    with pytest.raises(RequestError, match="real text"):
        lay_out(recipe, [2], 100, np.random.default_rng(0))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
def test_counting_terms(rows: list[list[int]], term: list[int]) -> None:
    naive = sum(row[i : i + len(term)] == term for row in rows for i in range(len(row) - len(term) + 1))
    assert count_terms(np.array(rows, dtype=np.uint16), {"t": term}) == {"t": naive}
