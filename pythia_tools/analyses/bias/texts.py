"""Texts to ids for scoring: the split of a context and its continuation, the empty context, the model's length limit.

Rules are those of EleutherAI's lm-evaluation-harness, so that scores can be compared: spaces at the end of a context
belong to the continuation; context and continuation are encoded together and cut at the context's length; an empty
context is the beginning-of-text id; what is longer than the model's positions loses ids from the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import digest
from pythia_tools.models.continuations import Request

_PREFIXES = ("<|endoftext|>", "<s>", "<bos>", "</s>")


class Encoder:
    """A tokenizer (tokenizers.Tokenizer or PreTrainedTokenizerFast) as the functions of this package use it.

    `prefix` stands for an empty context: the tokenizer's beginning-of-text id, else its end-of-text id.
    """

    def __init__(self, tokenizer: Any, *, prefix: int | None = None):
        self.tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(self.tokenizer, "encode_batch"):
            raise RequestError(f"a {type(tokenizer).__name__} is no tokenizer; give a tokenizers.Tokenizer or a PreTrainedTokenizerFast")
        self.prefix = _prefix(tokenizer, self.tokenizer) if prefix is None else prefix
        self.digest = digest([self.tokenizer.to_str(), self.prefix])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(map(int, ids)), skip_special_tokens=False))

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """One Request per (context, continuation). Raises RequestError for an empty continuation."""
        moved = [_move_spaces(context, continuation) for context, continuation in pairs]
        whole = self.ids([a + b for a, b in moved])
        contexts = self.ids([a for a, _ in moved])
        return [self._request(a, w, c) for (a, _), w, c in zip(moved, whole, contexts, strict=True)]

    def _request(self, text: str, whole: list[int], context: list[int]) -> Request:
        if not text:
            context, whole = ([self.prefix], [self.prefix, *whole]) if whole[:1] != [self.prefix] else (whole[:1], whole)
        request = Request(tuple(context), tuple(whole[len(context) :]))
        if not request.continuation:
            raise RequestError(f"nothing to score after {text[-60:]!r}: the continuation is empty")
        return request

    def one_id(self, text: str) -> int:
        """The id of a text that is one token. Raises RequestError when it is not."""
        (ids,) = self.ids([text])
        if len(ids) != 1:
            raise RequestError(f"{text!r} is {len(ids)} tokens for this tokenizer, one is needed")
        return ids[0]


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    if not kept:
        return ("", context + continuation) if not context else (context, continuation)
    return kept, context[len(kept) :] + continuation


def _prefix(tokenizer: Any, backend: Any) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return int(value)
    for text in _PREFIXES:
        value = backend.token_to_id(text)
        if value is not None:
            return int(value)
    raise RequestError(f"this tokenizer has no beginning- or end-of-text token ({', '.join(_PREFIXES)}); give prefix=ID")


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizers.Tokenizer of a `save_pretrained` folder or a tokenizer.json. Raises DataError when there is none."""
    from tokenizers import Tokenizer

    path = Path(folder)
    path = path if path.suffix == ".json" else path / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the tokenizer's folder or its tokenizer.json with --tokenizer")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the bindings raise plain Exception
        raise DataError(f"{path}: not a tokenizer ({str(error)[:120]})") from error


def suite_tokenizer(suite: Any, checkpoints: Sequence[Any]) -> Any:
    """The tokenizer a suite names, else the one in the folder of its first checkpoint (fetched if need be)."""
    named = getattr(suite, "tokenizer", None)
    if named is not None and Path(named).exists():
        return load_tokenizer(named)
    if not checkpoints:
        raise RequestError("no checkpoints, so no tokenizer; choose some with --models and --steps, or give --tokenizer")
    from pythia_tools import hub

    return load_tokenizer(hub.fetch(checkpoints[0]))
