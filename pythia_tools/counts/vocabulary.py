"""The bytes behind every token id, so that text can be found in rows without decoding them.

A byte-level BPE (GPT-NeoX, GPT-2, pythia-micro) spells every token as a string of bytes; a row's text is the
concatenation of its tokens' bytes, read as UTF-8 with U+FFFD for what is not. Cost: 0.1 s once for 50k tokens.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.core.files import digest


@dataclass(frozen=True, eq=False)
class TokenBytes:
    """bytes of token t = flat[starts[t]:starts[t+1]]; ids beyond the vocabulary spell nothing."""

    flat: np.ndarray
    """(total,) uint8"""
    starts: np.ndarray
    """(n + 1,) int32"""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, token: int) -> bytes:
        return self.flat[self.starts[token]:self.starts[token + 1]].tobytes()

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids, specials included, no clean-up of spaces; the slow, plain way."""
        return b"".join(self[int(i)] for i in ids if int(i) < len(self)).decode("utf-8", errors="replace")

    @cached_property
    def fingerprint(self) -> str:
        return digest([self.flat.tobytes().hex(), self.starts.tolist()])[:32]

    def sized(self, ids: int) -> TokenBytes:
        """The same table for exactly `ids` token ids."""
        starts = np.full(ids + 1, self.starts[-1], dtype=np.int32)
        n = min(len(self.starts), ids + 1)
        starts[:n] = self.starts[:n]
        return TokenBytes(self.flat, starts)


def token_bytes(tokenizer: Any) -> TokenBytes:
    """The table of a tokenizer: a TokenBytes, a `tokenizers.Tokenizer`, a transformers fast tokenizer, or a path
    (tokenizer.json or the folder that holds it).

    Raises: DataError when the file is missing or damaged, RequestError when the tokenizer is not byte-level.
    """
    if isinstance(tokenizer, TokenBytes):
        return tokenizer
    backend = load_tokenizer(tokenizer)
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    steps = [d.get("type") for d in (decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder])]
    if steps != ["ByteLevel"]:
        how = ", ".join(map(str, steps)) if decoder else "nothing"
        raise RequestError(
            f"text terms need a byte-level tokenizer (GPT-NeoX, GPT-2, Llama 3); this one decodes by {how}. Count token n-grams instead"
        )
    vocabulary = backend.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    table = _char_bytes()
    for piece, token in vocabulary.items():
        pieces[token] = _piece_bytes(piece, table)
    starts = np.zeros(len(pieces) + 1, dtype=np.int32)
    np.cumsum([len(p) for p in pieces], out=starts[1:])
    return TokenBytes(np.frombuffer(b"".join(pieces), dtype=np.uint8).copy(), starts)


def load_tokenizer(tokenizer: Any) -> Any:
    """A `tokenizers.Tokenizer` from itself, a transformers fast tokenizer, or a path."""
    from tokenizers import Tokenizer

    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer.backend_tokenizer
    if not isinstance(tokenizer, str | os.PathLike):
        raise RequestError(f"{type(tokenizer).__name__} is not a tokenizer; give a tokenizer.json, its folder, or a fast tokenizer")
    if isinstance(tokenizer, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", tokenizer) and not Path(tokenizer).exists():
        return _from_hub(tokenizer)
    path = Path(tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.exists():
        raise DataError(f"{path}: no such tokenizer file; give a tokenizer.json or the folder that holds it")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise DataError(f"{path}: not a tokenizer file ({error})") from error


def _from_hub(repo: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_pretrained(repo)
    except Exception as error:
        raise EnvironmentFailure(f"the tokenizer of {repo} cannot be had ({error}); give a local tokenizer.json or its folder") from error


def _char_bytes() -> dict[str, int]:
    """The byte that each character of a byte-level piece stands for (GPT-2's printable alphabet)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): b for b in printable}
    table.update({chr(256 + i): b for i, b in enumerate(others)})
    return table


def _piece_bytes(piece: str, table: dict[str, int]) -> bytes:
    try:
        return bytes(table[c] for c in piece)
    except KeyError:  # an added token outside the alphabet (runs of spaces) is its own text
        return piece.encode()
