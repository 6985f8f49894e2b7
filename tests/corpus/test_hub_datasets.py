"""Documents streamed from a data set on the hub, with the real client against a local server of its protocol."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import Hub

READ = """
import json, sys
from pythia_tools.core.errors import PythiaToolsError
from pythia_tools.tokens.documents import read_documents
try:
    found = read_documents(sys.argv[1], skip=int(sys.argv[2]))
    print(json.dumps([[d.text, d.id, d.position, d.metadata] for d in found]))
except PythiaToolsError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def hub():  # type: ignore[no-untyped-def]
    table = pa.Table.from_pylist([{"text": f"text {i}", "id": f"x{i}", "n": i} for i in range(5)])
    raw = io.BytesIO()
    pq.write_table(table, raw)
    with Hub() as server:
        server.add_dataset("me/corpus", {"main": {"data/train-00000-of-00001.parquet": raw.getvalue()}})
        yield server


def read(hub: Hub, name: str, skip: int, home: Path):  # type: ignore[no-untyped-def]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1",
                   "HF_HUB_OFFLINE": "0",
                   "HF_DATASETS_OFFLINE": "0"}
    command = [sys.executable, "-c", READ, name, str(skip)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_data_set_on_the_hub_is_streamed(hub: Hub, tmp_path: Path) -> None:
    expected = [[f"text {i}", f"x{i}", i, {"n": i}] for i in range(5)]
    assert read(hub, "dataset:me/corpus", 2, tmp_path) == expected[2:]
    assert not list(tmp_path.rglob("*.arrow"))  # nothing was prepared on disk: it was streamed


def test_an_absent_data_set_is_one_line(hub: Hub, tmp_path: Path) -> None:
    said = read(hub, "dataset:me/absent@train", 0, tmp_path)
    assert isinstance(said, str)
    assert said.startswith("data set 'me/absent' cannot be opened")
