"""Tiny random GPT-NeoX models, `generate` as the judge nobody here wrote, and rows that probe every position."""

from __future__ import annotations

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


def neox(
    width: int = 48, layers: int = 2, heads: int = 4, vocabulary: int = 211, seed: int = 0, **options: object
) -> GPTNeoXForCausalLM:
    """Random weights, larger than the usual initialisation so that logits are far apart; `generate` suppresses nothing.
    """
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        vocab_size=vocabulary, max_position_embeddings=256, rotary_pct=0.25, bos_token_id=0, eos_token_id=0,
        initializer_range=0.08, **options
    )
    return unrestrained(GPTNeoXForCausalLM(config).eval())


def unrestrained(model):  # type: ignore[no-untyped-def]
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@torch.inference_mode()
def generated(model, prompts: np.ndarray, length: int, **options: object) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(n, length) greedy continuations by transformers."""
    ids = torch.from_numpy(np.ascontiguousarray(prompts)).long()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, **options)
    return out[:, prompts.shape[1] :].numpy()


def probes(model, context: int, continuation: int, prompts: int, seed: int = 0, **options: object):  # type: ignore[no-untyped-def]
    """(rows, decoded): each prompt with the model's own greedy continuation, then with one id of it changed at each
    position.
    """
    rng = np.random.default_rng(seed)
    vocabulary = options.pop("below", model.config.vocab_size)
    shown = rng.integers(0, vocabulary, (prompts, context))
    decoded = generated(model, shown, continuation, **options)
    whole = np.concatenate([shown, decoded], axis=1)
    rows = [whole]
    for position in range(continuation):
        flipped = whole.copy()
        here = flipped[:, context + position]
        flipped[:, context + position] = (here + rng.integers(1, vocabulary, prompts)) % vocabulary
        rows.append(flipped)
    return np.concatenate(rows), np.tile(decoded, (continuation + 1, 1))


def leading(decoded: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) equal ids before the first difference."""
    differs = decoded != truth
    return np.where(differs.any(axis=1), differs.argmax(axis=1), decoded.shape[1])
