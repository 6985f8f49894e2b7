"""README is true: its Python runs as written, its commands exist, its files are there."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest

from pythia_tools import analyses
from pythia_tools.cli import main as cli
from pythia_tools.core.results import load_run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.trained
def test_its_python_runs(micro_suite: Path) -> None:
    mpl.use("Agg")
    scope: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), scope)
    assert scope["rows"].shape == (512, 65)
    assert len(scope["curve"]) > 0


def test_its_analysis_is_a_command(tiny_suite: Path, tmp_path: Path) -> None:
    try:
        exec(compile(BLOCKS[1], "README.md", "exec"), {})
        out = str(tmp_path / "norms")
        assert cli.main(["embedding-norm", str(tiny_suite), "--out", out, "--quiet", "--device", "cpu"]) == 0
    finally:
        analyses._registered.pop("embedding-norm", None)
    summary = load_run(out).summary
    assert (summary["metric"] == "mean_norm").all() and (summary["value"] > 0).all()


def test_its_commands_exist() -> None:
    known = {*cli.COMMANDS, *analyses.BUILT_IN}
    named = set(re.findall(r"pythia-tools ([a-z][a-z-]+)", README)) - {"is", "embedding-norm"}
    assert named <= known
    table = README.split("## Commands")[1].split("###")[0]
    assert known == {c for c in known if f"`{c}`" in table or f"`{c} " in table}


def test_its_files_are_there() -> None:
    for name in re.findall(r"`((?:scripts|notebooks|data_manifests|tests)/[\w./-]*)`", README):
        assert (ROOT / name).exists(), name


def test_make_targets_it_names_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (demo|test|check)\b", README):
        assert re.search(rf"^{target}:", makefile, re.M)
