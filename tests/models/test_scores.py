"""Token scores against transformers' own loss, scipy's entropy and a plain count of larger logits."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import entropy
from tiny_checkpoints import VOCAB, checkpoint, neox_config, write_model, write_step
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import pythia_tools as pt
from pythia_tools import models
from pythia_tools.analysis import Context, ScoreTask
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import IDENTITY
from pythia_tools.models import score as scoring
from pythia_tools.models.continuations import Request, Scorer
from pythia_tools.models.decode import greedy
from pythia_tools.models.packing import mask_type

NOWHERE = Context([])
"""Tasks that ask nothing of their context."""

ROWS = np.random.default_rng(0).integers(0, VOCAB, (7, 13)).astype(np.uint16)


@pytest.fixture(scope="module")
def model(steps):
    return models.load(steps[1], device="cpu")


@torch.no_grad()
def expected(model, rows, vocabulary=VOCAB):
    logits = model(torch.from_numpy(rows[:, :-1].astype(np.int64))).logits.double().numpy()[:, :, :vocabulary]
    true = np.take_along_axis(logits, rows[:, 1:, None].astype(np.int64), 2)
    log_p = log_softmax(logits, 2)
    nll = -np.take_along_axis(log_p, rows[:, 1:, None].astype(np.int64), 2)[..., 0]
    return nll, (logits > true).sum(2), entropy(np.exp(log_p), axis=2)


def test_scores_equal_the_definitions(model):
    found = models.score_rows(model, ROWS, 3)
    nll, rank, ent = expected(model, ROWS)
    np.testing.assert_allclose(found.nll, nll, rtol=1e-5)
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_allclose(found.entropy, ent, rtol=1e-5)
    assert found.nll.dtype == np.float32 and found.rank.dtype == np.int32


def test_mean_equals_transformers_own_loss(model):
    ids = torch.from_numpy(ROWS.astype(np.int64))
    assert models.score_rows(model, ROWS).nll.mean() == pytest.approx(
        float(model(ids, labels=ids).loss.detach()), rel=1e-6
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4000), st.sampled_from([None, 90, VOCAB]))
def test_batches_and_chunks_of_positions_do_not_matter(model, batch, logit_bytes, vocabulary):
    rows = ROWS % 90
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "LOGIT_BYTES", logit_bytes)
        found = models.score_rows(model, rows, batch, vocabulary=vocabulary)
    nll, rank, ent = expected(model, rows, vocabulary or VOCAB)
    np.testing.assert_allclose(found.nll, nll, rtol=1e-5)
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_allclose(found.entropy, ent, rtol=1e-5)


def test_models_that_scale_their_logits_are_scored_on_their_own_logits(tmp_path):
    config = GraniteConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logits_scaling=3.0, pad_token_id=0
    )
    model = models.load(write_model(tmp_path / "granite", GraniteForCausalLM(config), 1), device="cpu")
    assert not scoring.has_plain_head(model)
    np.testing.assert_allclose(models.score_rows(model, ROWS).nll, expected(model, ROWS)[0], rtol=1e-5)
    plain = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    assert scoring.has_plain_head(LlamaForCausalLM(plain).eval())


def test_uniform_logits_have_the_entropy_and_loss_of_the_vocabulary(tmp_path):
    model = models.load(write_step(tmp_path / "flat", 1), device="cpu")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = models.score_rows(model, ROWS)
    np.testing.assert_allclose(found.nll, np.log(VOCAB), rtol=1e-6)
    np.testing.assert_allclose(found.entropy, np.log(VOCAB), rtol=1e-6)
    assert (found.rank == 0).all()


def test_bad_logits_are_flagged_never_scored(tmp_path, capsys):
    folder = write_step(tmp_path / "hot", 1)
    model = models.load(checkpoint(folder, 1), device="cpu")
    with torch.no_grad():
        model.gpt_neox.embed_in.weight[5] = torch.nan
    rows = np.array([[1, 2, 3, 4], [1, 5, 2, 3], [2, 3, 4, 5]])
    found = models.score_rows(model, rows)
    flagged = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], bool)  # 0 times NaN is NaN
    np.testing.assert_array_equal(np.isnan(found.nll), flagged)
    np.testing.assert_array_equal(np.isnan(found.entropy), flagged)
    np.testing.assert_array_equal(found.rank == -1, flagged)
    table = ScoreTask(rows).run(NOWHERE, model, 0)
    assert table["rank"].isna().tolist() == flagged.reshape(-1).tolist()
    assert "3 positions have NaN or Inf logits" in capsys.readouterr().err
    means = ScoreTask(rows, aggregate="row").run(NOWHERE, model, 0)
    assert means["n"].tolist() == [3, 0, 3] and means["nll"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinite_logits_are_flagged(tmp_path, value):
    model = models.load(write_step(tmp_path / "overflow", 1), device="cpu")
    with torch.no_grad():
        model.lm_head.weight[3] = value
    found = models.score_rows(model, ROWS)
    assert np.isnan(found.nll).all() and np.isnan(found.entropy).all() and (found.rank == -1).all()
    kept = models.score_rows(model, ROWS % 3, vocabulary=3)
    assert np.isfinite(kept.nll).all() and (kept.rank >= 0).all()


@pytest.mark.parametrize(("rows", "text"), [
    (np.array([[1, VOCAB]]), f"token id {VOCAB}, the vocabulary has ids 0 to {VOCAB - 1}"),
    (np.array([[1, -1]]), "token id -1"),
    (np.array([[1]]), "at least 2"),
    (np.array([1, 2, 3]), r"shape \(n, L \+ 1\)"),
    (np.array([[1.0, 2.0]]), "must be integers"),
])
def test_bad_rows_are_refused(model, rows, text):
    with pytest.raises(RequestError, match=text):
        models.score_rows(model, rows)


def test_ids_outside_the_asked_vocabulary_are_refused(model):
    with pytest.raises(RequestError, match="ids 0 to 9"):
        models.score_rows(model, ROWS, vocabulary=10)


def test_table_is_one_line_per_checkpoint_row_and_position(steps):
    table = pt.token_scores(steps, ROWS, device="cpu")
    assert list(table.columns) == [*IDENTITY, "row", "position", "nll", "rank", "entropy"]
    assert len(table) == 3 * 7 * 12
    for c in steps:
        found = models.score_rows(models.load(c, device="cpu"), ROWS)
        here = table[table["step"] == c.step]
        np.testing.assert_array_equal(here["nll"].to_numpy().reshape(7, 12), found.nll)
        np.testing.assert_array_equal(here["rank"].to_numpy(dtype=int).reshape(7, 12), found.rank)


def test_means_over_positions_agree_with_the_long_table(steps, monkeypatch):
    monkeypatch.setattr(sys.modules[ScoreTask.__module__], "PART_ROWS", 3)  # three parts, the last of one row
    long = pt.token_scores(steps, ROWS, device="cpu", row_ids=range(100, 107))
    long["top1"] = (long["rank"] == 0).astype(float)
    short = pt.token_scores(steps, ROWS, device="cpu", row_ids=range(100, 107), aggregate="row")
    means = long.groupby(["step", "row"], as_index=False)[["nll", "rank", "entropy", "top1"]].mean()
    assert short["row"].tolist() == means["row"].tolist() and short["n"].sum() == len(long)
    for column in ("nll", "rank", "entropy", "top1"):
        np.testing.assert_allclose(short[column].to_numpy(float), means[column].to_numpy(float), rtol=1e-6)
    with pytest.raises(RequestError, match="use None or 'row'"):
        pt.token_scores(steps, ROWS, aggregate="all")
    with pytest.raises(RequestError, match="3 row_ids for 7 rows"):
        pt.token_scores(steps, ROWS, row_ids=[1, 2, 3])


def test_rows_digest_depends_on_ids_and_shape_not_on_the_integer_type():
    same = {models.rows_digest(ROWS.astype(t)) for t in (np.uint16, np.int32, np.int64, ">i4")}
    assert len(same) == 1
    assert models.rows_digest(ROWS.reshape(13, 7)) not in same
    assert models.rows_digest(ROWS[::-1]) not in same


def test_half_precision_is_scored_in_single(tmp_path):
    folder = write_step(tmp_path / "half", 4, neox_config(), torch.float16)
    exact = models.score_rows(models.load(folder, device="cpu"), ROWS)
    rough = models.score_rows(models.load(folder, device="cpu", dtype="bfloat16"), ROWS)
    np.testing.assert_allclose(rough.nll, exact.nll, atol=0.1)
    assert isinstance(pd.DataFrame(rough.nll).sum().sum(), np.floating)


def randomize(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


SMALL = {"vocab_size": VOCAB, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32,
         "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0}


@pytest.mark.parametrize("first", [1e-4, 1.0], ids=["tried at tiny logits", "tried at large ones"])
def test_capped_logits_are_scored_as_the_model_gives_them(first):
    """Near 0 a cap changes nothing, so what a first checkpoint's small logits show does not hold for later ones."""
    config = AutoConfig.for_model("gemma2", num_key_value_heads=1, head_dim=16, final_logit_softcapping=2.0, **SMALL)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(first)
    models.score_rows(model, ROWS)
    randomize(model, 1)
    np.testing.assert_allclose(models.score_rows(model, ROWS).nll, expected(model, ROWS)[0], rtol=1e-4)


