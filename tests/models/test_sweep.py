"""Sweeps: cells keyed by weights, resumed after any interruption, divided without gap or overlap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import checkpoint, rewrite, tensors_of, write_step

from pythia_tools.analysis import Task, plan, sweep
from pythia_tools.analysis.sweep import plan_shard
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.core.tables import IDENTITY
from pythia_tools.models import digest, streaming


class NormTask(Task):
    """Two items per part; counts its runs; stops the world before a chosen run."""

    def __init__(self, name="norms", digest="d1", parts=3, stop_before=None, stop=KeyboardInterrupt):
        self.name, self.digest, self.parts = name, digest, parts
        self.ran: list[tuple[int, int]] = []
        self.stop_before, self.stop = stop_before, stop

    def run(self, context, model, part):
        if len(self.ran) == self.stop_before:
            raise self.stop
        self.ran.append((model.checkpoint.step, part))
        norm = float(model.lm_head.weight.double().norm())
        return pd.DataFrame({
            "item": [2 * part, 2 * part + 1], "label": ["a", None], "norm": [norm * part, norm + part]
        })


@pytest.fixture
def cells(tmp_path):
    return CellStore(tmp_path / "cells")


def test_one_table_per_task_in_the_order_of_the_checkpoints(steps):
    result = sweep(steps, [NormTask(), NormTask("more", parts=1)], device="cpu")
    table = result["norms"]
    assert set(result) == {"norms", "more"} and list(table.columns) == [*IDENTITY, "item", "label", "norm"]
    assert table["step"].tolist() == [0] * 6 + [10] * 6 + [20] * 6 and table["item"].tolist() == list(range(6)) * 3
    assert result.weights.keys() == {"test/tiny/step0", "test/tiny/step10", "test/tiny/step20"}
    for c in steps:
        head = tensors_of(c.location.path)
        weight = head["embed_out.weight" if "embed_out.weight" in head else "lm_head.weight"]
        assert table.query("step == @c.step and item == 1")["norm"].item() == float(weight.double().norm())


def test_a_size_that_no_manifest_states_is_that_of_the_weights(steps, cells):
    unknown = [replace(c, model=replace(c.model, params=None)) for c in steps]
    stored = {n: t for n, t in tensors_of(steps[0].location.path).items() if not n.endswith("inv_freq")}
    for _ in range(2):  # computed, then from the cells
        table = sweep(unknown, [NormTask()], cells=cells, device="cpu")["norms"]
        assert table["params"].unique().tolist() == [sum(t.numel() for t in stored.values())]


def test_an_interrupted_sweep_goes_on_at_the_next_cell(steps, cells):
    whole = sweep(steps, [NormTask()], device="cpu")["norms"]
    stopped = NormTask(stop_before=4)
    with pytest.raises(KeyboardInterrupt):
        sweep(steps, [stopped], cells=cells, device="cpu")
    again = NormTask()
    result = sweep(steps, [again], cells=cells, device="cpu")
    assert stopped.ran + again.ran == [(s, p) for s in (0, 10, 20) for p in range(3)]
    assert (result.reused, result.computed) == (4, 5)
    pd.testing.assert_frame_equal(result["norms"], whole)


def test_a_killed_sweep_goes_on_at_the_next_cell(tmp_path, steps, cells):
    folders = [str(c.location.path) for c in steps]
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_sweep import NormTask
from tiny_checkpoints import checkpoint
from pythia_tools.analysis import sweep
from pythia_tools.core.results import CellStore
class Killed(NormTask):
    def run(self, context, model, part):
        if len(self.ran) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(context, model, part)
steps = [checkpoint(Path(f), s) for f, s in zip({folders!r}, (0, 10, 20))]
sweep(steps, [Killed()], cells=CellStore({str(cells.folder)!r}), device="cpu")
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = NormTask()
    result = sweep(steps, [again], cells=cells, device="cpu")
    assert again.ran == [(10, 2), (20, 0), (20, 1), (20, 2)]
    pd.testing.assert_frame_equal(result["norms"], sweep(steps, [NormTask()], device="cpu")["norms"])


def test_a_checkpoint_whose_cells_exist_is_not_loaded(steps, cells, monkeypatch):
    first = sweep(steps, [NormTask()], cells=cells, device="cpu")["norms"]

    def no_loading(*_args, **_more):
        raise AssertionError("loaded a checkpoint without need")

    monkeypatch.setattr(streaming, "build", no_loading)
    monkeypatch.setattr(streaming, "swap", no_loading)
    pd.testing.assert_frame_equal(sweep(steps, [NormTask()], cells=cells, device="cpu")["norms"], first)


def test_equal_weights_under_two_names_are_computed_once(steps, cells):
    twin = checkpoint(steps[0].location.path, 1)
    task = NormTask()
    table = sweep([steps[0], twin], [task], cells=cells, device="cpu")["norms"]
    assert task.ran == [(0, 0), (0, 1), (0, 2)] and table["step"].tolist() == [0] * 6 + [1] * 6
    assert table.query("step == 0")["norm"].tolist() == table.query("step == 1")["norm"].tolist()


def test_a_changed_file_under_the_same_name_is_computed_anew(tmp_path, cells):
    c = checkpoint(write_step(tmp_path / "step5", 5), 5)
    before = sweep([c], [NormTask()], cells=cells, device="cpu")
    state = tensors_of(c.location.path)
    rewrite(c.location.path, {name: tensor * 2 for name, tensor in state.items()})
    after = sweep([c], [NormTask()], cells=cells, device="cpu")
    assert after.computed == 3 and before.weights != after.weights
    assert after["norms"]["norm"][2] != before["norms"]["norm"][2]


def test_task_digest_number_format_and_own_key_separate_cells(steps, cells):
    def computed(task, **more):
        return sweep(steps[:1], [task], cells=cells, device="cpu", **more).computed

    assert computed(NormTask()) == 3 and computed(NormTask()) == 0
    assert computed(NormTask(digest="d2")) == 3
    assert computed(NormTask(), dtype="bfloat16") == 3

    class ByStep(NormTask):
        def key(self, c):
            return None if c.step == 10 else c.step

    result = sweep([*steps, checkpoint(steps[0].location.path, 7)], [ByStep(parts=1)], cells=cells, device="cpu")
    assert result["norms"]["step"].tolist() == [0, 0, 20, 20, 7, 7] and result.computed == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.integers(0, 6), st.integers(1, 7))
def test_shards_cover_everything_once_and_evenly(checkpoints, parts, n):
    plans = [plan_shard(checkpoints, parts, (i, n)) for i in range(n)]
    for c in range(checkpoints):
        assert sorted(p for plan in plans for p in plan[c]) == list(range(parts))
    sizes = [sum(map(len, plan)) for plan in plans]
    assert max(sizes) - min(sizes) <= 1


def test_shards_join_to_the_whole(steps, tmp_path):
    whole = sweep(steps, [NormTask()], device="cpu")["norms"]
    parts = [sweep(steps, [NormTask()], device="cpu", shard=(i, 2))["norms"] for i in range(2)]
    joined = pd.concat(parts).sort_values(["step", "item"], ignore_index=True)
    pd.testing.assert_frame_equal(joined, whole)
    nothing = sweep(steps[:1], [NormTask(parts=1)], device="cpu", shard=(0, 5))["norms"]
    assert len(nothing) in (0, 2) and list(nothing.columns)[: len(IDENTITY)] == IDENTITY


def test_a_plan_says_what_is_done_and_what_is_left(steps, cells, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -1.0)

    class NotAtTen(NormTask):
        def key(self, c):
            return None if c.step == 10 else 0

    tasks = [NormTask(), NotAtTen("some", parts=2)]
    before = plan(steps, tasks, cells=cells, device="cpu")
    assert (before["checkpoints"], before["cells"], before["cells_done"]) == (3, 9 + 4, 0)
    sweep(steps[:2], tasks, cells=cells, device="cpu")
    after = plan(steps, tasks, cells=cells, device="cpu")
    assert (after["cells"], after["cells_done"], after["download_bytes"]) == (13, 5 + 3, 0)
    shards = [plan(steps, tasks, cells=cells, device="cpu", shard=(i, 2)) for i in range(2)]
    assert sum(s["cells"] for s in shards) == 13 and sum(s["cells_done"] for s in shards) == 8


def test_unreasonable_sweeps_are_refused(steps):
    with pytest.raises(RequestError, match="no checkpoints"):
        sweep([], [NormTask()])
    with pytest.raises(RequestError, match="two tasks are called 'norms'"):
        sweep(steps, [NormTask(), NormTask()])
    with pytest.raises(RequestError, match="shard 3/3"):
        sweep(steps, [NormTask()], shard=(3, 3))


def test_torch_threads_are_left_alone(steps):
    before = torch.get_num_threads()
    sweep(steps, [NormTask()], device="cpu")
    assert torch.get_num_threads() == before
