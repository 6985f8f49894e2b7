"""The column dictionary in the docs is the one in the code, and every column of a finished run is in it."""

from __future__ import annotations

from pathlib import Path

from pythia_tools import analyses
from pythia_tools.analyses import dictionary
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.results import load_run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


def test_the_page_is_written_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == dictionary.markdown()


def test_every_column_and_metric_of_a_study_is_declared(tiny_suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert main(["study", str(tiny_suite), "--steps", "last", "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    for name in analyses.BUILT_IN:
        if not (out / name).is_dir():
            continue
        run, declared = load_run(out / name), analyses.get(name)
        assert run.summary.columns.tolist() == tables.SUMMARY
        assert set(run.summary["metric"]) <= set(declared.metrics)
        assert (run.summary["analysis"] == name).all() and run.summary["metric_unit"].notna().all()
        assert set(run.items.columns) <= {*tables.IDENTITY, *declared.columns}, name
        assert run.summary["unit"].notna().all(), "every interval names its unit"
