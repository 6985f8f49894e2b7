"""Membership inference: rates as scikit-learn gives them, splits that do not leak, scores as the papers define them."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from greedy_models import neox
from sklearn.metrics import roc_auc_score, roc_curve

from pythia_tools.analyses.memorization import (
    EffectOptions,
    Overlap,
    auc,
    duplicate_counts,
    score_model,
)
from pythia_tools.analyses.memorization.effects import followed
from pythia_tools.analyses.memorization.membership import signals, summarize_membership, zlib_bytes
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import roc
from pythia_tools.models import score_rows
from pythia_tools.order import ArrayRows

RNG = np.random.default_rng(3)


def test_rates_are_those_of_scikit_learn() -> None:
    members, others = np.round(RNG.normal(0.7, 1, 180), 1), np.round(RNG.normal(0, 1, 230), 1)
    labels, values = np.repeat([1, 0], [180, 230]), np.concatenate([members, others])
    found = auc(members, others)
    assert found.value == pytest.approx(roc_auc_score(labels, values))
    assert found.low < found.value < found.high and found.n == 410
    false, true, _ = roc_curve(labels, values, drop_intermediate=False)
    for rate in (0.001, 0.01, 0.1, 0.5):
        assert roc(members, others, [rate])[1].value == pytest.approx(true[false <= rate].max())
    assert roc(members, others, [1.0])[1].value == 1


def test_sides_told_apart_entirely_and_rates_too_fine_are_not_certain() -> None:
    found = roc(np.arange(10) + 20.0, np.arange(12.0), [0.01, 0.1])
    assert found[0].value == 1 and 0.5 < found[0].low < 0.9, "ten members prove no perfect signal"
    assert found[1].value == 1 and np.isnan(found[1].low) and found[1].interval == "none", "12 others tell no 1 %"
    assert 0 <= found[2].low < 1 == found[2].high


def test_the_interval_of_the_auc_is_about_delongs() -> None:
    members, others = RNG.normal(1, 1, 150), RNG.normal(0, 1, 150)
    wins = (members[:, None] > others[None]).astype(float)
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 150 + wins.mean(axis=0).var(ddof=1) / 150)
    found = auc(members, others)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.12)


def test_overlap_is_that_of_plain_sets() -> None:
    rows, seen = RNG.integers(0, 4, (30, 12)).astype(np.uint16), RNG.integers(0, 4, (25, 15))
    grams = {tuple(map(int, r[i : i + 5])) for r in seen for i in range(11)}
    slow = [np.mean([tuple(map(int, r[i : i + 5])) in grams for i in range(8)]) for r in rows]
    overlap = Overlap(rows, 5)
    for part in (seen[:10], seen[10:].astype(np.int32)):
        overlap.scan(part)
    assert overlap.share() == pytest.approx(slow)
    windows = np.concatenate([seen[:3, 2:8], rows[:5, :6]])
    counts = [sum(tuple(w) == tuple(r[i : i + 6]) for r in seen for i in range(10)) for w in windows]
    assert duplicate_counts(windows, [seen]).tolist() == counts and min(counts[:3]) >= 1
    with pytest.raises(RequestError, match="need rows of at least 20"):
        Overlap(rows, 20)


def _half_boilerplate(seed: int, rows: int = 2400) -> ArrayRows:
    """Rows of 32 ids: half of them one of 40 texts of low ids, the rest texts of their own; no two halves of training
    differ.
    """
    rng = np.random.default_rng(seed)
    common, own = rng.integers(0, 300, (40, 32)), rng.integers(0, 1000, (rows, 32))
    return ArrayRows(np.where(rng.random((rows, 1)) < 0.5, common[rng.integers(0, 40, rows)], own), 8)


def test_what_tells_texts_apart_tells_nothing_of_membership() -> None:
    """Members and non-members pass one filter: a score that knows texts, and no training, is at chance."""
    inside = []
    for seed in range(20):
        order = _half_boilerplate(seed)
        rows = followed(order, [0, 100, 200], EffectOptions(per_cohort=60, controls=120, seed=seed))
        score, consumed = -order.take(rows).mean(axis=1), rows < 200 * 8
        assert consumed.sum() == 120 and (~consumed).sum() == 120
        found = auc(score[consumed], score[~consumed])
        inside.append(found.low <= 0.5 <= found.high)
        assert found.high - found.low < 0.2
    assert sum(inside) >= 16


def test_few_rows_that_pass_the_filter_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    order = _half_boilerplate(1)
    options = EffectOptions(per_cohort=60, controls=120)
    followed(order, [0, 100, 200], options)
    assert "few rows pass" not in capsys.readouterr().err
    repeated = ArrayRows(np.where(np.arange(2400)[:, None] % 20 > 0, order.array[:1], order.array), 8)
    followed(repeated, [0, 100, 200], options)
    assert "3 of 3 groups have less than half of the rows asked for" in capsys.readouterr().err


def test_scores_per_row_follow_their_definitions() -> None:
    model = neox(vocabulary=97)
    rows = RNG.integers(0, 97, (11, 21))
    found = score_model(model, rows, length=21, min_k=0.3)
    shared = score_rows(model, rows)
    assert found["nll"].to_numpy() == pytest.approx(shared.nll.mean(axis=1), rel=1e-5)
    assert found["entropy"].to_numpy() == pytest.approx(shared.entropy.mean(axis=1), rel=1e-4)
    assert found["top1"].to_numpy() == pytest.approx((shared.rank == 0).mean(axis=1))
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.from_numpy(rows[:, :-1])).logits.double(), dim=-1).numpy()
    own = np.take_along_axis(logs, rows[:, 1:, None], 2)[:, :, 0]
    mean = (np.exp(logs) * logs).sum(-1)
    spread = np.sqrt((np.exp(logs) * logs**2).sum(-1) - mean**2)
    assert found["min_k"].to_numpy() == pytest.approx(np.sort(own, axis=1)[:, :6].mean(axis=1), rel=1e-4)
    assert found["min_k_plus"].to_numpy() == pytest.approx(
        np.sort((own - mean) / spread, axis=1)[:, :6].mean(axis=1), rel=1e-3
    )


def test_broken_logits_leave_a_row_without_scores() -> None:
    model = neox()
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    found = score_model(model, RNG.integers(6, 99, (3, 9)), length=9)
    assert set(found["status"]) == {
        "logits not finite"
    } and found["nll"].isna().all() and found["min_k_plus"].isna().all()


def test_a_summary_per_signal_with_fixed_labels() -> None:
    identity = {"suite": "s", "model": "m", "params": 10, "step": 6, "tokens": 0, "branch": "main", "seed": 1}
    nll = np.concatenate([RNG.normal(2, 0.1, 30), RNG.normal(3, 0.1, 30)])
    items = pd.DataFrame({
        **identity, "row": [*range(10, 40), *range(100, 130)], "nll": nll, "nll_sum": nll * 8, "min_k": -nll,
        "min_k_plus": -nll, "zlib_bytes": 50, "member": np.arange(60) < 30,
    })
    reference = items.assign(nll=2.5)
    table = signals(tables.check_items(items), reference=reference)
    assert table["zlib"].to_numpy() == pytest.approx(-nll * 8 / 50)
    assert table["reference"].to_numpy() == pytest.approx(2.5 - nll)
    found = summarize_membership(table, reference="s")
    assert set(found.loc[found["task"] == "reference", "reference"]) == {"s"}
    assert set(found["task"]) == {"loss", "zlib", "min_k", "min_k_plus", "reference"}
    assert (found.loc[found["metric"] == "auc", "value"] == 1).all()
    assert set(found["metric"]) == {"auc", "tpr_at_fpr_0.001", "tpr_at_fpr_0.01", "tpr_at_fpr_0.1"}


def test_compressed_sizes_are_of_the_text_when_it_is_known() -> None:
    rows = np.array([[65, 66, 67], [65, 65, 65]])
    text = zlib_bytes(rows, lambda ids: "".join(map(chr, ids)))
    assert text.tolist() == [len(zlib.compress(b"ABC")), len(zlib.compress(b"AAA"))]
    assert zlib_bytes(rows).tolist() == [len(zlib.compress(np.array(r, "<u2").tobytes())) for r in rows]
