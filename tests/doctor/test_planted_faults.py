"""Faults planted in one checkpoint of a local suite, one at a time: each is found, and no other step is blamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from test_doctor import RUNS, STEPS, D, V, patient, wrong  # noqa: F401

from pythia_tools import doctor, hub
from pythia_tools.cli.main import main
from pythia_tools.core import files
from pythia_tools.models import statistics
from pythia_tools.suites import load_suite

MANIFEST = f"""
name: patient
description: a little suite
location: {{folder: "{{model}}/step{{step}}"}}
steps: {STEPS}
stored_dtype: float32
initialisation: small-wang
schedule: {{kind: neox-cosine, warmup: 0.1, decay_steps: 100, floor: 0.1}}
shapes: {{x: {{architecture: gpt_neox, layers: 2, d_model: {D}, heads: 4, vocab: {V}, rotary_pct: 0.25, context: 64}}}}
models: {{a: {{shape: x}}, a-cut: {{shape: x, branch: cut, base: a, branch_step: 60, steps: [70, 80]}}}}
"""
CONFIG = {
    "model_type": "gpt_neox", "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": V,
    "rotary_pct": 0.25, "max_position_embeddings": 64, "intermediate_size": 4 * D, "dtype": "float32",
}
Tensors = dict[str, Any]
FIRST, MLP = "gpt_neox.layers.0.", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
EMBED, SQUARE = "gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.dense.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(3)
    branch = {70: RUNS["a"][60], 80: RUNS["a"][60]}
    for step in branch:
        moved = 0.0063 * (step - 60) ** 0.5 / 10**0.5
        branch[step] = {n: t + rng.normal(0, moved, t.shape).astype(np.float32) for n, t in branch[step].items()}
    for model, run in (("a", RUNS["a"]), ("a-cut", branch)):
        for step, tensors in run.items():
            folder = root / model / f"step{step}"
            folder.mkdir(parents=True)
            save_file(tensors, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(CONFIG))
    (root / "suite.yaml").write_text(MANIFEST)
    return root


@pytest.fixture
def plant(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., doctor.Audit]:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(whole / "home"))

    def plant(step: int, tensors: Tensors | None = None, config: Any = None, **options: Any) -> doctor.Audit:
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy, copy_function=os.link, ignore=shutil.ignore_patterns("home"))
        folder = copy / "a" / f"step{step}"
        if tensors is not None:
            (folder / "model.safetensors").unlink()
            save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, folder / "model.safetensors")
        if config is not None:
            (folder / "config.json").unlink()
            (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return doctor.audit(load_suite(copy), **options)

    return plant


def other(step: int) -> Tensors:
    return RUNS["b"][step]


def fresh(tensor: np.ndarray) -> np.ndarray:
    return np.random.default_rng(9).normal(0, tensor.std(), tensor.shape).astype(np.float32)


def layers_swapped(t: Tensors, step: int) -> Tensors:
    mirror = {n: n.replace("layers.0.", "layers.X.").replace("layers.1.", "layers.0.").replace("X", "1") for n in t}
    return {n: t[mirror[n]] for n in t}


def through_bfloat16(t: Tensors, step: int) -> Tensors:
    return {n: ((a.view(np.uint32) + 0x8000) >> 16 << 16).astype(np.uint32).view(np.float32) for n, a in t.items()}


PATH: dict[str, Callable[[Tensors, int], Tensors]] = {
    "two layers swapped": layers_swapped,
    "one MLP tensor times 1.5": lambda t, s: t | {MLP: t[MLP] * np.float32(1.5)},
    "the unembedding re-initialised": lambda t, s: t | {"embed_out.weight": fresh(t["embed_out.weight"])},
    "a square matrix transposed": lambda t, s: t | {SQUARE: t[SQUARE].T},
    "a foreign shard": lambda t, s: t | {n: a for n, a in other(s).items() if n.startswith(FIRST)},
    "the embedding norm spikes": lambda t, s: t | {EMBED: t[EMBED] * np.float32(1.46)},
    "all layer matrices re-initialised": lambda t, s: {n: fresh(a) if "layers" in n and a.ndim == 2 else a
                                                       for n, a in t.items()},
    "all but the embedding zero": lambda t, s: {n: a if n == EMBED else np.zeros_like(a) for n, a in t.items()},
    "another checkpoint of the run": lambda t, s: RUNS["a"][40],
}


@pytest.mark.parametrize("step", [8, 70, 100])
@pytest.mark.parametrize("fault", PATH)
def test_weights_off_their_path_are_found(plant: Callable[..., doctor.Audit], fault: str, step: int) -> None:
    audit = plant(step, PATH[fault](dict(RUNS["a"][step]), step), models="a")
    found = {(model, at) for model, at, _ in wrong(audit)}
    assert ("a", step) in found
    assert found - {("a", step)} <= ({("a", 40)} if "another checkpoint" in fault else set()), "who else is blamed"
    assert not audit.clean and f"{len(found)} of 15 checkpoints are defective" in audit.verdict


@pytest.mark.parametrize("fault", [f for f in PATH if "checkpoint" not in f])
def test_samples_by_range_find_them_too(patient: Any, fault: str) -> None:  # noqa: F811
    """On the hub, where a matrix's first 1,024 values and every one-dimensional tensor are read."""
    patient.serve("a", {70: {n: np.ascontiguousarray(t) for n, t in PATH[fault](dict(RUNS["a"][70]), 70).items()}})
    audit = patient.examine()
    assert {at for _, at, _ in wrong(audit)} == {70}
    assert "one-dimensional tensors whole and samples of the others" in audit.verdict and not audit.sound


