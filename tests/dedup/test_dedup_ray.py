"""Two Ray workers give the same files as one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythia_tools import dedup
from pythia_tools.core.errors import DataError

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    names = []
    for part in range(3):
        words = [[f"w{(7 * i * j + part) % 97}" for j in range(60)] for i in range(40)]
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join('{"text": "' + " ".join(w) + '"}\n' for w in words))
        names.append(str(path))
    return names


def test_two_workers_give_the_same_clusters(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = dedup.preset("datasketch", part_bytes=5000, verify=True, bands=16, rows=8)
    alone = dedup.run_stages(inputs, tmp_path / "alone", config)
    spread = dedup.run_stages(inputs, tmp_path / "spread", config, backend="ray", workers=2)
    assert alone.dropped == spread.dropped > 0
    np.testing.assert_array_equal(alone.roots, spread.roots)
    for kind in ("kept", "dropped"):
        for path in (tmp_path / "alone" / kind).iterdir():
            assert path.read_bytes() == (tmp_path / "spread" / kind / path.name).read_bytes()
    Path(inputs[0]).write_bytes(b"{")
    with pytest.raises(DataError, match="not valid JSON"):
        dedup.run_stages(inputs, tmp_path / "again", config, backend="ray", workers=2)
    assert not ray.is_initialized()
