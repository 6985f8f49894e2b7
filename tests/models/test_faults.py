"""Checkpoints that are not what they claim to be: one line naming checkpoint and tensor, exit code 3, no harm done."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from tiny_checkpoints import as_old_bin, checkpoint, neox_config, rewrite, tensors_of, write_step

from pythia_tools import models
from pythia_tools.core.errors import EXIT_ENVIRONMENT, DataError

DENSE = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"


@pytest.fixture
def pair(tmp_path):
    """A sound checkpoint and a second one to spoil; the fault is met both on loading and on swapping."""
    return [checkpoint(write_step(tmp_path / f"step{s}", s), s) for s in (1, 2)]


def refused(pair, *expected: str) -> None:
    sound, spoiled = pair
    with pytest.raises(DataError) as loading:
        models.load(spoiled, device="cpu")
    stream = models.stream(pair, device="cpu")
    model = next(stream)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DataError) as swapping:
        next(stream)
    assert all(
        torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()
    ), "a refused swap changed the live module"
    assert model.checkpoint == sound
    for error in (loading.value, swapping.value):
        assert error.exit_code == EXIT_ENVIRONMENT and "\n" not in str(error)
        for text in expected:
            assert text in str(error), str(error)


def change(pair, **changes):
    folder = pair[1].location.path
    state = tensors_of(folder)
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value(state[name]) if callable(value) else value
    rewrite(folder, state)


def test_missing_tensor(pair):
    change(pair, **{DENSE: None})
    refused(pair, "test/tiny/step2", f"missing tensor '{DENSE}'")


def test_unexpected_tensor(pair):
    change(pair, **{"gpt_neox.layers.2.mlp.dense_4h_to_h.weight": torch.ones(16, 64)})
    refused(pair, "test/tiny/step2", "unexpected tensor 'gpt_neox.layers.2.mlp.dense_4h_to_h.weight'")


def test_wrong_shape(pair):
    change(pair, **{DENSE: lambda t: t[:, :32].contiguous()})
    refused(pair, "test/tiny/step2", DENSE, "(16, 32)", "(16, 64)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_inf(tmp_path, value, dtype):
    made = [checkpoint(write_step(tmp_path / f"step{s}", s, dtype=dtype), s) for s in (1, 2)]

    def spoil(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    change(made, **{DENSE: spoil})
    refused(made, "test/tiny/step2", "NaN or Inf", DENSE)


def test_truncated_safetensors(pair):
    path = pair[1].location.path / "model.safetensors"
    os.truncate(path, path.stat().st_size - 7)
    refused(pair, str(path), "damaged safetensors file", "again")


def test_garbage_safetensors(pair):
    path = pair[1].location.path / "model.safetensors"
    path.write_bytes(b"<html>404 not found</html>" * 10)
    refused(pair, str(path), "damaged")


def test_missing_shard(tmp_path, pair):
    folder = as_old_bin(pair[1].location.path, tmp_path / "old", shards=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    refused([pair[0], checkpoint(folder, 2)], "pytorch_model-00002-of-00002.bin", "missing")


def test_shard_index_that_points_outside(tmp_path, pair):
    folder = as_old_bin(pair[1].location.path, tmp_path / "old", shards=2)
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../secret.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused([pair[0], checkpoint(folder, 2)], "not a valid shard index", "outside")


def test_truncated_bin(tmp_path, pair):
    folder = as_old_bin(pair[1].location.path, tmp_path / "old")
    path = folder / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)
    refused([pair[0], checkpoint(folder, 2)], str(path), "damaged")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_not_run(tmp_path, pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = as_old_bin(pair[1].location.path, tmp_path / "old")
    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    refused([pair[0], checkpoint(folder, 2)], "not a plain file of tensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused([pair[0], checkpoint(folder, 2)], "not a plain file of tensors")
    assert not (tmp_path / "exploded").exists()


def test_no_weights_no_config_no_folder(pair):
    folder = pair[1].location.path
    (folder / "config.json").rename(folder / "config.away")
    refused(pair, "config.json", "no such file")
    (folder / "config.away").rename(folder / "config.json")
    (folder / "model.safetensors").unlink()
    refused(pair, "no weights there")
    shutil.rmtree(folder)
    refused(pair, "no such checkpoint folder")


def test_weights_of_another_size_than_the_config(tmp_path, pair):
    other = write_step(tmp_path / "wide", 3, neox_config(width=32))
    shutil.copy(other / "model.safetensors", pair[1].location.path)
    refused(pair, "test/tiny/step2", "shape")


def test_overflow_on_the_way_to_float16(pair, tmp_path):
    change(pair, **{DENSE: lambda t: t * 1e7})
    with pytest.raises(DataError, match=r"step2.*dense_4h_to_h.*float16.*--dtype float32"):
        models.load(pair[1], device="cpu", dtype="float16")
    with pytest.raises(DataError, match=r"step2.*dense_4h_to_h.*float16.*--dtype float32"):
        list(models.stream(pair, device="cpu", dtype="float16"))