@pytest.mark.parametrize("step", [4, 50, 100])
def test_a_neighbour_saved_again_with_tiny_noise_is_found(plant: Callable[..., doctor.Audit], step: int) -> None:
    rng = np.random.default_rng(1)
    before = STEPS[STEPS.index(step) - 1]
    copy = {n: t + rng.normal(0, 1e-5, t.shape).astype(np.float32) for n, t in RUNS["a"][before].items()}
    assert {("a", step, "copy")} <= wrong(plant(step, copy, models="a")) <= {("a", step, "copy"), ("a", before, "copy")}


def test_one_shard_of_the_neighbour_is_found(plant: Callable[..., doctor.Audit]) -> None:
    mixed = RUNS["a"][50] | {n: t for n, t in RUNS["a"][40].items() if n.startswith(FIRST)}
    assert wrong(plant(50, mixed, models="a")) == {("a", 50, "copy"), ("a", 40, "copy")}


def test_another_number_format_in_one_step_is_found(plant: Callable[..., doctor.Audit], whole: Path) -> None:
    assert wrong(plant(70, through_bfloat16(RUNS["a"][70], 70), models="a")) == {("a", 70, "precision")}


def test_bfloat16_in_place_of_float16_is_found(tmp_path: Path) -> None:
    """The same bytes in all: sizes say nothing."""
    import torch

    for step in STEPS:
        kind = torch.bfloat16 if step == 40 else torch.float16
        (tmp_path / f"step{step}").mkdir()
        tensors = {n: torch.from_numpy(t).to(kind) for n, t in RUNS["a"][step].items()}
        save_torch(tensors, tmp_path / f"step{step}" / "model.safetensors")
        (tmp_path / f"step{step}" / "config.json").write_text(json.dumps(CONFIG))
    audit = doctor.audit(load_suite(tmp_path))
    assert {(step, check) for _, step, check in wrong(audit)} == {(40, "dtype"), (40, "precision")}
    assert "stored as bfloat16, unlike at the other steps" in audit.findings["detail"].to_list()[-2]


@pytest.mark.parametrize("change", [
    {"rotary_pct": 1.0}, {"num_attention_heads": 8}, {"num_hidden_layers": 3}, {"intermediate_size": 1},
    {"rope_parameters": {"rope_theta": 500000.0}, "hidden_act": "relu"},
])
def test_a_wrong_configuration_is_found(plant: Callable[..., doctor.Audit], change: dict[str, Any]) -> None:
    found = plant(20, config=CONFIG | change, models="a").findings
    found = found[(found["step"] == 20) & (found["check"] == "config")]
    assert all(key in " ".join(found["detail"]) or key in ("num_attention_heads", "num_hidden_layers")
               for key in change)
    assert (found["severity"] == "wrong").any() or "rope_parameters" in change


