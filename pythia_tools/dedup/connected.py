"""Connected components of the graph of pairs, which are the clusters, and which member of each is kept.

Two documents of one cluster need not be similar themselves; a chain of pairs between them is enough. So a dropped
document may lie below the threshold to the kept one: the similarity to it is written beside every dropped document.
Cost: about 20 ns per pair.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pythia_tools.core.errors import RequestError

KEEP_RULES = {
    "first": "the first member in the order of the input",
    "last": "the last member (what removing a document while others of its bucket remain comes to)",
    "longest": "the member with most bytes, the first of these",
}


@njit(nogil=True, cache=True)
def find(parents, i):  # type: ignore[no-untyped-def]
    """Root of i, halving the path on the way; a root is the smallest member."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(nogil=True, cache=True)
def join(parents, i, j):  # type: ignore[no-untyped-def]
    """Put i and j into one component; false when they already were."""
    i, j = find(parents, i), find(parents, j)
    if i == j:
        return False
    if i < j:
        parents[j] = i
    else:
        parents[i] = j
    return True


@njit(nogil=True, cache=True)
def join_pairs(parents, left, right):  # type: ignore[no-untyped-def]
    for i in range(len(left)):
        join(parents, left[i], right[i])


@njit(nogil=True, cache=True)
def flatten(parents):  # type: ignore[no-untyped-def]
    """Every document's root in place of its parent."""
    for i in range(len(parents)):
        parents[i] = find(parents, i)


def singles(count: int) -> np.ndarray:
    """Everyone alone: int64 array of parents."""
    return np.arange(count, dtype=np.int64)


def components(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Component of each of `count` documents, named by its smallest member; int64 (count,)."""
    parents = singles(count)
    join_pairs(parents, np.asarray(left, np.int64), np.asarray(right, np.int64))
    flatten(parents)
    return parents


def members(roots: np.ndarray) -> list[list[int]]:
    """Clusters of at least two documents, members in order, clusters by their first member."""
    sizes = np.bincount(roots, minlength=len(roots)) if len(roots) else np.empty(0, np.int64)
    inside = np.flatnonzero(sizes[roots] > 1) if len(roots) else np.empty(0, np.int64)
    order = inside[np.argsort(roots[inside], kind="stable")]
    cuts = np.flatnonzero(np.diff(roots[order])) + 1
    return [part.tolist() for part in np.split(order, cuts)] if len(order) else []


def kept_member(roots: np.ndarray, rule: str = "first", lengths: np.ndarray | None = None) -> np.ndarray:
    """For each document the member of its component that is kept (itself when alone); int64.

    Raises: RequestError on an unknown rule, or `longest` without lengths.
    """
    if rule not in KEEP_RULES:
        raise RequestError(f"keep rule {rule!r} is not known; it is one of {', '.join(KEEP_RULES)}")
    numbers = np.arange(len(roots), dtype=np.int64)
    if rule == "first":
        return roots.astype(np.int64)
    best = roots.astype(np.int64)
    if rule == "last":
        best[roots] = numbers  # a later assignment wins
        return best[roots]
    if lengths is None:
        raise RequestError("keep rule 'longest' needs the documents' lengths")
    order = np.lexsort((-numbers, lengths))  # ends with the longest; among equals with the first
    best[roots[order]] = order
    return best[roots]
