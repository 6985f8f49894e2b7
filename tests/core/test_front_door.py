"""The package and the command line as a user first meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import pythia_tools as pt
from pythia_tools import analyses
from pythia_tools.cli import data
from pythia_tools.cli import main as cli
from pythia_tools.cli.options import RANGES

LAZY = (
    "import sys, pythia_tools as pt; assert pt.__version__; "
    "print([m for m in ('torch', 'matplotlib', 'transformers', 'numba', 'pandas') if m in sys.modules])"
)


def test_import_is_light() -> None:
    out = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_every_public_name_resolves() -> None:
    for name in pt.__all__:
        assert getattr(pt, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lode_suite'"):
        _ = pt.lode_suite


@pytest.mark.parametrize("command", sorted([*cli.COMMANDS, *analyses.BUILT_IN]))
def test_every_command_shows_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert f"pythia-tools {command}" in shown.split("usage:")[1]
    assert shown.count("pythia-tools") >= 2, f"the help of {command} shows no example"


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["suites", "pythai"],
        ["memorization", "pythia-micro", "--shard", "3/2"],
        ["bias", "pythia-micro", "--batch-size", "0"],
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("pythia-tools: ")
    assert err.count("\n") == 1


def test_a_bug_is_70_with_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: list[str]) -> int:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert cli.main([]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    assert cli.main([]) == 130
    assert "resume" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted([*cli.COMMANDS, *analyses.BUILT_IN, *(f"data {c}" for c in data.COMMANDS)]))
def test_every_range_says_which_ends_it_includes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    takes_ranges = "1000:143000" in shown.partition("options:")[2] or " a:b " in shown
    assert (RANGES in shown) == takes_ranges


@pytest.mark.parametrize("command", [["report"], ["rerun"], ["merge", "--out", "joined"]])
def test_a_run_of_version_0_1_is_refused_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"command": "memorization", "arguments": {"suite": "pythia", "shard": [0, 1]}}
    old = "suite,model,params,branch,seed,step,tokens,group,metric,value,low,high,n,interval\n"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    (tmp_path / "old" / "run.json").write_text(json.dumps({"config": config}))
    old += "s,m,1,main,,10,20,exposures=1,memorized_share,0.5,0.4,0.6,9,wilson95\n"
    (tmp_path / "old" / "summary.csv").write_text(old)
    pd.DataFrame({"suite": ["s"]}).to_parquet(tmp_path / "old" / "items.parquet")
    assert cli.main([command[0], "old", *command[1:]]) == 3
    err = capsys.readouterr().err
    assert "written by version 0.1" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("old-rerun")) and not list(tmp_path.glob("report.html"))


def test_a_path_that_cannot_be_used_is_one_line_and_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    sums = ["data", "verify", str(tmp_path / "none"), "--sums", str(tmp_path)]
    assert cli.main(sums) == 3
    (tmp_path / "t.txt").write_text("a text")
    assert cli.main(["count", "a", "--order", str(tmp_path / "file" / "order")]) == 3
    assert cli.main(["dedup", str(tmp_path / "t.txt"), "--out", str(tmp_path / "file" / "run"), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 3 and "Traceback" not in err
