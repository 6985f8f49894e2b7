"""Is the true token the argmax? Decided without ever holding the logits of a whole vocabulary for all positions.

The unembedding runs over slices of the vocabulary, on two-dimensional contiguous operands (in bfloat16 a sliced
three-dimensional input falls on a path of the CPU kernels that is nine times slower), and keeps three numbers per
position: the true token's logit, the best other logit, and that one's id.
Cost: the matrix product itself, plus one pass over each slice while it is still in cache. Memory: POSITIONS × WIDTH
logits.
Tie rule: the first maximal id wins, as in torch.argmax and therefore in greedy `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WIDTH = 2048
"""Vocabulary ids per slice: its logits and weights stay in a processor's cache. An accelerator takes all at once."""
POSITIONS = 1024
"""Positions per block."""


@dataclass
class Verdict:
    """For each position asked: `match` (bool) the true token is the argmax; `margin` (float32) its logit minus the best
    other's; `best` (int64) the argmax; `finite` (bool) whether both logits are numbers. All of one shape."""

    match: torch.Tensor
    margin: torch.Tensor
    best: torch.Tensor
    finite: torch.Tensor

    def reshape(self, *shape: int) -> Verdict:
        return Verdict(*(t.reshape(*shape) for t in (self.match, self.margin, self.best, self.finite)))

    def put(self, index: torch.Tensor, other: Verdict) -> None:
        """Overwrite the positions at `index` by another's."""
        for name in ("match", "margin", "best", "finite"):
            getattr(self, name)[index] = getattr(other, name)


def judge(hidden: torch.Tensor, weight: torch.Tensor, truth: torch.Tensor, bias: torch.Tensor | None = None) -> Verdict:
    """Verdict (p,) for hidden states (p, d), an unembedding (vocabulary, d) and true ids (p,) below the vocabulary."""
    parts = [
        _block(hidden[start : start + POSITIONS].contiguous(), weight, truth[start : start + POSITIONS], bias)
        for start in range(0, len(hidden), POSITIONS)
    ]
    if not parts:
        empty = torch.zeros(0, device=hidden.device)
        return Verdict(empty.bool(), empty.float(), empty.long(), empty.bool())
    return joined(parts)


def joined(parts: list[Verdict]) -> Verdict:
    """Verdicts on consecutive positions as one."""
    return Verdict(*(torch.cat([getattr(p, name) for p in parts]) for name in ("match", "margin", "best", "finite")))


def judge_logits(logits: torch.Tensor, truth: torch.Tensor) -> Verdict:
    """The same from logits (p, vocabulary) that exist already; they are overwritten."""
    own = logits.gather(1, truth[:, None]).squeeze(1).float()
    logits.scatter_(1, truth[:, None], -torch.inf)
    other, place = logits.max(dim=1)
    return verdict(own, other.float(), place, truth)


def _block(hidden: torch.Tensor, weight: torch.Tensor, truth: torch.Tensor, bias: torch.Tensor | None) -> Verdict:
    count, vocabulary = len(hidden), len(weight)
    own = torch.full((count,), torch.nan, device=hidden.device, dtype=torch.float32)
    other = torch.full((count,), -torch.inf, device=hidden.device, dtype=torch.float32)
    place = torch.zeros(count, device=hidden.device, dtype=torch.long)
    width = WIDTH if hidden.device.type == "cpu" else vocabulary
    for start in range(0, vocabulary, width):
        stop = min(start + width, vocabulary)
        logits = torch.nn.functional.linear(hidden, weight[start:stop], None if bias is None else bias[start:stop])
        inside = ((truth >= start) & (truth < stop)).nonzero().squeeze(1)
        if len(inside):
            column = truth[inside] - start
            own[inside] = logits[inside, column].float()
            logits[inside, column] = -torch.inf
        top, where = logits.max(dim=1)
        top = top.float()
        better = ~(top <= other)  # true for NaN too, which then stays: nothing is greater than NaN
        better &= ~other.isnan()
        other = torch.where(better, top, other)
        place = torch.where(better, where + start, place)
    return verdict(own, other, place, truth)


def verdict(own: torch.Tensor, other: torch.Tensor, place: torch.Tensor, truth: torch.Tensor) -> Verdict:
    """From the true id's logit, the best other's and that one's id, all (p,)."""
    finite = own.isfinite() & other.isfinite()
    match = finite & ((own > other) | ((own == other) & (truth < place)))
    return Verdict(match, torch.where(finite, own - other, torch.nan), torch.where(match, truth, place), finite)
