"""How GPT-NeoX divides documents and hands rows to ranks.

Split strings decide which documents an order holds; a layout says which rows a rank trains on in which micro-step.
Global step t consumes rows [B*t, B*(t+1)) under every layout.
"""

import math
from dataclasses import dataclass

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

    def span(self, step: int, rank: int, micro_step: int = 0) -> tuple[int, int]:
        """Rows [a, b) of one rank's micro batch: arithmetic, so any step is reached without those before it."""
        if not (0 <= rank < self.world_size and 0 <= micro_step < self.accumulation):
            asked = f"rank {rank} of {self.world_size}, micro-step {micro_step} of {self.accumulation}"
            raise RequestError(f"{asked}: out of range")
        a = step * self.batch_rows + (micro_step * self.world_size + rank) * self.micro_rows
        return a, a + self.micro_rows
