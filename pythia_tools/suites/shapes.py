"""Closed formulas of GPT-NeoX models: parameters, file bytes, initial standard deviations, learning rates.

Cost: arithmetic. Source: Pythia's model cards and configurations (Biderman et al. 2023, arXiv:2304.01373);
the learning rate is GPT-NeoX 1.0's `megatron/learning_rates.py`, clipped cosine with linear warm-up;
initial deviations are its `small_init` and `wang_init`, and its defaults for the two runs that set neither.
"""

import contextlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pythia_tools.core import files
from pythia_tools.core.errors import DataError

DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
MASK_CONTEXT = 2048
"""Old GPT-NeoX files hold one boolean causal mask of context × context per layer."""


def neox_non_embedding(layers: int, d_model: int) -> int:
    """Parameters of the blocks and the final norm: L(12d² + 13d) + 2d."""
    return layers * (12 * d_model**2 + 13 * d_model) + 2 * d_model


def neox_params(layers: int, d_model: int, vocab: int) -> int:
    """All parameters: the above and two untied V×d embeddings (V is the padded vocabulary)."""
    return neox_non_embedding(layers, d_model) + 2 * vocab * d_model


def shape_params(shape: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(params, non_embedding) of a GPT-NeoX shape with layers, d_model, vocab; (None, None) for others."""
    if shape.get("architecture", "gpt_neox") != "gpt_neox" or not {"layers", "d_model", "vocab"} <= shape.keys():
        return None, None
    layers, d_model = int(shape["layers"]), int(shape["d_model"])
    return neox_params(layers, d_model, int(shape["vocab"])), neox_non_embedding(layers, d_model)


def measured(folders: Iterable[Path]) -> dict[str, Any]:
    """`shape`, `params` and `non_embedding` as most of these checkpoints' config.json state them; those that cannot be
    read do not count.

    What it does not state is left out; parameters without a formula are those in the headers of its safetensors files.
    Nothing is claimed (None) where neither tells.
    """
    stated: dict[str, list[tuple[dict[str, Any], Path]]] = {}
    for folder in folders:
        with contextlib.suppress(DataError):
            config = files.read_json(folder / "config.json")
            shape = config_shape(config) if isinstance(config, dict) else {}
            stated.setdefault(repr(shape), []).append((shape, folder))
    if not stated:
        return {"shape": {}, "params": None, "non_embedding": None}
    shape, folder = max(stated.values(), key=len)[0]
    params, non_embedding = shape_params(shape)
    params = _safetensors_params(folder) if params is None else params
    return {"shape": shape, "params": params, "non_embedding": non_embedding}


def config_shape(config: dict[str, Any]) -> dict[str, Any]:
    """The shape of a `config.json`, in the manifests' words; what it does not state as a number is left out."""
    rope = config.get("rope_parameters")
    partial = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    counts = {"layers": "num_hidden_layers", "d_model": "hidden_size", "heads": "num_attention_heads",
              "vocab": "vocab_size", "context": "max_position_embeddings"}
    shape = {ours: config.get(name) for ours, name in counts.items()}
    shape = {key: value for key, value in shape.items() if type(value) is int and value > 0}
    for key, value, kind in (("architecture", config.get("model_type"), str),
                             ("rotary_pct", config.get("rotary_pct", partial), float)):
        shape |= {key: value} if type(value) in (kind, int) else {}
    return shape


def _safetensors_params(folder: Path) -> int | None:
    """Sum of tensor sizes from the headers alone; None when there are no readable safetensors files."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError):
            return None
    return total or None


def weight_bytes(params: int, dtype: str, *, layers: int = 0, context: int = MASK_CONTEXT, masks: bool = False) -> int:
    """Bytes of tensor data in a checkpoint's weight files: itemsize × params, plus L × context² with stored masks.

    The files themselves are larger by their header (safetensors) or zip records (torch): under 1 % or 200 kB.
    """
    return params * DTYPE_BYTES[dtype] + (layers * context**2 if masks else 0)


def initial_std(kind: str, shape: Mapping[str, Any]) -> tuple[float, float]:
    """(std of most matrices, std of the two residual-output projections) at step 0.

    `small-wang`: sqrt(2/(5d)) and 2/(L sqrt(d)). `scaled-normal`: 0.02 and 0.02/sqrt(2L), what 6.9b and 12b
    had by omission (EleutherAI/pythia issue 135). `normal`: 0.02 everywhere (transformers' default).
    """
    layers, d_model = int(shape["layers"]), int(shape["d_model"])
    if kind == "small-wang":
        return math.sqrt(2 / (5 * d_model)), 2 / (layers * math.sqrt(d_model))
    if kind == "scaled-normal":
        return 0.02, 0.02 / math.sqrt(2 * layers)
    if kind == "normal":
        return 0.02, 0.02
    raise ValueError(f"initialisation {kind!r} is not one of {INITIALISATIONS}")


INITIALISATIONS = ("small-wang", "scaled-normal", "normal")
SCHEDULES = ("neox-cosine", "cosine", "constant")


def _plain_cosine(schedule: Mapping[str, Any], peak: float, update: int) -> float:
    warmup, end, low = float(schedule["warmup_steps"]), float(schedule["decay_steps"]), float(schedule["floor"]) * peak
    if update < warmup:
        return peak * update / warmup
    if update >= end:
        return low
    return low + (peak - low) * (1 + math.cos(math.pi * (update - warmup) / (end - warmup))) / 2


def learning_rate(schedule: Mapping[str, Any], peak: float, update: int) -> float:
    """Learning rate of 0-based update `update` (the one that leads from step `update` to `update` + 1).

    `neox-cosine`: E = decay_steps, W = warmup × E, floor m = floor × peak; linear to n = W, then with
    k = min(n, E − W) − W: max(peak/2 (cos(πk/E) + 1), m). It is 0 at update 0, so step0 equals step1.
    `cosine`: linear over warmup_steps, then a cosine from peak to floor × peak at decay_steps (OLMo's).
    """
    if schedule.get("kind") == "cosine":
        return _plain_cosine(schedule, peak, update)
    if schedule.get("kind") == "constant":
        return peak
    if schedule.get("kind") != "neox-cosine":
        raise ValueError(f"schedule {schedule.get('kind')!r} is not one of {SCHEDULES}")
    end = int(schedule["decay_steps"])
    warmup = float(schedule["warmup"]) * end
    if update <= warmup and warmup > 0:
        return peak * update / warmup
    k = min(update, end - warmup) - warmup
    return max(peak / 2 * (math.cos(math.pi * k / end) + 1), float(schedule["floor"]) * peak)
