"""Audits of suites with known faults, over the hub's protocol and in folders: each fault found, none invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hub_server import Entry, Hub
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from pythia_tools import doctor, hub, suites
from pythia_tools.doctor import paths
from pythia_tools.doctor.evidence import Evidence
from pythia_tools.models.statistics import describe
from pythia_tools.suites import Checkpoint, Folder, ModelInfo, load_suite

D, L, V = 64, 2, 512
STEPS = [0, 1, 2, 4, 8, *range(10, 101, 10)]
MANIFEST = f"""
name: patient
description: a little suite
location: {{hub: "me/{{model}}", revision: "step{{step}}"}}
steps: {STEPS}
tokens_per_step: 1024
stored_dtype: float32
initialisation: small-wang
peak_lr: 1.0e-3
schedule: {{kind: neox-cosine, warmup: 0.1, decay_steps: 100, floor: 0.1}}
shapes: {{x: {{architecture: gpt_neox, layers: {L}, d_model: {D}, heads: 4, vocab: {V}, context: 64}}}}
models: {{a: {{shape: x}}, b: {{shape: x}}}}
known_defects: [{{models: [a], steps: [50], what: known, source: "https://example.org"}}]
"""


def walk(seed: int, names_only: bool = False) -> dict[int, dict[str, np.ndarray]]:
    """A training run's path: a declared initialisation, no first update, then a random walk with drift."""
    rng = np.random.default_rng(seed)
    most, residual = suites.initial_std("small-wang", {"layers": L, "d_model": D})
    shapes = {
        "gpt_neox.embed_in.weight": (V, D),
        "embed_out.weight": (V, D),
        "gpt_neox.final_layer_norm.weight": (D,),
        "gpt_neox.final_layer_norm.bias": (D,),
    }
    for i in range(L):
        block = f"gpt_neox.layers.{i}."
        shapes |= {
            block + "attention.query_key_value.weight": (3 * D, D),
            block + "attention.query_key_value.bias": (3 * D,),
            block + "attention.dense.weight": (D, D),
            block + "attention.dense.bias": (D,),
            block + "mlp.dense_h_to_4h.weight": (4 * D, D),
            block + "mlp.dense_h_to_4h.bias": (4 * D,),
            block + "mlp.dense_4h_to_h.weight": (D, 4 * D),
            block + "mlp.dense_4h_to_h.bias": (D,),
            block + "input_layernorm.weight": (D,),
            block + "input_layernorm.bias": (D,),
            block + "post_attention_layernorm.weight": (D,),
            block + "post_attention_layernorm.bias": (D,),
        }
    std = {n: residual if n.endswith(("attention.dense.weight", "4h_to_h.weight")) else most for n in shapes}
    now = {n: rng.normal(0, std[n], s).astype(np.float32) for n, s in shapes.items()}
    run, at = {}, 0
    for step in STEPS:
        for _ in range(at, step) if step > 1 else ():
            now = {n: t + rng.normal(0, 2e-3, t.shape).astype(np.float32) for n, t in now.items()}
        at = step
        run[step] = now
    return run


RUNS = {"a": walk(1), "b": walk(2)}


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "patient.yaml").write_text(MANIFEST)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield Patient(tmp_path, server)


class Patient:
    """Serves runs, with some checkpoints' tensors replaced, and examines them."""

    def __init__(self, home: Path, server: Hub) -> None:
        self.home, self.server = home, server

    def data(self, tensors: dict[str, np.ndarray]) -> bytes:
        path = self.home / "one.safetensors"
        save_file(tensors, path)
        return path.read_bytes()

    def serve(self, model: str, changes: dict[int, Any] | None = None, main: int | None = STEPS[-1]) -> None:
        branches: dict[str, dict[str, bytes]] = {}
        for step, tensors in RUNS[model].items():
            changed = (changes or {}).get(step, tensors)
            if changed is not None:
                data = changed if isinstance(changed, bytes) else self.data(changed)
                branches[f"step{step}"] = {"config.json": b"{}", "model.safetensors": data}
        if main is not None:
            branches["main"] = dict(branches[f"step{main}"])
        self.server.add_model(f"me/{model}", branches)

    def examine(self, models: Any = "a", **options: Any) -> doctor.Audit:
        return doctor.audit(load_suite(self.home / "patient.yaml"), models, **options)


