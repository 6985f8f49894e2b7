"""Checkpoints that are not what they claim to be: one line naming checkpoint and tensor, exit code 3, no harm done."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from tiny_checkpoints import as_old_bin, checkpoint, neox_config, rewrite, tensors_of, write_step
from transformers import AutoModelForCausalLM

from pythia_tools import models
from pythia_tools.core.errors import EXIT_ENVIRONMENT, DataError, RequestError
from pythia_tools.models import loading

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


def heads_of(tmp_path, kinds, tie=True):
    """Checkpoints whose files hold no output head, a copy of the embedding, or a head of their own."""
    made = []
    for s, kind in enumerate(kinds):
        folder = write_step(tmp_path / f"{s}", s, neox_config(tie_word_embeddings=tie))
        state = tensors_of(folder)
        if kind != "none":
            state["embed_out.weight"] = state["gpt_neox.embed_in.weight"].clone() + (kind == "own")
        made.append(checkpoint(rewrite(folder, state), s))
    return made


@pytest.mark.parametrize("first", ["none", "copy", "own"])
def test_a_tied_config_is_read_as_transformers_reads_it_whatever_heads_the_files_hold(tmp_path, first):
    """A head that differs from the embedding is used although the config ties them; a streamed swap must not lose it.
    """
    made = heads_of(tmp_path, (first, "own", "copy", "none", "own"))
    ids = torch.arange(20)[None]
    for model in models.stream(made, device="cpu"):
        theirs = AutoModelForCausalLM.from_pretrained(model.checkpoint.location.path)
        assert torch.equal(model(ids).logits, theirs(ids).logits), str(model.checkpoint)
    assert len({models.weights_digest(c) for c in made}) == 5


@pytest.mark.parametrize(("kept", "other"), [("embed_out.weight", "lm_head.weight"), (DENSE, DENSE[9:])])
def test_two_stored_tensors_for_one_parameter(pair, kept, other):
    change(pair, **{other: tensors_of(pair[1].location.path)[kept] + 1})
    refused(pair, kept, other)


def test_two_names_of_tied_weights_that_differ_are_not_copied_over_each_other(tmp_path):
    tied, own = heads_of(tmp_path, ("none", "own"))
    model = models.load(tied, device="cpu")
    before = model.lm_head.weight.clone()
    with pytest.raises(DataError, match=r"'gpt_neox.embed_in.weight' differ and fill one parameter"):
        loading.swap(model, own.location.path, own)
    assert torch.equal(model.lm_head.weight, before)


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "through from_pretrained"])
def test_an_overflow_leaves_the_live_module_whole(pair, monkeypatch, copied):
    """The last tensor overflows: nothing before it was copied. So too where transformers made the conversion."""
    if not copied:
        monkeypatch.setattr(loading, "_same_values", lambda plan: False)
    change(pair, **{DENSE: lambda t: t * 1e7})
    stream = models.stream(pair, device="cpu", dtype="float16")
    model = next(stream)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match=r"step2.*dense_4h_to_h.*float16"):
        next(stream)
    assert model.checkpoint == pair[0] and all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_an_overflow_of_a_small_tensor_in_a_wider_format_than_the_rest(tmp_path):
    made = [checkpoint(write_step(tmp_path / f"step{s}", s, dtype=torch.float16), s) for s in (1, 2)]
    change(made, **{DENSE.replace("weight", "bias"): lambda t: t.float() + 1e6})
    for asked in ([made[1]], made):
        with pytest.raises(DataError, match=r"step2.*dense_4h_to_h.bias.*overflows in float16"):
            list(models.stream(asked, device="cpu", dtype="float16"))


def test_an_interrupted_swap_leaves_no_label(pair, monkeypatch):
    stream = models.stream(pair, device="cpu")
    model = next(stream)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    with pytest.raises(RequestError, match="not known"):
        models.checkpoint_of(model)


@pytest.mark.parametrize("value", [
    {"hidden_size": "wide"}, {"hidden_size": 0}, {"num_attention_heads": 0}, {"model_type": []}, {"model_type": "nope"},
    {"attention_bias": None}, {"num_hidden_layers": -1},
])
def test_a_config_that_no_model_was_saved_with(pair, value):
    place = pair[1].location.path / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | value))
    refused(pair, str(place.parent))


@pytest.mark.parametrize("value", [
    None, [], {}, {"weight_map": None}, {"weight_map": {"a": 3}}, {"weight_map": {"a": ["x"]}},
    {"weight_map": {"a": "a\0b"}}, {"weight_map": {"a": "x" * 5000}},
])
def test_an_index_of_shards_that_is_none(tmp_path, pair, value):
    folder = as_old_bin(pair[1].location.path, tmp_path / "old", shards=2)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(value))
    refused([pair[0], checkpoint(folder, 2)], "pytorch_model.bin.index.json")


@pytest.mark.parametrize("value", [
    {1: torch.ones(2)}, {"a": {"b": torch.ones(2)}}, torch.ones(3), {"a": torch.ones(2).to_sparse()},
    {"a": torch.ones(2, device="meta")},
])
def test_a_bin_file_of_other_things_than_plain_tensors(tmp_path, pair, value):
    folder = as_old_bin(pair[1].location.path, tmp_path / "old")
    torch.save(value, folder / "pytorch_model.bin")
    refused([pair[0], checkpoint(folder, 2)], "not a mapping of names to plain tensors")
