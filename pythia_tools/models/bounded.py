"""Float32 verdicts through a bfloat16 product, with a proof: twice the speed, and not one flag different.

With ĥ and ŵ the vectors rounded to bfloat16, the bfloat16 logit of an id lies within

    ‖h‖·‖w − ŵ‖ + ‖h − ĥ‖·‖ŵ‖        Cauchy and Schwarz, on h·w − ĥ·ŵ = h·(w − ŵ) + (h − ĥ)·ŵ
    + K·2⁻²³·‖ĥ‖·‖ŵ‖                  K products summed in float32, in whatever order
    + 2⁻⁸·|logit|                     the result's own rounding

of the exact one. So only ids whose upper bound reaches the highest lower bound can be the best: about four of 50,304
as a rule. Those get their logits in float32. A position whose two best lie nearer to each other than float32 sums in
different orders may differ, one with too many candidates, and one with anything not finite go through the plain
float32 product, so ties are decided as they were.

Cost: the product in bfloat16, one pass over its result, and about a hundredth of the float32 product. Memory: half of
the unembedding again. Only for processors that multiply bfloat16 in hardware; elsewhere it would be slower, and is not
used.
"""

from __future__ import annotations

from typing import Any

import torch

from pythia_tools.models.head import Verdict, joined, judge, verdict

POSITIONS = 512
"""Positions per block: their bfloat16 logits are the largest thing held (52 MB for 50,304 ids)."""
FEWEST = 192
"""Positions at once below which the plain product is as quick: both then wait for the weights."""
GROUP = 16
"""Ids that share a bound: member i of group g is id i·groups + g, so that maxima run along rows."""
CROWD = 32
"""Groups that may hold a position's best before it goes through the plain product."""
SMALLEST = 8192
"""Ids below which the plain product is as quick."""
_HALF, _SUM = 2.0**-8, 2.0**-23
_ROOM = 1.01
"""Bounds are computed in float32 themselves; this covers that many times over."""


def helps(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a bounded head would be faster than the plain product, and its bounds hold."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or bias is not None or len(weight) < SMALLEST:
        return False
    return _multiplies_bfloat16() and bool(torch.isfinite(torch.stack(torch.aminmax(weight))).all())


def _multiplies_bfloat16() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    known: dict[str, Any] = ask() if ask is not None else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


class BoundedHead:
    """An unembedding (vocabulary, d) float32, and what its rounded twin needs: `judge` gives what `head.judge` gives.
    """

    def __init__(self, weight: torch.Tensor):
        self.weight = weight
        self.groups = -(-len(weight) // GROUP)
        self.rounded = torch.zeros((GROUP * self.groups, weight.shape[1]), dtype=torch.bfloat16)
        norm, lost = torch.zeros(len(self.rounded)), torch.zeros(len(self.rounded))
        for start in range(0, len(weight), SMALLEST):
            exact = weight[start : start + SMALLEST]
            rounded = self.rounded[start : start + len(exact)]
            rounded.copy_(exact)
            back = rounded.float()
            norm[start : start + len(exact)] = back.norm(dim=1)
            lost[start : start + len(exact)] = back.sub_(exact).norm(dim=1)
        self.logits = torch.empty((POSITIONS, len(self.rounded)), dtype=torch.bfloat16)  # written anew for each block
        self.longest = float((norm + lost).max())
        self.norm, self.lost = (v.view(GROUP, -1).amax(dim=0) for v in (norm, lost))

    def judge(self, hidden: torch.Tensor, truth: torch.Tensor) -> Verdict:
        """Verdict (p,) for hidden states (p, d) float32 and true ids (p,) below the vocabulary."""
        blocks = zip(hidden.split(POSITIONS), truth.split(POSITIONS), strict=True)
        return joined([self._block(h.contiguous(), t) for h, t in blocks])

    def _block(self, hidden: torch.Tensor, truth: torch.Tensor) -> Verdict:
        own = (hidden * self.weight[truth]).sum(dim=1)
        position, ids, crowded = self._candidates(hidden, truth)
        exact = (hidden[position] * self.weight[ids]).sum(dim=1)
        other = torch.full_like(own, -torch.inf).scatter_reduce_(0, position, exact, "amax")
        first = torch.where(exact == other[position], ids, len(self.weight) - 1)
        place = torch.full_like(truth, len(self.weight) - 1).scatter_reduce_(0, position, first, "amin")
        # A sum of K products is off by at most K·2⁻²⁴ of its terms' size; two logits are compared, in two orders.
        near = 4 * hidden.shape[1] * 2.0**-24 * hidden.norm(dim=1) * self.longest
        rivals = torch.zeros_like(own).scatter_add_(0, position, (exact >= (other - near)[position]).float())
        found = verdict(own, other, place, truth)
        plain = (crowded | (rivals > 1) | ~found.finite | ~((own - other).abs() > near)).nonzero().squeeze(1)
        if len(plain):
            found.put(plain, judge(hidden[plain], self.weight, truth[plain]))
        return found

    def _candidates(self, hidden: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Position and id of all that may be the best other than the true one; and (p,) whether they are too many to
        list.
        """
        rounded = hidden.to(torch.bfloat16)
        logits = torch.mm(rounded, self.rounded.T, out=self.logits[: len(rounded)])
        logits[torch.arange(len(truth)), truth] = -torch.inf
        logits[:, len(self.weight) :] = -torch.inf
        members = logits.view(len(logits), GROUP, self.groups)
        top = members.amax(dim=1).float()
        width = self._width(hidden, rounded, top)
        lowest = (top - width).amax(dim=1, keepdim=True)
        hot = top + width >= lowest
        crowded = (hot.sum(dim=1) > CROWD) | ~lowest.squeeze(1).isfinite()
        position, group = (hot & ~crowded[:, None]).nonzero(as_tuple=True)
        values = members[position, :, group].float()
        # A member's own width is no larger than its group's plus the rounding of a logit that is further from 0.
        own = _ROOM * _HALF * values.abs().nan_to_num(posinf=0.0)
        reach = values + width[position, group][:, None] + own >= lowest[position]
        line, member = reach.nonzero(as_tuple=True)
        return position[line], member * self.groups + group[line], crowded

    def _width(self, hidden: torch.Tensor, rounded: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        """(p, groups): how far an exact logit may lie from the group's largest bfloat16 one. 0 where that is −∞:
        nothing is there.
        """
        length, lost = hidden.norm(dim=1), (hidden - rounded.float()).norm(dim=1)
        summing = hidden.shape[1] * _SUM * (length + lost)
        width = torch.outer(_ROOM * length, self.lost).addr_(_ROOM * (lost + summing), self.norm)
        return width.add_(top.abs().nan_to_num_(posinf=0.0), alpha=_ROOM * _HALF)
