"""Stars: clusters in which every dropped document lies within the threshold of the kept one.

A connected component may be a chain: a ~ b ~ c, with a and c far apart, and dropping c for a's sake loses text. So
each component is gone through in order of preference, and a document is dropped for the first kept one whose exact
similarity to it reaches the threshold; when there is none it is kept, and others may be dropped for it.
Cost: a component of m members and k kept ones takes up to m·k comparisons; memory is their sets.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

from pythia_tools.dedup.exact import jaccard
from pythia_tools.dedup.sets import ShingleSets

DOCUMENTS_AT_ONCE = 1 << 14


def stars(
    roots: np.ndarray, rank: np.ndarray, threshold: float,
    sets_of: Callable[[np.ndarray], tuple[ShingleSets, np.ndarray]],
) -> np.ndarray:
    """Components cut into stars, each named by its smallest member; int64 (n,).

    `rank` (n,) is the documents' preference (see connected.preference); `sets_of(documents)` gives sets and, for each
    of the documents, its number among them.
    """
    inside = np.flatnonzero(np.bincount(roots, minlength=1)[roots] > 1)
    order = inside[np.lexsort((rank[inside], roots[inside]))]
    begins = np.append(np.flatnonzero(np.diff(roots[order], prepend=-1)), len(order))
    out, at = roots.copy(), 0
    while at < len(begins) - 1:
        end = max(at + 1, int(np.searchsorted(begins, begins[at] + DOCUMENTS_AT_ONCE, "right")) - 1)
        documents = order[begins[at] : begins[end]]
        sets, numbers = sets_of(documents)
        centres = np.arange(len(documents))
        _centres(begins[at : end + 1] - begins[at], numbers, sets.values, sets.offsets, threshold, centres)
        names = documents.copy()
        np.minimum.at(names, centres, documents)
        out[documents] = names[centres]
        at = end
    return out


@njit(nogil=True, cache=True)
def _centres(begins, numbers, values, offsets, threshold, centres):  # type: ignore[no-untyped-def]
    """centres[i] = the first kept member of i's component within the threshold of i, else i, which is then kept."""
    for component in range(len(begins) - 1):
        for i in range(begins[component], begins[component + 1]):
            for j in range(begins[component], i):
                if centres[j] == j and jaccard(values, offsets, numbers[i], numbers[j]) >= threshold:
                    centres[i] = j
                    break
