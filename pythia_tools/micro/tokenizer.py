"""The suite's tokenizer: byte-level BPE like GPT-NeoX's, trained here, with the planted words as single tokens.

Id 0 is `<|endoftext|>`, id 1 `<|padding|>`, as in Pythia. Cost: about a second for 1,024 tokens on 2 MB of text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError

END = "<|endoftext|>"
PAD = "<|padding|>"
_LINES = 20
_REPEATS = 250
"""Each planted word is shown _LINES × _REPEATS times: more often than the pairs of the last merges occur in the text."""


def train_tokenizer(texts: Iterable[str], vocab: int, single: Sequence[str]) -> Any:
    """A `tokenizers.Tokenizer` of exactly `vocab` entries in which every word of `single` is one token.

    The words are shown so often that their merges come first; a vocabulary too small for them is refused.
    Raises: RequestError when `vocab` cannot hold the words.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END, PAD], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_lines(texts, single), trainer)
    split = [w for w in single if len(tokenizer.encode(w, add_special_tokens=False).ids) != 1]
    if split or tokenizer.get_vocab_size() != vocab:
        few = ", ".join(split[:5])
        raise RequestError(f"recipe: vocab is {vocab}, too small: it splits {len(split)} planted words ({few}); give it more, such as 1280")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: str | Path, context: int) -> None:
    """`save_pretrained` files that AutoTokenizer reads, with Pythia's special tokens."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=PAD, model_max_length=context,
    )
    fast.save_pretrained(str(folder))


def load_tokenizer(folder: str | Path) -> Any:
    """The `tokenizers.Tokenizer` of a suite folder (or of its `tokenizer/`)."""
    from tokenizers import Tokenizer

    path = Path(folder)
    path = path if (path / "tokenizer.json").is_file() else path / "tokenizer"
    files.read_json(path / "tokenizer.json")
    return Tokenizer.from_file(str(path / "tokenizer.json"))


def _lines(texts: Iterable[str], single: Sequence[str]) -> Iterable[str]:
    yield from texts
    for word in single:
        # words with a leading space repeat as they are; numbers need something between them
        block = (word if word.startswith(" ") else f"{word}=") * _REPEATS
        for _ in range(_LINES):
            yield block
