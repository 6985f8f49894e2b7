"""--dry-run and --budget of the commands that sweep: one plan, exact where it can be, and nothing touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from tiny_checkpoints import write_step

from pythia_tools import hub
from pythia_tools.analysis import planning
from pythia_tools.cli.main import main
from pythia_tools.hub import ledger
from pythia_tools.suites import load_suite

STEPS = (0, 10, 20, 30)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(manifest, server, bytes of one checkpoint) of a suite on the hub whose size is stated."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ledger, "_budget", None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHIA_TOOLS_DISK_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    folders = {f"step{s}": write_step(tmp_path / "made" / f"step{s}", s + 1) for s in STEPS}
    manifest = tmp_path / "served.yaml"
    lines = [
        "name: served", "description: x", 'location: {hub: "me/tiny"}', f"steps: {list(STEPS)}",
        "models: {a: {params: 30000}}"
    ]
    manifest.write_text("\n".join(lines))
    np.save(tmp_path / "rows.npy", np.arange(160).reshape(10, 16) % 50)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_model("me/tiny", folders)
        yield str(manifest), server, sum(f.stat().st_size for f in folders["step0"].iterdir())


def command(manifest: str, tmp_path: Path, *more: str) -> list[str]:
    rows = ["--rows", str(tmp_path / "rows.npy"), "--context", "4", "--continuation", "4"]
    return ["memorization", manifest, *rows, "--device", "cpu", "--quiet", "--json", *more]


def test_a_plan_states_bytes_files_cells_peak_and_time_and_touches_nothing(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, server, one = served
    monkeypatch.setattr(planning, "pace", lambda device: 1e6)
    out = str(tmp_path / "run")
    assert main(command(manifest, tmp_path, "--out", out, "--dry-run")) == 0
    plan = json.loads(capsys.readouterr().out)
    fetch = hub.plan(load_suite(manifest).checkpoints())
    assert plan["download_bytes"] == fetch.bytes and plan["files_to_download"] == len(fetch.missing)
    assert abs(fetch.bytes - 4 * one) < one / 2 and plan["disk_peak_bytes"] == fetch.bytes
    assert (plan["checkpoints"], plan["cells"], plan["cells_done"]) == (4, 4, 0)
    assert plan["seconds_computing_about"] == pytest.approx(2 * 30_000 * 4 * 10 * 4 / 1e6, abs=0.06)
    assert plan["seconds_about"] == max(plan["seconds_computing_about"], plan["seconds_downloading_about"])
    assert not server.files_asked() and not Path(out).exists()
    assert main(command(manifest, tmp_path, "--dry-run", "--budget", str(2 * one))) == 0
    assert json.loads(capsys.readouterr().out)["disk_peak_bytes"] == 2 * one


def test_what_is_done_is_left_out_of_the_plan(served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server, _ = served
    out = str(tmp_path / "run")
    assert main(command(manifest, tmp_path, "--out", out)) == 0
    half_written = Path(out) / "cells" / ".cell.123.part"
    half_written.write_bytes(b"of another process")
    server.forget()
    capsys.readouterr()
    assert main(command(manifest, tmp_path, "--out", out, "--dry-run")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["cells_done"], plan["download_bytes"], plan["seconds_about"]) == (4, 4, 0, 0.0)
    assert half_written.exists() and not server.files_asked()


def test_a_budget_holds_for_a_sweep_and_does_not_enter_its_config(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, _, one = served
    budget = int(2.3 * one)
    assert main(command(manifest, tmp_path, "--out", str(tmp_path / "run"), "--budget", str(budget))) == 0
    assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("blobs/*")) <= budget
    assert "budget" not in json.loads((tmp_path / "run" / "config.json").read_text())["arguments"]
    capsys.readouterr()
    assert main(command(manifest, tmp_path, "--out", str(tmp_path / "other"), "--budget", str(one // 2))) == 2
    assert "the disk budget of" in capsys.readouterr().err
    assert main(command(manifest, tmp_path, "--budget", "plenty")) == 2
    assert "'plenty' is not an amount of bytes such as 50GB" in capsys.readouterr().err


def test_a_missing_checkpoint_is_a_finding(served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server, _ = served
    del server.repos["models", "me/tiny"].branches["step20"]
    assert main(command(manifest, tmp_path, "--dry-run")) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "served/a/step20" in problem and "no such revision" in problem


def test_other_commands_plan_in_the_same_words(
    served: Any, tiny_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, server, _ = served
    plain = ["bias", manifest, "--dry-run", "--json", "--quiet"]
    assert main([*plain, "--tokenizer", str(tiny_suite / "tokenizer")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["download_bytes"] > 0 and plan["checkpoints"] == 4 and plan["cells"] >= 4 and plan["cells_done"] == 0
    assert not server.files_asked("*.safetensors")
    assert main(plain) == 3, "its repository holds no tokenizer"
    told = capsys.readouterr().err.strip()
    assert "tokenizer" in told and "\n" not in told and not server.files_asked("*.safetensors")


def test_the_pace_is_measured() -> None:
    assert 1e8 < planning.pace("cpu") < 1e15
