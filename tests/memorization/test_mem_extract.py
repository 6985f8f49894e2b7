"""One staged pass finds exactly what `generate` finds: flags, matched prefixes, scores; and bad input is never a silent
False.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from greedy_models import generated, leading, neox, probes, unrestrained

from pythia_tools.analyses.memorization import (
    Window,
    decoding_table,
    extract,
    measure_model,
    screened,
)
from pythia_tools.analyses.memorization import screen as screen_module
from pythia_tools.analyses.memorization.taxonomy import near_verbatim
from pythia_tools.core.errors import RequestError
from pythia_tools.models.head import judge, judge_logits


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return neox()


@pytest.mark.parametrize(
    ("context", "continuation", "prompts"), [(32, 32, 30), (1, 8, 60), (16, 5, 60), (5, 40, 24), (3, 1, 90)]
)
def test_flags_and_prefixes_equal_generate_with_every_position_flipped(model, context, continuation, prompts) -> None:  # type: ignore[no-untyped-def]
    rows, decoded = probes(model, context, continuation, prompts)
    found = extract(model, rows, Window(context, continuation))
    truth = rows[:, context:]
    assert (found.memorized == (decoded == truth).all(axis=1)).all()
    assert found.memorized.sum() == prompts
    assert (found.matched == leading(decoded, truth)).all()
    assert (found.status == "ok").all()
    assert ((found.margin > 0) == found.memorized).all()


@pytest.mark.parametrize("stages", [(), (1,), (1, 4), (2, 3, 7, 20)])
@pytest.mark.parametrize("batch_size", [1000, 7])
def test_stages_and_batches_change_nothing(  # type: ignore[no-untyped-def]
    model, stages, batch_size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Window.__module__], "STAGES", stages)
    rows, decoded = probes(model, 9, 12, 8)
    found = extract(model, rows, Window(9, 12), batch_size=batch_size)
    assert (found.memorized == (decoded == rows[:, 9:]).all(axis=1)).all()
    assert (found.matched == leading(decoded, rows[:, 9:])).all()


def test_thousand_random_rows_are_judged_as_generate_does(model) -> None:  # type: ignore[no-untyped-def]
    rows = np.random.default_rng(5).integers(0, 211, (1500, 12)).astype(np.uint16)
    decoded = generated(model, rows[:, :10], 2)
    found = extract(model, rows, Window(10, 2))
    assert (found.matched == leading(decoded, rows[:, 10:])).all()
    assert 0 < (found.matched > 0).sum() < 40


@pytest.mark.parametrize(("context", "continuation", "prompts"), [(16, 16, 12), (3, 5, 50)])
def test_the_70m_shape_in_float32(context: int, continuation: int, prompts: int) -> None:
    model = neox(512, 6, 8, 50304)
    rows, decoded = probes(model, context, continuation, prompts)
    found = extract(model, rows, Window(context, continuation), batch_size=256)
    assert (found.memorized == (decoded == rows[:, context:]).all(axis=1)).all() and found.memorized.sum() == prompts
    assert (found.matched == leading(decoded, rows[:, context:])).all()


def test_scores_are_those_of_what_generate_decodes(model) -> None:  # type: ignore[no-untyped-def]
    rows, decoded = probes(model, 12, 16, 20)
    found = decoding_table(model, rows, Window(12, 16), batch_size=64)["score"]
    assert (found == (decoded == rows[:, 12:]).mean(axis=1)).all()
    assert (found[:20] == 1).all() and (found[20:] < 1).all()


def test_near_verbatim_columns_are_of_what_generate_decodes(model) -> None:  # type: ignore[no-untyped-def]
    rows, decoded = probes(model, 12, 16, 10)
    table = measure_model(model, [*rows.tolist(), rows[0][:20].tolist()], Window(12, 16), score=True)
    slow = near_verbatim(decoded, rows[:, 12:])
    assert (
        table["edit_distance"].iloc[:-1] == slow["edit_distance"]
    ).all() and (table["span"].iloc[:-1] == slow["span"]).all()
    assert table["score"].iloc[:-1].tolist() == slow["agree"].tolist()
    assert table.iloc[-1][["score", "edit_distance", "span"]].isna().all()


def test_end_of_text_ids_are_ids_like_any_other() -> None:
    model = neox(vocabulary=7, seed=3)
    rows, decoded = probes(model, 4, 12, 120)
    found = extract(model, rows, Window(4, 12))
    assert (found.memorized == (decoded == rows[:, 4:]).all(axis=1)).all()
    holds_end = (rows[:120, 4:-1] == 0).any(axis=1)
    assert holds_end.any(), "the probe needs memorized rows that hold id 0"
    assert found.memorized[:120][holds_end].all()
    model.generation_config.eos_token_id = 0
    stopped = generated(model, rows[:120, :4], 12)
    unlike = (stopped != decoded[:120]).any(axis=1)
    assert unlike.any(), "generate's own default loses these rows, which is the trap this test is about"


def test_only_ids_of_the_vocabulary_compete() -> None:
    model = neox(vocabulary=24, seed=1)
    rows, decoded = probes(model, 6, 10, 40, below=20, suppress_tokens=[20, 21, 22, 23])
    found = extract(model, rows, Window(6, 10, vocabulary=20))
    assert (found.memorized == (decoded == rows[:, 6:]).all(axis=1)).all()
    assert (extract(model, rows, Window(6, 10)).memorized[:40] != found.memorized[:40]).any()


def test_ties_go_to_the_first_id_as_in_generate() -> None:
    model = neox(vocabulary=12, seed=2)
    with torch.no_grad():
        model.lm_head.weight[6:] = model.lm_head.weight[:6]  # ids 6…11 tie with 0…5 exactly
    rows, decoded = probes(model, 5, 6, 50)
    assert decoded.max() < 6
    found = extract(model, rows, Window(5, 6))
    assert (found.memorized == (decoded == rows[:, 5:]).all(axis=1)).all()
    assert (found.margin[:50] == 0).all()
    doubled = rows[:50].copy()
    doubled[:, 7] += 6
    assert not extract(model, doubled, Window(5, 6)).memorized.any()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    flat = np.zeros((3, 11), int)
    flat[1, 8] = 4
    assert extract(model, flat, Window(5, 6)).memorized.tolist() == [True, False, True]


def test_the_head_agrees_with_whole_logits_across_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythia_tools.models.head.WIDTH", 17)
    monkeypatch.setattr("pythia_tools.models.head.POSITIONS", 10)
    torch.manual_seed(0)
    hidden, weight = torch.randint(-2, 3, (64, 8)).float(), torch.randint(-2, 3, (101, 8)).float()  # many ties
    truth = torch.randint(0, 101, (64,))
    truth[:32] = (hidden[:32] @ weight.T).argmax(1)
    sliced, whole = judge(hidden, weight, truth), judge_logits(hidden @ weight.T, truth)
    reference = (hidden @ weight.T).argmax(1)
    assert (sliced.match == (reference == truth)).all() and (whole.match == sliced.match).all()
    assert (sliced.best == reference).all()
    assert torch.allclose(sliced.margin, whole.margin, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "sequential neox"])
def test_other_architectures(kind: str) -> None:
    if kind == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        shape = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
        config = GPT2Config(**shape, initializer_range=0.3, bos_token_id=0, eos_token_id=0)
        model = unrestrained(GPT2LMHeadModel(config).eval())
    else:
        model = neox(use_parallel_residual=False)
    rows, decoded = probes(model, 7, 9, 15)
    found = extract(model, rows, Window(7, 9))
    assert (found.memorized == (decoded == rows[:, 7:]).all(axis=1)).all()
    assert (found.matched == leading(decoded, rows[:, 7:])).all()


def _screening_rows(model):  # type: ignore[no-untyped-def]
    rows, _ = probes(model, 12, 20, 20)
    return np.concatenate([rows, np.random.default_rng(1).integers(0, 211, (900, 32))])


def test_a_screen_gives_the_same_flags_and_says_what_decided(model) -> None:  # type: ignore[no-untyped-def]
    rows = _screening_rows(model)
    exact, quick = extract(model, rows, Window(12, 20)), screened(model, rows, Window(12, 20))
    assert (exact.memorized == quick.memorized).all() and (exact.matched == quick.matched).all()
    assert quick.memorized[:20].all() and (quick.status == "ok").all()
    how = quick.screening
    assert set(how.decided) == {"exact", "screen", "doubtful", "audit"} and how.overturned == 0
    assert 0 < (how.decided == "exact").sum() <= screen_module.CALIBRATION
    assert ((quick.dtype == "bfloat16") == (how.decided == "screen")).all()
    assert not quick.memorized[how.decided == "screen"].any(), "the screen rejects, it never calls a row memorized"
    assert (how.decided == "audit").sum() == -(
        -((how.decided == "screen").sum() + (how.decided == "audit").sum()) // screen_module.AUDIT
    )
    rejected = how.decided == "screen"
    assert (quick.edge[rejected] > how.doubt).all() and how.doubt >= 2 * how.largest > how.spread > 0
    assert (np.abs(exact.margin - quick.margin)[rejected & (exact.judged == quick.judged)] < how.doubt).all()


@pytest.mark.parametrize("scale", [1e-3, 0.02])
def test_tiny_margins_are_judged_by_the_model_itself(scale: float) -> None:
    """Logits a hair apart: bfloat16 alone gets many rows wrong here, the screen none."""
    tiny = neox(vocabulary=509, seed=8)
    with torch.no_grad():
        tiny.lm_head.weight.copy_(tiny.lm_head.weight[:1] + scale * tiny.lm_head.weight)
    rows, _ = probes(tiny, 10, 12, 12)
    rows = np.concatenate([rows, np.random.default_rng(0).integers(0, 509, (400, 22))])
    window = Window(10, 12)
    truth = generated(tiny, rows[:, :10], 12) == rows[:, 10:]
    alone = extract(screen_module.reduced(tiny, "bfloat16"), rows, window)
    assert (alone.memorized != truth.all(axis=1)).any()
    found = screened(tiny, rows, window)
    assert (found.memorized == truth.all(axis=1)).all() and (
        extract(tiny, rows, window).memorized == found.memorized
    ).all()


def test_a_screen_that_starts_too_sure_of_itself_grows_its_doubt(model, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(screen_module, "SAFETY", 1e-3)
    calibrate = screen_module._Screen.calibrate

    def sure(self, *arguments) -> bool:  # type: ignore[no-untyped-def]
        worth = calibrate(self, *arguments)
        self.largest = self.doubt
        monkeypatch.setattr(screen_module, "SAFETY", 4.0)
        return worth

    monkeypatch.setattr(screen_module._Screen, "calibrate", sure)
    rows = _screening_rows(model)
    found = screened(model, rows, Window(12, 20))
    assert found.screening.doubt > 1e-3 and 2 * found.screening.largest <= found.screening.doubt
    assert (found.memorized == extract(model, rows, Window(12, 20)).memorized).all()


def test_an_overturned_rejection_is_put_right_and_warned_about(  # type: ignore[no-untyped-def]
    model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = neox(seed=99)  # a "copy" of other weights, taken for the same
    monkeypatch.setattr(screen_module, "reduced", lambda *_: other)
    monkeypatch.setattr(
        screen_module._Screen, "calibrate", lambda self, usable,
        quick: setattr(self, "quick", quick) or setattr(self, "doubt", 1e-3) or setattr(self, "largest", 0.0) or True
    )
    monkeypatch.setattr(screen_module, "AUDIT", 1)
    rows = _screening_rows(model)
    found = screened(model, rows, Window(12, 20))
    assert found.screening.overturned > 0 and "audited rejections" in capsys.readouterr().err
    assert (found.memorized == extract(model, rows, Window(12, 20)).memorized).all()


@pytest.mark.parametrize("case", ["few rows", "most memorized"])
def test_no_screen_where_it_does_not_pay(model, case: str) -> None:  # type: ignore[no-untyped-def]
    rows, _ = probes(model, 12, 4, 200 if case == "most memorized" else 4)
    rows = rows[:200] if case == "most memorized" else rows
    found = screened(model, rows, Window(12, 4))
    assert set(
        found.screening.decided
    ) == {"exact"} and np.isnan(found.screening.doubt) and set(found.dtype) == {"float32"}
    assert (found.memorized == extract(model, rows, Window(12, 4)).memorized).all()


def test_settings_of_the_process_do_not_reach_the_products(model) -> None:  # type: ignore[no-untyped-def]
    rows, _ = probes(model, 8, 8, 6)
    plain = extract(model, rows, Window(8, 8))
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = extract(model, rows, Window(8, 8))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (found.margin == plain.margin).all() and (found.memorized == plain.memorized).all()


def test_rows_in_bfloat16_are_judged_in_bfloat16(model) -> None:  # type: ignore[no-untyped-def]
    import copy

    half = unrestrained(copy.deepcopy(model).bfloat16())
    rows = np.random.default_rng(0).integers(0, 211, (40, 12))
    found = extract(half, rows, Window(8, 4))
    assert set(found.dtype) == {"bfloat16"} and (found.status == "ok").all()


def test_logits_that_are_no_numbers_are_flagged(model) -> None:  # type: ignore[no-untyped-def]
    import copy

    rows, _ = probes(model, 8, 8, 6)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.gpt_neox.layers[0].mlp.dense_h_to_4h.weight[0, 0] = torch.nan
    assert set(extract(broken, rows, Window(8, 8)).status) == {"logits not finite"}
    assert decoding_table(broken, rows, Window(8, 8)).isna().all(axis=None)
    overflowing = copy.deepcopy(model)
    with torch.no_grad():
        overflowing.gpt_neox.final_layer_norm.weight.mul_(60000)
    overflowing = overflowing.half()
    found = extract(overflowing, rows, Window(8, 8))
    assert (found.status == "logits not finite").any()
    assert np.isnan(found.margin[found.status != "ok"]).all()
    healed = screened(model, rows, Window(8, 8), dtype="float16")
    assert (healed.memorized == extract(model, rows, Window(8, 8)).memorized).all()


def test_a_late_logit_that_is_no_number_spoils_no_row_that_was_decided_before(  # type: ignore[no-untyped-def]
    model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = probes(model, 8, 6, 5)
    window = Window(8, 6)
    monkeypatch.setattr(sys.modules[Window.__module__], "STAGES", ())  # in one pass, so decided rows see all positions
    healthy = extract(model, rows, window)
    decided = healthy.matched < 5
    spoil = model.gpt_neox.final_layer_norm.register_forward_hook(
        lambda _, __, out: out.index_fill(1, torch.tensor([out.shape[1] - 1]), torch.nan)
    )
    try:
        found = extract(model, rows, window)
    finally:
        spoil.remove()
    assert decided.any() and (found.status[decided] == "ok").all() and not found.memorized[decided].any()
    assert (found.matched == healthy.matched)[decided].all() and np.isfinite(found.margin[decided]).all()
    assert set(found.status[~decided]) == {"logits not finite"}


def test_one_bad_id_does_not_hide_in_the_last_slice(model) -> None:  # type: ignore[no-untyped-def]
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[210] = torch.nan
    rows, _ = probes(model, 8, 4, 3)
    assert set(extract(broken, rows, Window(8, 4)).status) == {"logits not finite"}


def test_bad_rows_are_refused_or_flagged(model) -> None:  # type: ignore[no-untyped-def]
    rows, _ = probes(model, 8, 8, 4)
    with pytest.raises(RequestError, match="rows have 16 ids, but offset 2 \\+ context 8 \\+ continuation 8 needs 18"):
        extract(model, rows, Window(8, 8, offset=2))
    with pytest.raises(RequestError, match="the model has 256"):
        extract(model, np.zeros((2, 400), int), Window(200, 60))
    with pytest.raises(RequestError, match="integer token ids, these are float64"):
        extract(model, rows.astype(float), Window(8, 8))
    with pytest.raises(RequestError, match="context 0"):
        Window(0, 8)
    ragged = [list(rows[0]), list(rows[1][:10]), [*map(int, rows[2][:15]), 5000], [-1, *map(int, rows[3][1:])]]
    found = extract(model, ragged, Window(8, 8))
    assert found.status.tolist() == ["ok", "short", "id beyond vocabulary", "id beyond vocabulary"]
    assert found.memorized.tolist() == [True, False, False, False] and np.isnan(found.margin[1:]).all()


def test_the_offset_moves_the_window(model) -> None:  # type: ignore[no-untyped-def]
    rows, _ = probes(model, 8, 8, 5)
    padded = np.concatenate([np.full((len(rows), 3), 9), rows, np.full((len(rows), 2), 9)], axis=1)
    assert (
        extract(model, padded, Window(8, 8, offset=3)).memorized == extract(model, rows, Window(8, 8)).memorized
    ).all()


def test_no_rows_give_no_answers(model) -> None:  # type: ignore[no-untyped-def]
    assert len(extract(model, np.zeros((0, 70), int)).memorized) == 0
