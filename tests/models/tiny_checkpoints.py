"""Writes tiny random-weight checkpoints to disk, in today's formats and in those of old files, and names them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

VOCAB = 96


def neox_config(width: int = 16, layers: int = 2, **more: Any) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=4 * width, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, **more
    )


def write_model(folder: Path, model: PreTrainedModel, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.to(dtype).save_pretrained(folder)
    return folder


def write_step(
    folder: Path, seed: int, config: GPTNeoXConfig | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    torch.manual_seed(seed)
    return write_model(folder, GPTNeoXForCausalLM(config or neox_config()), seed, dtype)


def checkpoint(folder: Path, step: int, model: str = "tiny", dtype: str | None = None, **info: Any) -> Checkpoint:
    info.setdefault("params", 30_000)
    return Checkpoint(
        "test", ModelInfo(model, non_embedding=20_000, **info), step, step * 100, f"step{step}", Folder(folder), dtype
    )


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def as_old_bin(source: Path, folder: Path, *, shards: int = 1) -> Path:
    """The same weights as files of 2023: `.bin`, with causal masks and rotary frequencies among the tensors."""
    folder.mkdir(parents=True)
    shutil.copy(source / "config.json", folder)
    state: dict[str, torch.Tensor] = tensors_of(source)
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    for layer in range(layers):
        at = f"gpt_neox.layers.{layer}.attention"
        state[f"{at}.bias"] = torch.tril(torch.ones(64, 64, dtype=torch.bool))[None, None]
        state[f"{at}.masked_bias"] = torch.tensor(-1e9)
        state[f"{at}.rotary_emb.inv_freq"] = torch.ones(1)
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    index = {}
    for number in range(shards):
        names = sorted(state)[number::shards]
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save({n: state[n] for n in names}, folder / name)
        index |= dict.fromkeys(names, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder
