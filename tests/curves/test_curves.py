"""Token curves as a user meets them: `pt.token_curves` and `pythia-tools curves`, on a suite trained in seconds."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from safetensors.torch import load_file, save_file

import pythia_tools as pt
from pythia_tools import analyses, counts
from pythia_tools.analyses import curves
from pythia_tools.analyses.curves import open_store, task
from pythia_tools.analyses.curves.joins import MOST_TOKENS, ConsumedNgrams, countable
from pythia_tools.analysis import Context, measure
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore, Run, load_run
from pythia_tools.suites import Suite, load_suite


@pytest.fixture(scope="module")
def suite(tiny_suite: Path) -> Suite:
    return load_suite(tiny_suite)


@pytest.fixture(scope="module")
def rows(suite: Suite) -> np.ndarray:
    found = Context(suite.checkpoints(), suite=suite).heldout
    assert found is not None
    return found[:12]


@pytest.fixture(scope="module")
def run(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The command over rows of the order, whose documents and exposures are known."""
    out = tmp_path_factory.mktemp("curves") / "run"
    command = ["curves", str(tiny_suite), "--rows", "10", "--positions", "6", "--rows-from", "order", "--quiet"]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == 0
    return load_run(out)


def test_curves_are_the_surprisals_of_token_scores(suite: Suite, rows: np.ndarray, tmp_path: Path) -> None:
    chosen, positions = suite.checkpoints(), np.array([[3, 9, 40 + k] for k in range(12)])
    store = pt.token_curves(chosen, rows, positions=positions, row_ids=range(100, 112), folder=tmp_path, device="cpu")
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".parquet", ".chunks"}, "cells are gone when done"
    scores = pt.token_scores(chosen, rows, row_ids=range(100, 112), device="cpu")
    known = scores.set_index(["model", "row", "position", "step"])["nll"].sort_index() / math.log(2)
    for stored in store.runs:
        assert list(stored.steps) == suite.steps(stored.model) and 2**stored.chance >= 512
        for (row, position), token in store.places.set_index(["row", "position"])["token"].items():
            assert token == rows[row - 100, position + 1] and position in positions[row - 100]
            expected = known[stored.model, row, position].loc[list(stored.steps)]
            np.testing.assert_allclose(store.token(row, position, stored.model), expected, rtol=6e-4)


def test_a_second_call_finds_the_cells_it_is_given(suite: Suite, rows: np.ndarray, tmp_path: Path) -> None:
    chosen, cells = suite.checkpoints(steps="first,last"), CellStore(tmp_path / "cells")
    asked = {"positions": [2, 5], "device": "cpu", "cells": cells}
    first = pt.token_curves(chosen, rows, folder=tmp_path / "a", **asked)
    kept = {path: path.stat().st_mtime_ns for path in cells.folder.iterdir()}
    again = pt.token_curves(chosen, rows, folder=tmp_path / "b", **asked)
    assert kept == {path: path.stat().st_mtime_ns for path in cells.folder.iterdir()} and kept
    for stored in first.runs:
        np.testing.assert_array_equal(first.row(3, stored.model), again.row(3, stored.model))


