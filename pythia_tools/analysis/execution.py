"""Where and how to compute: one small record instead of long parameter lists.

    measure(checkpoints, rows, device="cuda", dtype="bfloat16", cells=CellStore("cells"))

Functions that sweep checkpoints take these as keywords (`**where: Unpack[Where]`) and make one Execution of them.
"""

from dataclasses import dataclass
from typing import TypedDict

import torch

from pythia_tools.core.results import CellStore


class Where(TypedDict, total=False):
    """The keywords of an Execution; see there."""

    device: str | torch.device
    dtype: str | torch.dtype | None
    batch_size: int | None
    cells: CellStore | None
    shard: tuple[int, int] | None
    prefetch: bool
    allow_defective: bool


@dataclass(frozen=True)
class Execution:
    """device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`; dtype: None for the suite's own policy.

    batch_size: rows or items per forward pass, None for one that fits; cells: where finished cells are kept and found
    again; shard (i, n): compute the i-th of n parts only (0-based); prefetch: fetch the next checkpoint while one
    computes; allow_defective: go on with checkpoints that are known to be wrong. Of these only dtype changes a number.
    """

    device: str | torch.device = "auto"
    dtype: str | torch.dtype | None = None
    batch_size: int | None = None
    cells: CellStore | None = None
    shard: tuple[int, int] | None = None
    prefetch: bool = True
    allow_defective: bool = False
