"""Words inside token rows: what each id spells, where a word starts and ends, how a form is tokenized.

A byte-level (GPT-2, GPT-NeoX) or "▁" tokenizer starts every word in a token of its own, with the space before it
when there is one. So a whole word is a fixed sequence of ids between two boundaries, and looking for words needs
table look-ups over ids, not decoding: two gathers per token. Only the few tokens round a hit are spelled out.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.tokens import Openable, open_tokenizer, piece_bytes

WINDOW = 12
"""Tokens spelled out on either side of a hit: enough for the word before, the word after and what joins them."""
_ANCHOR = "\n"
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_BREAK = b"\x00"
"""How a special token spells: a boundary that no word crosses."""


class Spelling:
    """The bytes of every id of a tokenizer, and its encoding of short texts (cached)."""

    def __init__(self, tokenizer: Openable):
        self._tokenizer = open_tokenizer(tokenizer)
        engine = self._tokenizer.engine
        description = json.loads(engine.to_str())
        added = engine.get_added_tokens_decoder()
        vocabulary = engine.get_vocab(with_added_tokens=True)
        spell = _speller(description)
        self.bytes: list[bytes] = [b""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            self.bytes[number] = spell(token)
        for number, known in added.items():
            self.bytes[number] = _BREAK if known.special else known.content.encode()
        self.digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        """Names the tokenizer in fingerprints: sha256 of its canonical JSON."""
        self.pad_id: int = vocabulary.get("<|padding|>", vocabulary.get("<|endoftext|>", 0))
        """`<|padding|>` where the tokenizer has it, else `<|endoftext|>`, else 0."""
        self._encoded: dict[str, tuple[int, ...]] = {}

    @classmethod
    def of(cls, tokenizer: Openable | Spelling) -> Spelling:
        """The spelling of a tokenizer; one that is made already is taken as it is."""
        return tokenizer if isinstance(tokenizer, Spelling) else cls(tokenizer)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text as it stands within other text, without special tokens.

        It is encoded after a line break, so that a space some tokenizers put before a whole text is not taken for its
        own.
        """
        if text not in self._encoded:
            before, whole, alone = self._tokenizer.ids([_ANCHOR, _ANCHOR + text, text])
            apart = whole[: len(before)] == before
            self._encoded[text] = tuple(whole[len(before) :] if apart else alone)
        return self._encoded[text]

    def text(self, ids: Iterable[int]) -> str:
        """The text of ids, with ␞ for boundaries; an id outside the vocabulary (padding of an embedding) is one."""
        spelled = b"".join(self.bytes[i] if 0 <= i < len(self.bytes) else _BREAK for i in map(int, ids))
        return spelled.replace(_BREAK, "␞".encode()).decode("utf-8", errors="replace")

    @property
    def table_size(self) -> int:
        """Entries of a look-up table over ids: every uint16, every id of the vocabulary, and one for all beyond."""
        return max(1 << 16, len(self.bytes)) + 1

    @cached_property
    def word_edges(self) -> np.ndarray:
        """(2, table_size) bool: whether an id's first byte, and its last, is an ASCII letter, digit or underscore."""
        table = np.zeros((2, self.table_size), dtype=bool)
        for edge, part in enumerate((slice(0, 1), slice(-1, None))):
            table[edge, : len(self.bytes)] = [b[part].isalnum() or b[part] == b"_" for b in self.bytes]
        return table


def _speller(description: dict[str, Any]) -> Callable[[str], bytes]:
    """Token string → bytes, for the two families of tokenizers whose words start in tokens of their own."""
    stages = json.dumps([description.get("pre_tokenizer"), description.get("decoder")])
    if '"ByteLevel"' in stages:
        return piece_bytes
    if "▁" in stages or "\\u2581" in stages:
        return lambda token: bytes.fromhex(token[3:5]) if _BYTE.fullmatch(token) else token.replace("▁", " ").encode()
    raise RequestError("words are found by byte-level (GPT-2, GPT-NeoX) and '▁' tokenizers only; this one is neither")


_JOINERS = "\u00ad\u200c\u200d\u2060"
"""Soft hyphen, the two zero-width (non-)joiners, word joiner; other format characters stand between words."""
_APOSTROPHE = "\u02bc"
"""A letter by its category, an apostrophe by its use: heʼs."""


def _in_word(character: str) -> bool:
    """Whether it continues a word: letter, digit, mark, underscore, joiner."""
    if character.isascii():
        return character.isalnum() or character == "_"
    letter = unicodedata.category(character)[0] in "LMN" and character != _APOSTROPHE
    return letter or character in _JOINERS


def same_case(pattern: str, word: str) -> str:
    """`word` in the case of `pattern`: HE → SHE, He → She, he → she (a single capital letter counts as capitalised)."""
    if len(pattern) > 1 and pattern.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if pattern[:1].isupper() else word


@dataclass(frozen=True)
class Hit:
    """A whole word found in one row: `length` ids from `position`, spelling `lead` + `form`."""

    position: int
    length: int
    lead: str
    form: str


class FormFinder:
    """Finds whole words (or short phrases) in token rows: lower, Capitalised and UPPER case, spaced or not.

    Forms in mixed case (`hE`) are other words to it. A form is found where it is tokenized as the tokenizer tokenizes
    it.
    """

    def __init__(self, spelling: Spelling, forms: Iterable[str]):
        self.spelling = spelling
        self._patterns: dict[tuple[int, ...], tuple[str, str]] = {}
        for form in forms:
            for cased in dict.fromkeys([form, form.lower(), form[:1].upper() + form[1:], form.upper()]):
                for lead in (" ", ""):
                    self._patterns.setdefault(spelling.encode(lead + cased), (lead, cased))
        self._first = np.zeros(spelling.table_size, dtype=bool)
        self._first[[ids[0] for ids in self._patterns if ids]] = True
        self._by_first: dict[int, list[tuple[int, ...]]] = {}
        for ids in sorted(self._patterns, key=len, reverse=True):
            self._by_first.setdefault(ids[0], []).append(ids)

    def candidates(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, position) of every token of (n, W) rows that may begin a form; inside ASCII words none does."""
        if rows.dtype.itemsize > 2:  # padding of an embedding, beyond the vocabulary
            rows = np.minimum(rows, self.spelling.table_size - 1)
        row, position = np.nonzero(self._first[rows])
        ids = rows[row, position]
        starts_in_word, ends_in_word = self.spelling.word_edges
        before = rows[row, np.maximum(position - 1, 0)]
        inside = starts_in_word[ids] & (position > 0) & ends_in_word[before]
        return row[~inside], position[~inside]

    def hit(self, ids: list[int], position: int) -> Hit | None:
        """The longest form at a position of one row, if it is a whole word there."""
        for pattern in self._by_first.get(ids[position], ()):
            end = position + len(pattern)
            if tuple(ids[position:end]) != pattern:
                continue
            lead, form = self._patterns[pattern]
            right = self.spelling.text(ids[end : end + 4])
            left = lead or self.spelling.text(ids[max(0, position - 4) : position])
            if not _in_word(left[-1:]) and not _in_word(right[:1]):
                return Hit(position, len(pattern), lead, form)
        return None

    def context(self, ids: list[int], hit: Hit) -> tuple[str, str]:
        """The text of WINDOW tokens before (its own leading space included) and after a hit."""
        end = hit.position + hit.length
        left = self.spelling.text(ids[max(0, hit.position - WINDOW) : hit.position]) + hit.lead
        return left, self.spelling.text(ids[end : end + WINDOW])
