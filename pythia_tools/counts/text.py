"""Text and token ids with an order's own tokenizer (or one that is given)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.order.data_order import DataOrder


def tokenizer_of(order: DataOrder, tokenizer: Any = None) -> Any:
    """A `tokenizers.Tokenizer`: the one given (object, tokenizer.json, folder, or hub model), else the manifest's.

    Raises: RequestError when the order names none, DataError when the file is not a tokenizer.
    """
    chosen = tokenizer
    if chosen is None:
        chosen = order.tokenizer
    if chosen is None:
        raise RequestError(f"order {order.name} names no tokenizer; give --tokenizer with a tokenizer.json, its folder, or a hub model")
    return _load(str(chosen)) if isinstance(chosen, str | Path) else chosen


def encode(order: DataOrder, text: str, tokenizer: Any = None) -> list[int]:
    """Ids of a text, without special tokens added."""
    encoded = tokenizer_of(order, tokenizer).encode(text, add_special_tokens=False)
    return list(getattr(encoded, "ids", encoded))


def decode(order: DataOrder, ids: np.ndarray, tokenizer: Any = None) -> str:
    """Text of ids, special tokens shown."""
    return str(tokenizer_of(order, tokenizer).decode([int(t) for t in ids], skip_special_tokens=False))


@cache
def _load(place: str) -> Any:
    from tokenizers import Tokenizer

    path = Path(place).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        path = _download(place)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise DataError(f"{path}: not a tokenizer.json ({error})") from error


def _download(repo: str) -> Path:
    from huggingface_hub import hf_hub_download

    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise RequestError(f"{repo}: no such tokenizer file or folder")
    try:
        return Path(hf_hub_download(repo, "tokenizer.json"))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentFailure(f"the tokenizer of {repo} cannot be downloaded ({reason}); give --tokenizer with a local file") from error
