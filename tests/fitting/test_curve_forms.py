"""Fits of curves through the real command line: on public tables, on made data, and on what they must refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from public_tables import archive, evaluations, lambada, training_maps

import pythia_tools as pt
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import load_run
from pythia_tools.fitting import FORMS
from pythia_tools.fitting.series import KEYS

STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def told(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    return summary[summary["metric"] == metric]


def fit_file(table: Path, form: str, out: Path, *flags: str) -> None:
    assert main(["fit", str(table), "--form", form, "--out", str(out), "--quiet", *flags]) == 0


def test_lambada_saturates_in_exactly_the_four_small_models(tmp_path: Path) -> None:
    lambada().to_csv(tmp_path / "lambada.csv", index=False)
    assert main(["fit", str(tmp_path / "lambada.csv"), "--form", "saturation", "--out", str(tmp_path / "run"),
                 "--quiet"]) == 0
    summary = load_run(tmp_path / "run").summary
    falls = told(summary, "saturates").query("value == 1")
    assert set(falls["model"]) == {"70m", "70m-deduped", "160m", "160m-deduped"}
    z = told(summary, "fall_z").set_index("model")["value"]
    # dynamics of Godey et al. on this table, with the last checkpoint's error alone: 9.0, 8.9, 7.7, 6.0
    assert z[["70m", "70m-deduped", "160m", "160m-deduped"]].tolist() == pytest.approx([9.0, 8.9, 7.7, 6.0], abs=0.6)
    assert z.drop(falls["model"].tolist()).max() < 1.31
    peaks = told(summary, "peak").set_index("model")["step"]
    assert peaks[["70m", "70m-deduped", "160m", "160m-deduped"]].tolist() == [53000, 23000, 63000, 93000]
    assert (tmp_path / "run" / "figures" / "saturation.png").stat().st_size > 10_000


def test_the_public_archive_is_asked_as_it_is(tmp_path: Path) -> None:
    fit_file(archive(), "saturation", tmp_path / "run", "--task", "lambada_openai", "--metric", "acc")
    falls = told(load_run(tmp_path / "run").summary, "saturates").query("value == 1")
    small = {(suite, size) for suite in ("pythia", "pythia-deduped") for size in ("70m", "160m")}
    assert set(zip(falls["suite"], falls["model"], strict=True)) == small
    run = load_run(tmp_path / "run")
    (panel,) = pt.plots.shapes.saturation(run.summary, run.items).axes
    named = {text.get_text() for text in panel.get_legend().get_texts()}
    assert named == {" ".join(pair) for pair in small}, "other runs of these sizes stay grey"


def test_a_perplexity_saturates_as_its_accuracy_does() -> None:
    table = evaluations()
    table = table.assign(error=0.03 * table["lambada_ppl"])
    found = pt.fit(table, form="saturation", value_column="lambada_ppl", error_column="error").summary
    falls = set(told(found, "saturates").query("value == 1")["model"])
    assert falls == {"70m", "70m-deduped", "160m", "160m-deduped"}


def test_seeds_three_and_four_stray_and_no_other(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["fit", str(training_maps()), "--form", "seeds", "--value-column", "score", "--out", str(run),
                 "--quiet"]) == 0
    summary = load_run(run).summary
    assert [round(v, 3) for v in told(summary, "icc")["value"]] == [0.974, 0.090]
    assert told(summary, "outlier").query("value == 1")["seed"].tolist() == [3, 4]
    z = told(summary, "distance_z").set_index("seed")["value"]
    assert (round(z[3], 1), round(z[4], 1)) == (15.8, 41.7) and z.drop([3, 4]).abs().max() <= 1.4
    assert told(summary, "parts_from").set_index("seed")["value"].to_dict() == {3: 83000, 4: 123000}
    median = told(summary, "median").set_index("step")
    scores = pd.read_csv(training_maps(), sep="\t").pivot(index="step", columns="seed", values="score")
    for column, share in (("low", 0.25), ("value", 0.5), ("high", 0.75)):
        np.testing.assert_allclose(median[column], scores.quantile(share, axis=1))
    assert (run / "figures" / "seeds.png").exists()
    assert main(["rerun", str(run), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    pd.testing.assert_frame_equal(load_run(tmp_path / "again").summary, summary)


def test_eight_stable_seeds_agree() -> None:
    table = pd.read_csv(training_maps(), sep="\t").query("seed not in (3, 4)")
    found = pt.fit(table, form="seeds", value_column="score").summary
    assert [round(v, 3) for v in told(found, "icc")["value"]] == [0.999, 0.893]
    assert not told(found, "outlier")["value"].any()


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    """Their table 2 and 3: six targets, four judges; ICC(2,1) = .29, 95 % interval .02 to .76."""
    from pythia_tools.fitting.seeds import icc

    found = icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    assert (round(found.value, 2), round(found.low, 2), round(found.high, 2)) == (0.29, 0.02, 0.76)


def test_seeds_are_judged_within_a_size_and_against_their_items() -> None:
    rng, rows = np.random.default_rng(0), []
    for size in (1_000_000, 10_000_000):
        for seed in range(5):
            rows += [{"model": f"{size}-seed{seed}", "params": size, "seed": seed, "step": step, "stderr": 0.02,
                      "value": np.log(step) * size / 1e8 + rng.normal(0, 0.02)} for step in STEPS]
    found = pt.fit(pd.DataFrame(rows), form="seeds").summary
    assert told(found, "icc")["params"].tolist() == [1_000_000] * 2 + [10_000_000] * 2
    assert told(found, "spread_over_noise")["value"].between(0.6, 1.5).all()


def test_phases_lie_between_checkpoints_and_are_found_again(tmp_path: Path) -> None:
    steps, rng = np.unique(np.geomspace(1, 100_000, 60).astype(int)), np.random.default_rng(0)
    x = np.log10(steps)
    curve = np.where(x < 2.05, 0.0, np.where(x < 3.55, 1 + (x - 2.05), 1.5)) + rng.normal(0, 0.05, len(x))
    pd.DataFrame({"iteration": steps, "score": curve, "se": 0.05}).to_csv(tmp_path / "curve.csv", index=False)
    fit_file(tmp_path / "curve.csv", "phases", tmp_path / "run")
    run = load_run(tmp_path / "run")
    changes = told(run.summary, "change_before")
    for true, (_, change) in zip((10**2.05, 10**3.55), changes.iterrows(), strict=True):
        assert change["low"] <= change["step"] <= true <= change["value"] <= change["high"]
    assert (told(run.summary, "stability")["value"] > 0.9).all()
    assert run.items["phase"].tolist() == sorted(run.items["phase"])
    assert (tmp_path / "run" / "figures" / "phases.png").exists()
    sentence = json.loads((tmp_path / "run" / "run.json").read_text())["sentences"][0]["text"]
    assert "2 changes of course, between" in sentence


def test_phases_resample_items_where_they_are_at_hand() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=200)
    rows = [(step, item, float(rng.normal() + hard[item] < (1.0 if step > 20 else -1.0)))
            for step in STEPS for item in range(200)]
    found = pt.fit(pd.DataFrame(rows, columns=["step", "doc_id", "value"]), form="phases", pieces="constant")
    change = told(found.summary, "change_before").iloc[0]
    assert (change["step"], change["value"]) == (16, 32) and change["n"] == 200 and change["unit"] == "item"


def test_small_runs_decide_as_the_arithmetic_says(tmp_path: Path) -> None:
    small = {"a": [1.0, 2.0], "b": [2.0, 2.0], "c": [3.0, 0.0]}
    large = {"a": [1.0], "b": [2.0], "c": [3.0]}
    sizes = {"20M": small, "1B": large}
    rows = [(c, p, k, v) for p, held in sizes.items() for c, runs in held.items() for k, v in enumerate(runs)]
    pd.DataFrame(rows, columns=["data", "params", "seed", "score"]).to_csv(tmp_path / "runs.csv", index=False)
    fit_file(tmp_path / "runs.csv", "decision", tmp_path / "run")
    found = told(load_run(tmp_path / "run").summary, "decision_accuracy").iloc[0]
    # a–b: < < = = of (1,2)×(2,2): 1, 1, ½, ½; a–c: (1,2)×(3,0): 1, 0, 1, 0; b–c: (2,2)×(3,0): 1, 0, 1, 0
    assert found["value"] == pytest.approx((0.75 + 0.5 + 0.5) / 3) and found["params"] == 20_000_000
    assert np.isnan(found["low"]) and found["n"] == 3  # three corpora carry no interval


def test_a_losing_metric_is_found_worse_and_losses_rank_downwards() -> None:
    rng, rows = np.random.default_rng(0), []
    for corpus in range(15):
        quality = rng.normal()
        for size, noise in (("150M", 1.0), ("1B", 0.01)):
            for seed in range(3):
                rows.append({"corpus": f"c{corpus}", "params": size, "seed": seed, "task": "arc",
                             "acc": quality + noise * rng.normal() * 3,
                             "bits_per_byte": 2 - quality + noise * 0.1 * rng.normal()})
    found = pt.fit(pd.DataFrame(rows), form="decision", metrics=["acc", "bits_per_byte"], target_metric="acc").summary
    share = told(found, "decision_accuracy").set_index("reference")["value"]
    assert share["bits_per_byte"] > 0.9 > share["acc"] > 0.4
    behind = told(found, "behind_best").iloc[0]
    assert behind["reference"] == "acc" and behind["low"] > 0


def test_signal_and_noise_are_spreads_over_means() -> None:
    rows = [(c, p, s, v) for p in (1e6, 1e7) for c, base in (("a", 2.0), ("b", 3.0)) for s, v in
            zip(STEPS, base + 0.1 * (-1.0) ** np.arange(10), strict=True)]
    found = pt.fit(pd.DataFrame(rows, columns=["corpus", "params", "step", "value"]), form="decision", noise_over=4,
                   last=2).summary.query("params == 10000000").set_index("metric")["value"]
    assert found["signal"] == pytest.approx(1 / 2.5)
    tail = np.std([0.1, -0.1, 0.1, -0.1], ddof=1)
    assert found["noise"] == pytest.approx((tail / 2 + tail / 3) / 2)
    assert found["signal_to_noise"] == pytest.approx(found["signal"] / found["noise"])


@pytest.mark.parametrize("seed", range(3))
def test_states_come_back_and_are_numbered_by_time(seed: int, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(seed), []
    turns = {run: (10 + run, 22 - run) for run in range(4)}
    for run, (first, second) in turns.items():
        for place in range(30):
            state = (place >= first) + (place >= second)
            rows.append({"model": f"r{run}", "step": place, "norm": 3 * state + rng.normal(0, 0.3),
                         "rank": -2 * state + rng.normal(0, 0.3)})
    pd.DataFrame(rows).to_csv(tmp_path / "weights.csv", index=False)
    assert main(["fit", str(tmp_path / "weights.csv"), "--form", "states", "--features", "norm", "rank", "--most", "4",
                 "--out", str(tmp_path / "run"), "--quiet"]) == 0
    run = load_run(tmp_path / "run")
    assert told(run.summary, "states")["value"].item() == 3
    entered = told(run.summary, "state_from")
    got = {int(m[1:]): tuple(part["value"].astype(int)) for m, part in entered.groupby("model")}
    assert got == turns and set(entered["subset"]) == {"2", "3"}
    assert (entered["high"] - entered["low"] == 1).all()


def test_states_of_a_published_map_agree_over_starts() -> None:
    table = evaluations()
    found = pt.fit(table, form="states", features=["lambada_acc", "piqa", "arc_easy", "sciq"], states=4).summary
    assert told(found, "agreement")["value"].item() > 0.8


def choices(jump: bool) -> pd.DataFrame:
    """Items of `evaluate`: 300 documents of four choices, whose right answer gains steadily, or all at once."""
    rng, rows = np.random.default_rng(0), []
    for place, step in enumerate(STEPS):
        lead = (-6.0 if place < 6 else 6.0) if jump else 1.5 * (place - 6)
        scores = rng.normal(size=(300, 4)) * 0.7 - 20
        scores[:, 0] += lead
        for doc, ll in enumerate(scores):
            rows += [{"suite": "made", "model": "m", "params": 1, "branch": "main", "seed": 0, "step": step,
                      "tokens": 1, "task": "four", "doc_id": doc, "choice": c, "gold": c == 0, "ll": ll[c],
                      "is_greedy": False,
                      "margin": ll[c] - np.delete(ll, c).max(), "n_tokens": 3, "bytes": 10} for c in range(4)]
    return pd.DataFrame(rows)


def continuations(jump: bool) -> pd.DataFrame:
    """Items of `evaluate`: 300 texts of eight tokens, whose probabilities grow steadily, or all at once."""
    rng, rows = np.random.default_rng(0), []
    for place, step in enumerate(STEPS):
        p = (0.01 if place < 6 else 0.99) if jump else 0.05 * 20 ** (place / 9)
        ll = 8 * np.log(np.clip(p * np.exp(0.05 * rng.normal(size=300)), 0, 0.999))
        rows += [{"suite": "made", "model": "m", "params": 1, "branch": "main", "seed": 0, "step": step, "tokens": 1,
                  "task": "text", "doc_id": doc, "choice": 0, "gold": pd.NA, "ll": value, "is_greedy": value > -5.0,
                  "margin": np.nan, "n_tokens": 8, "bytes": 30} for doc, value in enumerate(ll)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("made", [choices, continuations])
def test_jumps_survive_only_where_continuous_metrics_jump_too(made, tmp_path: Path) -> None:
    for jump, wanted in ((True, "survives"), (False, "vanishes")):
        made(jump).to_parquet(tmp_path / "items.parquet")
        out = tmp_path / f"run-{jump}"
        assert main(["fit", str(tmp_path / "items.parquet"), "--form", "mirage", "--out", str(out), "--quiet"]) == 0
        run = load_run(out)
        assert set(run.items["verdict"]) == {wanted}
        assert told(run.summary, "survives")["value"].item() == float(jump)
        assert told(run.summary, "resolution")["value"].item() == pytest.approx(1 / 300)
        assert told(run.summary, "sharpness")["low"].notna().all()


def test_brier_and_probabilities_are_those_of_the_choices() -> None:
    from pythia_tools.fitting.mirage import measures

    items = choices(True).query("step == 1 and doc_id < 3")
    found = measures(items).pivot(index="item", columns="metric", values="value")
    for doc, part in items.groupby("doc_id"):
        p = np.exp(part["ll"]) / np.exp(part["ll"]).sum()
        assert found.loc[doc, "gold_probability"] == pytest.approx(p.iloc[0])
        assert found.loc[doc, "brier"] == pytest.approx(((p - [1, 0, 0, 0]) ** 2).sum())
        assert found.loc[doc, "bits_per_byte"] == pytest.approx(-part["ll"].iloc[0] / np.log(2) / 10)


def test_what_cannot_be_judged_says_which_columns_are_missing() -> None:
    table = pd.DataFrame({"step": STEPS, "acc": [0.0] * 6 + [0.9] * 4})
    found = pt.fit(table, form="mirage", metrics=["acc"], items=500)
    assert found.items["verdict"].eq("cannot be judged").all()
    assert "no continuous metric" in found.sentences[0].text and "bits_per_byte" in found.sentences[0].text
    flat = pt.fit(table.assign(acc=[0.5] * 6 + [0.501] * 4), form="mirage", metrics=["acc"], items=500)
    assert flat.items["verdict"].eq("below resolution").all()


@pytest.mark.parametrize(("form", "columns", "says"), [
    ("saturation", {"step": [1, 2, 4], "value": [1, 2, 3]}, "--error-column"),
    ("saturation", {"step": [1, 2], "value": [1, 2], "stderr": [1, 1]}, "no curve has 3 steps"),
    ("phases", {"iteration": [1, 2], "height": [1, 2]}, "--value-column"),
    ("phases", {"step": [1, 1, 2], "value": [1, 2, 3]}, "--item-column"),
    ("phases", {"step": [1, 2, 4], "value": ["1", "x", "3"]}, "'x'"),
    ("seeds", {"step": [1, 2, 4], "value": [1, 2, 3]}, "--seed-column"),
    ("decision", {"params": [1, 2], "value": [1, 2]}, "--corpus-column"),
    ("mirage", {"step": [1, 2, 4], "value": [1, 2, 3]}, "--exact"),
    ("states", {"step": [1, 2], "value": [1, 2]}, "checkpoints"),
])
def test_what_a_table_lacks_is_said_in_one_line(form: str, columns: dict, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        pt.fit(pd.DataFrame(columns), form=form)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["saturation", "decision", "mirage", "phases", "states", "seeds"])
def test_every_form_declares_what_its_tables_hold(form: str) -> None:
    """On one made table that all of them can read."""
    rng = np.random.default_rng(1)
    rows = [{"corpus": f"c{c}", "params": size, "seed": seed, "step": step, "metric": metric, "stderr": 0.05,
             "value": np.log(step) * 0.1 + 0.02 * c + rng.normal(0, 0.05)}
            for c in range(5) for size in (10, 20) for seed in range(4) for step in STEPS
            for metric in ("acc", "brier")]
    table = pd.DataFrame(rows)
    if form != "decision":
        table = table[(table["corpus"] == "c0") & (table["params"] == 10)].drop(columns=["params", "corpus"])
    found, declared = pt.fit(table, form=form), FORMS[form]
    assert found.summary.columns.tolist() == tables.SUMMARY and set(found.summary["metric"]) <= set(declared.metrics)
    assert not found.summary.duplicated(tables.KEYS).any()
    assert set(found.items.columns) <= {*KEYS, "step", "value", *declared.items, *_features(found.items)}
    assert found.sentences and all(max(s.rows) < len(found.summary) for s in found.sentences)
    for name in declared.figures:
        assert getattr(pt.plots, name)(found.summary, found.items) is not None


def _features(items: pd.DataFrame) -> list[str]:
    """The columns of states' features, which are the table's."""
    return [c for c in items.columns if c in ("acc", "brier")]
