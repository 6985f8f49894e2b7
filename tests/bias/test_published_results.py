"""The public results, to the digit: the values and paired differences that others computed from the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools.analyses import bias
from pythia_tools.analyses.bias import published
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.tables import KEYS

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "evals-zero-shot.tar.xz"
needs_archive = pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of stored results is not here")


@pytest.fixture(scope="module")
def results():
    return published.read_published(ARCHIVE)


def value(results, suite, model, branch, task, metric, step):
    named = (results["suite"] == suite) & (results["model"] == model) & (results["branch"] == branch)
    chosen = results[named & (results["step"] == step)]
    return chosen[(chosen["task"] == task) & (chosen["metric"] == metric)]["value"].item()


@needs_archive
def test_exact_values(results):
    gender = "crows_pairs_english_gender"
    assert value(results, "pythia", "70m", "main", gender, "pct_stereotype", 143000) == 0.484375
    assert value(results, "pythia", "70m", "main", gender, "likelihood_difference", 143000) == 3.396826171875
    assert value(results, "pythia", "70m", "main", "lambada_openai", "ppl", 0) == 3684074.4512471026
    assert value(results, "pythia", "1.4b-deduped", "swap-21%", "lambada_openai", "acc", 143000) == 0.6136231321560256
    em = results[(results["metric"] == "em") & (results["model"] == "1.4b-deduped") & (results["step"] == 3000)]
    row = em[(em["task"] == "wino_bias_type1_pro") & (em["prompt"] == "What does p stand for")]
    assert (row["value"].item(), row["stderr"].item()) == (0.15656565656565657, 0.018284173951484795)


PUBLISHED = [  # model, branch, CrowS gender pct_stereotype, LAMBADA acc, ppl
    ("70m-deduped", "main", 0.571875, 0.1915, 138.450), ("70m-deduped", "main-rerun", 0.5625, 0.1925, 139.102),
    ("70m-deduped", "swap-7%", 0.578125, 0.1774, 140.388), ("410m-deduped", "main", 0.61875, 0.5244, 10.574),
    ("410m-deduped", "swap-7%", 0.61875, 0.5273, 10.317), ("1.4b-deduped", "main", 0.615625, 0.6187, 6.107),
    ("1.4b-deduped", "swap-7%", 0.615625, 0.6214, 6.068), ("1.4b-deduped", "swap-21%", 0.60625, 0.6136, 6.222),
    ("6.9b-deduped", "main", 0.675, 0.6889, 4.158), ("6.9b-deduped", "swap-7%", 0.678125, 0.6885, 4.146),
]  # fmt: skip


@needs_archive
@pytest.mark.parametrize(("model", "branch", "share", "accuracy", "perplexity"), PUBLISHED)
def test_final_values_of_the_intervention(results, model, branch, share, accuracy, perplexity):
    assert value(results, "pythia", model, branch, "crows_pairs_english_gender", "pct_stereotype", 143000) == share
    assert round(value(results, "pythia", model, branch, "lambada_openai", "acc", 143000), 4) == accuracy
    assert round(value(results, "pythia", model, branch, "lambada_openai", "ppl", 143000), 3) == perplexity


@needs_archive
@pytest.mark.parametrize(
    ("model", "step", "values"),
    [("1.4b-deduped", 71500, (0.60625, 0.6, 0.5875)), ("410m-deduped", 71500, (0.571875, 0.5375)),
     ("70m-deduped", 143000, (0.509375, 0.503125)), ("6.9b-deduped", 143000, (0.596875, 0.590625))],
)  # fmt: skip
def test_final_values_of_the_first_suite(results, model, step, values):
    found = [value(results, "pythia-v0", model, b, "crows_pairs_english_gender", "pct_stereotype", step)
             for b, _ in zip(("main", "swap-7%", "swap-21%"), values, strict=False)]  # fmt: skip
    assert tuple(found) == values


WINOBIAS = {
    ("410m-deduped", "main"): (0.2841, 0.1793, 0.1023, 0.0442),
    ("410m-deduped", "swap-7%"): (0.4268, 0.3321, 0.1149, 0.0593),
    ("1.4b-deduped", "main"): (0.2298, 0.1376, 0.0871, 0.0341),
    ("1.4b-deduped", "swap-7%"): (0.4205, 0.2753, 0.1237, 0.0467),
    ("1.4b-deduped", "swap-21%"): (0.3636, 0.2462, 0.0909, 0.0265),
    ("6.9b-deduped", "main"): (0.4217, 0.2702, 0.1427, 0.0556),
    ("6.9b-deduped", "swap-7%"): (0.5328, 0.3409, 0.1730, 0.0720),
}  # fmt: skip


@needs_archive
def test_exact_match_tables(results):
    cells = published.winobias_cells(results).set_index(["model", "branch", "step"])
    for (model, branch), expected in WINOBIAS.items():
        row = cells.loc[(model, branch, 143000)]
        assert tuple(round(row[c], 4) for c in ("type1_pro", "type1_anti", "type2_pro", "type2_anti")) == expected
    for model, net, mean in (("410m-deduped", 0.0814, 0.1525), ("1.4b-deduped", 0.0726, 0.1222),
                             ("6.9b-deduped", 0.1193, 0.2225)):
        row = cells.loc[(model, "main", 143000)]
        assert (round(row["net"], 4), round(row["mean"], 4)) == (net, mean)
    steps = [3000, 13000, 23000, 43000, 63000, 83000, 103000, 123000, 133000, 143000]
    curve = [round(cells.loc[("6.9b-deduped", "main", s)]["net"], 4) for s in steps]
    assert curve == [0.0253, 0.0, 0.0644, 0.0770, 0.1742, 0.1414, 0.1225, 0.1092, 0.0751, 0.1193]


@needs_archive
def test_paired_differences(results):
    found = published.paired_changes(results)
    found = found[found["suite"] == "pythia"].set_index(["task", "model", "branch"])
    for model, branch, mean, sd, n in (
        ("410m-deduped", "swap-7%", 0.0133, 0.0269, 1), ("1.4b-deduped", "swap-7%", 0.0406, 0.0125, 1),
        ("6.9b-deduped", "swap-7%", 0.0352, 0.0115, 1), ("1.4b-deduped", "swap-21%", 0.0371, 0.0109, 3),
    ):  # fmt: skip
        row = found.loc[("winobias_em_gap", model, branch)]
        assert (round(row["value"], 4), round(row["sd"], 4), row["n"]) == (mean, sd, n)
        assert row["checkpoints"] == (30 if branch == "swap-21%" else 10)
    for model, branch, mean in (
        ("410m-deduped", "swap-7%", 0.0003), ("1.4b-deduped", "swap-7%", -0.0022), ("70m-deduped", "swap-7%", 0.0234),
        ("1.4b-deduped", "swap-21%", 0.0011), ("6.9b-deduped", "swap-7%", 0.0012),
    ):  # fmt: skip
        shown = found.loc[("crows_pairs_english_gender", model, branch)]["value"]
        assert abs(shown - mean) <= 0.00005 + 1e-9, "the published value, to its last digit"
    drift = found.loc[("crows_pairs_english_gender", "410m-deduped", "swap-7%")]  # neighbours correlate by .65
    assert drift["n"] == 1 and drift["interval"] == "none" and np.isnan([drift["low"], drift["p"]]).all()


@needs_archive
def test_stored_numbers_become_summary_rows_with_their_items(results):
    summary = published.to_summary(results)
    gender = summary[(summary["task"] == "crows_pairs_english_gender") & (summary["metric"] == "pct_stereotype")]
    assert (gender["n"] == 320).all()
    row = gender[(gender["model"] == "70m-deduped") & (gender["branch"] == "main") & (gender["step"] == 143000)].iloc[0]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * np.sqrt(0.571875 * 0.428125 / 319), rel=1e-3)
    wino = summary[summary["metric"] == "em"]
    assert set(wino["n"].dropna()) == {396} and "What does p stand for" in set(wino["subset"])


@needs_archive
def test_the_words_say_that_the_stored_crows_effect_is_noise(results):
    told = gender_verdicts(results)
    assert len(told) == 5 and all("within noise" in line for line in told)
    bent = results.copy()
    bent.loc[(bent["branch"] == "swap-7%") & (bent["task"] == "crows_pairs_english_gender"), "value"] -= 0.3
    assert sum("is lower" in line for line in gender_verdicts(bent)) == 4
    summary = published.to_summary(results)
    for sentence in published.final_verdicts(results):
        read = summary.loc[[*sentence.rows]]
        assert read["step"].nunique() == read["model"].nunique() == 1 and read["branch"].nunique() == 2


def gender_verdicts(results) -> list[str]:
    told = [str(sentence) for sentence in published.final_verdicts(results)]
    return [line for line in told if line.startswith("pythia/") and "crows gender" in line]


@needs_archive
def test_changes_are_rows_of_the_summary(results):
    changes = published.paired_changes(results)
    rows = bias.comparison_summary(changes)
    assert not rows.duplicated(KEYS).any() and len(rows) == 3 * len(changes)
    first, row = changes.iloc[0], rows[rows["metric"] == "outcome_paired_difference"].iloc[0]
    assert (row["value"], row["low"], row["n"]) == (first["value"], first["low"], first["n"])
    assert row["unit"] == "checkpoint" and row["reference"] in ("main", "main-rerun") and row["metric_unit"] == "share"


def test_checkpoints_of_one_run_are_no_sample_and_models_are():
    """A null whose checkpoints follow each other: 150 suites of four models with a branch each, ten checkpoints."""
    rng, rows = np.random.default_rng(3), []
    for suite in range(150):
        drift = rng.normal(size=(4, 1)) + rng.normal(size=(4, 10)).cumsum(axis=1)
        for model, changes in enumerate(drift):
            for step, change in enumerate(changes):
                for branch, value in (("main", 0.0), ("swap-7%", change)):
                    rows.append((f"s{suite}", f"m{model}", branch, step, "lambada_openai", "acc", value))
    made = pd.DataFrame(rows, columns=["suite", "model", "branch", "step", "task", "metric", "value"])
    found = published.paired_changes(made.assign(params=1, stderr=np.nan))
    alone, joined = found[found["model"].notna()], found[found["model"].isna()]
    assert alone[["low", "high", "p"]].isna().all().all(), "ten checkpoints say too little about their own noise"
    assert len(joined) == 150 and set(joined["unit"]) == {"model"} and set(joined["n"]) == {4}
    assert 0.01 <= (joined["p"] < 0.05).mean() <= 0.09
    assert ((joined["low"] > 0) | (joined["high"] < 0)).mean() <= 0.09


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(RequestError, match="no such folder, archive or file"):
        published.read_published(tmp_path / "none.tar.xz")
    with pytest.raises(DataError, match="no published results"):
        published.read_published(tmp_path)
    (tmp_path / "bad.tar.xz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match="not a readable archive"):
        published.read_published(tmp_path / "bad.tar.xz")
    folder = tmp_path / "pythia-v1" / "pythia-70m" / "zero-shot"
    folder.mkdir(parents=True)
    (folder / "70m_step0.json").write_text(json.dumps({
        "results": {"lambada_openai": {"acc": 0.5, "acc_stderr": 0.1}},
        "config": {"num_fewshot": 0, "model_args": "pretrained=EleutherAI/pythia-v1.1-70m,revision=step0"}}))
    assert published.read_published(tmp_path)["value"].tolist() == [0.5]
    (folder / "70m_step1.json").write_text("{")
    with pytest.raises(DataError, match=r"70m_step1\.json: not a published result"):
        published.read_published(tmp_path)
