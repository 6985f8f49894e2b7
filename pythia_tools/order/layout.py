"""How GPT-NeoX divides documents, blends data sets and hands rows to ranks.

Split strings and blending decide which documents an order holds; a layout says which rank trains on a row, in which
micro-step and at which place. Global step t consumes rows [B*t, B*(t+1)) under every layout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pythia_tools.core.errors import RequestError

SAMPLES_MARGIN = 1.005


def split_documents(split: str, count: int) -> list[int]:
    """Boundaries [0, train, valid, test] of `count` documents for a split string such as "969, 30, 1" or "90/5/5".

    Fractions are normalised, each part rounded half to even, and the last boundary's overshoot taken from all three.
    Raises: RequestError when the string holds no positive number.
    """
    separator = "," if "," in split else "/"
    try:
        parts = [float(p) for p in split.split(separator)] if split.strip() else []
    except ValueError:
        says = "must be numbers divided by commas or slashes, for example 969,30,1"
        raise RequestError(f"split {split!r} {says}") from None
    parts = (parts + [0.0] * 3)[:3]
    total = sum(parts)
    if not total > 0 or min(parts) < 0 or not math.isfinite(total):
        raise RequestError(f"split {split!r} must hold numbers of 0 or more with a positive sum")
    ends = [0]
    for part in parts:
        # Rounded half to even, then int, as there.
        ends.append(ends[-1] + int(round(part / total * float(count))))  # noqa: RUF046
    over = ends[-1] - count
    return [0] + [end - over for end in ends[1:]]


def num_samples(steps: int, batch_rows: int, weight: float = 1.0, weights_sum: float = 1.0) -> int:
    """Rows a run asks an order for: steps × batch_rows × weight × 1.005, rounded up, in float64 from left to right.

    Pythia: 143,000 × 1,024 gives 147,164,160.
    """
    return math.ceil((steps * batch_rows) * weight / weights_sum * SAMPLES_MARGIN)


def blend(weights: list[float] | np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which data set each of `size` draws comes from, and its row there: (size,) uint8 and (size,) int64.

    Each draw takes the data set that lags its weight most (the first on a tie). Raises RequestError for bad weights.
    """
    shares = np.asarray(weights, dtype=np.float64)
    in_form = shares.ndim == 1 and 1 <= shares.size <= 255 and np.isfinite(shares).all()
    if not in_form or shares.min() < 0 or shares.sum() <= 0:
        raise RequestError("weights must be 1 to 255 numbers of 0 or more with a positive sum")
    from pythia_tools.order.maps_kernels import blend_draws

    which = np.empty(size, dtype=np.uint8)
    row = np.empty(size, dtype=np.int64)
    blend_draws(shares / shares.sum(), which, row)
    return which, row


def weights_by_documents(counts: list[int] | np.ndarray, alpha: float = 0.3) -> np.ndarray:
    """Blending weights ∝ |L|^alpha, damped by (1 - |L|/Σ) and normalised again; (n,) float64."""
    sizes = np.asarray(counts, dtype=np.float64)
    if sizes.ndim != 1 or sizes.size == 0 or sizes.min() < 0 or sizes.sum() <= 0:
        raise RequestError("document counts must be numbers of 0 or more with a positive sum")
    powered = sizes**alpha
    weights = powered / powered.sum() * (1 - sizes / sizes.sum())
    if weights.sum() == 0:
        return np.ones_like(sizes) / sizes.size
    return weights / weights.sum()


class Place(NamedTuple):
    """Where a row is trained on."""

    step: int
    rank: int
    micro_step: int
    position: int


@dataclass(frozen=True)
class Layout:
    """`world_size` data-parallel ranks × `accumulation` micro-steps per step, which divide its `batch_rows` evenly.

    Each micro-step takes the next block of world_size × micro rows, and rank r its r-th contiguous part.
    """

    batch_rows: int
    world_size: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        if min(self.batch_rows, self.world_size, self.accumulation) < 1:
            raise RequestError("batch_rows, world_size and accumulation must be at least 1")
        if self.batch_rows % (self.world_size * self.accumulation):
            among = f"{self.world_size} ranks × {self.accumulation} micro-steps"
            raise RequestError(f"{self.batch_rows} rows per step cannot be divided among {among}")

    @property
    def micro_rows(self) -> int:
        """Rows of one rank's micro batch."""
        return self.batch_rows // (self.world_size * self.accumulation)

    def place(self, row: int) -> Place:
        """(step, rank, micro-step, position) of a row of the order."""
        step, q = divmod(row, self.batch_rows)
        block = self.micro_rows * self.world_size
        return Place(step, q % block // self.micro_rows, q // block, q % self.micro_rows)

    def span(self, step: int, rank: int, micro_step: int = 0) -> tuple[int, int]:
        """Rows [a, b) of one rank's micro batch: arithmetic, so any step is reached without those before it."""
        if not (0 <= rank < self.world_size and 0 <= micro_step < self.accumulation):
            asked = f"rank {rank} of {self.world_size}, micro-step {micro_step} of {self.accumulation}"
            raise RequestError(f"{asked}: out of range")
        a = step * self.batch_rows + (micro_step * self.world_size + rank) * self.micro_rows
        return a, a + self.micro_rows
