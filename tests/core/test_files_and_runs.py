"""Files are whole or absent; runs resume, refuse other configs, and say when they are not complete."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pythia_tools.core import files, manifests, tables
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError, UnknownNameError
from pythia_tools.core.results import CellStore, RunFolder, load_run

ROW = dict(suite="s", model="m", params=10, step=1, tokens=100, branch="main", group="all", metric="x",
           value=0.5, low=0.4, high=0.6, n=3, interval="none")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(ValueError, match="midway"), files.atomic_write(target, "w") as handle:
        handle.write("new")
        raise ValueError("midway")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """The kernel's own file size limit stands in for a full disk: the same write fails midway."""
    target = tmp_path / "big.bin"
    target.write_bytes(b"old")
    code = (
        "import resource, signal, sys\n"
        "from pythia_tools.core import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with files.atomic_write(sys.argv[1]) as h: h.write(b'x' * 100000)\n"
        "except files.EnvironmentFailure as e: print(e, e.exit_code)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True).stdout
    assert "the disk is full" in out
    assert out.rstrip().endswith("3")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_folder_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "step1"
    files.atomic_folder(target, lambda d: (d / "a").write_text("1") and None)
    files.atomic_folder(target, lambda d: (d / "b").write_text("2") and None)
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["step1"]


def test_paths_stay_confined(tmp_path: Path) -> None:
    assert files.confined(tmp_path, "a/b") == (tmp_path / "a" / "b").resolve()
    for bad in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(RequestError, match="leads outside"):
            files.confined(tmp_path, bad)


def test_too_little_disk_is_said_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="are free"):
        files.require_free(tmp_path / "x", 1 << 60)


def test_errors_carry_their_errno_class() -> None:
    assert issubclass(EnvironmentFailure, OSError)
    assert errno.ENOSPC


def test_cells_survive_and_a_torn_cell_counts_as_absent(tmp_path: Path) -> None:
    store = CellStore(tmp_path / "cells")
    frame = pd.DataFrame({"row": [1, 2], "ok": [True, False]})
    assert store.get(["w", "t", 0]) is None
    store.put(["w", "t", 0], frame)
    pd.testing.assert_frame_equal(store.get(["w", "t", 0]), frame)
    assert store.get(["w2", "t", 0]) is None
    path = store.path(["w", "t", 0])
    path.write_bytes(path.read_bytes()[:50])
    assert store.get(["w", "t", 0]) is None


def test_a_run_is_complete_only_with_run_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r", {"command": "x", "steps": (1, 2)})
    assert not run.complete
    with pytest.raises(DataError, match="not complete"):
        load_run(tmp_path / "r")
    done = run.finish(pd.DataFrame({"a": [1]}), tables.summary([ROW]), weights={"m/step1": "ab"})
    assert RunFolder(tmp_path / "r", {"command": "x", "steps": [1, 2]}).complete
    assert done.config == {"command": "x", "steps": [1, 2]}
    assert done.record["weights"] == {"m/step1": "ab"}
    assert done.summary.loc[0, "value"] == 0.5
    assert done.record["versions"]["numpy"]


def test_another_config_is_refused_and_names_the_difference(tmp_path: Path) -> None:
    RunFolder(tmp_path / "r", {"command": "x", "k": 1})
    with pytest.raises(RequestError, match="differs in: k"):
        RunFolder(tmp_path / "r", {"command": "x", "k": 2})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(RequestError, match="not a run's folder"):
        RunFolder(tmp_path / "mine", {})
    RunFolder(tmp_path / "n", {"command": "x", "arguments": {"steps": "all", "models": None}})
    with pytest.raises(RequestError, match=r"differs in: arguments\.steps\)"):
        RunFolder(tmp_path / "n", {"command": "x", "arguments": {"steps": "log", "models": None}})
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RequestError, match="is a file"):
        RunFolder(tmp_path / "file", {})
    with pytest.raises(RequestError, match=r"no config\.json"):
        load_run(tmp_path / "nowhere")


def test_summary_round_trip_keeps_types(tmp_path: Path) -> None:
    frame = tables.summary([ROW, {**ROW, "params": None, "low": None}])
    path = tmp_path / "s.csv"
    frame.to_csv(path, index=False)
    pd.testing.assert_frame_equal(tables.read_summary(path), frame)
    with pytest.raises(DataError, match="'metric'"):
        tables.check_summary(frame.drop(columns="metric"))


def test_manifests_refuse_typos_duplicates_and_unknown_names(tmp_path: Path) -> None:
    bad = tmp_path / "x.yaml"
    bad.write_text("a: 1\na: 2\n")
    with pytest.raises(DataError, match=r"line 2: not valid YAML"):
        manifests.read(bad)
    bad.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(DataError, match="not valid YAML"):
        manifests.read(bad)
    with pytest.raises(DataError, match=r"missing \['b'\], unknown \['c'\]"):
        manifests.checked(bad, {"a": 1, "c": 2}, dict.fromkeys("ab", manifests.anything))
    with pytest.raises(UnknownNameError, match="unknown suite 'pythai'"):
        manifests.find("suites", "pythai")
