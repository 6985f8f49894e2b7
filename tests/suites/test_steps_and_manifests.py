"""The step language, manifests of one's own, and folders without one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pythia_tools import suites
from pythia_tools.core.errors import DataError, PythiaToolsError, RequestError, UnknownNameError
from pythia_tools.suites import Folder, HubRevision, load_suite
from pythia_tools.suites.steps import Request, expand, select

GRID = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 143001, 1000)]
PER_STEP = 2_097_152


def pick(request: Request, *, lenient: bool = False) -> list[int]:
    return select(request, GRID, tokens_per_step=PER_STEP, who="pythia/70m", lenient=lenient)


@pytest.mark.parametrize(
    ("request_", "steps"),
    [
        ("all", GRID),
        ("first", [0]),
        ("last", [143000]),
        ("512", [512]),
        ("step512", [512]),
        (512, [512]),
        ([0, 512, 143000], [0, 512, 143000]),
        ("143000,0, 512", [0, 512, 143000]),
        (["first", "last"], [0, 143000]),
        ("log",
         [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 33000, 66000, 131000, 143000]),
        ("1000:143000:10000", list(range(1000, 143001, 10000))),
        ("500:3000", [512, 1000, 2000, 3000]),
        ("tokens=2B", [1000]),
        ("tokens=300B", [143000]),
        ("tokens=1073741824", [512]),
        ("tokens=20B:60B:20B", [10000, 19000, 29000]),
        ("10%", [14000]),
        ("0%", [0]),
        ("100%", [143000]),
        ("512,last,50%", [512, 71000, 143000]),
    ],
)
def test_requests(request_: Request, steps: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert pick(request_) == steps
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("request_", "steps", "warning"),
    [
        (1500, [1000], "step 1500 has no checkpoint in pythia/70m; taking the nearest, 1000"),
        ("1501", [2000], "step 1501 has no checkpoint in pythia/70m; taking the nearest, 2000"),
        ("tokens=1.5B", [512], "tokens=1.5B is step 715 of pythia/70m; the nearest checkpoint is step 512"),
        ("0:3000:500", [0, 1000, 2000, 3000],
         "pythia/70m: 3 of the 7 steps of 0:3000:500 have no checkpoint and are left out"),
    ],
)
def test_the_nearest_is_taken_with_a_warning(request_: Request, steps: list[int], warning: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert pick(request_) == steps
    assert f"warning: {warning}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("soon", "steps 'soon' is not understood; allowed: all, log, first, last, 512"),
        (150_000, "step 150000 lies outside pythia/70m, whose checkpoints run from step 0 to step 143000"),
        ("tokens=1T", "tokens=1T lies outside pythia/70m"),
        ("tokens=much", "'much' is not an amount of tokens"),
        ("tokens=2B:1B:1B", "tokens are one amount or first:last:stride"),
        ("5:1:1", "the range is first:last:stride with first ≤ last"),
        ("1:5:0", "the range is first:last:stride"),
        ("120%", "a share of the run is 0% to 100%"),
        ("", "is empty in part"),
        ("1,,2", "is empty in part"),
    ],
)
def test_refusals_say_what_is_allowed(request_: Request, message: str) -> None:
    with pytest.raises(RequestError, match=message.replace("(", r"\(")):
        pick(request_)


def test_a_branch_begins_late_and_is_asked_leniently(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("pythia-interventions")
    found = suite.checkpoints(["70m", "70m-intervention"], [0, 140000])
    assert [(c.model.name, c.step) for c in found] == [("70m", 0), ("70m", 140000), ("70m-intervention", 140000)]
    said = capsys.readouterr().err
    assert "70m-intervention has checkpoints from step 134000 to step 143000; left out: step 0" in said
    assert said.count("warning") == 1


def test_tokens_are_one_axis_across_suites() -> None:
    found = {
        name: load_suite(name).checkpoints(model, "tokens=21B")[0]
        for name, model in [("pythia", "70m"), ("pythia-v0", "160m"), ("olmo2", "0425-1B")]
    }
    assert {name: c.step for name, c in found.items()} == {"pythia": 10_000, "pythia-v0": 5_000, "olmo2": 10_000}
    assert {c.tokens for c in found.values()} == {20_971_520_000}


def test_ranges_of_manifests() -> None:
    assert expand([0, 1, "10:30:10"]) == (0, 1, 10, 20, 30)
    for wrong in ("10", "1:2", -1, True, 1.5, "3:1:0"):
        with pytest.raises(ValueError, match="is neither a whole number nor a range"):
            expand([wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is more than 1,000,000 steps"):
        expand(["0:9999999999:1"])


@pytest.mark.parametrize(
    ("request_", "last"),
    [("1:9999999999:1", 143000), ("0:999999999999999999:1", 143000), ("tokens=1:99999999999:1", 48000),
     ("tokens=0:90B:1", 43000)],
)
def test_a_range_stays_a_range(request_: str, last: int) -> None:
    began = time.monotonic()
    assert pick(request_) == [s for s in GRID if int(not request_.startswith(("0", "tokens"))) <= s <= last]
    assert time.monotonic() - began < 1


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 300), st.integers(0, 300),
    st.integers(1, 40),
)
def test_a_range_of_tokens_means_the_nearest_of_each(
    grid: set[int], per_step: int, start: int, length: int, stride: int,
) -> None:
    steps, amounts = sorted(grid), range(start, start + length + 1, stride)
    inside = [t for t in amounts if steps[0] <= t / per_step <= steps[-1] or
              abs(min(steps, key=lambda s: (abs(s - t / per_step), s)) - t / per_step) <= 0.05 * max(t / per_step, 1)]
    nearest = {min(steps, key=lambda s: (abs(s - t / per_step), s)) for t in inside}
    asked = f"tokens={start}:{start + length}:{stride}"
    assert select(asked, steps, tokens_per_step=per_step, who="m", lenient=True) == sorted(nearest)


@settings(max_examples=300, deadline=None)
@given(st.one_of(
    st.text(max_size=20), st.from_regex(r"\A(tokens=)?[0-9]{1,30}([kMBT%.:,-][0-9]{0,30}){0,3}\Z"),
    st.sampled_from(["9" * 5000, "tokens=" + "9" * 5000, "1:" + "9" * 400 + ":1", "tokens=1e9", "٣", "9" * 400 + "%"]),
))
def test_any_request_is_answered_or_refused_in_one_line(text: str) -> None:
    for grid in (GRID, []):
        try:
            select(text, grid, tokens_per_step=2_097_152, who="m")
        except RequestError as error:
            assert "\n" not in str(error) or "\n" in text


MINE = """
name: mine
description: a suite of my own
location: {hub: "me/{model}", revision: "step{step}"}
steps: [0, "10:30:10"]
tokens_per_step: 1024
models:
  a: {params: 10, seed: 3}
  b: {repo: you/b, revisions: {5: five}, dtype: float32}
  a-swap: {branch: swap, base: a, branch_step: 20, steps: [30]}
