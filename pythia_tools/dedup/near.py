"""Near-duplicate clusters of documents held in memory: the front door of the package.

For corpora on disk see stages.py, which takes the same options and survives being killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup import lsh
from pythia_tools.dedup.connected import components, flatten, kept_member, members, singles
from pythia_tools.dedup.exact import Pairs, check_threshold, exact_components, exact_pairs, similarities
from pythia_tools.dedup.sets import shingle_sets
from pythia_tools.dedup.shingles import Packed, pack
from pythia_tools.dedup.signatures import check, minhash_signatures

METHODS = ("exact", "lsh")


def near_duplicates(
    texts: Sequence[str] | Sequence[Sequence[int]] | Packed,
    threshold: float = 0.87,
    *,
    method: str = "exact",
    ngram: int = 5,
    unit: str = "word",
    num_perm: int = 128,
    seed: int = 1,
    scheme: str = "affine32",
    hashing: str = "sha1",
    bands: tuple[int, int] | None = None,
    verify: bool = False,
    workers: int | None = None,
) -> list[list[int]]:
    """Clusters of near-duplicate documents: connected components of the pairs with Jaccard similarity ≥ threshold.

    Args:
        texts: documents; lists of token ids with `unit="token"`.
        threshold: Jaccard similarity of the sets of shingles, in (0, 1].
        method: `exact` finds every pair; `lsh` takes documents that share a band of their MinHash signatures, which
            finds a pair at the threshold with a probability that `dedup.curve_in_words` states (0.45 by default).
        ngram, unit: units per shingle, and what a unit is: `word` (str.split), `char` or `token`.
        num_perm, seed, scheme, hashing: of the signatures, for `lsh`; see minhash_signatures.
        bands: (bands, rows) for `lsh`; by default chosen for the threshold as datasketch does.
        verify: for `lsh`, keep a candidate only if its exact similarity reaches the threshold.
        workers: threads; all processors by default.

    Returns:
        Clusters of at least two document numbers, ascending; clusters ordered by their first. Empty documents match
        nothing. Being connected components, a cluster may hold two documents below the threshold to each other.

    Raises: RequestError on a wrong option.
    """
    return members(near_duplicate_roots(
        texts, threshold, method=method, ngram=ngram, unit=unit, num_perm=num_perm, seed=seed, scheme=scheme, hashing=hashing,
        bands=bands, verify=verify, workers=workers,
    ))


def kept_documents(
    texts: Sequence[str] | Sequence[Sequence[int]] | Packed, threshold: float = 0.87, *, keep: str = "first", unit: str = "word",
    **options: Any,
) -> np.ndarray:
    """Numbers of the documents that stay when all but one of each cluster are dropped; int64, ascending.

    With `unit="token"` and a list of rows this gives the rows of a deduplicated twin. Options as for near_duplicates;
    keep is `first`, `last` or `longest`.
    """
    packed = pack(texts, unit)
    roots = near_duplicate_roots(packed, threshold, unit=unit, **options)
    kept = kept_member(roots, keep, np.diff(packed.offsets))
    return np.flatnonzero(kept == np.arange(len(kept)))


def near_duplicate_roots(
    texts: Sequence[str] | Sequence[Sequence[int]] | Packed, threshold: float = 0.87, *, method: str = "exact", ngram: int = 5,
    unit: str = "word", num_perm: int = 128, seed: int = 1, scheme: str = "affine32", hashing: str = "sha1",
    bands: tuple[int, int] | None = None,
    verify: bool = False, workers: int | None = None,
) -> np.ndarray:
    """As near_duplicates; returns each document's cluster, named by its smallest member: int64 (n,)."""
    packed, threads = _checked(texts, threshold, method, ngram, unit, num_perm, scheme, hashing, workers)
    if method == "exact":
        return exact_components(shingle_sets(packed, ngram, threads), threshold, threads)
    signatures = minhash_signatures(packed, num_perm, seed, ngram, scheme=scheme, hashing=hashing, unit=unit, workers=threads)
    b, r = bands or lsh.choose_bands(threshold, num_perm)
    if verify:
        pairs = _verified(packed, *lsh.candidate_pairs(signatures, b, r), threshold, ngram, threads)
        return components(len(packed), pairs.left, pairs.right)
    parents = singles(len(packed))
    lsh.components_of_buckets(signatures, b, r, parents)
    flatten(parents)
    return parents


def near_duplicate_pairs(
    texts: Sequence[str] | Sequence[Sequence[int]] | Packed, threshold: float = 0.87, *, method: str = "exact", ngram: int = 5,
    unit: str = "word", num_perm: int = 128, seed: int = 1, scheme: str = "affine32", hashing: str = "sha1",
    bands: tuple[int, int] | None = None,
    verify: bool = False, workers: int | None = None,
) -> Pairs:
    """The pairs behind the clusters, with exact similarities; (n choose 2) of them for n equal documents.

    Without `verify`, `lsh` gives its candidates as they are, those below the threshold included.
    """
    packed, threads = _checked(texts, threshold, method, ngram, unit, num_perm, scheme, hashing, workers)
    if method == "exact":
        return exact_pairs(shingle_sets(packed, ngram, threads), threshold, threads)
    signatures = minhash_signatures(packed, num_perm, seed, ngram, scheme=scheme, hashing=hashing, unit=unit, workers=threads)
    left, right = lsh.candidate_pairs(signatures, *(bands or lsh.choose_bands(threshold, num_perm)))
    return _verified(packed, left, right, threshold if verify else 0.0, ngram, threads)


def _checked(  # type: ignore[no-untyped-def]
    texts, threshold: float, method: str, ngram: int, unit: str, num_perm: int, scheme: str, hashing: str,
    workers: int | None,
) -> tuple[Packed, int]:
    check_threshold(threshold)
    check(num_perm, ngram, scheme, unit, hashing)
    if method not in METHODS:
        raise RequestError(f"method {method!r} is not known; it is exact or lsh")
    return pack(texts, unit), worker_count(workers)


def _verified(packed: Packed, left: np.ndarray, right: np.ndarray, threshold: float, ngram: int, threads: int) -> Pairs:
    """Candidates with their exact similarity, those below the threshold left out. Only documents in a pair are hashed."""
    involved, numbers = np.unique(np.concatenate([left, right]), return_inverse=True)
    sets = shingle_sets(take(packed, involved), ngram, threads)
    found = similarities(sets, numbers[: len(left)], numbers[len(left) :])
    good = found >= threshold
    return Pairs(left[good], right[good], found[good])


def take(packed: Packed, documents: np.ndarray) -> Packed:
    """Some documents, packed anew in the order given."""
    pieces = [packed.data[packed.offsets[d] : packed.offsets[d + 1]] for d in documents.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces], dtype=np.int64)]).astype(np.int64)
    return Packed(np.concatenate([*pieces, np.zeros(64, np.uint8)]), offsets, packed.unit)
