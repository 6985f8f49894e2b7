"""OLMo's published ladder comes out of its own runs; a made ladder comes back; what is held out is predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pythia_tools as pt
from pythia_tools.core.errors import RequestError
from pythia_tools.fitting.ladder import sigmoid

MMLU = "mmlu=mmlu_stem_test_rc_5shot:.215+mmlu_humanities_test_rc_5shot:.335+mmlu_social_sciences_test_rc_5shot:.219+" \
       "mmlu_other_test_rc_5shot:.231"
PRINTED = {
    "arc_challenge_test_rc_5shot": (-10.4, -11.1), "arc_easy_test_rc_5shot": (-8.0, -9.9),
    "csqa_val_rc_5shot": (3.1, 3.5), "openbookqa_test_rc_5shot": (-5.2, -3.8), "mmlu": (-0.6, -0.3),
    "piqa_val_rc_5shot": (-0.8, -0.9), "socialiqa_val_rc_5shot": (-1.2, -1.6), "hellaswag_val_rc_5shot": (1.2, 2.1),
}
"""Chained errors in points at 7B and 13B, of OLMo's own scripts on its own runs."""
STEP1 = {"mmlu": (3.64, 4.61, 0.226, 0.236, 0.454), "arc_challenge_test_rc_5shot": (13.46, 3.65, 0.788, 0.197, 0.655),
         "csqa_val_rc_5shot": (4.04, 2.39, 0.235, 0.111, 0.0)}
RUNS = [f"{size}-{length}xC" for size in ("190M", "370M", "760M", "1B") for length in (1, 2, 5, 10)]
TARGETS = ["peteish7_eval_anneal", "peteish13_eval_final"]


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "ladder" / "ladder-runs"
    if not folder.is_dir():
        folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "ladder" / "ladder-runs"
    if not folder.is_dir():
        pytest.skip("OLMo's ladder is not beside this checkout")
    return pt.published(folder)


def test_olmos_chained_errors_come_out_to_a_tenth_of_a_point(published: pd.DataFrame) -> None:
    asked = [MMLU if task == "mmlu" else task for task in PRINTED]
    found = pt.fit(published, form="ladder", tasks=asked, runs=RUNS, targets=TARGETS, resamples=0)
    rows = found.summary.set_index(["task", "subset", "metric"])["value"]
    for task, errors in PRINTED.items():
        for run, error in zip(TARGETS, errors, strict=True):
            assert 100 * rows[task, run, "accuracy_error"] == pytest.approx(error, abs=0.1), (task, run)
    for task, (a, b, *rest) in STEP1.items():
        assert np.log([rows[task, "all", "A"], rows[task, "all", "B"]]) == pytest.approx([a, b], abs=0.006)
        assert [rows[task, "all", m] for m in ("alpha", "beta", "E")] == pytest.approx(rest, abs=6e-4)


def made(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Runs of a known law and sigmoid, ten checkpoints each that have all reached the run's end."""
    rng, rows = np.random.default_rng(seed), []
    for n in (1e8, 2e8, 5e8, 1e9, 7e9):
        for d in (1e10, 3e10, 1e11, 3e11):
            loss = (0.5 + 60 / n**0.26 + 70 / d**0.24) * np.exp(noise * rng.normal())
            for k in range(10):
                rows.append((f"{n:g}-{d:g}", n, d * (1 + k * 1e-9), loss, sigmoid(loss, -0.7, 1.2, 5.0, 1.0)))
    return pd.DataFrame(rows, columns=["run", "params", "tokens", "bpb", "acc"])


def test_a_made_ladder_comes_back_and_the_largest_size_is_predicted() -> None:
    summary = pt.fit(made(), form="ladder", resamples=0).summary.set_index("metric")
    assert summary.loc["alpha", "value"] == pytest.approx(0.26, abs=1e-3)
    assert summary.loc["accuracy_error", "value"].abs().max() < 2e-3  # full accuracy at no loss is nearly so
    inside = []
    for seed in range(8):
        noisy = pt.fit(made(0.01, seed), form="ladder", resamples=60)
        rows = noisy.summary.set_index(["subset", "metric"])
        told, reached = (rows.xs(metric, level="metric") for metric in ("predicted_loss", "loss"))
        inside.append(((told["low"] < reached["value"]) & (reached["value"] < told["high"])).mean())
        assert ((told["high"] - told["low"]) / told["value"] < 0.3).all()
    assert np.mean(inside) > 0.6  # seven times beyond the largest size: .91 of 100 such fits
    assert "in points" in noisy.sentences[0].text


def test_what_a_ladder_needs_is_said() -> None:
    table = made()
    with pytest.raises(RequestError, match="unknown run of this table '13B'"):
        pt.fit(table, form="ladder", targets=["13B"])
    with pytest.raises(RequestError, match="three sizes carry no law"):
        pt.fit(table[table["params"] > 1.5e8], form="ladder")
    with pytest.raises(RequestError, match="no column for accuracy"):
        pt.fit(table.drop(columns="acc"), form="ladder")
    with pytest.raises(RequestError, match="unknown task"):
        pt.fit(table, form="ladder", tasks=["arc"])
