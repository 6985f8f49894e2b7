"""The bfloat16 product with bounds gives the plain float32 product's verdicts, and its bounds hold."""

from __future__ import annotations

import pytest
import torch

from pythia_tools.models import bounded
from pythia_tools.models.bounded import BoundedHead
from pythia_tools.models.head import judge


def _case(kind: str, size: int = 900, width: int = 40, positions: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    weight, hidden = torch.randn(size, width), torch.randn(positions, width)
    if kind == "ties":  # every id has a twin, and sums are exact
        weight = torch.randint(-2, 3, (size, width)).float()
        weight[size // 2 :] = weight[: size - size // 2].clone()
        hidden = torch.randint(-2, 3, (positions, width)).float()
    if kind == "near ties":
        weight = weight[:1] + 1e-4 * weight
    if kind == "uneven lengths":
        weight = weight * torch.exp(2 * torch.randn(size, 1))
    if kind == "common offset":
        weight, hidden = weight + 20, hidden + 3
    if kind == "all below zero":
        weight, hidden = -weight.abs(), hidden.abs()
    if kind == "not finite":
        hidden[::7, 3], hidden[1::7] = torch.nan, 3e38
    return weight, hidden


KINDS = ["plain", "ties", "near ties", "uneven lengths", "common offset", "all below zero", "not finite"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [896, 901])
def test_verdicts_are_those_of_the_plain_product(kind: str, size: int) -> None:
    weight, hidden = _case(kind, size=size)
    truth = torch.randint(0, size, (len(hidden),))
    best = (hidden @ weight.T).nan_to_num(nan=-1e30).argmax(1)
    truth[::2] = best[::2]
    plain, found = judge(hidden, weight, truth), BoundedHead(weight).judge(hidden, truth)
    assert (found.match == plain.match).all() and (found.finite == plain.finite).all()
    assert (found.best == plain.best)[plain.finite].all()
    assert plain.match.sum() > 200 and (plain.finite.all() or kind == "not finite")
    room = 1e-5 * hidden.norm(dim=1) * weight.norm(dim=1).max()
    assert ((found.margin - plain.margin).abs() <= room)[plain.finite].all()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_no_exact_logit_lies_outside_its_bounds_and_few_ids_are_left(kind: str) -> None:
    weight, hidden = _case(kind, size=4096, positions=64)
    head = BoundedHead(weight)
    truth = torch.zeros(64, dtype=torch.long)
    exact = hidden.double() @ weight.double().T
    rounded = hidden.bfloat16()
    logits = rounded @ head.rounded.T
    grouped = logits.view(64, bounded.GROUP, head.groups)
    width = head._width(hidden, rounded, grouped.amax(dim=1).float())
    each = width[:, None] + bounded._ROOM * bounded._HALF * grouped.float().abs()
    assert ((exact.view(64, bounded.GROUP, head.groups) - grouped.double()).abs() <= each).all()
    position, ids, crowded = head._candidates(hidden, truth)
    exact[:, 0] = -torch.inf
    for p in range(64):
        assert crowded[p] or exact[p].argmax() in ids[position == p]
    if kind == "plain":
        assert not crowded.any() and len(ids) < 64 * 20


def test_it_is_used_only_where_its_bounds_hold() -> None:
    weight = torch.randn(bounded.SMALLEST, 4)
    assert bounded.helps(weight, None) == bounded._multiplies_bfloat16()
    assert not bounded.helps(weight, torch.zeros(len(weight)))
    assert not bounded.helps(weight.bfloat16(), None) and not bounded.helps(weight[:-1], None)
    weight[5, 1] = torch.inf
    assert not bounded.helps(weight, None)