def wrong(audit: doctor.Audit) -> set[tuple[str, int, str]]:
    found = audit.findings[audit.findings["severity"] == "wrong"]
    return set(zip(found["model"], found["step"], found["check"], strict=True))


def test_a_sound_suite_is_sound_and_cheap(patient: Patient) -> None:
    for model in ("a", "b"):
        patient.serve(model)
    audit = patient.examine(None)
    assert wrong(audit) == set() and audit.clean and not audit.sound, "samples are not everything"
    assert set(audit.findings["detail"]) == {"model.safetensors is also that of step 1",
                                             "model.safetensors is also that of step 0"}
    assert audit.examined == 2 * len(STEPS) and len(audit.curve) == audit.examined
    verdict = f"patient: nothing wrong in what was looked at; {2 * len(STEPS)} checkpoints examined"
    assert audit.verdict.startswith(verdict) and "Not looked at: what lies between the samples." in audit.verdict
    assert patient.server.sent == audit.curve["bytes"].sum(), "nothing but the rows and headers was read"
    sampled = RUNS["a"][100]["gpt_neox.embed_in.weight"][hub.sample_rows(hub.formats.Spot("F32", (V, D), 0))]
    norm = np.linalg.norm(sampled, axis=1).mean()
    last = audit.curve[(audit.curve["model"] == "a") & (audit.curve["step"] == 100)]
    assert last["row_norm"].item() == pytest.approx(norm, rel=1e-6)


def test_quick_reads_no_file(patient: Patient) -> None:
    patient.serve("a")
    audit = patient.examine(quick=True)
    assert audit.clean and "Looked at: file listings. Not looked at: the tensors of 15 checkpoints" in audit.verdict
    assert not patient.server.files_asked()


def test_branches_with_the_final_weights_are_found_and_their_neighbours_are_not_blamed(patient: Patient) -> None:
    patient.serve("a", {50: RUNS["a"][100], 70: RUNS["a"][100]})
    audit = patient.examine()
    assert wrong(audit) == {("a", 50, "duplicate"), ("a", 70, "duplicate")}
    details = dict(zip(audit.findings["step"], audit.findings["detail"], strict=True))
    assert "main" in " ".join(audit.findings["detail"]) and details[50]
    known = audit.findings[audit.findings["severity"] == "wrong"].set_index("step")["known"]
    assert known[50].all() and not known[70].any()
    assert audit.verdict.startswith(f"patient: 2 of {len(STEPS)} checkpoints are defective (1 of them known, 1 new)")
    assert wrong(patient.examine(quick=True)) == {("a", 50, "duplicate"), ("a", 70, "duplicate")}


def test_one_shard_of_another_step_is_off_the_path(patient: Patient) -> None:
    mixed = RUNS["a"][40] | {"gpt_neox.embed_in.weight": RUNS["a"][100]["gpt_neox.embed_in.weight"]}
    patient.serve("a", {40: mixed})
    assert wrong(patient.examine()) == {("a", 40, "path")}


