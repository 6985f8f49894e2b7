"""Losses: which rows they are measured on, and what they are; on a model that is really trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_tools import analysis, load_suite, models
from pythia_tools.analyses import losses
from pythia_tools.analyses.losses import task
from pythia_tools.analyses.losses.table import with_consumed
from pythia_tools.analysis import Context, joined
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.micro import load_truth
from pythia_tools.order import ArrayRows
from pythia_tools.plots.curves import losses as plot
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

VOCAB, BATCH, STEPS = 32, 8, 40


@pytest.fixture(scope="module")
def order() -> ArrayRows:
    return ArrayRows(np.random.default_rng(0).integers(0, VOCAB, (BATCH * STEPS, 17)).astype(np.uint16), BATCH)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, order) -> list[Checkpoint]:
    """A small model that learns random rows by heart, each batch five times over, saved at steps 0, 20 and 40."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256,
            max_position_embeddings=32
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    made = []
    for step in range(STEPS + 1):
        if step in (0, 20, 40):
            model.save_pretrained(folder / f"step{step}")
            at = Folder(Path(folder) / f"step{step}")
            made.append(Checkpoint("grown", ModelInfo("s", 1, 1), step, step * BATCH * 16, f"step{step}", at))
        if step < STEPS:
            rows = torch.from_numpy(order.take(range(step * BATCH, (step + 1) * BATCH)).astype(np.int64))
            for _ in range(5):
                model(rows, labels=rows).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    return made


def around(order, checkpoints, **how) -> dict[str, losses.RowSet]:
    return {side.name: side for side in losses.before_and_after(order, checkpoints, **how)}


def numbers(side: losses.RowSet) -> dict[int, list[int]]:
    return {step: chosen.numbers.tolist() for step, chosen in side.by_step.items()}


def tasks(groups, bytes_of=None) -> list[losses.LossTask]:
    sets = [rows if isinstance(rows, losses.RowSet) else losses.given(name, rows) for name, rows in groups.items()]
    return [losses.LossTask(one, bytes_of) for one in sets]


def measure(checkpoints, groups, *, bytes_of=None, **where) -> pd.DataFrame:
    made = tasks(groups, bytes_of)
    return with_consumed(joined(analysis.sweep(checkpoints, made, device="cpu", **where)), [t.rows for t in made])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))


def test_rows_around_a_checkpoint_are_the_batches_before_and_after(order, checkpoints):
    sides = around(order, checkpoints, batches=2, rows=10_000)
    assert numbers(sides["before"]) == {
        20: list(range(18 * BATCH, 20 * BATCH)), 40: list(range(38 * BATCH, 40 * BATCH)),
    }
    assert numbers(sides["after"]) == {
        0: list(range(2 * BATCH)), 20: list(range(20 * BATCH, 22 * BATCH)),
    }
    for side in sides.values():
        for chosen in side.by_step.values():
            places, rows = chosen.read(slice(3, 9))
            np.testing.assert_array_equal(rows, order.take(chosen.numbers[3:9]))
            assert places.tolist() == chosen.numbers[3:9].tolist()


def test_a_sample_of_the_rows_is_drawn_the_same_every_time(order, checkpoints):
    first = around(order, checkpoints, batches=3, rows=8)
    again = around(order, checkpoints[1:2], batches=3, rows=8)
    ids = numbers(first["before"])[20]
    assert ids == numbers(again["before"])[20] and len(set(ids)) == 8
    assert min(ids) >= 17 * BATCH and max(ids) < 20 * BATCH and sorted(ids) == ids
    assert ids != numbers(around(order, checkpoints, batches=3, rows=8, seed=1)["before"])[20]


def test_steps_beyond_the_order_are_refused(order, checkpoints):
    short = ArrayRows(order.take(range(BATCH * 30)), BATCH)
    with pytest.raises(RequestError, match="step 40 lies beyond the order"):
        losses.before_and_after(short, checkpoints)
    with pytest.raises(RequestError, match="must be positive"):
        around(order, checkpoints, batches=0)


def test_loss_per_row_is_transformers_own_loss(order, checkpoints):
    groups = {"heldout": order.take(range(5)), **around(order, checkpoints, rows=4)}
    table = measure(checkpoints, groups)
    assert list(table.columns) == [*tables.IDENTITY, *task.COLUMNS] and (table["n"] == 16).all()
    assert table["bytes"].isna().all() and table["text_nats"].isna().all() and (table["dtype"] == "float32").all()
    measured = table.groupby("subset")["step"].unique().map(list).to_dict()
    assert measured == {"heldout": [0, 20, 40], "before": [20, 40], "after": [0, 20]}
    for checkpoint in checkpoints:
        model = models.load(checkpoint, device="cpu")
        for line in table[table["step"] == checkpoint.step].itertuples():
            rows = torch.from_numpy(order.take([line.row]).astype(np.int64))
            assert line.nll == pytest.approx(float(model(rows, labels=rows).loss.detach()), rel=1e-5)


