"""Shared runs of tokens against brute force, over passes, rows and stores."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import dedup
from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError
from pythia_tools.tokens import StoreWriter, open_store


def brute(sequences: list[list[int]], length: int, within: bool) -> list[tuple[int, int, int]]:
    owners: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for s, row in enumerate(sequences):
        for i in range(len(row) - length + 1):
            owners.setdefault(tuple(row[i : i + length]), []).append((s, i))
    many = [p for p in owners.values() if len({s for s, _ in p}) > 1 or (within and len(p) > 1)]
    marked = {place for places in many for place in places}
    runs = []
    for s, row in enumerate(sequences):
        i = 0
        while i < len(row):
            first = i
            while (s, i) in marked:
                i += 1
            if i > first:
                runs.append((s, first, i - first + length - 1))
            i += 1
    return runs


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("memory_bytes", [1 << 30, 4000])
def test_runs_are_those_of_brute_force(within: bool, memory_bytes: int) -> None:
    rng = random.Random("runs")
    sequences = [[rng.randrange(6) for _ in range(rng.randrange(40))] for _ in range(30)] + [[]]
    for length in (1, 4, 7):
        runs = dedup.repeated_runs(sequences, length, within=within, memory_bytes=memory_bytes)
        assert list(zip(runs.sequence, runs.start, runs.tokens, strict=True)) == brute(sequences, length, within)
        for run in runs.itertuples():
            window = sequences[run.sequence][run.start : run.start + length]
            assert sequences[run.first_sequence][run.first_start : run.first_start + length] == window


def test_a_planted_run_in_a_store(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).integers(0, 50000, (20, 200))
    rows[13, 100:160] = rows[4, 20:80]
    with StoreWriter(tmp_path / "s", np.uint16) as out:
        for row in rows:
            out.add_document(row)
    for sequences in (rows, open_store(tmp_path / "s")):
        runs = dedup.repeated_runs(sequences, 50)
        assert runs.values.tolist() == [[4, 20, 60, 4, 20], [13, 100, 60, 4, 20]]
    shares = dedup.run_shares(runs, 20, 4000)
    assert (shares["sequences_with_a_run"], shares["tokens_in_runs"], shares["longest_run"]) == (2, 120, 60)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreWriter(tmp_path / "s", np.uint16) as out:
        for first in (0, 30, 900):
            out.add_document(np.arange(first, first + 80))
    arguments = ["dedup", "--runs", "50", "--store", str(tmp_path / "s"), "--out", str(tmp_path / "o"), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sequences_with_a_run"], said["tokens_in_runs"], said["longest_run"]) == (2, 100, 50)
    assert pd.read_parquet(tmp_path / "o" / "runs.parquet").start.tolist() == [30, 0]
    assert main(["dedup", "--runs", "50"]) == 2
    assert "--runs needs --store PREFIX" in capsys.readouterr().err


def test_nothing_shared() -> None:
    assert dedup.repeated_runs([[1, 2, 3], [4, 5, 6]], 2).empty
    assert dedup.repeated_runs([], 2).empty
    with pytest.raises(RequestError, match="must be at least 1 token"):
        dedup.repeated_runs([[1]], 0)
