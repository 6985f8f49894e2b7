"""Several texts in one row as a tree: what texts have in common from their beginnings on is computed once.

A row lists the nodes of a prefix tree in depth-first order. A node is one id after one beginning; its position id is
its depth, and it attends to its own beginning and to nothing else. The result is the same sum of the same terms as one
row per text, so it differs by rounding alone; whether a model honours position ids and such masks is tried once per
live module, else texts stay apart. Saves a fifth to a quarter of the ids of CrowS-Pairs, half of a two-choice
question, most of one with twelve answers.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from pythia_tools.models.score import max_positions

MOST_IDS = 512
CELLS_PER_ID = 1.5
"""One id saved pays for this many attention cells per unit of hidden size. By operations it would be 6 (24·d² for an
id, 4·d for a cell), but attention over rows this short runs at a quarter of the speed of matrix products."""
_masks: weakref.WeakKeyDictionary[nn.Module, torch.dtype | None] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Row:
    """One row of a batch: the nodes' `ids`, their `positions` in their texts, and the texts in it.

    `ends[i]` is the index after the last node that follows node i in any text, so that node j sees node i exactly when
    i ≤ j < ends[i]. `places[t]` are the indices of text t's ids in the row, in the text's order.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    ends: tuple[int, ...]
    texts: tuple[tuple[int, ...], ...]
    places: tuple[np.ndarray, ...]

    @property
    def packed(self) -> bool:
        return len(self.texts) > 1


def rows_of(texts: Iterable[tuple[int, ...]], *, pack: bool, most: int = 1 << 30, hidden: int = 512) -> list[Row]:
    """Distinct texts as rows, longest rows first; with `pack`, those that begin alike together where that saves time.

    most: texts in a row. hidden: the model's width, which decides how much attention a saved id is worth.
    """
    groups: list[list[tuple[int, ...]]] = []
    size = 0
    for text in sorted(texts):
        if pack and groups and len(groups[-1]) < most:
            shared = _alike(groups[-1][-1], text)  # in sorted order, the most it shares with any text before
            whole = size + len(text) - shared
            more_cells = whole**2 - size**2 - len(text) ** 2
            if whole <= MOST_IDS and shared and more_cells <= CELLS_PER_ID * hidden * shared:
                groups[-1].append(text)
                size = whole
                continue
        groups.append([text])
        size = len(text)
    return sorted((_row(group) for group in groups), key=lambda r: (-len(r.ids), r.ids))


def _alike(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many ids two texts have in common from the beginning."""
    for k, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return k
    return min(len(a), len(b))


def _row(group: list[tuple[int, ...]]) -> Row:
    """The prefix tree of sorted texts: each text continues the path of the one before where they part."""
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    places: list[np.ndarray] = []
    path: list[int] = []
    for before, text in pairwise([(), *group]):
        path = path[: _alike(before, text)]
        new = range(len(ids), len(ids) + len(text) - len(path))
        ids += text[len(path) :]
        positions += range(len(path), len(text))
        path = [*path, *new]
        ends += [0] * len(new)
        for node in path:
            ends[node] = len(ids)
        places.append(np.array(path, dtype=np.int64))
    return Row(tuple(ids), tuple(positions), tuple(ends), tuple(group), tuple(places))


def tree_mask(ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(b, 1, T, T) attention mask from (b, T) ends (padding: its own index + 1): bool, or additive in a float `dtype`.
    """
    place = torch.arange(ends.shape[1], device=ends.device)
    allowed = ((place[None, :] <= place[:, None]) & (place[:, None] < ends[:, None, :]))[:, None]
    if dtype == torch.bool:
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=ends.device).masked_fill(~allowed, torch.finfo(dtype).min)


@torch.no_grad()
def mask_type(model: nn.Module) -> torch.dtype | None:
    """The kind of mask with which a packed row gives this live module's own logits, None if none does; tried once.

    Boolean masks are the quicker ones; some attentions add what they are given, and these need the model's own type.
    """
    if model not in _masks:
        kinds = (torch.bool, next(model.parameters()).dtype)
        _masks[model] = next((kind for kind in kinds if _try(model, kind)), None)
    return _masks[model]


def _try(model: nn.Module, kind: torch.dtype) -> bool:
    """Three texts, together and apart: as long as a row may hold, so that attention over a window only shows."""
    live: Any = model
    weight = next(model.parameters())
    size, long = int(live.config.vocab_size), min(MOST_IDS - 8, max_positions(model))
    draw = np.random.default_rng(0).integers(0, size, long + 8).tolist()
    texts = [tuple(draw[:long]), (*draw[: long - 6], *draw[long : long + 6]), (*draw[:5], *draw[-2:])]
    row = _row(sorted(texts))
    mask = tree_mask(torch.tensor([row.ends], device=weight.device), kind)
    ids, positions = (torch.tensor([v], device=weight.device) for v in (row.ids, row.positions))
    try:
        together = live(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits[0].float()
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):  # it takes no such mask
        return False
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2  # of the largest logit, small as all may be at step 0
    for text, places in zip(row.texts, row.places, strict=True):
        alone = live(input_ids=torch.tensor([text], device=weight.device), use_cache=False).logits[0].float()
        here = together[torch.from_numpy(places).to(weight.device)]
        if not bool((here - alone).abs().max() <= tolerance * alone.abs().max()):  # nor where any is NaN
            return False
    return True
