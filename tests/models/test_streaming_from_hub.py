"""Streaming and sweeping from a server that speaks the hub's protocol, with the real client behind it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import hub_server
import pandas as pd
import pytest
import torch
from hub_server import Hub
from tiny_checkpoints import as_old_bin, write_step
from transformers import AutoModelForCausalLM

from pythia_tools import analysis, hub, models
from pythia_tools.core.errors import DataError
from pythia_tools.core.results import CellStore
from pythia_tools.models import digest
from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo

IDS = torch.arange(24).reshape(2, 12)
STEPS = (0, 1, 1000, 2000)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Steps 0 and 1 hold equal weights; step 1000 is an old `.bin` with masks."""
    root = tmp_path_factory.mktemp("repo")
    made = {f"step{s}": write_step(root / f"step{s}", max(s, 1)) for s in STEPS}
    made["step1000"] = as_old_bin(made["step1000"], root / "old")
    return made


@pytest.fixture
def server(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHIA_TOOLS_DISK_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.add_model("me/tiny", folders)
        yield running


def checkpoints(*steps: int) -> list[Checkpoint]:
    info = ModelInfo("tiny", 30_000, 20_000)
    return [Checkpoint("hubbed", info, s, s * 100, f"step{s}", HubRevision("me/tiny", f"step{s}")) for s in steps]


class Norm(analysis.Task):
    name, digest, parts = "norm", "d", 2

    def run(self, context: Any, model: Any, part: int) -> pd.DataFrame:
        return pd.DataFrame({"item": [part], "norm": [float(model.lm_head.weight.double().norm())]})


def test_hub_checkpoints_are_fetched_once_and_equal_from_pretrained(server, folders):
    for _ in range(2):
        for model in models.stream(checkpoints(*STEPS), device="cpu"):
            expected = AutoModelForCausalLM.from_pretrained(
                folders[model.checkpoint.revision], dtype=torch.float32
            ).eval()(IDS).logits
            assert torch.equal(model(IDS).logits, expected)
    asked = [r.file for r in server.files_asked("*.safetensors") + server.files_asked("*.bin")]
    assert len(asked) == len(set(asked)) and 3 <= len(asked) <= 4


def test_the_next_checkpoint_comes_while_this_one_computes(server):
    weights = []
    for model in models.stream(checkpoints(0, 1000, 2000), device="cpu"):
        deadline = time.time() + 10
        expected = min(len(weights) + 2, 3)
        while len(
            server.files_asked("*.safetensors") + server.files_asked("*.bin")
        ) < expected and time.time() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # a second one ahead would show here
        weights.append((model.checkpoint.step, len(server.files_asked("*.safetensors") + server.files_asked("*.bin"))))
    assert weights == [(0, 2), (1000, 3), (2000, 3)]


def test_weights_worked_through_before_are_not_downloaded_again(server, tmp_path, monkeypatch):
    cells = CellStore(tmp_path / "cells")
    first = analysis.sweep(checkpoints(*STEPS), [Norm()], cells=cells, device="cpu")
    assert (first.computed, first.reused) == (6, 2)  # steps 0 and 1 hold the same weights
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "another machine"))
    server.forget()
    plan = analysis.plan(checkpoints(*STEPS), [Norm()], cells=cells, device="cpu")
    assert (plan["checkpoints"], plan["cells"], plan["cells_done"], plan["files_to_download"]) == (4, 8, 8, 0)
    assert (plan["download_bytes"], plan["disk_peak_bytes"], plan["problems"]) == (0, 0, [])
    assert plan["seconds_about"] is None, "the task does not say how many ids it takes"
    assert analysis.plan([*checkpoints(2000)], [Norm()], device="cpu")["download_bytes"] > 40_000
    again = analysis.sweep(checkpoints(*STEPS), [Norm()], cells=cells, device="cpu")
    pd.testing.assert_frame_equal(again["norm"], first["norm"])
    assert again.computed == 0 and again.weights == first.weights
    assert not server.files_asked("*.safetensors") and not server.files_asked("*.bin")
    Path(cells.path([first.weights["hubbed/tiny/step2000"], "norm", 1, "d", "float32", 1, ""])).unlink()
    third = analysis.sweep(checkpoints(*STEPS), [Norm()], cells=cells, device="cpu")
    assert third.computed == 1 and {r.file for r in server.files_asked("*.safetensors")} != set()
    pd.testing.assert_frame_equal(third["norm"], first["norm"])


