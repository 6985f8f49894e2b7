"""How many near-duplicates LSH found in the corpus at hand: a sample of documents judged exactly.

A uniform sample of the documents is drawn while they are signed, and its sets are kept. When the input is read once
more, every document is compared with the sample exactly, so all near-duplicates of a sampled document are known; the
recall is the share of them that lies in its cluster, averaged over the sampled documents that have any. The interval
is Wilson's at as many documents as the clusters of near-duplicates are worth, since documents of one cluster share
their fate.
Cost: sets of all documents once more (0.4 s per 100 MB on one core), and one look-up per shingle.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from pythia_tools.core.statistics import Estimate, mean
from pythia_tools.dedup.sets import ShingleSets

UNIT = "cluster of near-duplicates"


@dataclass(frozen=True)
class Sample:
    """Documents by number, ascending, and their sets, none of them empty."""

    documents: np.ndarray
    sets: ShingleSets

    def near_duplicates(self, sets: ShingleSets, first: int, threshold: float) -> np.ndarray:
        """Of documents first, first + 1, … with these sets, those within the threshold of a sampled one: (k, 2) int64,
        sampled document and document."""
        owners = np.repeat(np.arange(len(self.documents)), self.sets.sizes)
        order = np.argsort(self.sets.values)
        keys, sizes = self.sets.values[order], self.sets.sizes
        found = _matches(sets.values, sets.offsets, keys, owners[order], sizes, threshold)
        return np.stack([self.documents[found[:, 0]], found[:, 1] + first], axis=1)


def draw(count: int, wanted: int, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, priorities) of at most `wanted` of `count` documents. Of several such draws together, those of the
    lowest priority are a uniform sample of all documents."""
    priorities = np.random.default_rng(seed).random(count)
    numbers = np.sort(np.argsort(priorities)[:wanted])
    return numbers, priorities[numbers]


def recall(pairs: np.ndarray, roots: np.ndarray) -> Estimate:
    """Mean share of a sampled document's near-duplicates in its cluster; pairs (k, 2) as Sample.near_duplicates."""
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return Estimate(float("nan"), unit=UNIT)
    sampled, of = np.unique(pairs[:, 0], return_inverse=True)
    together = roots[pairs[:, 0]] == roots[pairs[:, 1]]
    smallest = sampled.copy()
    np.minimum.at(smallest, of, pairs[:, 1])
    return mean(np.bincount(of, weights=together) / np.bincount(of), unit=UNIT, clusters=smallest, share=True)


@njit(nogil=True, cache=True)
def _matches(values, offsets, keys, owners, sizes, threshold):  # type: ignore[no-untyped-def]
    """(sampled, document) of all pairs with J ≥ threshold; `keys`: sampled shingles in order, `owners`: whose."""
    bits = 1
    while (1 << bits) < len(keys) and bits < 22:
        bits += 1
    shift = np.uint64(64 - bits)
    heads = np.searchsorted(keys, np.arange(1 << bits).astype(np.uint64) << shift)  # where keys of each top begin
    shared = np.zeros(len(sizes), np.int64)
    met = np.empty(len(sizes), np.int64)
    out, held = np.empty((1024, 2), np.int64), 0
    for d in range(len(offsets) - 1):
        many = 0
        for i in range(offsets[d], offsets[d + 1]):
            k = heads[values[i] >> shift]
            while k < len(keys) and keys[k] <= values[i]:
                if keys[k] == values[i]:
                    if shared[owners[k]] == 0:
                        met[many] = owners[k]
                        many += 1
                    shared[owners[k]] += 1
                k += 1
        for m in met[:many]:
            if shared[m] / (sizes[m] + offsets[d + 1] - offsets[d] - shared[m]) >= threshold:
                if held == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                out[held, 0], out[held, 1] = m, d
                held += 1
            shared[m] = 0
    return out[:held]
