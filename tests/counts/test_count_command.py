"""`count` and `data seen` as a user types them: labels, resuming, and answers that explain themselves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run
from pythia_tools.counts import counting
from tests.order.order_stores import preshuffled_store

PIECES = {"a": 0, "b": 1, "1": 2, "12": 3, "Ġ": 4, "Ġ1": 5, "Ġa": 6, "=": 7}
ROWS = np.array([[0, 5, 6, 1], [2, 4, 3, 0], [6, 5, 4, 7], [1, 1, 2, 5]], dtype=np.uint16)


@pytest.fixture
def order(tmp_path: Path) -> str:
    """Four rows of four tokens, two to a step."""
    tokenizer(tmp_path / "tokenizer.json", PIECES)
    preshuffled_store(tmp_path / "rows", ROWS)
    (tmp_path / "order.yaml").write_text(
        "name: tiny\nkind: preshuffled\nseq_length: 3\nbatch_rows: 2\nsteps: 2\n"
        "store: {prefix: rows}\ntokenizer: tokenizer.json\n"
    )
    return str(tmp_path / "order.yaml")


def tokenizer(path: Path, pieces: dict[str, int]) -> str:
    made = Tokenizer(models.BPE(pieces, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(path))
    return str(path)


def counted(capsys: pytest.CaptureFixture[str], order: str, *arguments: str) -> dict[str, int]:
    assert main(["count", *arguments, "--order", order, "--steps", "last", "--json"]) == 0
    return {row["term"]: row["exposures"] for row in json.loads(capsys.readouterr().out)}


def test_labels_keep_a_number_beside_its_text(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "1", "number:1", "--order", order]) == 2
    assert "give one a label (label:NAME=TERM)" in capsys.readouterr().err
    found = counted(
        capsys, order, "1", "label:one=number:1", "label:sign=text:=", "label:near=pair:a & number:1",
        "label:ids=tokens:5,6", "label:both=set:a + 1", "text:number:1",
    )
    assert found == {"1": 6, "one": 5, "sign": 1, "near": 4, "ids": 1, "both": 2, "number:1": 0}
    for wrong in ("label:number:1", "label:=a", "label:one"):
        assert main(["count", wrong, "--order", order]) == 2
        assert "a label is written label:NAME=TERM" in capsys.readouterr().err


def test_a_killed_count_resumes_with_any_number_of_threads(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "PART_TOKENS", ROWS[:2].size)
    out = tmp_path / "run"
    expected = counted(capsys, order, "a", "tokens:5,6", "--out", str(out), "--workers", "1")
    cells = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.parquet")}
    (out / "run.json").unlink()  # as a kill before the last line leaves it
    next(iter(cells)).unlink()
    assert counted(capsys, order, "a", "tokens:5,6", "--out", str(out), "--workers", "3") == expected
    assert len(cells) == 2 and sum(path.stat().st_mtime_ns == before for path, before in cells.items()) == 1
    assert main(["count", "a", "--order", order, "--steps", "last", "--out", str(out)]) == 2
    assert "holds a run with another config" in capsys.readouterr().err


STALLS_AT_A_PART = textwrap.dedent("""
    import os, sys, time
    from pythia_tools.cli.main import main
    from pythia_tools.counts import counting
    counting.PART_TOKENS = 8 * 33
    replace, left = os.replace, int(sys.argv[1])
    def stalling(source, target):
        global left
        if os.path.basename(os.path.dirname(target)) == "cells":
            if left == 0:
                time.sleep(600)  # written beside its place and not yet renamed
            left -= 1
        replace(source, target)
    os.replace = stalling
    sys.exit(main(sys.argv[2:]))