@pytest.mark.parametrize("how", ["metadata", "torch", "float16", "bfloat16", "noise"])
def test_a_near_neighbours_weights_saved_once_more_are_found(patient: Patient, how: str) -> None:
    """Step 50's branch holds step 40's weights, in a file of its own: no digest is shared, and the path is smooth."""
    import torch

    tensors = {n: torch.from_numpy(t) for n, t in RUNS["a"][40].items()}
    patient.serve("a")
    branch = patient.server.repos["models", "me/a"].branches["step50"]
    path = patient.home / "again"
    if how == "noise":
        tensors = {n: t + 1e-5 * torch.randn(t.shape) for n, t in tensors.items()}
    if how == "torch":
        torch.save(tensors, path)
        del branch["model.safetensors"]
        branch["pytorch_model.bin"] = Entry(path)
    else:
        dtype = torch.float32 if how in ("metadata", "noise") else getattr(torch, how)
        save_torch({n: t.to(dtype) for n, t in tensors.items()}, path, metadata={"format": "pt", "saved": "again"})
        branch["model.safetensors"] = Entry(path)
    audit = patient.examine()
    found = wrong(audit)
    copies = {("a", 40, "copy"), ("a", 50, "copy")}
    stored = {("a", 50, "size"), ("a", 50, "dtype"), ("a", 50, "precision")} if "float16" in how else set()
    assert found == copies | stored
    details = audit.findings.set_index(["step", "check"])["detail"]
    assert "matrices: no more than noise away from step 40" in details[50, "copy"]


def test_a_large_sharded_checkpoint_costs_at_most_a_megabyte(patient: Patient) -> None:
    width, shards = 2048, 3
    rng = np.random.default_rng(0)
    content: dict[str, bytes] = {"config.json": b"{}", "model.safetensors.index.json": b"{}"}
    names = ["gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.dense.weight", "embed_out.weight"]
    for i, name in enumerate(names):
        tensor = rng.normal(size=(1500, width)).astype(np.float16)
        content[f"model-0000{i + 1}-of-0000{shards}.safetensors"] = patient.data({name: tensor})
    patient.server.add_model("me/large", {"step0": content})
    lines = ["name: large", "description: x", 'location: {hub: "me/{model}"}', "steps: [0]", "models: {large: {}}"]
    (patient.home / "large.yaml").write_text("\n".join(lines))
    audit = doctor.audit(load_suite(patient.home / "large.yaml"))
    assert audit.clean and 200_000 < patient.server.sent == audit.curve["bytes"].sum() <= 1_000_000


def test_another_runs_weights_are_found(patient: Patient) -> None:
    patient.serve("a", {60: RUNS["b"][60]})
    patient.serve("b")
    audit = patient.examine(None)
    assert wrong(audit) == {("a", 60, "path"), ("a", 60, "duplicate"), ("b", 60, "duplicate")}
    assert "model.safetensors is also that of b step 60" in set(audit.findings["detail"])


def test_a_run_that_does_not_descend_from_its_step0(patient: Patient) -> None:
    patient.serve("a", {0: RUNS["b"][0]})
    assert wrong(patient.examine()) == {("a", 0, "first update"), ("a", 0, "jump")}


def test_a_wrong_initialisation_is_measured(patient: Patient) -> None:
    scaled = {n: t * (2.0 if n == "gpt_neox.layers.0.attention.dense.weight" else 1.0) for n, t in RUNS["a"][0].items()}
    scaled = {n: t.astype(np.float32) for n, t in scaled.items()}
    patient.serve("a", {0: scaled, 1: scaled})
    audit = patient.examine()
    assert wrong(audit) == {("a", 0, "initialisation"), ("a", 0, "path")}
    detail = audit.findings.set_index("check").loc["initialisation", "detail"]
    assert "layers.0.attention.dense.weight has std 0.2" in detail


