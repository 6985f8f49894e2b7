"""Tensors and rows by range: equal to what safetensors and torch load, for every layout, and cheap."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import Hub
from huggingface_hub import hf_hub_url
from safetensors.torch import save_file

from pythia_tools import hub as pt_hub
from pythia_tools.core.errors import DataError, UnknownNameError
from pythia_tools.hub import client, formats
from pythia_tools.suites import Checkpoint, Folder, HubRevision, ModelInfo

MODEL = ModelInfo("tiny", None, None)
EMBED = "gpt_neox.embed_in.weight"


def state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        EMBED: torch.randn(3000, 64).to(dtype),
        "gpt_neox.layers.0.attention.bias": torch.tril(torch.ones(1, 1, 64, 64)).bool(),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "embed_out.weight": torch.randn(3000, 64).to(dtype),
    }


def write(folder: Path, layout: str, dtype: torch.dtype) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    tensors = state(dtype)
    if layout == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    elif layout == "torch":
        torch.save(OrderedDict(tensors), folder / "pytorch_model.bin")
    else:
        names = list(tensors)
        for i, part in enumerate((names[:2], names[2:]), 1):
            save_file({n: tensors[n] for n in part}, folder / f"model-0000{i}-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    return folder


def at(location: Any) -> Checkpoint:
    return Checkpoint("tests", MODEL, 0, None, "step0", location)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["safetensors", "torch", "sharded"])
def test_rows_and_tensors_are_those_that_torch_loads(server: Hub, tmp_path: Path, layout: str,
                                                     dtype: torch.dtype) -> None:
    folder = write(tmp_path / "w", layout, dtype)
    server.add_model("me/tiny", {"step0": folder})
    rows = np.array([5, 6, 7, 2999, 0, 6])
    expected = state(dtype)
    for location in (Folder(folder), HubRevision("me/tiny", "step0")):
        weights = pt_hub.open_weights(at(location))
        assert set(weights.names) == set(expected)
        assert weights.embedding() == EMBED
        assert np.array_equal(weights.rows(EMBED, rows), expected[EMBED].float().numpy()[rows])
        for name, tensor in expected.items():
            assert np.array_equal(weights.tensor(name).astype(np.float64), tensor.double().numpy()), name
            assert weights.spot(name).shape == tuple(tensor.shape)
    with pytest.raises(UnknownNameError, match="unknown tensor of me/tiny@step0 'embed'"):
        weights.tensor("embed")
    with pytest.raises(DataError, match="rows -1 to 3 of gpt_neox"):
        weights.rows(EMBED, [-1, 3])


def test_neighbours_come_in_one_request_and_nothing_twice(server: Hub, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_model("me/tiny", {"step0": write(tmp_path / "w", "safetensors", torch.float32)})
    weights = pt_hub.open_weights(at(HubRevision("me/tiny", "step0")))
    rows = pt_hub.sample_rows(weights.spot(EMBED), 256, blocks=4)
    first = weights.rows(EMBED, rows)
    asked = server.files_asked("*model.safetensors")
    assert len(asked) == 1 + 4
    assert sum(r.sent for r in asked) == weights.read_bytes == formats.HEADER_GUESS + 256 * 64 * 4
    server.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert np.array_equal(pt_hub.open_weights(at(HubRevision("me/tiny", pt_commit(server)))).rows(EMBED, rows), first)
    assert server.requests == []


def pt_commit(server: Hub) -> str:
    return server.repos["models", "me/tiny"].commit("step0")


def test_a_cut_range_is_continued(server: Hub, tmp_path: Path) -> None:
    server.add_model("me/tiny", {"step0": write(tmp_path / "w", "safetensors", torch.float32)})
    file = client.Address("w", hf_hub_url("me/tiny", "model.safetensors", revision="step0", endpoint=server.url))
    whole = (tmp_path / "w" / "model.safetensors").read_bytes()
    server.fail("*model.safetensors", cut_after=70_000)
    server.fail("*model.safetensors", status=503)
    waits: list[float] = []
    data = client.read_range(file, 100, 200_100, pt_hub.RetryPolicy(sleep=waits.append))
    assert data == whole[100:200_100] and len(waits) == 2
    server.fail("*model.safetensors", ignore_range=True)
    with pytest.raises(OSError, match="the server ignores ranges"):
        client.read_range(file, 100, 200)


@pytest.mark.parametrize(("width", "itemsize", "rows"),
                         [(512, 2, 256), (1024, 2, 256), (2048, 2, 207), (5120, 2, 83), (5120, 4, 41)])
def test_a_checkpoint_never_costs_more_than_a_megabyte(width: int, itemsize: int, rows: int) -> None:
    spot = formats.Spot("F16" if itemsize == 2 else "F32", (50304, width), 0)
    chosen = pt_hub.sample_rows(spot, vocab=50254)
    assert len(chosen) == rows and chosen.max() < 50254 and len(np.unique(chosen)) == rows
    assert rows * spot.row_bytes + formats.HEADER_GUESS <= 1_000_000
    assert np.array_equal(chosen, pt_hub.sample_rows(spot, vocab=50254))
    assert len(pt_hub.sample_rows(spot, 1000, vocab=50254)) == 1000, "who asks for more gets more"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", "safetensors", torch.float32)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="the file is cut short or damaged"):
        pt_hub.open_weights(at(Folder(folder)))
    path.write_bytes(whole + b"more")
    with pytest.raises(DataError, match=r"its header describes \d+ bytes, the file has \d+"):
        pt_hub.open_weights(at(Folder(folder)))
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="not a safetensors file"):
        pt_hub.open_weights(at(Folder(folder)))
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(whole)
    with pytest.raises(DataError, match="not a torch file, or cut short"):
        pt_hub.open_weights(at(Folder(folder)))
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"a torch file from before 1\.6"):
        pt_hub.open_weights(at(Folder(folder)))


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("never run",)


def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w").mkdir()
    with zipfile.ZipFile(tmp_path / "w" / "pytorch_model.bin", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"x": _Evil()}, protocol=2))
    with pytest.raises(DataError,
                       match=r"refers to (builtins|__builtin__)\.print, which a weight file has no need of; refused"):
        pt_hub.open_weights(at(Folder(tmp_path / "w")))
    assert "never run" not in capsys.readouterr().out


def test_large_files_directories_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 4 GB a zip states sizes and offsets in extra fields; here every entry is made to."""
    folder = write(tmp_path / "w", "torch", torch.float16)
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert b"PK\x06\x06" in path.read_bytes()
    weights = pt_hub.open_weights(at(Folder(folder)))
    for name, tensor in state(torch.float16).items():
        assert np.array_equal(weights.tensor(name).astype(np.float64), tensor.double().numpy()), name


