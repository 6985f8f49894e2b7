"""One kind of mistake, one exit code and one line, whichever command it is made in; and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pythia_tools import analyses
from pythia_tools.cli import main as cli
from pythia_tools.core import manifests
from pythia_tools.core.errors import DataError, PythiaToolsError, RequestError
from pythia_tools.core.results import RunFolder

STUDIES = [*analyses.BUILT_IN, "study"]
"""Commands that take a suite and make runs."""
TWO = ["--steps", "0,40", "--device", "cpu"]
LOSSES = ["losses", "SUITE", *TWO]
KINDS: dict[str, tuple[int, list[list[str]]]] = {
    "a flag that is not known": (2, [
        *([c, "SUITE", "--nonsense"] for c in (*STUDIES, "suites", "download", "doctor")),
        *([c, "--nonsense"] for c in ("demo", "train", "selfcheck", "dedup")), ["published", "bias", "x", "--nonsense"],
        *([c, "x", "--nonsense"] for c in ("report", "rerun", "merge")), ["count", "a", "--order", "x", "--nonsense"],
        ["data", "batch", "x", "--step", "0", "--nonsense"], ["data", "verify", "x", "--nonsense"],
    ]),
    "a suite that is not known": (2, [
        *([c, "pythai", "--out", "o"] for c in STUDIES), *([c, "pythai"] for c in ("suites", "download", "doctor")),
    ]),
    "a manifest that is not there": (2, [
        *([c, "no/such.yaml", "--out", "o"] for c in STUDIES), ["train", "no/such.yaml"],
        *([c, "no/such.yaml"] for c in ("suites", "download", "doctor")),
    ]),
    "a model that is not known": (2, [
        *([c, "SUITE", "--models", "zz", "--out", "o"] for c in STUDIES), ["suites", "SUITE", "--models", "zz"],
        ["doctor", "SUITE", "--models", "zz"], ["download", "pythia", "--models", "zz"],
    ]),
    "steps that are no steps": (2, [
        *([c, "SUITE", "--steps", "zz", "--out", "o"] for c in STUDIES), ["doctor", "SUITE", "--steps", "zz"],
        ["download", "pythia", "--steps", "zz"], ["count", "a", "--order", "ORDER", "--steps", "zz"],
        ["data", "overlay", "ORDER", "--steps", "zz", "--deduplicate", "--reserve", "0:4"],
        ["data", "seen", "ORDER", "--ids", "1", "--steps", "zz"], ["data", "batch", "ORDER", "--step", "zz"],
    ]),
    "no --out": (2, [
        *([c, "SUITE", *TWO] for c in STUDIES), ["published", "bias", "file"], ["dedup", "text.txt"],
        ["data", "tokenize", "text.txt"],
    ]),
    "a number that is too small": (2, [
        ["bias", "SUITE", "--limit", "-1", "--out", "o"], ["bias", "SUITE", "--batch-size", "0", "--out", "o"],
        ["count", "a", "--order", "ORDER", "--window", "0"], ["data", "seen", "ORDER", "a", "--limit", "0"],
        ["data", "batch", "ORDER", "--step", "-1"], ["train", "--workers", "-1"], ["dedup", "text.txt", "--ngram", "0"],
        ["data", "build-order", "x", "--steps", "0"], ["losses", "SUITE", "--rows", "-3", "--out", "o"],
    ]),
    "an order that is not known": (2, [
        ["count", "a", "--order", "nowhere"], ["data", "batch", "nowhere", "--step", "0"],
        ["data", "seen", "nowhere", "a"], ["data", "verify", "nowhere"], ["data", "overlay", "nowhere", "--steps", "0"],
        [*LOSSES, "--order", "nowhere", "--out", "o"],
    ]),
    "a run that is not there": (2, [
        ["report", "nowhere"], ["rerun", "nowhere"], ["merge", "nowhere", "--out", "o"],
        ["dedup", "--report", "nowhere"],
    ]),
    "a file that is not there": (2, [
        ["dedup", "nowhere.txt", "--out", "o"], ["data", "tokenize", "nowhere.txt", "--out", "o"],
        ["count", "@nowhere", "--order", "ORDER"], ["published", "bias", "nowhere", "--out", "o"],
        ["data", "verify", "ORDER", "--sums", "nowhere"], ["doctor", "--results", "nowhere"],
        ["data", "overlay", "ORDER", "--steps", "0:1", "--remove", "nowhere", "--reserve", "30:40"],
        ["memorization", "SUITE", *TWO, "--rows", "nowhere.npy", "--out", "o"],
    ]),
    "--out is a file": (2, [
        *([c, "SUITE", *TWO, "--out", "file"] for c in STUDIES), ["count", "a", "--order", "ORDER", "--out", "file"],
        ["dedup", "text.txt", "--out", "file"], ["train", "--out", "file"], ["doctor", "SUITE", "--out", "file"],
        ["data", "overlay", "ORDER", "--steps", "0:1", "--deduplicate", "--reserve", "8:12", "--out", "file"],
        ["merge", "x", "--out", "file"], ["demo", "--out", "file"], ["published", "bias", "file", "--out", "file"],
    ]),
    "--out lies under a file": (3, [
        [*LOSSES, "--out", "file/o"], ["count", "tokens:1", "--order", "ORDER", "--steps", "1", "--out", "file/o"],
        ["dedup", "text.txt", "--out", "file/o"], ["train", "--out", "file/o"],
        ["doctor", "SUITE", "--models", "xs", "--out", "file/o"], ["published", "bias", "file", "--out", "file/o"],
        ["data", "overlay", "ORDER", "--steps", "0:1", "--deduplicate", "--reserve", "8:12", "--out", "file/o"],
        ["data", "batch", "ORDER", "--step", "0", "--out", "file/o.npy"],
    ]),
    "--out cannot be made": (3, [
        [*LOSSES, "--out", "/proc/o"], ["count", "tokens:1", "--order", "ORDER", "--steps", "1", "--out", "/proc/o"],
        ["dedup", "text.txt", "--out", "/proc/o"], ["train", "--out", "/proc/o"],
        ["doctor", "SUITE", "--models", "xs", "--out", "/proc/o"],
        ["data", "overlay", "ORDER", "--steps", "0:1", "--deduplicate", "--reserve", "8:12", "--out", "/proc/o"],
        ["data", "batch", "ORDER", "--step", "0", "--out", "/proc/o.npy"],
    ]),
}
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_mistake_has_one_exit_code(
    kind: str, tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "text.txt").write_text("a text")
    places = {"SUITE": str(tiny_suite), "ORDER": str(tiny_suite / "order.yaml")}
    code, requests = KINDS[kind]
    for argv in requests:
        told = cli.main([*(places.get(word, word) for word in argv), "--quiet"])
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert told == code, (argv, err)
        assert len(lines) == 1 and lines[0].startswith("pythia-tools: "), (argv, err)
        assert {p.name for p in tmp_path.iterdir()} == {"file", "text.txt"}, f"{argv} leaves something behind"
        assert (tmp_path / "file").read_text() == "precious"


def test_a_refusal_in_the_middle_does_not_stand_in_the_way_of_its_correction(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refuse(*_: object) -> None:
        raise RequestError("this cannot be summarized")

    with monkeypatch.context() as patch:
        patch.setattr(type(analyses.get("losses")), "summarize", refuse)
        assert cli.main(["losses", str(tiny_suite), *TWO, "--rows", "4", "--out", str(out), "--quiet"]) == 2
    assert not (out / "config.json").exists() and list((out / "cells").iterdir()), "what was computed is kept"
    assert cli.main(["losses", str(tiny_suite), *TWO, "--rows", "5", "--out", str(out), "--quiet"]) == 0


def test_what_failed_before_it_kept_anything_is_forgotten_and_what_was_kept_is_not(tmp_path: Path) -> None:
    with pytest.raises(DataError), RunFolder(tmp_path / "a" / "b", {"command": "x"}):
        raise DataError("damaged")
    assert not (tmp_path / "a" / "b").exists()
    with pytest.raises(DataError), RunFolder(tmp_path / "kept", {"command": "x"}) as folder:
        (folder.path / "part.npy").write_bytes(b"work")
        raise DataError("damaged")
    with pytest.raises(RequestError, match="differs in: command"):
        RunFolder(tmp_path / "kept", {"command": "y"})
    with pytest.raises(RequestError), RunFolder(tmp_path / "kept", {"command": "x"}):
        raise RequestError("refused, but it was there before")
    assert (tmp_path / "kept" / "config.json").exists()


def test_the_config_says_which_checkpoints_the_steps_came_to(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["losses", str(tiny_suite), "--models", "xs", "--steps", "1,39", "--device", "cpu", "--out"]
    assert cli.main([*argv, str(tmp_path / "run"), "--quiet"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["arguments"]["steps"] == "1,39" and config["checkpoints"] == {"xs": [1, 40]}
    capsys.readouterr()
    assert cli.main(["rerun", str(tmp_path / "run"), "--json", "--quiet", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True, "the comparison alone is on stdout"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
CHECKS = [
    manifests.mapping, manifests.text, manifests.words, manifests.boolean, manifests.whole(), manifests.whole(None),
    manifests.number, manifests.list_of(manifests.text), manifests.list_of(manifests.whole(0)),
    manifests.one_of(("packed", "rows")),
]


@given(ANY, st.sampled_from(CHECKS))
@settings(max_examples=400, deadline=None)
def test_a_check_gives_a_value_or_says_in_one_line_what_is_wrong(value: object, check: manifests.Check) -> None:
    try:
        check("orders.yaml: field", value)
    except DataError as error:
        assert str(error).startswith("orders.yaml: field")
    try:
        manifests.checked("orders.yaml", {"name": value, **(value if isinstance(value, dict) else {})}, {"name": check})
    except DataError as error:
        assert str(error).startswith("orders.yaml")


@given(ANY.map(yaml.safe_dump).map(str.encode) | st.text().map(str.encode) | st.binary(max_size=60))
@example(b"when: 2024-99-99")
@example(b"? [a]\n: 1")
@example(b"? {a: b}\n: 1")
@example(b"a: &a [*a]")
@example(b"[" * 20_000)
@example(b"n: " + b"9" * 5000)
@example(b"n: !!int x")
@example(b"n: !!python/object:os.system {}")
@example(b"\x00")
@example(b"<<: 1")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_manifest_holds_only_our_own_errors_come_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(content)
    try:
        value = manifests.read(path)
        manifests.checked(path, value, {"name": manifests.text}, {"steps": manifests.list_of(manifests.whole())})
    except PythiaToolsError as error:
        assert str(error).startswith(str(path))


def test_a_manifest_that_is_a_folder_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        manifests.read(tmp_path)
