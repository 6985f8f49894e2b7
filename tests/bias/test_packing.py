"""Texts that begin alike in one row: the same scores as apart, and apart where a model cannot do it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_bias
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.analyses import bias
from pythia_tools.models.continuations import Plan, Scorer
from pythia_tools.models.packing import mask_type, rows_of, tree_mask

texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple), min_size=1, max_size=30, unique=True)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_every_text_is_in_one_row_with_its_ids_and_positions(given_texts):
    rows = rows_of(given_texts, pack=True)
    assert sorted(t for row in rows for t in row.texts) == sorted(given_texts)
    for row in rows:
        for text, places in zip(row.texts, row.places, strict=True):
            assert tuple(row.ids[p] for p in places) == text
            assert [row.positions[p] for p in places] == list(range(len(text)))
            seen = tree_mask(torch.tensor([row.ends]), torch.bool)[0, 0].numpy()
            for k, place in enumerate(places):
                assert np.flatnonzero(seen[place]).tolist() == places[: k + 1].tolist(), "its own beginning only"
        beginnings = {t[: k + 1] for t in row.texts for k in range(len(t))}
        assert len(row.ids) == len(beginnings), "every beginning once"
    assert all(not row.packed for row in rows_of(given_texts, pack=False))
    assert all(len(row.texts) <= 3 for row in rows_of(given_texts, pack=True, most=3))


def test_an_ending_sees_the_beginning_and_itself():
    ends = torch.tensor([[5, 5, 3, 5, 5, 6]])  # two common ids, an ending of one, an ending of two, padding
    seen = [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1]]  # fmt: skip
    assert tree_mask(ends, torch.bool)[0, 0].int().tolist() == seen
    assert (tree_mask(ends, torch.float32)[0, 0] == 0).int().tolist() == seen


@pytest.fixture(scope="module")
def requests():
    encoder = bias.Encoder(tiny_bias.tokenizer())
    contexts = ["The nurse said that the driver was", "The nurse said that the doctor", "A teacher", ""]
    return encoder.requests([(c, e) for c in contexts for e in (" he", " she was in", " the designer",
                                                                " a participant of the idea")])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_are_the_same_together_and_apart(requests, attention):
    model = tiny_bias.model(21)
    model.config._attn_implementation = attention
    assert mask_type(model) == (torch.bool if attention == "sdpa" else torch.float32), "eager attention adds its mask"
    together = Scorer(requests, batch_size=6)
    found = together(model)
    (plan,) = together._plans.values()
    assert any(batch.ends is not None for batch in plan.batches)
    apart = Scorer(requests, batch_size=6)
    limit, width = model.config.max_position_embeddings, model.config.hidden_size
    apart._plans[limit, 6, width] = Plan(requests, limit, 6)
    alone = apart(model)
    np.testing.assert_allclose(found.total, alone.total, atol=1e-4)
    assert (found.cut == alone.cut).all()
    ids = sum(batch.ids.numel() for batch in plan.batches)
    assert ids < 0.75 * sum(batch.ids.numel() for batch in apart._plans[limit, 6, width].batches)


def test_a_model_that_ignores_the_mask_gets_one_text_a_row(requests):
    model = tiny_bias.model(22)
    whole = model.forward

    def deaf(*args, attention_mask=None, position_ids=None, **options):
        return whole(*args, **options)

    model.forward = deaf
    assert mask_type(model) is None
    scorer = Scorer(requests, batch_size=6)
    scorer(model)
    assert all(batch.ends is None for plan in scorer._plans.values() for batch in plan.batches)