@pytest.mark.parametrize("rotary", ["rotary_pct", "rope_parameters"])
def test_a_wrong_configuration_is_found_without_a_manifest(
    plant: Callable[..., doctor.Audit], whole: Path, tmp_path: Path, rotary: str,
) -> None:
    """The first step's config.json is the wrong one: the others are not blamed for it."""
    root = tmp_path / "bare"
    shutil.copytree(whole / "a", root, copy_function=os.link)
    for step in STEPS:
        share = 0.5 if step == 0 else 0.25
        said = {rotary: share if rotary == "rotary_pct" else {"partial_rotary_factor": share}}
        (root / f"step{step}" / "config.json").unlink()
        text = json.dumps({k: v for k, v in CONFIG.items() if k != "rotary_pct"} | said)
        (root / f"step{step}" / "config.json").write_text(text)
    assert {(step, check) for _, step, check in wrong(doctor.audit(load_suite(root)))} == {(0, "config")}


@pytest.mark.parametrize("name", [MLP, SQUARE, "embed_out.weight", EMBED])
@pytest.mark.parametrize("change", [lambda t: t * np.float32(1.2), lambda t: t + np.float32(0.05)])
def test_a_step_0_off_its_declared_statistics_is_found(
    plant: Callable[..., doctor.Audit], name: str, change: Callable[[np.ndarray], np.ndarray],
) -> None:
    audit = plant(0, RUNS["a"][0] | {name: change(RUNS["a"][0][name])}, models="a", steps=[0])
    assert wrong(audit) == {("a", 0, "initialisation")}
    assert name.replace("embed_out", "lm_head") in audit.findings["detail"].item()


def test_nan_in_any_row_of_the_embedding_of_a_folder_is_found(plant: Callable[..., doctor.Audit]) -> None:
    rows = set(hub.sample_rows(hub.formats.Spot("F32", (V, D), 0)))
    unseen = next(row for row in range(V) if row not in rows)
    poisoned = RUNS["a"][60][EMBED].copy()
    poisoned[unseen, 3] = np.nan
    audit = plant(60, RUNS["a"][60] | {EMBED: poisoned}, models="a")
    assert wrong(audit) == {("a", 60, "finite")}
    assert f"{EMBED} (1)" in audit.findings.query("check == 'finite'")["detail"].item()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "config", "list", "no config"])
def test_a_damaged_file_is_a_finding_and_not_the_end(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(whole / "home"))
    copy = tmp_path / "copy"
    shutil.copytree(whole / "a", copy)
    weights, config = copy / "step0" / "model.safetensors", copy / "step0" / "config.json"
    if damage in ("cut", "empty", "text"):
        weights.write_bytes({"cut": weights.read_bytes()[:-100], "empty": b"", "text": b"not weights at all"}[damage])
    elif damage == "gone":
        weights.unlink()
    elif damage == "no config":
        config = copy / "step10" / "config.json"
        (copy / "suite.yaml").write_text(MANIFEST.replace("{model}/", "").replace(", a-cut", "}\n#"))
        config.unlink()
    else:
        config.write_text("{" if damage == "config" else "[1]")
    scaled = load_file(copy / "step70" / "model.safetensors")
    save_file(scaled | {MLP: scaled[MLP] * np.float32(1.5)}, copy / "step70" / "model.safetensors")
    assert main(["doctor", str(copy), "--json", "--quiet"]) == 1
    said = json.loads(capsys.readouterr().out)
    check = "config" if damage in ("config", "list", "no config") else "damaged"
    found = {(f["step"], f["check"]) for f in said["findings"] if f["severity"] == "wrong"}
    assert found == {(10 if damage == "no config" else 0, check), (70, "path")} and not said["sound"]
    left = {"config": "config.json of 1 checkpoints", "damaged": "the tensors of 1 checkpoints"}[check]
    assert left in said["verdict"].split("Not looked at: ")[1]


def test_a_clean_suite_with_a_branch_is_sound(plant: Callable[..., doctor.Audit]) -> None:
    audit = plant(0)
    assert wrong(audit) == set() and audit.sound
    assert "patient: sound; 17 checkpoints examined. Looked at: every value of the tensors of 17" in audit.verdict
    assert audit.verdict.endswith("Not looked at: nothing.")


