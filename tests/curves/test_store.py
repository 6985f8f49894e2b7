"""The store of curves: what is written is read back by token, row, step and as a whole; small, and hard to break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools.analyses.curves import CurveStore, CurveWriter, StoredRun, open_store, store
from pythia_tools.analyses.curves.assembly import Assembly
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.suites import Checkpoint, Folder, ModelInfo

ROWS, EACH = 37, 150


def places(rows: int = ROWS, each: int = EACH) -> pd.DataFrame:
    row = np.repeat(np.arange(rows) * 3 + 5, each)
    return pd.DataFrame({"row": row, "position": np.tile(np.arange(each) * 2, rows), "token": np.arange(rows * each)})


def checkpoints(steps: int, models: tuple[str, ...] = ("a", "b")) -> list[Checkpoint]:
    here = Folder(Path("nowhere"))
    return [Checkpoint("made", ModelInfo(m, 9, 9, seed=1), s, 10 * s, f"step{s}", here)
            for m in models for s in range(steps)]


def values(checkpoint: Checkpoint, tokens: int) -> np.ndarray:
    seed = [ord(checkpoint.model.name), checkpoint.step]
    return np.abs(np.random.default_rng(seed).normal(9, 3, tokens)).astype(np.float16)


def write(folder: Path, steps: int = 40) -> CurveStore:
    table, all_of_them = places(), checkpoints(steps)
    made = Assembly(folder, table, all_of_them)
    found = None
    for checkpoint in all_of_them:
        column = values(checkpoint, len(table))
        for begin in (0, 3000):
            assert found is None, "complete before its last value"
            found = made.add(checkpoint, begin, column[begin : begin + 3000], 512)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> CurveStore:
    return write(tmp_path_factory.mktemp("curves") / "store")


def test_every_way_of_reading_gives_what_was_written(written: CurveStore) -> None:
    table, steps = places(), range(40)
    pd.testing.assert_frame_equal(written.places, table, check_dtype=False)
    for model in ("a", "b"):
        run = written.run(model)
        assert run.steps == tuple(steps) and run.tokens == tuple(10 * s for s in steps) and run.chance == 9.0
        assert run.identity["step"] == 39 and run.identity["seed"] == 1 and len(run.files) == 2
        whole = np.stack([values(c, len(table)) for c in checkpoints(40) if c.model.name == model], axis=1)
        whole = whole.astype(np.float32)
        for row, position in ((5, 0), (5, 298), (8, 2), (59, 150), (113, 298)):
            at = table.index[(table["row"] == row) & (table["position"] == position)][0]
            np.testing.assert_array_equal(written.token(row, position, model), whole[at])
        np.testing.assert_array_equal(written.row(59, model), whole[table["row"] == 59])
        for step in (0, 31, 32, 39):
            np.testing.assert_array_equal(written.step(step, model), whole[:, step])
        parts = list(written.chunks(model))
        assert len(parts) == 3, "14 rows are the first that reach 2,048 tokens"
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), whole)
        assert [where.start for where, _ in parts] == [0, 2100, 4200]


def test_what_is_not_there_is_refused_by_name(written: CurveStore, tmp_path: Path) -> None:
    for ask, says in (
        (lambda: written.token(5, 1, "a"), "row 5 has no position 1"), (lambda: written.row(6, "a"), "row 6 is not in"),
        (lambda: written.step(40, "a"), "unknown step 40"), (lambda: written.run("c"), "unknown run 'c'"),
        (written.run, "holds 2 runs .a, b.; say which one"), (lambda: open_store(tmp_path), "no finished store"),
        (lambda: CurveWriter(tmp_path, places().iloc[::-1]), "sorted by row and position"),
        (lambda: CurveWriter(tmp_path, places()).group("a", np.zeros((33, 1))), "1 to 32 checkpoints"),
    ):
        with pytest.raises(RequestError, match=says):
            ask()
    twice = [*checkpoints(3, ("a",)), *checkpoints(1, ("a",))]
    with pytest.raises(RequestError, match="two checkpoints are called a at one step"):
        Assembly(tmp_path, places(), twice)


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    made = write(tmp_path)
    path = made.folder / made.run("a").files[0]
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="chunk 0 is damaged"):
        open_store(tmp_path).token(5, 0, "a")
    open_store(tmp_path).token(5, 0, "b")
    path.write_bytes(content[:-9])
    with pytest.raises(DataError, match="damaged"):
        open_store(tmp_path).token(5, 0, "a")
    path.unlink()
    with pytest.raises(DataError, match="missing or cut short"):
        open_store(tmp_path).step(0, "a")


def test_values_that_are_not_numbers_stay_so_and_one_row_is_enough(tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path, places(1, 1))
    named = writer.group("a/b", np.array([[np.nan], [1.5]]))
    run = StoredRun("s", "a/b", None, "main", None, (0, 1), (None, None), 9.0, (named,))
    np.testing.assert_array_equal(writer.finish([run]).token(5, 0), [np.nan, 1.5])


def test_another_store_in_the_same_folder_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = {path.name for path in write(tmp_path, 40).folder.iterdir()}
    writer = CurveWriter(tmp_path, places(2, 3))
    assert open_store(tmp_path).run("a").steps[-1] == 39, "the first can be read until the second is complete"
    named = writer.group("a", np.ones((2, 6)))
    writer.finish([StoredRun("s", "a", None, "main", None, (0, 1), (None, None), 9.0, (named,))])
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 3 and left & first == {"curves.json"} and len(open_store(tmp_path)) == 6


def test_memory_of_writing_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    table = places(200, 100)

    def peak(steps: int, folder: str) -> int:
        own = checkpoints(steps, ("a",))
        tracemalloc.start()
        made = Assembly(tmp_path / folder, table, own)
        for checkpoint in own:
            made.add(checkpoint, 0, np.full(len(table), checkpoint.step, dtype=np.float16), 512)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(32, "imports")
    few, many = peak(32, "few"), peak(160, "many")
    assert many < 1.02 * few


def test_curves_like_a_language_models_take_little_more_than_a_byte_a_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table, steps = places(40, 256), np.unique(np.r_[2 ** np.arange(10), np.arange(1000, 143_000, 1000)])[:96]
    mid, end = rng.normal(2.8, 0.5, (len(table), 1)), rng.gamma(1.2, 3, (len(table), 1)).clip(0, 15)
    curves = 15.6 + (end - 15.6) / (1 + np.exp((mid - np.log10(steps)) / 0.3))
    curves *= 1 + rng.normal(0, 0.05, curves.shape)
    writer = CurveWriter(tmp_path, table)
    for first in (0, 32, 64):
        writer.group("a", np.abs(curves[:, first : first + 32]).T.astype(np.float16))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 1.5 * curves.size


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_store as t
pack = t.store._pack
t.store._pack = lambda v: (time.sleep(.15), pack(v))[1]
t.write(Path(sys.argv[2]))
"""


def test_killed_it_resumes_to_the_same_files(written: CurveStore, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder)],
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and len(list(folder.glob("*.chunks"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.chunks")}
    assert kept and not (folder / store.MANIFEST).exists()
    with pytest.raises(RequestError, match="it resumes"):
        open_store(folder)
    again = write(folder)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished files were written again"
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in written.folder.iterdir())
    for model in ("a", "b"):
        for (_, one), (_, other) in zip(again.chunks(model), written.chunks(model), strict=True):
            np.testing.assert_array_equal(one, other)
