"""The commands download, suites and selfcheck against the local hub: what is printed, and the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from safetensors.numpy import save_file

from pythia_tools.cli.main import main

MANIFEST = """
name: mine
description: a suite of my own
location: {hub: "me/{model}"}
steps: [0, 10, 20]
tokens_per_step: 1000000000
models: {a: {params: 128000}, b: {}}
known_defects: [{models: [a], steps: [20], what: weights of another run, source: "https://example.org/1"}]
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHIA_TOOLS_DISK_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(MANIFEST)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        branches = {}
        for step in (0, 10, 20):
            save_file({"w": np.full((2000, 64), step, dtype=np.float32)}, tmp_path / "w")
            branches[f"step{step}"] = {"config.json": b"{}", "model.safetensors": (tmp_path / "w").read_bytes()}
        server.add_model("me/a", branches)
        server.add_model("me/b", {"step0": branches["step0"], "extra": branches["step10"]})
        yield str(manifest), server


def test_a_dry_run_prints_the_plan_and_fetches_nothing(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server = mine
    assert main(["download", manifest, "--models", "a", "--steps", "0,10", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    weights = 2000 * 64 * 4 + 72
    assert plan | {"cache": ""} == {
        "checkpoints": 2,
        "files_to_fetch": 3,
        "bytes_to_fetch": plan["bytes_to_fetch"],
        "bytes_cached": 0,
        "bytes_compared_by_size": 0,
        "disk_peak": plan["bytes_to_fetch"],
        "budget": None,
        "cache": "",
        "missing_on_hub": [],
    }
    assert plan["bytes_to_fetch"] == pytest.approx(2 * weights, abs=100)
    assert not server.files_asked()
    assert main(["download", manifest, "--models", "b", "--steps", "all", "--dry-run"]) == 1
    out = capsys.readouterr().out
    assert "missing         2 checkpoints; --skip-missing leaves them out" in out
    assert "mine/b/step10: me/b@step10: no such revision" in out


def test_download_fetches_verifies_and_says_what_it_did(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server = mine
    assert main(["download", manifest, "--models", "a", "--steps", "0,10", "--quiet"]) == 0
    assert "2 checkpoints are in " in capsys.readouterr().out
    server.forget()
    assert main(["download", manifest, "--models", "a", "--steps", "0,10", "--verify", "--quiet"]) == 0
    assert not server.files_asked() and "0 B fetched" in capsys.readouterr().out


def test_defective_checkpoints_need_a_word(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = mine
    assert main(["download", manifest, "--models", "a", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "pythia-tools: mine/a: step 20 is known to be wrong: weights of another run (https://example.org/1); "
        "leave them out with --leave-out-defective, or go on with --allow-defective (allow_defective=True)\n"
    )
    assert main(["download", manifest, "--models", "a", "--allow-defective", "--quiet"]) == 0
    assert "warning: mine/a: step 20 is known to be wrong" in capsys.readouterr().err
    assert main(["download", manifest, "--models", "a", "--leave-out-defective"]) == 0
    told = capsys.readouterr()
    assert "1 of 3 checkpoints are known to be wrong and left out" in told.err and "2 checkpoints are in" in told.out


def test_missing_checkpoints_stop_or_are_left_out(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = mine
    assert main(["download", manifest, "--models", "b", "--quiet"]) == 3
    assert "mine/b/step10: me/b@step10: no such revision at" in capsys.readouterr().err
    assert main(["download", manifest, "--models", "b", "--skip-missing", "--quiet"]) == 0
    assert "1 checkpoints are in" in capsys.readouterr().out


def test_budgets_and_wrong_requests_are_one_line(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = mine
    for arguments, message in [
        (["--models", "a", "--steps", "0,10", "--budget", "600kB"], "the disk budget of 600.0 kB is too small"),
        (["--budget", "much"], "'much' is not an amount of bytes"),
        (["--models", "c"], "unknown model of mine 'c'"),
        (["--steps", "soon", "--models", "a"], "steps 'soon' is not understood"),
        (["--workers", "0"], "'0' is not a positive whole number"),
    ]:
        assert main(["download", manifest, *arguments, "--quiet"]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_the_token_never_shows(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server = mine
    server.add_model("me/a", {"step0": {"config.json": b"{}"}}, token="another", gated=True)
    assert main(["download", manifest, "--models", "a", "--steps", "0"]) == 3
    captured = capsys.readouterr()
    assert "the token in use may not read it" in captured.err and "hf_secret" not in captured.err + captured.out


def test_suites_lists_shows_and_asks_the_hub(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = mine
    assert main(["suites"]) == 0
    assert "pythia-deduped " in capsys.readouterr().out
    assert main(["suites", manifest]) == 0
    out = capsys.readouterr().out
    assert "mine: a suite of my own" in out
    assert "wrong  a, steps 20: weights of another run (https://example.org/1)" in out
    assert "0…20" in out and "20.0B" in out
    assert main(["suites", manifest, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["params"] == 128000
    assert main(["suites", manifest, "--online", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "a: 3 of 3 checkpoints exist in me/a" in out
    assert "b: 1 of 3 checkpoints exist in me/b\n  missing steps: 10, 20\n  other branches: extra" in out
    assert main(["suites", manifest, "--online", "--models", "a", "--json", "--quiet"]) == 0
    assert main(["suites", "--online"]) == 2


def test_doctor_by_command(mine: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest, server = mine
    server.repos["models", "me/a"].branches["step10"] = server.repos["models", "me/a"].branches["step20"]
    assert main(["doctor", manifest, "--models", "a", "--quick", "--quiet", "--out", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "wrong  a  step 10  duplicate: model.safetensors is also that of step 20" in out
    found = "mine: 1 of 3 checkpoints are defective (0 of them known, 1 new). Looked at: file listings. Not looked"
    assert found in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"findings.csv", "norms.csv", "verdict.json"}
    assert main(["doctor", manifest, "--models", "a", "--steps", "0,20", "--quick", "--quiet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["clean"] is True and said["sound"] is False, "listings are not everything"


def test_a_hub_that_is_down_is_exit_3(mine: Any, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    manifest, server = mine
    server.stop()
    monkeypatch.setattr("pythia_tools.hub.client.RetryPolicy.wait", lambda self, attempt, after=None: None)
    assert main(["doctor", manifest, "--models", "a", "--quick", "--quiet"]) == 3
    assert main(["download", manifest, "--models", "a", "--steps", "0", "--quiet"]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and f"tries at {server.url}; what came is kept" in err


def test_selfcheck(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "--json"]) == 0
    rows = {r["what"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["torch"]["state"] == rows["manifests: suites"]["state"] == rows["manifests: orders"]["state"] == "ok"
    assert rows["hub token"]["detail"] == "set"
    assert main(["selfcheck", "--online"]) == 3
    out = capsys.readouterr().out
    assert "fail  hub: checkpoint" in out and "EleutherAI/pythia-14m: not found at" in out and "hf_secret" not in out


def test_download_claims_no_digest_that_it_has_not_read(mine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = mine
    command = ["download", manifest, "--models", "a", "--steps", "0,10", "--quiet"]
    assert main(command) == 0
    assert "all sizes and digests verified" in capsys.readouterr().out
    blob = (Path(json.loads(_out(main([*command, "--json"]), capsys))["folders"][0]) / "model.safetensors").resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    said = _out(main(command), capsys)
    assert "all" not in said and "which were verified when they came and compared by size now: --verify reads" in said
    assert blob.read_bytes() != whole
    said = _out(main([*command, "--verify"]), capsys)
    assert "512.1 kB fetched" in said and "all sizes and digests verified" in said and blob.read_bytes() == whole


def _out(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kept", ["all", "no listings", "from the client alone"])
def test_what_is_cached_downloads_and_is_examined_offline(
    mine: Any, kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    manifest, server = mine
    steps = ["--models", "a", "--steps", "0,10"]
    if kept == "from the client alone":
        for step in (0, 10):
            HfApi(endpoint=server.url).snapshot_download("me/a", revision=f"step{step}", cache_dir=tmp_path / "cache")
    else:
        assert main(["download", manifest, *steps, "--quiet"]) == 0
    if kept == "no listings":
        shutil.rmtree(tmp_path / "home")
    monkeypatch.setattr("pythia_tools.hub.repositories._branches", {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.forget()
    capsys.readouterr()
    assert main(["download", manifest, *steps, "--quiet"]) == 0
    assert "2 checkpoints are in" in capsys.readouterr().out
    assert main(["doctor", manifest, *steps, "--quiet"]) in (0, 1), capsys.readouterr().err
    assert "not in the cache" not in capsys.readouterr().out
    assert main(["download", manifest, "--models", "a", "--steps", "20", "--allow-defective", "--quiet"]) == 3
    assert "is not in the cache and HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert server.requests == []
