"""Connected components of the graph of pairs, which are the clusters, and which member of each is kept.

Two documents of one cluster need not be similar themselves; a chain of pairs between them is enough. So a dropped
document may lie below the threshold to the kept one: the similarity to it is written beside every dropped document.
Cost: about 20 ns per pair.
"""

import numpy as np
from numba import njit

from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.config import check_choice


@njit(nogil=True, cache=True)
def find(parents, i):  # type: ignore[no-untyped-def]
    """Root of i, halving the path on the way; a root is the smallest member."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(nogil=True, cache=True)
def join(parents, i, j):  # type: ignore[no-untyped-def]
    """Put i and j into one component."""
    i, j = find(parents, i), find(parents, j)
    if i < j:
        parents[j] = i
    else:
        parents[i] = j


@njit(nogil=True, cache=True)
def join_buckets(parents, members, begins):  # type: ignore[no-untyped-def]
    """Put the members of each bucket, members[begins[k] : begins[k + 1]], into one component."""
    for bucket in range(len(begins) - 1):
        for i in range(begins[bucket] + 1, begins[bucket + 1]):
            join(parents, members[i - 1], members[i])


@njit(nogil=True, cache=True)
def flatten(parents):  # type: ignore[no-untyped-def]
    """Every document's root in place of its parent."""
    for i in range(len(parents)):
        parents[i] = find(parents, i)


def components(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Component of each of `count` documents, named by its smallest member; int64 (count,)."""
    parents = np.arange(count, dtype=np.int64)
    pairs = np.stack([left, right], axis=1).astype(np.int64).ravel()
    join_buckets(parents, pairs, np.arange(0, len(pairs) + 1, 2))
    flatten(parents)
    return parents


def members(roots: np.ndarray) -> list[list[int]]:
    """Clusters of at least two documents, members in order, clusters by their first member."""
    inside = np.flatnonzero(np.bincount(roots, minlength=1)[roots] > 1)
    order = inside[np.argsort(roots[inside], kind="stable")]
    cuts = np.flatnonzero(np.diff(roots[order])) + 1
    return [cluster.tolist() for cluster in np.split(order, cuts)] if len(order) else []


def preference(count: int, rule: str = "first", lengths: np.ndarray | None = None) -> np.ndarray:
    """Rank of each document under a rule of DedupConfig.keep: of a cluster the lowest is kept; int64 (count,).

    Raises: RequestError on an unknown rule, or `longest` without lengths.
    """
    check_choice("keep", rule)
    numbers = np.arange(count, dtype=np.int64)
    if rule != "longest":
        return numbers if rule == "first" else -numbers
    if lengths is None:
        raise RequestError("keep rule 'longest' needs the documents' lengths")
    rank = np.empty(count, np.int64)
    rank[np.lexsort((numbers, -np.asarray(lengths)))] = numbers  # among equals the first
    return rank


def kept_member(roots: np.ndarray, rule: str = "first", lengths: np.ndarray | None = None) -> np.ndarray:
    """For each document the member of its cluster that is kept (itself when alone); int64. Raises as `preference`."""
    order = np.argsort(preference(len(roots), rule, lengths))[::-1]
    best = roots.astype(np.int64)
    best[roots[order]] = order  # a later assignment wins
    return best[roots]
