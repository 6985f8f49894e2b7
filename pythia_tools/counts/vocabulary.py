"""The bytes behind every token id, so that text can be found in rows without decoding them.

A byte-level BPE (GPT-NeoX, GPT-2, pythia-micro) spells every token as a string of bytes; a row's text is the
concatenation of its tokens' bytes, read as UTF-8 with U+FFFD for what is not. Cost: 0.1 s once for 50k tokens.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pythia_tools.core import progress
from pythia_tools.core.errors import PythiaToolsError, RequestError
from pythia_tools.core.files import digest
from pythia_tools.order import Rows
from pythia_tools.tokens import Openable, Tokenizer, open_tokenizer, piece_bytes

SAMPLE_ROWS = 16
"""Rows looked at for ids that a tokenizer does not have."""


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

    def spelled(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids."""
        return b"".join(self[int(i)] for i in ids if int(i) < len(self))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens shown; the slow, plain way."""
        return self.spelled(ids).decode("utf-8", errors="replace")

    @cached_property
    def fingerprint(self) -> str:
        return digest([self.flat.tobytes().hex(), self.starts.tolist()])[:32]

    def sized(self, ids: int) -> TokenBytes:
        """The same table for exactly `ids` token ids."""
        starts = np.full(ids + 1, self.starts[-1], dtype=np.int32)
        n = min(len(self.starts), ids + 1)
        starts[:n] = self.starts[:n]
        return TokenBytes(self.flat, starts)


def tokenizer_of(order: Rows, given: Openable | None = None) -> Tokenizer:
    """The tokenizer given, else the order's own. Raises RequestError when there is neither."""
    chosen = order.tokenizer if given is None else given
    if chosen is None:
        raise RequestError(
            f"order {order.name} names no tokenizer; give --tokenizer: a tokenizer.json, its folder, or a hub name"
        )
    return open_tokenizer(chosen)


def warn_of_tokenizer(order: Rows, given: TokenBytes | Openable | None) -> None:
    """Say when a tokenizer cannot be the one of the order's rows, whose ids then stand for other text."""
    if given is None or isinstance(given, TokenBytes):
        return
    engine, own = open_tokenizer(given).engine, order.tokenizer
    if own is None:
        largest = int(order.rows(0, min(order.n_rows, SAMPLE_ROWS)).max())
        if engine.id_to_token(largest) is None and largest > (last := max(engine.get_vocab().values(), default=-1)):
            progress.warn(f"rows of order {order.name} hold token id {largest}, the tokenizer given ends at {last}: "
                          "it is another one's, and what is found means other text")
    elif _at_hand(order, own):
        with suppress(PythiaToolsError):
            if open_tokenizer(own).engine.get_vocab() != engine.get_vocab():
                progress.warn(f"the tokenizer given is not that of order {order.name}: its ids stand for other text")


def warn_of_ids(order: Rows, ids: Collection[int], given: TokenBytes | Openable | None) -> None:
    """Say which ids, found nowhere, are beyond the vocabulary; nothing for an order that names no tokenizer."""
    tokenizer = order.tokenizer if given is None else given
    if not ids or tokenizer is None or not _at_hand(order, tokenizer):
        return
    with suppress(PythiaToolsError):
        if isinstance(tokenizer, TokenBytes):
            last = len(tokenizer) - 1
        else:
            last = max(open_tokenizer(tokenizer).engine.get_vocab().values(), default=-1)
        if beyond := sorted({i for i in ids if i > last}):
            named = f"{', '.join(map(str, beyond[:8]))} {'is' if len(beyond) == 1 else 'are'}"
            progress.warn(f"token id {named} beyond the vocabulary of order {order.name} (0 to {last})")


def _at_hand(order: Rows, tokenizer: TokenBytes | Openable) -> bool:
    """Whether it opens without fetching anything for an order that is itself here."""
    return order.remote or not isinstance(tokenizer, str) or Path(tokenizer).exists()


def token_bytes(tokenizer: TokenBytes | Openable) -> TokenBytes:
    """The table of a tokenizer, or the one that is given.

    Raises: RequestError when the tokenizer is not byte-level, and what `open_tokenizer` raises.
    """
    if isinstance(tokenizer, TokenBytes):
        return tokenizer
    engine = open_tokenizer(tokenizer).engine
    decoder = json.loads(engine.decoder.__getstate__()) if engine.decoder else {}  # of the whole, 0.1 s
    steps = [d.get("type") for d in (decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder])]
    if steps != ["ByteLevel"]:
        how = ", ".join(map(str, steps)) if decoder else "nothing"
        raise RequestError(
            "text terms need a byte-level tokenizer (GPT-NeoX, GPT-2, Llama 3); "
            f"this one decodes by {how}. Count token n-grams instead"
        )
    vocabulary = engine.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for piece, token in vocabulary.items():
        pieces[token] = piece_bytes(piece)
    starts = np.zeros(len(pieces) + 1, dtype=np.int32)
    np.cumsum([len(p) for p in pieces], out=starts[1:])
    return TokenBytes(np.frombuffer(b"".join(pieces), dtype=np.uint8).copy(), starts)