def test_a_branch_that_moved_is_computed_anew(server, tmp_path, folders):
    from pythia_tools.hub import repositories

    cells = CellStore(tmp_path / "cells")
    before = analysis.sweep(checkpoints(0), [Norm()], cells=cells, device="cpu")
    server.add_model("me/tiny", {"step0": folders["step2000"]})
    repositories._branches.clear()
    after = analysis.sweep(checkpoints(0), [Norm()], cells=cells, device="cpu")
    assert after.computed == 2 and after.weights != before.weights


def test_a_budget_of_two_checkpoints_is_enough(server, tmp_path, monkeypatch, folders):
    size = max(sum(f.stat().st_size for f in folder.iterdir()) for folder in folders.values())
    monkeypatch.setenv("PYTHIA_TOOLS_DISK_BUDGET", str(int(2.2 * size)))
    seen = [model.checkpoint.step for model in models.stream(checkpoints(0, 1000, 2000), device="cpu")]
    assert seen == [0, 1000, 2000]
    held = sum(p.stat().st_size for p in (tmp_path / "hub").rglob("blobs/*"))
    assert held <= 2.2 * size


def test_without_a_network_cached_checkpoints_stream_on(server, monkeypatch):
    digests = [m.weights_digest for m in models.stream(checkpoints(0, 2000), device="cpu")]
    server.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [m.weights_digest for m in models.stream(checkpoints(0, 2000), device="cpu")] == digests
    assert not server.requests


def test_a_missing_revision_surfaces_at_its_turn(server):
    stream = models.stream(checkpoints(0, 77), device="cpu")
    assert next(stream).checkpoint.step == 0
    with pytest.raises(DataError, match="step77"):
        next(stream)


def trickle(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a file takes a quarter of a minute, in small pieces."""
    monkeypatch.setattr(hub_server, "CHUNK", 256)
    server.rate = 2500


def parts(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("blobs/*.part") if p.stat().st_size > 0]


def wait_for(what: Any, seconds: float = 20) -> bool:
    end = time.time() + seconds
    while not what() and time.time() < end:
        time.sleep(0.05)
    return bool(what())


def test_closing_a_stream_stops_the_download_under_way_and_keeps_its_part(server, tmp_path, monkeypatch):
    hub.fetch(checkpoints(0)[0])
    trickle(server, monkeypatch)
    stream = models.stream(checkpoints(0, 2000), device="cpu")
    next(stream)
    assert wait_for(lambda: parts(tmp_path / "hub"))
    stream.close()
    assert wait_for(lambda: all(t.name != "checkpoint-prefetch" for t in threading.enumerate()), seconds=10)
    assert parts(tmp_path / "hub")
    server.rate = None
    server.forget()
    assert [m.checkpoint.step for m in models.stream(checkpoints(2000), device="cpu")] == [2000]
    assert any(r.range for r in server.files_asked("*.safetensors"))  # went on where it was


def test_an_interrupt_does_not_wait_for_the_download_under_way(server, tmp_path, monkeypatch):
    hub.fetch(checkpoints(0)[0])
    trickle(server, monkeypatch)
    script = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_streaming_from_hub import checkpoints
import pythia_tools as pt
for model in pt.stream(checkpoints(0, 2000), device="cpu"):
    print("computing", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job's children would ignore interrupts
    )
    try:
        assert process.stdout.readline() == "computing\n" and wait_for(lambda: parts(tmp_path / "hub"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    assert parts(tmp_path / "hub")  # it did not wait until the file was whole


def test_contents_are_only_an_alias(server, tmp_path):
    """A cached blob that was changed in place is noticed: the record of its name is not believed for a local file."""
    first = models.weights_digest(checkpoints(2000)[0])
    (blob,) = [p for p in (tmp_path / "hub").rglob("blobs/*") if p.stat().st_size > 20_000]
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert digest.record_of_contents([blob.name]).digest == first
    assert models.weights_digest(checkpoints(2000)[0]) != first
    assert hub.fetch(checkpoints(2000)[0]).is_dir()