def test_state_dictionaries_with_metadata_parameters_and_shared_storage(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20))
    model[1].weight = model[0].weight
    stored = model.state_dict()
    stored["extra"] = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    torch.save(stored, tmp_path / "w" / "pytorch_model.bin")
    weights = pt_hub.open_weights(at(Folder(tmp_path / "w")))
    assert set(weights.names) == {"0.weight", "1.weight", "1.bias", "extra"}
    for name, tensor in stored.items():
        assert np.array_equal(weights.tensor(name), tensor.detach().numpy()), name


def test_a_transposed_tensor_is_refused_not_misread(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    torch.save(
        {"t": torch.arange(6.0).reshape(2, 3).t(), "slice": torch.arange(20.0).reshape(5, 4)[2:4]},
        tmp_path / "w" / "pytorch_model.bin"
    )
    with pytest.raises(DataError, match=r"is stored with strides \(1, 3\); parts of it cannot be read"):
        pt_hub.open_weights(at(Folder(tmp_path / "w")))
    torch.save({"slice": torch.arange(20.0).reshape(5, 4)[2:4]}, tmp_path / "w" / "pytorch_model.bin")
    assert np.array_equal(pt_hub.open_weights(at(Folder(tmp_path / "w"))).tensor("slice"),
                          np.arange(8.0, 16.0).reshape(2, 4))


def test_a_tensor_of_which_rows_are_cached_is_one_request(server: Hub, tmp_path: Path) -> None:
    server.add_model("me/tiny", {"step0": write(tmp_path / "w", "safetensors", torch.float32)})
    weights = pt_hub.open_weights(at(HubRevision("me/tiny", "step0")))
    weights.rows(EMBED, [100, 1000, 2500])
    server.forget()
    assert np.array_equal(weights.tensor(EMBED), state()[EMBED].numpy())
    assert len(server.files_asked("*model.safetensors")) == 1
