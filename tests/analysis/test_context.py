"""The context resolves order, tokenizer, truth and held-out rows in one place, in the documented order, with one line
when it cannot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hub_server import Hub

from pythia_tools.analysis import Context
from pythia_tools.core.errors import RequestError
from pythia_tools.micro import load_truth
from pythia_tools.order import ArrayRows
from pythia_tools.suites import Checkpoint, Folder, HubRevision, ModelInfo, load_suite
from pythia_tools.tokens import open_tokenizer


def test_a_micro_suite_gives_all_of_them(tiny_suite: Path) -> None:
    suite = load_suite(tiny_suite)
    context = Context(suite.checkpoints(), suite=suite)
    assert context.tokenizer.digest == open_tokenizer(tiny_suite / "tokenizer").digest
    assert context.order.fingerprint and context.consumed_rows == context.last_step * context.order.batch_rows
    assert context.truth is not None and context.truth.planted == load_truth(tiny_suite).planted
    assert context.heldout is not None and context.heldout.shape[1] == context.order.seq_length + 1
    assert set(context.last_steps) == {n for n, i in suite.models.items() if i.branch == "main"}


def test_what_the_user_names_wins(tiny_suite: Path) -> None:
    suite = load_suite(tiny_suite)
    rows = ArrayRows(np.zeros((640, 9), np.uint16), batch_rows=4, name="mine")
    context = Context(
        suite.checkpoints(steps="first"), suite=suite, order=rows, tokenizer=tiny_suite / "tokenizer" / "tokenizer.json"
    )
    assert context.order is rows and context.tokenizer.source.endswith("tokenizer.json")


def test_held_out_rows_are_beyond_what_any_step_consumed(tiny_suite: Path) -> None:
    """Of a suite without a store of its own: rows of the order behind the last step, none of them consumed."""
    suite = load_suite(tiny_suite)
    rows = ArrayRows(np.arange(900 * 9, dtype=np.uint16).reshape(900, 9), batch_rows=4, name="mine")
    folder = suite.checkpoints(steps="last")[0].location
    checkpoints = [Checkpoint("own", ModelInfo("m", 1, 1), step, None, f"step{step}", folder) for step in (0, 100)]
    context = Context(checkpoints, order=rows)
    assert context.consumed_rows == 400 and context.last_steps == {"m": 100}
    assert context.heldout is not None and context.heldout.tolist() == rows.rows(400, 900).tolist()
    short = Context(checkpoints, order=ArrayRows(np.zeros((420, 9), np.uint16), batch_rows=4, name="short"))
    assert short.heldout is None


def test_models_of_different_orders_are_not_studied_as_one() -> None:
    suite = load_suite("pythia-seeds")
    two = suite.checkpoints(models=["70m-seed1", "70m-seed2"], steps="last")
    with pytest.raises(
        RequestError, match=r"different orders .pile-standard-seed1, pile-standard-seed2.; choose models of one"
    ):
        _ = Context(two, suite=suite).names_order
    assert Context(two[:1], suite=suite).names_order


def test_a_suite_without_them_is_one_line(tmp_path: Path) -> None:
    bare = Context([Checkpoint("bare", ModelInfo("m", 1, 1), 3, None, "step3", Folder(tmp_path))])
    with pytest.raises(RequestError, match="bare names no data order; give one with --order"):
        _ = bare.order
    with pytest.raises(RequestError, match="bare names no tokenizer; give one with --tokenizer"):
        _ = bare.tokenizer
    with pytest.raises(RequestError, match="bare has no truth manifest, so no planted terms"):
        bare.need_truth("planted terms")
    assert bare.truth is None


def test_a_hub_model_gives_its_tokenizer_without_its_weights(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = next(p.parent for p in sorted(tiny_suite.rglob("model.safetensors")))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_model("me/tiny", {"step3": folder})
        context = Context([
            Checkpoint("hubbed", ModelInfo("tiny", 1, 1), 3, None, "step3", HubRevision("me/tiny", "step3"))
        ])
        assert context.tokenizer.digest == open_tokenizer(folder).digest
        assert not server.files_asked("*.safetensors")
