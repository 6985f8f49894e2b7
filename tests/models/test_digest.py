"""The weights digest: what it is, what it does not depend on, and when it is remembered."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import VOCAB, as_old_bin, rewrite, tensors_of, write_model, write_step
from transformers import LlamaConfig, LlamaForCausalLM

from pythia_tools.core import files
from pythia_tools.core.errors import DataError
from pythia_tools.models import digest as digests
from pythia_tools.models import weights_digest


@pytest.fixture
def folder(tmp_path):
    return write_step(tmp_path / "step1", 1)


@pytest.fixture
def remembering(monkeypatch):
    """Files just written count as settled, and every pass over weights is counted."""
    passes = []
    compute = digests._compute
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(digests, "_compute", lambda tensors, cancel: passes.append(1) or compute(tensors, cancel))
    return passes


def test_it_is_sha256_over_sorted_names_types_shapes_and_bytes(folder):
    sha = hashlib.sha256()
    named = {name.replace("embed_out.", "lm_head."): t for name, t in load_file(folder / "model.safetensors").items()}
    for name in sorted(named):
        array = named[name].numpy()
        sha.update(f"{name}\0{array.dtype.name}\0{','.join(str(n) for n in array.shape)}\0".encode() + array.tobytes())
    assert weights_digest(folder) == sha.hexdigest()


def test_it_does_not_depend_on_the_file(tmp_path, folder):
    expected = weights_digest(folder)
    assert weights_digest(as_old_bin(folder, tmp_path / "bin")) == expected
    assert weights_digest(as_old_bin(folder, tmp_path / "shards", shards=3)) == expected
    state = tensors_of(folder)
    state["lm_head.weight"] = state.pop(
        "embed_out.weight"
    ) if "embed_out.weight" in state else state.pop("lm_head.weight")
    rewrite(folder, state)
    assert weights_digest(folder) == expected
    legacy = as_old_bin(folder, tmp_path / "legacy")
    state = torch.load(legacy / "pytorch_model.bin", weights_only=True)
    torch.save(state, legacy / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert weights_digest(legacy) == expected


def test_tied_heads_count_once(tmp_path):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True
    )
    folder = write_model(tmp_path / "tied", LlamaForCausalLM(config), 1)
    expected = weights_digest(folder)
    state = tensors_of(folder)
    assert "lm_head.weight" not in state
    torch.save({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert weights_digest(folder) == expected


@pytest.mark.parametrize("change", ["value", "name", "type", "shape"])
def test_every_part_counts(folder, change):
    before = weights_digest(folder)
    state = tensors_of(folder)
    name = "gpt_neox.final_layer_norm.bias"
    if change == "value":
        state[name][3] = torch.nextafter(state[name][3], torch.tensor(9.0))
    elif change == "name":
        state["gpt_neox.final_layer_norm.offset"] = state.pop(name)
    elif change == "type":
        state[name] = state[name].view(torch.int32)
    else:
        state[name] = state[name][None]
    assert weights_digest(rewrite(folder, state)) != before


def test_a_second_look_reads_nothing(folder, remembering):
    assert weights_digest(folder) == weights_digest(folder) == weights_digest(str(folder))
    assert len(remembering) == 1


def test_a_changed_file_under_the_same_name_size_and_time_is_noticed(folder, remembering):
    before = weights_digest(folder)
    path = folder / "model.safetensors"
    stat = path.stat()
    with open(path, "r+b") as handle:  # in place: same inode
        handle.seek(-1, os.SEEK_END)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size and path.stat().st_mtime_ns == stat.st_mtime_ns
    assert weights_digest(folder) != before and len(remembering) == 2


def test_young_files_are_not_remembered(folder):
    weights_digest(folder)
    assert not list((files.cache_dir() / "weights_digests").rglob("*.json"))


def test_a_damaged_record_is_made_again(folder, remembering):
    before = weights_digest(folder)
    (record,) = (files.cache_dir() / "weights_digests").rglob("*.json")
    record.write_text("{")
    assert weights_digest(folder) == before and len(remembering) == 2
    assert weights_digest(folder) == before and len(remembering) == 2


def test_many_at_once_agree(folder, remembering):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(weights_digest, [folder] * 16))) == 1
    assert len(list((files.cache_dir() / "weights_digests").rglob("*"))) == 2  # one record in one folder, no leftovers


def test_files_that_change_while_read_are_refused(folder, monkeypatch):
    compute = digests._compute

    def disturbed(tensors, cancel):
        record = compute(tensors, cancel)
        os.utime(folder / "model.safetensors", ns=(1, 1))
        return record

    monkeypatch.setattr(digests, "_compute", disturbed)
    with pytest.raises(DataError, match="changed while they were read"):
        weights_digest(folder)


def test_a_copy_elsewhere_has_the_same_digest(folder, tmp_path):
    assert weights_digest(shutil.copytree(folder, tmp_path / "copy")) == weights_digest(folder)


def test_nonfinite_values_are_found_in_any_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "CHUNK", 64)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for place in (0, 31, 32, 99):
            tensor = torch.from_numpy(np.random.default_rng(place).normal(size=100)).to(dtype)
            for value in (float("nan"), float("inf"), -float("inf")):
                tensor[place] = value
                folder = tmp_path / f"{dtype}{place}{value}"
                folder.mkdir()
                rewrite(folder, {"a": tensor, "b": torch.ones(3)})
                assert digests.weights_record(folder).nonfinite == ("a",)
