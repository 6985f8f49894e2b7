"""Counting rows that lie on the hub: the same numbers, and only the bytes of the batches that the steps need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythia_tools import counts
from pythia_tools.order import ArrayRows, load_order
from tests.hub_server import Hub
from tests.shards import split_store

LENGTH, ROWS, BATCH, SHARD = 100, 64, 8, 5001
MANIFEST = f"""name: remote
kind: preshuffled
seq_length: {LENGTH}
batch_rows: {BATCH}
rows: {ROWS}
dtype: uint16
store:
  repo: me/rows
  shards: {{stem: document, count: 3, bytes: {SHARD}, last_bytes: {ROWS * 2 * (LENGTH + 1) - 2 * SHARD}}}
"""


def test_remote_rows_count_as_local_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    rows = np.random.default_rng(5).integers(2, 40, (ROWS, LENGTH + 1)).astype(np.uint16)
    (tmp_path / "whole").mkdir()
    rows.tofile(tmp_path / "whole" / "document.bin")
    split_store(tmp_path / "whole" / "document.bin", tmp_path / "shards", SHARD)
    (tmp_path / "remote.yaml").write_text(MANIFEST)
    terms, steps = [(5,), (5, 6), (7, 8, 9), counts.Pair((5,), (6,), 3, "tokens")], [0, 2, 5]
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add_dataset("me/rows", {"main": tmp_path / "shards"})
        order = load_order(tmp_path / "remote.yaml")
        found = counts.count_terms(order, terms, steps)
        assert hub.sent == 5 * BATCH * 2 * (LENGTH + 1)
    assert found.equals(counts.count_terms(ArrayRows(rows, BATCH), terms, steps))
    assert found["exposures"].sum() > 0