@pytest.mark.parametrize(("kind", "more"), [
    ("mistral", {"num_key_value_heads": 2, "sliding_window": 16}), ("gpt_neox", {}),
    ("qwen2", {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}),
])
def test_texts_share_rows_only_where_attention_reaches_all_of_them(kind, more):
    """A mask of a packed row would take the place of a sliding window: the last ids of a long text show it."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **more)).eval()
    randomize(model, 2)
    draw = np.random.default_rng(0).integers(1, VOCAB, (7, 40)).tolist()
    asked = [Request(tuple(draw[0]), tuple(end[:4])) for end in draw[1:]]
    found = Scorer(asked)(model).total
    for request, total in zip(asked, found, strict=True):
        ids = torch.tensor([request.context + request.continuation])
        logs = model(ids).logits.detach()[0, len(request.context) - 1 : -1].log_softmax(-1)
        assert total == pytest.approx(float(logs.gather(1, ids[0, -4:, None]).sum()), abs=1e-4)
    assert (mask_type(model) is None) == bool(more)


def test_models_without_keys_and_values_are_not_decoded(tmp_path):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "mamba", vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, state_size=8
    )).eval()
    assert len(greedy(model, [[1, 2, 3]], 1)[0]) == 1
    with pytest.raises(RequestError, match="MambaForCausalLM keeps no keys and values"):
        greedy(model, [[1, 2, 3]], 2)