known_defects:
  - {models: [a], steps: [10], what: wrong weights, source: "https://example.org"}
"""


def write(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_manifest_of_ones_own_works_by_path(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, MINE))
    assert suite.steps("a") == [0, 10, 20, 30] and suite.steps("b") == [0, 5, 10, 20, 30]
    assert suite.checkpoint("b", 5).location == HubRevision("you/b", "five")
    found = suite.checkpoints(["b", "a-swap"], "last")
    assert [str(c) for c in found] == ["mine/b/step30", "mine/a-swap/step30"]
    assert found[1].identity == {"suite": "mine", "model": "a-swap", "params": None, "branch": "swap", "seed": None,
                                 "step": 30, "tokens": 30720}
    with pytest.raises(RequestError, match="mine/a: step 10 is known to be wrong: wrong weights"):
        suite.checkpoints("a", allow_defective=False)
    with pytest.raises(UnknownNameError, match="unknown model of mine 'c'"):
        suite.checkpoints("c")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("models:\n", "schedule: {kind: cosine, floor: 0.1}\nmodels:\n",
         r"schedule: missing \['decay_steps', 'warmup_steps'\]"),
        ("models:\n", "schedule: {kind: wave}\nmodels:\n",
         "schedule kind 'wave' is not one of neox-cosine, cosine, constant"),
        ("steps: [0,", "stepz: [0,", r"unknown \['stepz'\]"),
        ("name: mine\n", "", r"missing \['name'\]"),
        ("params: 10", "parms: 10", r"models: a: unknown \['parms'\]"),
        ("base: a,", "base: z,", "base 'z' is not a model of the suite; known: a, b, a-swap"),
        ("branch_step: 20, ", "", "branch and branch_step belong together"),
        ('{model}"', '{size}"', r"uses \['size'\]; allowed: \['model'\]"),
        ("step{step}", "fixed", "revision 'fixed' does not hold the step"),
        ("models: [a]", "models: [z]", r"known_defects\[0\]: no such models \['z'\]"),
        ("dtype: float32", "dtype: fp32", "dtype 'fp32' is not one of float16, bfloat16, float32"),
        ("tokens_per_step: 1024", "tokens_per_step: 0", "tokens_per_step must be a whole number of at least 1, not 0"),
        ('hub: "me/{model}", revision: "step{step}"', "folder: x, hub: y", "exactly one of hub"),
        ("name: mine", "name: mine\nname: twice", "key 'name' appears twice"),
        ('[0, "10', '[-1, "10', "step -1 is neither a whole number nor a range"),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    with pytest.raises(DataError, match=message) as error:
        load_suite(write(tmp_path, MINE.replace(old, new)))
    assert str(tmp_path) in str(error.value)


def test_a_shape_that_disagrees_with_its_parameters_is_refused(tmp_path: Path) -> None:
    text = MINE.replace("{params: 10, seed: 3}",
                        "{params: 10, shape: {architecture: gpt_neox, layers: 2, d_model: 8, vocab: 32}}")
    with pytest.raises(DataError, match=f"params is 10, its shape gives {suites.neox_params(2, 8, 32)}"):
        load_suite(write(tmp_path, text))


LOCAL = """
name: little
description: beside its manifest
location: {folder: "{model}/step{step}"}
order: order.yaml
tokenizer: tokenizer
steps: [0, 1]
models: {s: {}}
"""


def test_a_folder_with_a_manifest(tmp_path: Path) -> None:
    write(tmp_path, LOCAL, "suite.yaml")
    suite = load_suite(tmp_path)
    assert suite.folder == tmp_path and suite.order == str(tmp_path / "order.yaml")
    assert suite.tokenizer == str(tmp_path / "tokenizer")
    assert suite.checkpoint("s", 1).location == Folder(tmp_path / "s" / "step1")
    with pytest.raises(RequestError, match="leads outside"):
        load_suite(write(tmp_path, LOCAL.replace("{model}/step", "../{model}/step"), "suite2.yaml"))


@pytest.mark.parametrize(("written", "name", "source"), [
    ("me/tok", "me/tok", None),
    ("me/tok@v1", "me/tok@v1", None),
    ('{name: me/tok, source: "https://example.org"}', "me/tok", "https://example.org"),
    ("tokenizer.json", "HERE/tokenizer.json", None),
    ("./me/tok", "HERE/me/tok", None),
    ("there/tok", "HERE/there/tok", None),
    ("a/b/tokenizer.json", "HERE/a/b/tokenizer.json", None),
])
def test_a_tokenizer_is_a_name_on_the_hub_or_a_path_beside_the_manifest(tmp_path: Path, written: str, name: str,
                                                                        source: str) -> None:
    (tmp_path / "there" / "tok").mkdir(parents=True)
    suite = load_suite(write(tmp_path, LOCAL.replace("tokenizer: tokenizer", f"tokenizer: {written}")))
    assert suite.tokenizer == suite.model("s").tokenizer == name.replace("HERE", str(tmp_path))
    assert suite.model("s").tokenizer_source == source


def test_a_models_own_tokenizer_wins(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, LOCAL.replace("models: {s: {}}", "models: {s: {}, t: {tokenizer: me/other}}")))
    assert suite.model("t").tokenizer == "me/other"
    assert suite.model("s").tokenizer == suite.tokenizer == str(tmp_path / "tokenizer")
    with pytest.raises(DataError, match=r"tokenizer.*nam"):
        load_suite(write(tmp_path, LOCAL.replace("tokenizer: tokenizer", "tokenizer: {nam: x}"), "b.yaml"))


def make_checkpoint(path: Path, **config: object) -> None:
    path.mkdir(parents=True)
    (path / "config.json").write_text(
        json.dumps({"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 32, **config})
    )


def test_folders_without_a_manifest_are_discovered(tmp_path: Path) -> None:
    for model in ("one", "two"):
        for step in (0, 10, 9):
            make_checkpoint(tmp_path / "runs" / model / f"step{step}")
    make_checkpoint(tmp_path / "runs" / "one" / "step007")
    suite = load_suite(tmp_path / "runs")
    assert list(suite.models) == ["one", "two"] and suite.steps("one") == [0, 9, 10]
    assert suite.model("one").params == suites.neox_params(2, 8, 32)
    bare = tmp_path / "runs" / "two" / "step9"
    (bare / "config.json").rename(bare / "model.safetensors")
    alone = load_suite(str(tmp_path / "runs" / "two"))
    assert list(alone.models) == ["two"] and alone.steps("two") == [0, 9, 10]  # nor are weights without a config hidden
    assert alone.checkpoints(steps="last")[0].location == Folder((tmp_path / "runs/two/step10").resolve())
    with pytest.raises(RequestError, match="tokens=1B: the tokens per step of two/two are not known; ask by step"):
        alone.checkpoints(steps="tokens=1B")
    with pytest.raises(RequestError, match="no checkpoints here; expected FOLDER/stepN or FOLDER/MODEL/stepN"):
        load_suite(tmp_path)


def test_names_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    with pytest.raises(UnknownNameError, match="unknown suite 'pythai'; did you mean 'pythia'"):
        load_suite("pythai")
    with pytest.raises(RequestError, match=r"no such manifest file or folder; give a path to a \.yaml"):
        load_suite("no/such.yaml")
    with pytest.raises(RequestError,
                       match=r"pythia-micro has not been trained on this machine yet; run `pythia-tools train` first"):
        load_suite("pythia-micro")
    trained = tmp_path / "suites" / "pythia-micro"
    trained.mkdir(parents=True)
    write(trained, LOCAL.replace("little", "pythia-micro"), "suite.yaml")
    assert load_suite("pythia-micro").folder == trained
    assert suites.suite_names()[-1] == "pythia-micro"


GOOD: dict[str, Any] = {
    "name": "good", "description": "x", "sources": ["a"], "location": {"hub": "me/{model}", "revision": "step{step}"},
    "shapes": {"s": {"architecture": "gpt_neox", "layers": 2, "d_model": 8, "heads": 2, "vocab": 10}},
    "models": {
        "a": {"shape": "s", "peak_lr": "1e-3", "seed": 1, "revisions": {7: "seven"}, "note": "n",
              "known_defects": [{"what": "w", "source": "s", "steps": [0]}]},
        "b": {"shape": {"layers": 2}, "base": "a", "branch": "swap", "branch_step": 5, "params": 3},
    },
    "steps": [0, "10:30:10"], "tokens_per_step": 8, "batch_rows": 2, "seq_length": 4, "dtype": "float32",
    "schedule": {"kind": "neox-cosine", "warmup": 0.01, "decay_steps": 100, "floor": 0.1}, "label_factor": 2,
    "label_offset": -1, "tokenizer": {"name": "me/tok", "source": "s"}, "initialisation": "normal",
    "known_defects": [{"what": "w", "source": "s", "models": ["a"], "severity": "note"}], "extra": {"mine": 1},
}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=2),
    st.lists(st.text()),
    st.sampled_from(["high", "six", "yes", "no", "{step:zz}", "{step", "{0}", "{step!r}", "{step:>9999999999}", "../x",
                     "a\0b", 10**30, {"a": 1}, {1: {}}, [[1]], {"step": []}, "0:9999999999:1", "1e400"]),
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places_in(below, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(places_in(GOOD)[1:]), new=ODD, local=st.booleans())
def test_any_manifest_is_used_or_refused(tmp_path: Path, path: tuple[Any, ...], new: Any, local: bool) -> None:
    manifest = tmp_path / "m.yaml"
    good = {**GOOD, "location": {"folder": "{model}/step{step:03d}"}} if local and path[0] != "location" else GOOD
    manifest.write_text(yaml.safe_dump(changed(good, path, new), allow_unicode=True))
    try:
        suite = load_suite(manifest)
        found = suite.checkpoints()
    except PythiaToolsError as error:
        assert "Traceback" not in str(error)
        return
    for checkpoint in found:
        assert checkpoint.identity["step"] >= 0 and str(checkpoint.location)
        if isinstance(checkpoint.location, Folder):
            assert checkpoint.location.path.resolve().is_relative_to(tmp_path.resolve())
    for info in suite.models.values():
        if info.peak_lr is not None and info.schedule:
            assert suites.learning_rate(info.schedule, info.peak_lr, 10) >= 0


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        (("models", "a", "peak_lr"), "high", "models: a: peak_lr must be a number of at least 0, not 'high'"),
        (("models", "a", "peak_lr"), True, "must be a number of at least 0, not True"),
        (("models", "b", "shape", "layers"), "six", "shape: layers must be a whole number of at least 1, not 'six'"),
        (("models", "b", "shape"), {"layres": 6}, r"unknown \['layres'\]"),
        (("location", "revision"), "{step:zz}", "a number may have a width as in {step:06d}"),
        (("location", "revision"), "{step", "is no pattern"),
        (("location", "hub"), None, "needs exactly one of hub and folder"),
        (("models", "a", "revisions"), {"a": "x"}, "revisions: a must be a whole number of at least 0"),
        (("models", "a", "seed"), "default", "seed must be a whole number of at least 0"),
        (("known_defects",), 3, "known_defects must be a list"),
        (("sources",), "one", "sources must be a list"),
        (("schedule", "warmup"), "soon", "schedule: warmup must be a number"),
        (("label_offset",), "1", "label_offset must be a whole number, not '1'"),
        (("dtype",), ["float32"], r"dtype \['float32'\] is not one of"),
        (("description",), ["a"], r"description must be text, not \['a'\]"),
        (("steps",), ["0:99999999999:1"], "is more than 1,000,000 steps"),
    ],
)
def test_a_wrong_type_is_refused_by_its_field(tmp_path: Path, path: tuple[Any, ...], new: Any, said: str) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(changed(GOOD, path, new)))
    with pytest.raises(DataError, match=said):
        load_suite(tmp_path / "m.yaml")


@pytest.mark.parametrize(("model", "steps"), [("..", [3]), ("..", []), ("../..", [0])])
def test_no_folder_pattern_leaves_the_manifests_folder(tmp_path: Path, model: str, steps: list[int]) -> None:
    (tmp_path / "here").mkdir()
    manifest = {"name": "m", "description": "x", "location": {"folder": "{model}/step{step}"}, "steps": steps}
    (tmp_path / "here" / "m.yaml").write_text(yaml.safe_dump({**manifest, "models": {model: {}}}))
    with pytest.raises(RequestError, match=r"leads outside .*; only paths below it are allowed"):
        load_suite(tmp_path / "here" / "m.yaml")


def test_sizes_come_from_config_json_or_are_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        'name: mine\ndescription: x\nlocation: {folder: "{model}/step{step}"}\nsteps: [0, 10]\n'
        "models: {small: {}, other: {}, torn: {}, none: {}}\n")
    neox = {"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 10}
    configs = {"small/step10": json.dumps(neox), "other/step0": '{"model_type": "llama", "hidden_size": "big"}',
               "torn/step0": "{", "torn/step10": json.dumps({**neox, "num_hidden_layers": "two"})}
    for name, text in configs.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(text)
    save_file({"w": np.zeros((3, 4), np.float32), "x": np.zeros(5, np.float32)}, tmp_path / "other/step0/m.safetensors")
    found = load_suite(tmp_path / "m.yaml").models
    assert {name: info.params for name, info in found.items()} == {
        "small": suites.neox_params(2, 8, 10), "other": 17, "torn": None, "none": None}
    assert found["small"].shape == {"architecture": "gpt_neox", "layers": 2, "d_model": 8, "vocab": 10}
    assert found["torn"].shape == {"architecture": "gpt_neox", "d_model": 8, "vocab": 10}
    (tmp_path / "torn" / "m.yaml").unlink(missing_ok=True)
    assert load_suite(tmp_path / "torn").models["torn"].params is None, "a damaged config is no end of a suite"
