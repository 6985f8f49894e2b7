"""Small random models and a byte-level tokenizer for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

WORDS = (
    " he she his her him hers himself herself the nurse doctor said that was because refers to developer designer"
    " argued with did not like idea a an is and or of in on at What does stand for pronoun teacher driver occupation"
    " participant customer"
)


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|padding|>"]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special, initial_alphabet=alphabet,
                                  show_progress=False)
    made.train_from_iterator([WORDS * 30], trainer)
    return made


def save_tokenizer(folder: Path) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    fast.save_pretrained(folder)


def model(seed: int, *, width: int = 32, positions: int = 256) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=512, hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=4 * width,
        max_position_embeddings=positions, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
        initializer_range=0.15,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config).eval()


def checkpoints(folder: Path, seeds=(0, 1), *, branch: bool = False, positions: int = 256) -> list[Checkpoint]:
    """One model `t` at steps 0, 1, … (and its branch `t-swap`), each with its own random weights and the tokenizer."""
    found = []
    for name in ("t", "t-swap") if branch else ("t",):
        for step, seed in enumerate(seeds):
            path = folder / name / f"step{step}"
            model(seed + (100 if name != "t" else 0), positions=positions).save_pretrained(path)
            save_tokenizer(path)
            info = ModelInfo(name, 30_000, 20_000, branch="main" if name == "t" else "swap",
                             base=None if name == "t" else "t")
            found.append(Checkpoint("tiny", info, step, step * 1024, f"step{step}", Folder(path), "float32"))
    return found
