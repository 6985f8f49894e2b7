"""Greedy answers from a live model, as text."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.models.decode import LOST, greedy
from pythia_tools.models.score import max_positions


def answers(
    model: nn.Module, encoder: Encoder, prompts: Sequence[str], *, new_tokens: int, batch_size: int | None = None,
) -> list[str | None]:
    """The next `new_tokens` ids of each prompt by highest logit, as text; None where the logits are no numbers.

    Prompts too long for the model lose ids from the left.
    """
    limit = max_positions(model) - new_tokens
    ids = [row[-limit:] for row in encoder.ids([p.rstrip() for p in prompts])]
    made = greedy(model, ids, new_tokens, batch_size=batch_size)
    return [None if LOST in row else encoder.decode(row) for row in made]