def test_a_trained_model_knows_the_batch_it_has_before(order, checkpoints):
    groups = {
        "heldout": np.random.default_rng(9).integers(0, VOCAB, (64, 17)),
        **around(order, checkpoints, batches=1)
    }
    curve = losses.summarize(measure(checkpoints, groups))
    assert list(curve.columns) == tables.SUMMARY
    by = curve.assign(subset=curve["subset"].mask(curve["metric"] == "nll_gap", "gap")).set_index(["step", "subset"])
    assert by.loc[(20, "before"), "high"] < by.loc[(20, "after"), "low"]
    gap = by.loc[(20, "gap")]
    assert gap["metric"] == "nll_gap" and gap["low"] > 0 and gap["n"] == 2 * BATCH
    assert gap["value"] == pytest.approx(by.loc[(20, "after"), "value"] - by.loc[(20, "before"), "value"])
    assert (0, "gap") not in by.index and (40, "gap") not in by.index
    assert by.loc[(20, "heldout"), "n"] == 64 and by.loc[(20, "heldout"), "interval"] == "studentized bootstrap95"
    assert (curve["low"] <= curve["value"]).all() and (curve["value"] <= curve["high"]).all()
    axes = plot(curve)
    assert axes.get_lines()


def test_measuring_resumes_and_a_later_checkpoint_costs_only_itself(order, checkpoints, tmp_path):
    cells = CellStore(tmp_path / "cells")

    def run(chosen):
        groups = {"heldout": order.take(range(300)), **around(order, chosen, rows=4)}
        return analysis.sweep(chosen, tasks(groups), cells=cells, device="cpu")

    first = run(checkpoints[:2])
    assert (first.computed, first.reused) == (2 * 2 + 1 + 2, 0)  # held-out rows have two parts
    again = run(checkpoints)
    assert (again.computed, again.reused) == (2 + 1, first.computed)
    before, after = (pd.concat(r.values()).query("step == 20").reset_index(drop=True) for r in (first, again))
    pd.testing.assert_frame_equal(before, after)


def test_equal_weights_at_two_steps_are_measured_on_their_own_rows(order, checkpoints, tmp_path):
    twin = Checkpoint("grown", ModelInfo("s", 1, 1), 30, None, "step30", checkpoints[1].location)
    both = [checkpoints[1], twin]
    table = measure(both, around(order, both, rows=4), cells=CellStore(tmp_path / "cells"))
    rows = table[table["subset"] == "before"].groupby("step")["row"].apply(list)
    assert set(rows[20]) <= set(range(19 * BATCH, 20 * BATCH)) and set(rows[30]) <= set(range(29 * BATCH, 30 * BATCH))


def test_rows_without_a_finite_loss_are_left_out_of_the_mean():
    frame = pd.DataFrame({
        "suite": "a", "model": "m", "params": pd.NA, "step": 1, "tokens": pd.NA, "branch": "main", "seed": pd.NA,
        "subset": "heldout", "row": [0, 1, 2], "consumed": False, "nll": [1.0, np.nan, 3.0], "n": [4, 0, 4],
        "text_nats": [4.0, 0.0, 12.0], "bytes": [8, 0, 8]
    })
    line, bits = losses.summarize(tables.check_items(frame)).to_dict("records")
    assert bits["value"] == pytest.approx(1 / np.log(2)) and bits["n"] == 2 and bits["interval"] == "none"
    assert line["value"] == 2.0 and line["n"] == 2


def test_rows_that_are_left_out_are_on_neither_side(order, checkpoints):
    sides = around(order, checkpoints, batches=2, rows=10_000, leave_out=range(0, BATCH * STEPS, 2))
    assert numbers(sides["before"])[20] == list(range(18 * BATCH + 1, 20 * BATCH, 2))
    assert numbers(sides["after"])[20] == list(range(20 * BATCH + 1, 22 * BATCH, 2))


def test_the_sides_of_a_suite_with_planted_items_hold_none(tiny_suite):
    suite = load_suite(tiny_suite)
    context = Context(suite.checkpoints(models=["xs"], steps=[8, 16, 20, 40]), suite=suite)
    this, options = losses.Losses(), losses.LossesOptions(rows=32)
    result = analysis.sweep(context.checkpoints, this.tasks(context, options), device="cpu")
    items = this.items(result, context, options)
    taken = set(items.loc[items["subset"] != "heldout", "row"])
    planted = {int(r) for name in ("canaries", "facts", "sums", "pronouns")
               for rows in getattr(load_truth(tiny_suite), name)["rows"] for r in rows}
    assert len(taken) > 100 and not taken & planted


@pytest.mark.trained
def test_held_out_rows_differ_from_the_rows_about_to_be_consumed_in_nothing(micro_suite):
    """They did by 1.4 nats: half of the rows of a batch hold planted items, and no held-out row does."""
    suite = load_suite(micro_suite)
    context = Context(suite.checkpoints(models=["m"], steps=[256, 1350]), suite=suite)
    this, options = losses.Losses(), losses.LossesOptions(rows=400)
    result = analysis.sweep(context.checkpoints, this.tasks(context, options), device="cpu")
    curve = this.summarize(this.items(result, context, options), context, options)
    loss = curve[curve["metric"] == "nll"].set_index(["step", "subset"])
    for step in (256, 1350):
        held, after = loss.loc[(step, "heldout")], loss.loc[(step, "after")]
        assert abs(held["value"] - after["value"]) < 0.15
        assert held["low"] < after["high"] and after["low"] < held["high"]