def test_a_store_made_of_the_same_weights_is_opened_as_it_is(
    suite: Suite, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the weights' files have settled, so that their digest is remembered; other weights are measured anew."""
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pythia_tools.models.digest.SETTLED_SECONDS", -1)
    model = next(iter(suite.models))
    for name, step in (("step0", 0), ("step1", 1)):
        shutil.copytree(suite.checkpoint(model, suite.steps(model)[step]).location.path, tmp_path / "own" / name)
    asked = {"positions": [7], "folder": tmp_path / "store", "device": "cpu"}
    first = pt.token_curves(load_suite(tmp_path / "own").checkpoints(), rows, **asked)
    before = [first.step(step) for step in (0, 1)]
    measured = []
    monkeypatch.setattr(task.CurveTask, "run", lambda *a, run=task.CurveTask.run: measured.append(a) or run(*a))
    again = pt.token_curves(load_suite(tmp_path / "own").checkpoints(), rows, **asked)
    assert not measured and (again.step(1) == before[1]).all()
    last = suite.checkpoint(model, max(suite.steps(model)))
    shutil.copy2(last.location.path / "model.safetensors", tmp_path / "own" / "step1" / "model.safetensors")
    changed = pt.token_curves(load_suite(tmp_path / "own").checkpoints(), rows, **asked)
    assert measured and (changed.step(0) == before[0]).all() and (changed.step(1) != before[1]).any()


def test_what_does_not_fit_is_refused(suite: Suite, rows: np.ndarray, tmp_path: Path) -> None:
    chosen, length = suite.checkpoints(steps="last"), rows.shape[1] - 1
    for asked, says in (
        ({"positions": [length]}, f"these rows have 0 to {length - 1}"), ({"positions": [[1], [2]]}, r"or \(12, p\)"),
        ({"row_ids": [3] * 12}, "one for each is needed, ascending"), ({"positions": [0.5]}, "must be whole numbers"),
    ):
        with pytest.raises(RequestError, match=says):
            pt.token_curves(chosen, rows, folder=tmp_path, device="cpu", **asked)


def test_logits_that_are_nan_give_curves_that_say_so(
    suite: Suite, rows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = next(iter(suite.models))
    for step in (0, 1):
        shutil.copytree(suite.checkpoint(model, suite.steps(model)[0]).location.path, tmp_path / f"step{step}")
    file = tmp_path / "step1" / "model.safetensors"
    weights = load_file(file)
    head = next(name for name in weights if "embed_out" in name or "lm_head" in name)
    weights[head][5] = torch.finfo(torch.float32).max
    save_file(weights, file, metadata={"format": "pt"})
    broken = load_suite(tmp_path).checkpoints()
    store = pt.token_curves(broken, rows, positions=[4], folder=tmp_path / "s", device="cpu")
    assert np.isfinite(store.step(0)).all()
    if not np.isfinite(store.step(1)).all():
        assert "NaN or Inf logits" in capsys.readouterr().err
        told = curves.describe(store)
        assert told["failed_crossing"].any() and told.loc[told["failed_gam"], "aoa_gam"].isna().all()


def test_items_are_a_line_per_token_and_one_per_checkpoint_and_row(run: Run, suite: Suite) -> None:
    tokens, lines = (run.items[run.items["task"] == kind] for kind in ("token", "row"))
    assert tokens.groupby("model").size().eq(60).all() and tokens["model"].nunique() == len(suite.models)
    assert len(lines) == 10 * len(suite.checkpoints())
    assert set(run.items.columns) <= {*tables.IDENTITY, *analyses.get("curves").columns}
    store = open_store(run.path / "token_curves")
    for model, own in tokens.groupby("model"):
        told = curves.describe(store, str(model))
        for column in ("best", "final", "forgetting", "aoa_gam", "aoa_crossing"):
            np.testing.assert_allclose(own[column], told[column])
        assert own["step"].eq(max(suite.steps(str(model)))).all()


def test_context_and_surprisal_per_row_are_token_scores(run: Run, suite: Suite) -> None:
    order = Context(suite.checkpoints(), suite=suite).order
    lines = run.items[(run.items["task"] == "row") & (run.items["model"] == next(iter(suite.models)))]
    numbers = np.unique(lines["row"])
    last = suite.checkpoint(next(iter(suite.models)), int(lines["step"].max()))
    vocabulary = Context([last], suite=suite).vocabulary
    scores = pt.token_scores([last], order.take(numbers), row_ids=numbers, vocabulary=vocabulary, device="cpu")
    nll = scores.set_index(["row", "position"])["nll"].unstack()
    own, length = lines[lines["step"] == last.step].set_index("row").loc[numbers], order.seq_length
    np.testing.assert_allclose(own["early"], nll[length // 8], rtol=1e-4)
    np.testing.assert_allclose(own["late"], nll[3 * length // 4], rtol=1e-4)
    places = open_store(run.path / "token_curves").places
    means = [nll.loc[row, own_places["position"]].mean() / math.log(2) for row, own_places in places.groupby("row")]
    np.testing.assert_allclose(own["bits"], means, rtol=1e-4)


def test_what_stands_beside_a_token_is_counted_in_the_order(run: Run, suite: Suite) -> None:
    order = Context(suite.checkpoints(), suite=suite).order
    tokens = run.items[run.items["task"] == "token"]
    one = tokens[tokens["model"] == next(iter(suite.models))]
    seen = order.rows(0, int(one["step"].iloc[0]) * order.batch_rows)
    places = counts.documents_of_rows(order, 0, int(one["row"].max()) + 1).set_index("row")
    for line in one.itertuples():
        assert line.exposures == (seen == line.token).sum()
        assert line.consumed == line.row // order.batch_rows + 1
        pieces = places.loc[[line.row]]
        at = line.position + 1
        assert line.document == pieces[(pieces["row_start"] <= at) & (at < pieces["row_stop"])]["document"].iloc[0]
        if line.position:
            three = order.rows(line.row, line.row + 1)[0, line.position - 1 : line.position + 2]
            found = sum(int((seen[:, k : k + 3] == three).all(axis=1).sum()) for k in range(seen.shape[1] - 2))
            assert line.trigram_exposures == found
        labels = seen[:, 1:]
        share = ((labels == line.token).sum() - 1) / (labels.size - 1)
        assert line.ngram_1 == pytest.approx(-math.log2(share)) if share else line.ngram_1 > 0
    crossed = one.dropna(subset=["aoa_crossing"])
    assert (crossed["exposures_at_crossing"] <= crossed["exposures"]).all() and len(crossed)


def test_the_summary_is_of_the_items(run: Run) -> None:
    summary, tokens = run.summary, run.items[run.items["task"] == "token"]
    whole = summary[summary["exposures_low"].isna()].set_index(["model", "metric"])
    for model, own in tokens.groupby("model"):
        assert whole.loc[(model, "final"), "value"] == pytest.approx(own["final"].mean())
        assert whole.loc[(model, "aoa_crossing"), "value"] == pytest.approx(own["aoa_crossing"].mean())
        reached = whole.loc[[(model, "acquired_share")]]
        for line in reached.itertuples():
            assert line.value == pytest.approx((own["aoa_crossing"] <= np.log10(line.step) + 1e-9).mean())
            assert line.low <= line.value <= line.high and line.n == 10
        assert len(reached) == len({s for s in run.items.loc[run.items["model"] == model, "step"] if s > 0})
        failed = whole.loc[[(model, "fit_failed_share")]].set_index("task")["value"]
        assert failed["sigmoid"] == own["failed_sigmoid"].astype(float).mean()
    lines = run.items[run.items["task"] == "row"].groupby(["model", "step"])
    divergence = summary[summary["metric"] == "ngram_kl"].set_index(["model", "step", "task"])["value"]
    for (model, step), own in lines:
        assert divergence[model, step, "2-gram"] == pytest.approx(own["kl_2"].mean())
    least = summary[summary["metric"] == "ngram_kl_least_step"].set_index(["model", "task"])["value"]
    for model, own in lines["kl_1"].mean().groupby("model"):
        assert len(own) == 1 or least[model, "1-gram"] == own.idxmin()[1]
    assert {p.stem for p in run.figures} == {"acquired", "age_by_exposures", "ngram_divergence"}
    assert len(run.record["sentences"]) >= 4


def test_divergence_from_unigrams_is_that_of_the_whole_distribution(run: Run, suite: Suite) -> None:
    order, model = Context(suite.checkpoints(), suite=suite).order, next(iter(suite.models))
    last = suite.checkpoint(model, max(suite.steps(model)))
    vocabulary = Context([last], suite=suite).vocabulary
    labels = np.bincount(order.rows(0, last.step * order.batch_rows)[:, 1:].reshape(-1), minlength=vocabulary)
    share = labels / labels.sum()
    live, places = pt.models.load(last, device="cpu"), open_store(run.path / "token_curves").places
    lines = run.items[(run.items["task"] == "row") & (run.items["model"] == model) & (run.items["step"] == last.step)]
    for row, value in zip(lines["row"], lines["kl_1"], strict=True):
        ids = torch.from_numpy(order.rows(row, row + 1).astype(np.int64))
        with torch.no_grad():
            logp = torch.log_softmax(live(ids).logits[0, :, :vocabulary].double(), 1).numpy()
        own = places.loc[places["row"] == row, "position"]
        seen = share > 0
        expected = [(share[seen] * (np.log(share[seen]) - logp[p][seen])).sum() / math.log(2) for p in own]
        assert value == pytest.approx(np.mean(expected), rel=1e-4)


def test_python_measures_without_a_folder_and_held_out_rows_are_the_default(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    chosen = suite.checkpoints(models=[next(iter(suite.models))])
    items = measure(analyses.get("curves"), chosen, suite=suite, rows=4, positions=3, ages=("crossing",), device="cpu")
    assert set(items["subset"]) == {"heldout"} and "aoa_sigmoid" not in items and items["exposures"].notna().any()
    assert (items["task"] == "token").sum() == 12 and "consumed" not in items


def test_without_an_order_the_rest_is_measured_and_what_is_asked_for_is_refused(
    suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = next(iter(suite.models))
    for step in suite.steps(model)[:3]:
        shutil.copytree(suite.checkpoint(model, step).location.path, tmp_path / "bare" / f"step{step}")
    command = ["curves", str(tmp_path / "bare"), "--device", "cpu", "--quiet", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "names no data order" in capsys.readouterr().err
    assert main(["curves", str(suite.folder), "--ngrams", "7", "--out", str(tmp_path / "n")]) == 2
    assert "--ngrams: 7 is not known; allowed: 0, 1, 2, 3, 4, 5" in capsys.readouterr().err


def test_rows_are_not_fetched_by_the_terabyte_unless_asked_twice(suite: Suite, rows: np.ndarray) -> None:
    far = pt.order.ArrayRows(np.zeros((640, 65), np.uint16), batch_rows=4, name="far")
    far.remote, far.n_rows, far.steps = True, 10**9, 10**9 // 4
    context = Context(suite.checkpoints(steps="last"), suite=suite, order=far)
    far.batch_rows = MOST_TOKENS // 65
    assert not countable(context)
    with pytest.raises(RequestError, match=r"would read .* of far from the hub; choose earlier --steps"):
        ConsumedNgrams.of(context, task.Chosen.of(rows), 3)


def test_profiles_are_of_so_many_rows_and_parts_join(
    suite: Suite, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = suite.checkpoints(models=[next(iter(suite.models))], steps="first,last")
    whole = pt.token_curves(chosen, rows, folder=tmp_path / "whole", device="cpu")
    monkeypatch.setattr(task, "PART_ROWS", 5)
    parts = pt.token_curves(chosen, rows, folder=tmp_path / "parts", device="cpu", batch_size=2)
    for row in range(12):
        np.testing.assert_allclose(parts.row(row), whole.row(row), rtol=2e-3)
    monkeypatch.setattr(task, "PROFILE_ROWS", 3)
    own = task.CurveTask(task.Chosen.of(rows, [1, 2]), folder=tmp_path / "own")
    found = pt.analysis.sweep(chosen, [own], device="cpu")[own.name]
    assert found.groupby("step")["row"].apply(list).tolist() == [[0, 5, 11]] * 2
    assert len(open_store(tmp_path / "own")) == 24


def test_single_curves_are_drawn_with_the_step_of_their_acquisition(run: Run) -> None:
    store = open_store(run.path / "token_curves")
    model, steps = store.runs[0].model, list(store.runs[0].steps)
    tokens = curves.describe(store, model, ages=["crossing"]).iloc[[0, 30]]
    lines = pd.concat([
        pd.DataFrame({"label": str(t.token), "step": steps, "age": t.aoa_crossing,
                      "bits": store.token(t.row, t.position, model)}) for t in tokens.itertuples()
    ])
    ax = pt.plots.surprisal_curves(lines)
    drawn = {str(line.get_label()): line for line in ax.get_lines() if not str(line.get_label()).startswith("_")}
    assert list(drawn) == tokens["token"].astype(str).tolist()
    for t in tokens.itertuples():
        np.testing.assert_array_equal(drawn[str(t.token)].get_ydata(), store.token(t.row, t.position, model))
    plt.close(ax.figure)


def test_sentences_are_read_off_the_summary(run: Run) -> None:
    for sentence in run.record["sentences"]:
        read = run.summary.iloc[sentence["rows"]]
        assert len(read) and read["value"].notna().all()
    reversed_ = run.summary.copy()
    ranks = reversed_["metric"] == "aoa_frequency"
    low, high = reversed_.loc[ranks, "low"].abs() + 0.1, reversed_.loc[ranks, "high"].abs() + 0.2
    reversed_.loc[ranks, ["value", "low", "high"]] = np.column_stack([(low + high) / 2, low, high])
    told = [str(s) for s in analyses.get("curves").sentences(reversed_)]
    assert any("seen more often are acquired later" in s for s in told)
    assert analyses.get("curves").sentences(tables.summary([])) == []
    assert isinstance(run.items, pd.DataFrame)
