"""The published precision and recall, digit for digit, from counts; and which way round a confusion matrix is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from pythia_tools.analyses.memorization import Confusion, confusion, predictability, scaling
from pythia_tools.analyses.memorization import published as published_summary
from pythia_tools.analyses.memorization.predictability import from_percent
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "pythia" / "predictable_memorization_confusions.json"
ROWS = 23_552_000
SMALL = "memorization_small_model_predict_large_model"
EARLY = "memorization_early_checkpoint_predict_last_checkpoint"
# precision, recall, percent of rows memorized by the predictor: the papers' tables, as printed
FINAL_SMALL = {
    "70M": ("0.9563", "0.1969", ".31817"), "160M": ("0.9477", "0.2892", ".47170"),
    "410M": ("0.9401", "0.4015", ".66005"), "1B": ("0.9305", "0.5125", ".85125"),
    "1.4B": ("0.9257", "0.5543", ".92552"), "2.8B": ("0.9095", "0.6582", "1.11863"),
    "6.9B": ("0.8836", "0.7954", "1.39130"), "12B": ("1.0000", "1.0000", "1.54564")
}
CHECKPOINTS = ("23m", "44m", "65m", "85m", "105m", "126m")
EARLY_PRECISION = {
    "12B": (".918", ".915", ".913", ".911", ".916", ".943"), "6.9B": (".919", ".913", ".910", ".910", ".915", ".945")
}
EARLY_RECALL = {
    "12B": (".500", ".575", ".641", ".712", ".809", ".916"), "6.9B": (".513", ".587", ".658", ".721", ".816", ".918")
}
EARLY_23 = {
    "70M": (".871", ".747"), "160M": (".878", ".689"), "410M": (".885", ".625"), "1B": (".889", ".601"),
    "1.4B": (".893", ".591"), "2.8B": (".898", ".564"), "6.9B": (".919", ".513")
}
SHARES_12B = (".84144", ".97214", "1.08559", "1.20691", "1.36501", "1.50132")


@pytest.fixture(scope="module")
def published() -> dict[str, list[float]]:
    if not PUBLISHED.exists():
        pytest.skip("the published cells are not on this machine")
    return json.loads(PUBLISHED.read_text())


def _values(found: Confusion) -> dict[str, float]:
    return {metric: estimate.value for metric, estimate in found.estimates().items()}


def _printed(value: float, like: str) -> str:
    digits = len(like.partition(".")[2])
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if like.startswith(".") else text


@pytest.mark.parametrize("model", FINAL_SMALL)
def test_small_models_predict_12b_as_printed(published: dict[str, list[float]], model: str) -> None:
    counts = from_percent(published[f"{SMALL}|{model}|146m"], ROWS)
    found, (precision, recall, share) = _values(counts), FINAL_SMALL[model]
    assert counts.rows == ROWS
    assert _printed(found["precision"], precision) == precision
    assert _printed(found["recall"], recall) == recall
    assert 100 * found["predicted_share"] == pytest.approx(float(share), abs=1.1e-5)  # a sum of two printed cells


@pytest.mark.parametrize("model", EARLY_PRECISION)
def test_early_checkpoints_predict_the_last_as_printed(published: dict[str, list[float]], model: str) -> None:
    for number, checkpoint in enumerate(CHECKPOINTS):
        found = _values(from_percent(published[f"{EARLY}|{model}|{checkpoint}"], ROWS))
        assert _printed(found["precision"], ".000") == EARLY_PRECISION[model][number]
        assert _printed(found["recall"], ".000") == EARLY_RECALL[model][number]
        if model == "12B":
            # a sum of two printed cells: right to one unit of the last digit
            assert 100 * found["predicted_share"] == pytest.approx(float(SHARES_12B[number]), abs=1.1e-5)


@pytest.mark.parametrize("model", EARLY_23)
def test_the_earliest_checkpoint_of_every_size_as_printed(published: dict[str, list[float]], model: str) -> None:
    found = _values(from_percent(published[f"{EARLY}|{model}|23m"], ROWS))
    assert (_printed(found["precision"], ".000"), _printed(found["recall"], ".000")) == EARLY_23[model]


def test_the_published_tables_as_a_summary_and_a_figure(published: dict[str, list[float]]) -> None:
    from matplotlib import pyplot as plt

    from pythia_tools import plots

    table = published_summary(published)
    at = table.set_index(["model", "step", "reference", "metric"])["value"]
    assert f"{at['70m', 143_000, '12b/step143000', 'precision']:.4f}" == "0.9563"
    assert f"{at['6.9b', 123_000, '6.9b/step143000', 'recall']:.3f}" == ".918".zfill(5)
    assert not ((table["model"] == "12b") & (table["step"] == 143_000)).any()
    assert not table.duplicated(tables.KEYS).any() and len(table) == 9 * (7 * 7 + 8 * 6)
    own = table[table["metric"] == "true_share"].set_index(["model", "step", "reference"])["value"]
    steps = (*range(23_000, 143_000, 20_000), 143_000)
    for step, share in zip(steps, (*SHARES_12B, "1.54564"), strict=True):
        small = own.xs((step, f"12b/step{step}"), level=["step", "reference"])  # 12B's own share there, as printed
        assert len(small) == 7 and 100 * small.to_numpy() == pytest.approx(float(share), abs=1.5e-5)
    small = table[(table["reference"] == "12b/step143000") & (table["step"] == 143_000)]
    ax = plots.predictability(small)
    drawn = {tuple(np.round(line.get_xydata()[-1], 6)) for line in ax.lines if len(line.get_xdata()) == 1}
    wanted = {(round(at[m, 143_000, "12b/step143000", "recall"], 6),
               round(at[m, 143_000, "12b/step143000", "precision"], 6)) for m in small["model"].unique()}
    assert len(wanted) == 7 and wanted <= drawn
    plt.close(ax.figure)
    with pytest.raises(RequestError, match="is not like"):
        published_summary({f"{SMALL}|70M|final": [1, 2, 3, 94]})
    with pytest.raises(RequestError, match="is not like"):
        published_summary({"memorization_large_predicts_small|70M|146m": [1, 2, 3, 94]})


def test_truth_and_prediction_are_not_exchanged(published: dict[str, list[float]]) -> None:
    """The trap of the published figures: a small model misses most of what a large one memorizes, and seldom errs."""
    found = from_percent(published[f"{SMALL}|70M|146m"], ROWS)
    assert found.missed > 50 * found.false_alarm
    assert _values(found)["recall"] < 0.2 < 0.95 < _values(found)["precision"]
    truth, prediction = [True] * 10 + [False] * 10, [True] * 2 + [False] * 17 + [True]
    mine = confusion(truth, prediction)
    assert mine == Confusion(both=2, missed=8, false_alarm=1, neither=9)
    rates = _values(mine)
    assert rates["precision"] == precision_score(truth, prediction) == 2 / 3
    assert rates["recall"] == recall_score(truth, prediction) == 0.2
    assert rates["f1"] == pytest.approx(f1_score(truth, prediction))


def test_undecided_rows_are_left_out_of_a_confusion() -> None:
    truth = pd.array([True, None, False, True], dtype="boolean")
    assert confusion(truth, pd.array([True, True, None, False], dtype="boolean")) == Confusion(1, 1, 0, 0)
    with pytest.raises(RequestError, match="truth has 4 rows and prediction 1"):
        confusion(truth, [True])


def test_percentages_that_are_no_confusion_are_refused() -> None:
    with pytest.raises(RequestError, match="add up to 100"):
        from_percent([10, 20, 30, 41], 100)


def test_the_interval_of_f1_is_that_of_resampled_rows() -> None:
    found = Confusion(30, 20, 10, 140)
    estimate = found.estimates()["f1"]
    rng = np.random.default_rng(0)
    rows = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [30, 20, 10, 140], axis=0)
    draws = [f1_score(*rows[rng.integers(0, 200, 200)].T) for _ in range(400)]
    assert estimate.low == pytest.approx(np.quantile(draws, 0.025), abs=0.03)
    assert estimate.high == pytest.approx(np.quantile(draws, 0.975), abs=0.03)


def _table(flags: dict[tuple[str, int, int], list[bool]]) -> pd.DataFrame:
    frames = []
    for (model, params, step), column in flags.items():
        frames.append(
            pd.DataFrame({
                "suite": "s", "model": model, "params": params, "step": step, "tokens": step * 100, "branch": "main",
                "seed": pd.NA, "row": range(len(column)), "memorized": pd.array(column, dtype="boolean")
            })
        )
    return tables.check_items(pd.concat(frames))


def test_the_prediction_is_of_the_largest_model_at_its_last_step() -> None:
    table = _table({
        ("xs", 10, 8): [True, False, False, False], ("m", 90, 4): [True, False, True, False],
        ("m", 90, 8): [True, True, False, False]
    })
    found = predictability(table)
    assert set(found["reference"]) == {"m/step8"}
    at = found.set_index(["model", "step", "metric"])["value"]
    assert at["xs", 8, "precision"] == 1 and at["xs", 8, "recall"] == 0.5
    assert at["m", 4, "missed"] == 1 and at["m", 4, "false_alarm"] == 1
    with pytest.raises(RequestError, match="no 12b; it has: xs/step8, m/step4, m/step8"):
        predictability(table, model="12b")
    with pytest.raises(RequestError, match="no m/step9; it has: xs/step8, m/step4, m/step8"):
        predictability(table, model="m", step=9)


def test_scaling_recovers_a_power_law() -> None:
    n = 1600
    flags = {(f"{p}", p, s): [i < n * p * s / 6400 for i in range(n)] for p in (16, 64, 256) for s in (1, 4, 16)}
    found = scaling(_table(flags))
    assert (found["value"] - 1).abs().max() < 1e-9
    assert set(found["metric"]) == {"parameters_exponent", "tokens_exponent"} and len(found) == 6
    assert found.loc[found["metric"] == "parameters_exponent", "model"].isna().all()
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


def test_a_slope_that_few_rows_tell_has_no_interval() -> None:
    flags = {(f"{p}", p, 1): [i < k for i in range(400)] for p, k in ((16, 8), (64, 10), (256, 12))}
    found = scaling(_table(flags))
    assert len(found) == 1 and np.isfinite(found["value"].iloc[0])
    assert np.isnan(found["low"].iloc[0]) and found["interval"].iloc[0] == "none", "4 rows differ"
    same = scaling(_table({key: [i < 8 for i in range(400)] for key in flags})).iloc[0]
    assert same["value"] == pytest.approx(0, abs=1e-9) and np.isnan(same["low"]), "no row differs, which is no proof"


def test_f1_of_few_rows_is_not_certain() -> None:
    found = Confusion(6, 0, 0, 500).estimates()["f1"]
    assert found.value == 1 and 0.5 < found.low < 0.95, "six rows that agree are no proof"
    nothing = Confusion(0, 0, 0, 500).estimates()["f1"]
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and nothing.interval == "none"
