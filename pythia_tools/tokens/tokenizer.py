"""The tokenizer: opened here and nowhere else, from a file, a folder, or the tokenizer files of a hub repository.

    tokenizer = open_tokenizer("EleutherAI/pythia-70m-deduped")
    ids = tokenizer.encode("The cat sat")                   # no special tokens added
    tokenizer.decode(ids)                                   # special tokens shown, spaces untouched

Cost: 0.1 s for a vocabulary of 50k. From the hub, the tokenizer's own small files are fetched and no weights.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from pythia_tools import hub
from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

FILE = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
_BEGINNINGS = (END_OF_TEXT, "<s>", "<bos>", "<|begin_of_text|>", "</s>")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A fast tokenizer. `engine` is its `tokenizers.Tokenizer`, `source` says where it came from.

    `special` holds the texts of bos_token and eos_token where the files beside it name them.
    """

    engine: tokenizers.Tokenizer
    source: str = "memory"
    special: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Ids that exist; models pad more, which must not compete in an argmax."""
        return int(self.engine.get_vocab_size(with_added_tokens=True))

    @cached_property
    def digest(self) -> str:
        """sha256 of the whole tokenizer."""
        return hashlib.sha256(self.engine.to_str().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self.engine.encode(text, add_special_tokens=False).ids)

    def ids(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; faster than one by one."""
        return [list(e.ids) for e in self.engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens shown."""
        return str(self.engine.decode([int(i) for i in ids], skip_special_tokens=False))

    def one_id(self, text: str) -> int:
        """The id of a text that is one token. Raises RequestError when it is not."""
        ids = self.encode(text)
        if len(ids) != 1:
            raise RequestError(f"{text!r} is {len(ids)} tokens for this tokenizer, one is needed")
        return ids[0]

    @cached_property
    def beginning(self) -> int | None:
        """The id that stands before a text: beginning-of-text, else end-of-text; None when there is neither."""
        named = dict(self.special)
        for text in (named.get("bos_token"), named.get("eos_token"), *_BEGINNINGS):
            found = None if text is None else self.engine.token_to_id(text)
            if found is not None:
                return int(found)
        return None

    def for_transformers(self) -> PreTrainedTokenizerFast:
        """The same tokenizer for libraries that take transformers' class."""
        from transformers import PreTrainedTokenizerFast

        named = dict(self.special)
        known = next((t for t in _BEGINNINGS if self.engine.token_to_id(t) is not None), None)
        beginning, end = named.get("bos_token") or known, named.get("eos_token") or known
        return PreTrainedTokenizerFast(tokenizer_object=self.engine, bos_token=beginning, eos_token=end, pad_token=end)


Openable: TypeAlias = "Tokenizer | tokenizers.Tokenizer | PreTrainedTokenizerFast | str | os.PathLike[str]"
"""What `open_tokenizer` takes."""


def open_tokenizer(place: Openable) -> Tokenizer:
    """The tokenizer of a tokenizer.json, its folder, or a hub repository (`owner/name`, `owner/name@revision`).

    Tokenizers of the `tokenizers` and `transformers` packages are taken as they are.
    Raises: RequestError for what is no tokenizer or not there, DataError for a damaged file, EnvironmentFailure when
    the hub cannot be reached.
    """
    if isinstance(place, Tokenizer):
        return place
    if not isinstance(place, str | os.PathLike):
        return _of_object(place)
    path = Path(os.path.expanduser(place))
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        if not (isinstance(place, str) and _HUB_NAME.fullmatch(place) and path.suffix != ".json"):
            raise RequestError(
                f"{path}: no such tokenizer; give a {FILE}, the folder that holds it, or a hub name owner/name"
            )
        repo, _, revision = place.partition("@")
        path = hub.fetch_tokenizer(repo, revision or None)
        path = path / FILE if path.is_dir() else path
    return Tokenizer(_read(path), str(place), _special(path.with_name("tokenizer_config.json")))


def _of_object(given: tokenizers.Tokenizer | PreTrainedTokenizerFast) -> Tokenizer:
    engine = cast("tokenizers.Tokenizer", getattr(given, "backend_tokenizer", given))
    if not hasattr(engine, "encode_batch_fast"):
        raise RequestError(
            f"a {type(given).__name__} is not a fast tokenizer; give a {FILE}, its folder, a hub name, a "
            "tokenizers.Tokenizer or a PreTrainedTokenizerFast"
        )
    named = {key: getattr(given, key, None) for key in ("bos_token", "eos_token")}
    return Tokenizer(engine, special=tuple((key, str(text)) for key, text in named.items() if text is not None))


def _read(path: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Engine

    try:
        return Engine.from_file(str(path))
    except Exception as error:  # the bindings raise plain Exception
        raise DataError(f"{path}: not a {FILE} ({' '.join(str(error).split())[:160]})") from error


def _special(path: Path) -> tuple[tuple[str, str], ...]:
    """bos_token and eos_token as a tokenizer_config.json states them: texts, or mappings with `content`."""
    config = files.read_json(path) if path.is_file() else {}
    stated = {key: config.get(key) for key in ("bos_token", "eos_token")} if isinstance(config, dict) else {}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in stated.items()}
    return tuple((key, text) for key, text in texts.items() if isinstance(text, str))


@cache
def char_bytes() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def piece_bytes(piece: str) -> bytes:
    """What a piece of a byte-level vocabulary spells; an added token outside the alphabet (spaces) is its own text."""
    try:
        return bytes(map(char_bytes().__getitem__, piece))
    except KeyError:
        return piece.encode()
