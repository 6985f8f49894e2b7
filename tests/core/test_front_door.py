"""The package and the command line as a user first meets them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pythia_tools as pt
from pythia_tools import analyses
from pythia_tools.cli import main as cli

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