def test_what_is_not_compared_is_said(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(whole / "home"))
    audit = doctor.audit(load_suite(whole), "a", steps=[90, 100])
    assert audit.clean and not audit.sound
    assert audit.verdict.endswith("Not looked at: the path of a through training (fewer than three steps).")


def test_a_branch_is_held_to_its_base_though_nobody_asked_for_it(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(whole / "home"))
    assert doctor.audit(load_suite(whole), "a-cut").sound
    shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("home"))
    path = tmp_path / "copy" / "a-cut" / "step80" / "model.safetensors"
    save_file({n: np.ascontiguousarray(t) for n, t in layers_swapped(load_file(path), 80).items()}, path)
    audit = doctor.audit(load_suite(tmp_path / "copy"), "a-cut")
    assert wrong(audit) == {("a-cut", 80, "jump")} and audit.examined == 2


def test_statistics_are_those_of_the_tensors_and_kept(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    table = statistics.weight_statistics(whole / "a" / "step50").set_index("stored")
    for name, tensor in RUNS["a"][50].items():
        row = table.loc[name]
        wide = tensor.astype(np.float64)
        assert (row["norm"], row["mean"], row["std"]) == pytest.approx(
            (np.linalg.norm(wide), wide.mean(), wide.std()), rel=1e-6, abs=1e-9)
        assert (row["low"], row["high"], row["size"]) == (tensor.min(), tensor.max(), tensor.size)
    (kept,) = (files.cache_dir() / "weight_statistics").iterdir()
    before = kept.stat().st_mtime_ns
    pd.testing.assert_frame_equal(
        statistics.weight_statistics(whole / "a" / "step50").set_index("stored"), table)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("size", [10, 1024, 5000, 3 * statistics.CHUNK // 2])
def test_a_sketch_keeps_distances(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=(2, size)).astype(np.float32)
    one, two = (np.frombuffer(statistics.describe(x)["sketch"], dtype=np.float32) for x in (a, b))
    assert np.linalg.norm(one - two) == pytest.approx(np.linalg.norm(a - b), rel=0.08 if size > 1024 else 1e-6)
    bits = [statistics.describe(x)["idle_bits"] for x in (a, a.astype(np.float16), through_bfloat16({"a": a}, 0)["a"])]
    assert bits == [0, 13, 16] or size == 10
    assert statistics.describe(a.astype(np.float16))["same"] == statistics.describe(
        a.astype(np.float16).astype(np.float32))["same"]


@pytest.mark.trained
def test_pythia_micro_is_sound_and_its_planted_faults_are_not(micro_suite: Path, tmp_path: Path) -> None:
    audit = doctor.audit(load_suite(micro_suite))
    assert audit.sound and set(audit.findings["severity"]) == {"note"}
    for steps in ("log", "0:512", [0, 512, 1500], "last"):
        assert doctor.audit(load_suite(micro_suite), steps=steps).clean, steps
    for model in ("xs", "xs-swap"):
        shutil.copytree(micro_suite / model, tmp_path / model)
    shutil.copy(micro_suite / "suite.yaml", tmp_path)
    planted = [("xs", 128, "one MLP tensor times 1.5"), ("xs", 1050, "a square matrix transposed"),
               ("xs-swap", 1500, "two layers swapped")]
    for model, step, fault in planted:
        path = tmp_path / model / f"step{step}" / "model.safetensors"
        save_file({n: np.ascontiguousarray(t) for n, t in PATH[fault](load_file(path), step).items()}, path)
    assert {(model, step) for model, step, _ in wrong(doctor.audit(load_suite(tmp_path), ["xs", "xs-swap"]))} == {
        (model, step) for model, step, _ in planted}


def test_a_suite_trained_for_a_few_steps_is_sound(tiny_suite: Path, tmp_path: Path) -> None:
    """Nothing is learned yet, the schedule is short: whatever the grid, with its manifest or without."""
    assert doctor.audit(load_suite(tiny_suite)).sound
    for steps in ("first,last", "0:8", "log"):
        assert doctor.audit(load_suite(tiny_suite), steps=steps).clean, steps
    model = next(iter(load_suite(tiny_suite).models))
    shutil.copytree(tiny_suite / model, tmp_path / "bare")
    assert doctor.audit(load_suite(tmp_path / "bare")).sound
