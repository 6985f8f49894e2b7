"""Greedy answers from a live model: prompts of equal length together, so that no padding can change a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.models.score import automatic_batch_size


def greedy(
    model: Any, encoder: Encoder, prompts: Sequence[str], *, new_tokens: int, batch_size: int | None = None
) -> list[str]:
    """The next `new_tokens` ids of each prompt by highest logit, decoded; prompts too long for the model lose ids from the left."""
    ids = encoder.ids([p.rstrip() for p in prompts])
    limit = int(getattr(model.config, "max_position_embeddings", 1 << 30)) - new_tokens
    by_length: dict[int, list[int]] = {}
    for k, row in enumerate(ids):
        ids[k] = row[-limit:]
        by_length.setdefault(len(ids[k]), []).append(k)
    answers = [""] * len(ids)
    for length, members in by_length.items():
        size = batch_size or automatic_batch_size(model, length + new_tokens)
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            for k, row in zip(chosen, _decode(model, [ids[k] for k in chosen], new_tokens), strict=True):
                answers[k] = encoder.decode(row)
    return answers


@torch.no_grad()
def _decode(model: Any, rows: list[list[int]], new_tokens: int) -> list[list[int]]:
    step = torch.tensor(rows, dtype=torch.long, device=next(model.parameters()).device)
    past, found = None, []
    for _ in range(new_tokens):
        out = model(input_ids=step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        step = out.logits[:, -1].argmax(-1, keepdim=True)
        found.append(step)
    return torch.cat(found, dim=1).tolist()
