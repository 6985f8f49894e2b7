"""What a resample holds: independent units drawn with replacement, each with all its items.

Draws depend on the number of units and the seed alone: different statistics of the same units see the same resamples.
Source: Efron & Tibshirani 1993, ch. 8 and 13; for clusters, Davison & Hinkley 1997, section 3.8.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core.errors import RequestError

RESAMPLES = 2000
_BLOCK = 1 << 20
"""Numbers held at a time."""


@dataclass(frozen=True)
class Units:
    """n independent units; `place` (items,) is the unit of each item, None when every item is a unit by itself."""

    n: int
    place: np.ndarray | None = None

    def totals(self, values: np.ndarray) -> np.ndarray:
        """(n,) sum of the items' values in each unit."""
        return values if self.place is None else np.bincount(self.place, weights=values, minlength=self.n)

    def picks(self, resamples: int, seed: int | np.random.Generator) -> Iterator[np.ndarray]:
        """(r, n) numbers of the units drawn, in blocks of bounded memory, `resamples` rows in all."""
        rng, step = np.random.default_rng(seed), max(1, _BLOCK // self.n)
        for start in range(0, resamples, step):
            yield rng.integers(0, self.n, (min(step, resamples - start), self.n))

    def items(self, resamples: int, seed: int | np.random.Generator) -> Iterator[np.ndarray]:
        """(r, m) numbers of the items drawn; r = 1 where units have several items, as m differs then."""
        if self.place is None:
            yield from self.picks(resamples, seed)
            return
        members = np.split(np.argsort(self.place, kind="stable"), np.cumsum(np.bincount(self.place))[:-1])
        for block in self.picks(resamples, seed):
            for pick in block:
                yield np.concatenate([members[unit] for unit in pick])[None]

    def weights(self, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
        """(resamples, items) how often each item is drawn."""
        drawn = np.random.default_rng(seed).multinomial(self.n, np.full(self.n, 1 / self.n), size=resamples)
        return drawn if self.place is None else drawn[:, self.place]


def frequencies(counts: npt.ArrayLike, resamples: int, seed: int) -> np.ndarray:
    """(resamples, k) counts of k kinds of items when all are drawn again: a multinomial draw, whatever their number."""
    held = np.asarray(counts)
    return np.random.default_rng(seed).multinomial(held.sum(), held / held.sum(), size=resamples)


def units(items: int, clusters: npt.ArrayLike | None = None) -> Units:
    """The units of `items` items, by their (items,) cluster labels. Raises RequestError when a label is missing."""
    if clusters is None:
        return Units(items)
    place, names = pd.factorize(np.asarray(clusters))
    if len(place) != items or (place < 0).any():
        raise RequestError(f"{items} items have {(place >= 0).sum()} cluster labels; give one for each")
    return Units(items) if len(names) == items else Units(len(names), place)