def test_missing_cut_resized_and_poisoned_files(patient: Patient) -> None:
    poisoned = {n: t.copy() for n, t in RUNS["a"][30].items()}
    poisoned["gpt_neox.embed_in.weight"][0, 0] = np.nan
    fewer = {n: t for n, t in RUNS["a"][80].items() if n != "embed_out.weight"}
    cut = patient.data(RUNS["a"][10])[:-4000]
    patient.serve("a", {4: None, 10: cut, 30: poisoned, 80: fewer})
    audit = patient.examine()
    assert wrong(audit) == {
        ("a", 4, "missing"),
        ("a", 10, "damaged"),
        ("a", 10, "size"),
        ("a", 30, "finite"),
        ("a", 80, "size"),
        ("a", 80, "shapes"),
    }
    detail = audit.findings.set_index(["step", "check"])["detail"]
    assert "no such revision" in detail[4, "missing"] and "cut short or damaged" in detail[10, "damaged"]
    assert "expected (and a header)" in detail[80, "size"] and "lm_head.weight" in detail[80, "shapes"]


def test_main_that_is_not_the_last_step(patient: Patient) -> None:
    patient.serve("a", main=90)
    audit = patient.examine()
    assert ("a", 90, "duplicate") in wrong(audit)
    assert "the last step's weights are not those of main" in set(audit.findings["detail"])


def test_the_grid_of_what_exists(patient: Patient) -> None:
    patient.serve("a", {4: None, 70: None})
    patient.server.repos["models", "me/a"].branches["draft"] = patient.server.repos["models", "me/a"].branches["main"]
    suite = load_suite(patient.home / "patient.yaml")
    states, extra = hub.grid_states(suite, "a")
    assert [s for s, state in states.items() if state == "missing"] == [4, 70] and extra == ["draft"]
    assert list(states.values()).count("present") == len(STEPS) - 2
    states, extra = hub.grid_states(suite, "b")
    assert set(states.values()) == {"missing"} and extra == [], "no repository, no checkpoint"


def test_local_folders_are_read_whole(patient: Patient, tmp_path: Path) -> None:
    for step in STEPS:
        folder = tmp_path / "runs" / "a" / f"step{step}"
        folder.mkdir(parents=True)
        tensors = dict(RUNS["a"][step])
        if step == 20:
            tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"] = np.full(4 * D, np.inf, dtype=np.float32)
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(
            f'{{"model_type": "gpt_neox", "hidden_size": {D}, "num_hidden_layers": {L}, "vocab_size": {V}, '
            '"max_position_embeddings": 64}'
        )
    audit = doctor.audit(load_suite(tmp_path / "runs"))
    assert wrong(audit) == {("a", 20, "finite")}
    assert "layers.1.mlp.dense_h_to_4h.bias" in audit.findings.set_index("check").loc["finite", "detail"]
    assert audit.curve["bytes"].sum() == 0


def evidence(step: int, rows: np.ndarray) -> Evidence:
    checkpoint = Checkpoint("s", ModelInfo("m", None, None), step, None, f"step{step}", Folder(Path("/nowhere")))
    tensor = {"dtype": "float32", "shape": rows.shape, "values": rows.size, **describe(rows)}
    return Evidence(checkpoint, tensors={"x": tensor})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [0.0, 0.05, 1.0])
def test_no_walk_at_any_spacing_is_off_its_path(seed: int, drift: float) -> None:
    rng = np.random.default_rng(seed)
    at, path = 20 * rng.normal(size=(40, 32)), {}
    direction = rng.normal(size=at.shape)
    grid = [0, 1, 2, 4, 8, 16, 32, 64, *range(100, 401, 20)]
    for n in range(401):
        if n in grid:
            path[n] = at.copy()
        at = at + rng.normal(size=at.shape) + drift * direction
    assert not list(paths.along([evidence(n, rows) for n, rows in path.items()], grid))
    path[140] = path[400] + 1e-3
    assert {f.step for f in paths.along([evidence(n, rows) for n, rows in path.items()], grid)} == {140}


def test_findings_are_a_table() -> None:
    columns = ["suite", "model", "step", "check", "severity", "known", "detail"]
    audit = doctor.Audit("s", 3, pd.DataFrame(columns=columns), pd.DataFrame(), "x")
    assert audit.sound and audit.verdict == "s: sound; 3 checkpoints examined. Looked at: x. Not looked at: nothing."
