"""The deduplicated twin: repeats are gone from its rows, everything else stays, and the comparison counts what it saw.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import micro
from pythia_tools.order import load_order

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "deduplication_study.py"


@pytest.fixture(scope="module")
def script() -> object:
    spec = importlib.util.spec_from_file_location("deduplication_study", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_of_each_canary_one_copy_is_left_and_controls_stay_out(tiny_suite: Path) -> None:
    rows = micro.deduplicated_rows(tiny_suite)
    total = micro.recipe_of(tiny_suite).rows
    assert len(rows) == total
    kept = set(rows.tolist())
    for planted in micro.load_truth(tiny_suite).canaries["rows"]:
        assert len(kept & set(map(int, planted))) == min(1, len(planted))
    heads = load_order(tiny_suite / "order.yaml").take(np.array(sorted(kept)))[:, :64]
    assert len(np.unique(heads, axis=0)) == len(heads)


def test_the_study_compares_what_each_saw(
    tiny_suite: Path, tmp_path: Path, script: object, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--suite", str(tiny_suite), "--model", "xxs", "--out", str(tmp_path / "twin"), "--quiet", "--device", "cpu"
    ]
    assert script.main(arguments) == 0  # type: ignore[attr-defined]
    table = pd.read_csv(tmp_path / "twin" / "comparison.csv").set_index("copies")
    canaries = micro.load_truth(tiny_suite).canaries
    assert table["canaries"].to_dict() == canaries["copies"].value_counts().to_dict()
    assert (table["exposures"] == table.index).all()
    assert table.loc[0, "exposures_deduplicated"] == 0
    assert (table.loc[table.index > 4, "exposures_deduplicated"] <= 2).all()
    assert "rows are left at threshold 0.87" in capsys.readouterr().out
