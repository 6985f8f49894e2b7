"""The suite's tokenizer: byte-level BPE like GPT-NeoX's, trained here, with the planted words as single tokens.

Id 0 is `<|endoftext|>`, id 1 `<|padding|>`, as in Pythia. Cost: about a second for 1,024 tokens on 2 MB of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_tools.core.errors import RequestError
from pythia_tools.tokens import Tokenizer, open_tokenizer

if TYPE_CHECKING:
    import tokenizers

END = "<|endoftext|>"
PAD = "<|padding|>"
_LINES = 20
_REPEATS = 250
"""Planted words are shown _LINES × _REPEATS times: more often than the pairs of the last merges occur in the text."""


def train_tokenizer(texts: Iterable[str], vocab: int, single: Sequence[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE of exactly `vocab` entries in which every word of `single` is one token.

    The words are shown so often that their merges come first.
    Raises: RequestError when `vocab` is too small to hold them.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END, PAD], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    # words with a leading space repeat as they are; numbers need something between them
    blocks = ((w if w.startswith(" ") else f"{w}=") * _REPEATS for w in single for _ in range(_LINES))
    engine.train_from_iterator(itertools.chain(texts, blocks), trainer)
    split = [word for word, ids in zip(single, open_tokenizer(engine).ids(single), strict=True) if len(ids) != 1]
    if split or engine.get_vocab_size() != vocab:
        few = f"it splits {len(split)} planted words ({', '.join(split[:5])})"
        raise RequestError(f"recipe: vocab is {vocab}, too small: {few}; give it more, such as 1280")
    return engine


def save_tokenizer(engine: tokenizers.Tokenizer, folder: Path, context: int) -> Tokenizer:
    """Write the files that AutoTokenizer reads, with Pythia's special tokens; returns what they hold."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=engine, bos_token=END, eos_token=END, unk_token=END, pad_token=PAD, model_max_length=context,
    )
    fast.save_pretrained(str(folder))
    return open_tokenizer(folder)
