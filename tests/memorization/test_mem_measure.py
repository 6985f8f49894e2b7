"""The item table over checkpoints, resumed part by part, and what is made of it: shares, exposures, other windows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from greedy_models import neox, probes
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from pythia_tools.analyses.memorization import (
    MemorizationTask,
    Window,
    extract,
    extractable,
    measure,
    summarize,
    with_exposures,
)
from pythia_tools.analyses.memorization import measure as measure_function
from pythia_tools.analyses.memorization.overlap import texts
from pythia_tools.analysis import ScoreTask, sweep
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Checkpoint], np.ndarray]:
    """Two checkpoints; rows are probes of the second one."""
    root: Path = tmp_path_factory.mktemp("probed")
    checkpoints = []
    for step in (0, 4):
        model = neox(seed=step)
        model.save_pretrained(root / f"step{step}")
        info = ModelInfo("tiny", params=40_000, non_embedding=20_000)
        checkpoints.append(Checkpoint("probed", info, step, step * 100, f"step{step}", Folder(root / f"step{step}")))
    rows, _ = probes(model, 10, 8, 12)
    return checkpoints, rows


def test_the_table_holds_one_typed_line_per_checkpoint_and_row(suite) -> None:  # type: ignore[no-untyped-def]
    checkpoints, rows = suite
    table = measure(
        checkpoints, rows, context=10, continuation=8, score=True, device="cpu"
    ).assign(subset=(["own"] * 12 + ["flipped"] * 96) * 2)
    assert list(table.columns[: len(tables.IDENTITY)]) == tables.IDENTITY
    assert len(table) == 2 * len(rows) and table["row"].tolist() == list(range(len(rows))) * 2
    assert str(table["memorized"].dtype) == "boolean"
    last = table[table["step"] == 4]
    assert last["memorized"].sum() == 12 and (last["memorized"] == (last["score"] == 1)).all()
    curve = summarize(table)
    share = curve[(curve["metric"] == "memorized_share") & (curve["step"] == 4)].set_index("subset")
    assert share.loc["own", "value"] == 1 and share.loc["flipped", "value"] == 0
    assert share.loc["own", "n"] == 12 and share.loc["own", "interval"] == "wilson95"


def test_a_sweep_resumes_and_shares_models_with_other_analyses(suite, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    checkpoints, rows = suite
    cells = CellStore(tmp_path / "cells")
    tasks = [MemorizationTask(rows, Window(10, 8)), ScoreTask(rows, aggregate="row")]
    first = sweep(checkpoints, tasks, cells=cells, device="cpu")
    again = sweep(checkpoints, tasks, cells=cells, device="cpu")
    assert first.computed == 4 and again.computed == 0 and again.reused == 4
    pd.testing.assert_frame_equal(first["memorization"], again["memorization"])
    other = sweep(checkpoints, [MemorizationTask(rows, Window(10, 7))], cells=cells, device="cpu")
    assert other.computed == 2


def test_parts_join_to_the_whole(suite, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import sys

    checkpoints, rows = suite
    whole = measure(checkpoints[1:], rows, context=10, continuation=8, device="cpu")
    monkeypatch.setattr(sys.modules["pythia_tools.analyses.memorization.measure"], "PART_ROWS", 25)
    parts = [measure(checkpoints[1:], rows, context=10, continuation=8, device="cpu", shard=(i, 3)) for i in range(3)]
    joined = pd.concat(parts, ignore_index=True).sort_values("row", ignore_index=True)
    assert (joined["memorized"] == whole["memorized"]).all() and (joined["row"] == whole["row"]).all()


def test_every_shorter_window_is_read_off_the_masks(suite) -> None:  # type: ignore[no-untyped-def]
    checkpoints, rows = suite
    table = measure(checkpoints[1:], rows, context=10, continuation=8, keep_from=3, device="cpu")
    kept = Window(10, 8, keep_from=3)
    assert (extractable(table, 10, 8, window=kept) == table["memorized"]).all()
    model = neox(seed=4)
    for context, continuation in ((3, 1), (3, 15), (9, 2), (12, 6), (17, 1)):
        direct = extract(model, rows, Window(context, continuation)).memorized
        assert (extractable(table, context, continuation, window=kept).to_numpy(dtype=bool) == direct).all()
    for context, continuation in ((2, 4), (12, 7)):
        with pytest.raises(RequestError, match="is not inside the masks"):
            extractable(table, context, continuation, window=kept)


def test_undecided_rows_are_missing_never_false(suite, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    checkpoints, rows = suite
    ragged = [*rows[:12].tolist(), rows[0].tolist()[:9], [*rows[1].tolist()[:17], 9999]]
    table = measure(checkpoints[1:], ragged, context=10, continuation=8, device="cpu")
    assert table["memorized"].isna().tolist() == [False] * 12 + [True] * 2
    assert table["status"].tolist()[-2:] == ["short", "id beyond vocabulary"]
    assert table["matched"].isna().sum() == 2 and table["margin"].isna().sum() == 2
    assert "1 of 14 rows hold ids the model does not have" in capsys.readouterr().err
    curve = summarize(table).set_index("metric")
    assert curve.loc["memorized_share", "value"] == 1 and curve.loc["memorized_share", "n"] == 12
    assert curve.loc["undecided", "value"] == 2


def test_requests_that_cannot_be_met_say_why(suite) -> None:  # type: ignore[no-untyped-def]
    checkpoints, rows = suite
    with pytest.raises(RequestError, match="screen 'int3' is not known"):
        measure(checkpoints, rows, screen="int3")
    with pytest.raises(RequestError, match="either keep_from or a screen"):
        measure(checkpoints, rows, context=10, continuation=8, screen="bfloat16", keep_from=2)
    with pytest.raises(RequestError, match="no rows to measure"):
        measure(checkpoints, [])
    assert callable(measure_function)


def _items(flags: list[bool], **columns: object) -> pd.DataFrame:
    identity = {"suite": "s", "model": "m", "params": 10, "step": 8, "tokens": 80, "branch": "main", "seed": pd.NA}
    frame = pd.DataFrame({"row": range(len(flags)), "memorized": pd.array(flags, dtype="boolean"), **columns})
    for position, (name, value) in enumerate(identity.items()):
        frame.insert(position, name, value)
    return tables.check_items(frame)


def test_rows_of_one_text_count_as_one_unit() -> None:
    """Forty texts of ten rows each, of which each is memorized whole or not at all: the share knows forty, not 400."""
    flags = np.repeat(np.arange(40) % 4 == 0, 10)
    table = _items(flags.tolist(), text=np.repeat(np.arange(40) * 10, 10))
    by_row = summarize(table).set_index("metric").loc["memorized_share"]
    by_text = summarize(table, unit="text").set_index("metric").loc["memorized_share"]
    assert by_text["value"] == by_row["value"] == 0.25 and (by_text["n"], by_text["unit"]) == (40, "text")
    assert (by_text["high"] - by_text["low"]) / (by_row["high"] - by_row["low"]) == pytest.approx(np.sqrt(10), rel=0.1)
    alone = summarize(table.assign(text=table["row"]), unit="text").set_index("metric").loc["memorized_share"]
    assert (alone["low"], alone["high"], alone["n"]) == (by_row["low"], by_row["high"], 400)


def test_rows_that_share_a_document_or_a_window_are_one_text() -> None:
    rng = np.random.default_rng(0)
    numbers, windows = np.arange(100, 140), rng.integers(0, 3, (40, 2))
    documents = np.where(rng.random(40) < 0.5, rng.integers(0, 30, 40), -1)
    found = texts(numbers, windows, documents)
    together = {number: {number} for number in numbers.tolist()}
    for a, b in itertools.combinations(range(40), 2):
        if (windows[a] == windows[b]).all() or (documents[a] >= 0 and documents[a] == documents[b]):
            joined = together[numbers[a]] | together[numbers[b]]
            together |= dict.fromkeys(joined, joined)
    assert found.to_dict() == {number: min(group) for number, group in together.items()}


def test_shares_have_wilson_intervals_over_rows() -> None:
    line = summarize(_items([True] * 3 + [False] * 17)).iloc[0]
    low, high = proportion_confint(3, 20, method="wilson")
    assert (line["value"], line["n"]) == (0.15, 20)
    assert line["low"] == pytest.approx(low) and line["high"] == pytest.approx(high)


def test_copies_of_one_canary_count_once() -> None:
    table = _items([True] * 50 + [False, True], canary=[0] * 50 + [1, 2])
    line = summarize(table, unit="canary").iloc[0]
    assert line["n"] == 3 and line["value"] == pytest.approx(2 / 3)
    assert line["interval"] == "wilson95"


def test_a_checkpoint_has_consumed_the_batches_below_its_step() -> None:
    items = _items([True, False, True])
    assert with_exposures(items.assign(step=7), [[3, 7, 7], [], [8]])["exposures"].tolist() == [1, 0, 0]
    table = with_exposures(items, [[3, 7, 7], [], [8]])
    assert table["exposures"].tolist() == [3, 0, 0]
    found = summarize(table, by="exposures")
    groups = found.set_index("exposures_low")
    assert groups.loc[0, "n"] == 2 and groups.loc[3, "value"] == 1 and (
        found["exposures_low"] == found["exposures_high"]
    ).all()
    binned = summarize(table, by="exposure_bins")[["exposures_low", "exposures_high"]]
    assert binned.to_numpy().tolist() == [[2, 3], [0, 0]]
    with pytest.raises(RequestError, match="not told apart by 'margin'"):
        summarize(table, by="margin")
    with pytest.raises(RequestError, match="row 2 has no exposures"):
        with_exposures(_items([True, False, True]), [[1], [2]])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=1, max_size=5), st.integers(0, 31))
def test_exposures_are_a_plain_count(steps: list[list[int]], step: int) -> None:
    table = with_exposures(_items([True] * len(steps)).assign(step=step), steps)
    assert table["exposures"].tolist() == [sum(1 for b in batches if b < step) for batches in steps]