""")
"""The command in parts of one batch, which stops for ever at the part after a number of finished ones."""
PARTS = 60


@pytest.mark.parametrize(("workers", "others", "finished"), [("1", "4", 7), ("3", "1", 31), ("2", "3", PARTS - 1)])
def test_sigkill_in_the_middle_and_other_workers_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, others: str, finished: int,
) -> None:
    tokenizer(tmp_path / "tokenizer.json", PIECES)
    rows = np.random.default_rng(7).integers(0, len(PIECES), (8 * PARTS, 33), dtype=np.uint16)
    preshuffled_store(tmp_path / "rows", rows)
    order = tmp_path / "order.yaml"
    order.write_text(
        f"name: longer\nkind: preshuffled\nseq_length: 32\nbatch_rows: 8\nsteps: {PARTS}\n"
        "store: {prefix: rows}\ntokenizer: tokenizer.json\n"
    )
    terms = ["a", "number:12", "word:1", "tokens:5,6", "pair:a & number:1", "set:a + ="]
    command = ["count", *terms, "--order", str(order), "--steps", "0:60:7,last", "--quiet", "--out"]
    assert main([*command, str(tmp_path / "whole"), "--workers", "1"]) == 0
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", STALLS_AT_A_PART, str(finished), *command, str(killed), "--workers", workers],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    halves: list[Path] = []
    while time.monotonic() < deadline and process.poll() is None and not halves:
        time.sleep(0.02)
        if len(list((killed / "cells").glob("*.parquet"))) == finished:
            halves = [path for path in (killed / "cells").iterdir() if path.suffix != ".parquet"]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and halves and not (killed / "run.json").exists()
    kept = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (killed / "cells").glob("*.parquet")}
    scanned = []
    reader = counting.reader
    monkeypatch.setattr(counting, "PART_TOKENS", 8 * 33)
    monkeypatch.setattr(counting, "reader", lambda order: scanned.append(order) or reader(order))
    assert main([*command, str(killed), "--workers", others]) == 0
    assert len(scanned) == PARTS - finished
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == kept
    assert {path.suffix for path in (killed / "cells").iterdir()} == {".parquet"}
    resumed, whole = load_run(killed), load_run(tmp_path / "whole")
    pd.testing.assert_frame_equal(resumed.items, whole.items)
    pd.testing.assert_frame_equal(resumed.summary, whole.summary)
    assert whole.items["exposures"].max() > 100


def test_ids_that_cannot_occur_are_refused_or_said(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "tokens:70000", "--order", order]) == 2
    assert "token id 70000 cannot stand in these rows, whose ids are 0 to 65535" in capsys.readouterr().err
    for terms in (["tokens:1,60000"], ["pair:tokens:1 & tokens:60000"], ["set:a + b", "tokens:60000"]):
        assert main(["count", *terms, "--order", order, "--steps", "last", "--quiet"]) == 0
        assert "token id 60000 is beyond the vocabulary of order tiny (0 to 7)" in capsys.readouterr().err
    assert main(["count", "tokens:7,7", "--order", order, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_what_was_read_is_said(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "a", "--order", order, "--steps", "1"]) == 0
    assert "tiny: 2 rows of 4 tokens, of 1 batch(es) from 0 on" in capsys.readouterr().err


def test_a_tokenizer_that_is_not_the_orders_is_said(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    other = tokenizer(tmp_path / "other.json", {"a": 1, "b": 0})
    for command in (["count", "a", "--order", order, "--steps", "last"], ["data", "seen", order, "a"]):
        assert main([*command, "--tokenizer", other]) == 0
        assert "the tokenizer given is not that of order tiny" in capsys.readouterr().err
        assert main([*command, "--tokenizer", str(tmp_path / "tokenizer.json")]) == 0
        assert "warning" not in capsys.readouterr().err
        nameless = [str(tmp_path / "rows") if word == order else word for word in command]
        assert main([*nameless, "--batch-rows", "2", "--tokenizer", other]) == 0
        assert "hold token id 7, the tokenizer given ends at 1" in capsys.readouterr().err


def test_an_empty_answer_says_what_was_looked_for(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "seen", order, "12=", "--quiet"]) == 0
    assert main(["data", "seen", order, "=b"]) == 0
    assert "looked for [7, 1], [4, 7, 1]" in capsys.readouterr().err
    assert main(["data", "seen", order, "--ids", "1", "60000"]) == 0
    assert "token id 60000 is beyond the vocabulary of order tiny (0 to 7)" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["data", "seen", "ROWS", "--ids", "1"], ["count", "tokens:1", "--order", "ROWS"]])
def test_rows_that_make_no_step_are_refused(
    command: list[str], order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(tmp_path / "rows") if word == "ROWS" else word for word in command]) == 2
    assert "its 4 rows make no batch of 1024; say how many rows a step has" in capsys.readouterr().err
