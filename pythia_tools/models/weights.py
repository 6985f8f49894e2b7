"""The tensors of a `save_pretrained` folder, memory-mapped, and what each of their names means.

Reads `model.safetensors`, sharded safetensors, `pytorch_model.bin` and sharded `.bin` (zip format, mapped, never
unpickled beyond tensors), in the order in which transformers looks for them. Nothing is read from the disk before a
tensor's values are used. Old Pythia files also hold causal masks and rotary frequencies; these are no weights.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pythia_tools.core.errors import DataError
from pythia_tools.core.files import confined, read_json

SINGLE, SHARDED = "model.safetensors", "model.safetensors.index.json"
OLD_SINGLE, OLD_SHARDED = "pytorch_model.bin", "pytorch_model.bin.index.json"
HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_in.weight", "embed_tokens.weight", "wte.weight", "word_embeddings.weight",
               "tok_embeddings.weight")
_BUFFER = re.compile(r"(^|\.)(rotary_emb\.(original_)?inv_freq|rotary_emb\.(cos|sin)_cached|masked_bias|position_ids)$")
_MASK = re.compile(r"(^|\.)(attention|attn|self_attn)\.(attention\.)?bias$")


class TensorFiles(Mapping[str, torch.Tensor]):
    """Name → tensor (CPU, memory-mapped, as stored) of one folder; `files` are the files they come from.

    Tensors share pages with the page cache until they are released. Raises DataError, naming the file, when a file is
    missing, truncated or not what it claims to be.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = weight_files(folder)
        self._get: dict[str, Callable[[], torch.Tensor]] = {}
        known: dict[str, str] = {}
        for path in self.files:
            tensors = _open_safetensors(path) if path.suffix == ".safetensors" else _open_torch(path)
            for name in tensors:
                if (canonical := canonical_name(name)) in known:
                    twice = f"tensor {name!r} is stored twice (the other is called {known[canonical]!r})"
                    raise DataError(f"{path}: {twice}; fetch or write the checkpoint again")
                known[canonical] = name
            self._get |= tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._get[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._get)

    def __len__(self) -> int:
        return len(self._get)

    def stored_dtype(self) -> torch.dtype:
        """The format of the largest floating tensor: what the weights are stored in."""
        floats = (tensor for tensor in self.values() if tensor.is_floating_point())
        largest = max(floats, key=torch.Tensor.numel, default=None)
        return torch.float32 if largest is None else largest.dtype


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, in a fixed order. Raises DataError when there are none or a shard is missing."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such checkpoint folder")
    for single, index in ((SINGLE, SHARDED), (OLD_SINGLE, OLD_SHARDED)):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder, folder / index)
    raise DataError(
        f"{folder}: no weights there; a checkpoint folder holds {SINGLE} or {OLD_SINGLE} (or their shards) "
        "beside config.json"
    )


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Causal masks, rotary frequencies, position ids: stored by old files, computed by the model, not weights."""
    return bool(_BUFFER.search(name)) or bool(_MASK.search(name) and len(shape) == 4 and shape[:2] == (1, 1))


def canonical_name(name: str) -> str:
    """The name under which a tensor is known whoever wrote the file: `embed_out.weight` is `lm_head.weight`."""
    return re.sub(r"^embed_out\.", "lm_head.", name)


def has_own_head(tensors: TensorFiles) -> bool:
    """Whether an output head is stored that is not a copy of the input embedding (some formats write such copies)."""
    names = {canonical_name(name): name for name in tensors}
    return HEAD in names and not any(
        name.endswith(_EMBEDDINGS) and _equal(tensors[stored], tensors[names[HEAD]]) for name, stored in names.items()
    )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in shape, format and values; the first few rows are looked at before the rest is read."""
    few = math.prod(a.shape[1:]) * 4
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and torch.equal(a.reshape(-1)[:few], b.reshape(-1)[:few]) and torch.equal(a, b)


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        paths = [
            folder / Path(name).name if (folder / name).is_symlink() else confined(folder, name) for name in shards
        ]
    except (LookupError, AttributeError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{index}: not a valid shard index ({error}); download the checkpoint again") from error
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: this shard is missing; download the checkpoint again")
    return paths


def _open_safetensors(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        handle: Any = safe_open(path, framework="pt", device="cpu")
        names = list(handle.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged safetensors file ({error}); delete it and fetch or write the checkpoint again"
        ) from error
    return {name: partial(handle.get_tensor, name) for name in names}


def _open_torch(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    import pickle
    import zipfile

    try:
        state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: damaged or not a plain file of tensors ({first}); fetch or write the checkpoint again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(n, str) and _is_plain(t) for n, t in state.items()):
        raise DataError(f"{path}: not a mapping of names to plain tensors; give a save_pretrained folder")
    return {name: partial(state.__getitem__, name) for name in state}


def _is_plain(value: object) -> bool:
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
        return False
    return value.layout == torch.strided and not value.is_quantized
