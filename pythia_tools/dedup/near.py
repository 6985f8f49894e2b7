"""Near-duplicate clusters of documents held in memory: the front door of the package.

For corpora on disk see stages.py, which takes the same options and survives being killed.
"""

from typing import Any

import numpy as np

from pythia_tools.core.parallel import worker_count
from pythia_tools.dedup.config import DEFAULT, DedupConfig
from pythia_tools.dedup.connected import components, flatten, join_buckets, kept_member, members, preference
from pythia_tools.dedup.exact import exact_links, join_verified
from pythia_tools.dedup.lsh import buckets_by_band
from pythia_tools.dedup.sets import shingle_sets
from pythia_tools.dedup.shingles import Documents, pack
from pythia_tools.dedup.signatures import sign
from pythia_tools.dedup.stars import stars


def near_duplicates(
    texts: Documents, threshold: float = 0.87, *, method: str = "exact", ngram: int = 5, unit: str = "word",
    workers: int | None = None, **options: Any,
) -> list[list[int]]:
    """Clusters of near-duplicate documents: connected components of the pairs with Jaccard similarity ≥ threshold.

    Args:
        texts: documents; lists of token ids with `unit="token"`.
        threshold: Jaccard similarity of the sets of shingles, in (0, 1].
        method: `exact` finds every pair; `lsh` takes documents that share a band of their MinHash signatures, which
            finds a pair at the threshold with a probability that `dedup.curve_in_words` states (0.45 by default).
        ngram, unit: units per shingle, and what a unit is: `word` (str.split), `char` or `token`.
        workers: threads; one per core by default.
        options: further fields of DedupConfig, clustering and keep; for `lsh` also num_perm, seed, scheme, hashing,
            bands, rows, verify.

    Returns:
        Clusters of at least two document numbers, ascending; clusters ordered by their first. Empty documents match
        nothing. Being connected components, a cluster may hold two documents below the threshold to each other;
        with `clustering="stars"` each lies within the threshold of the one that is kept (the first, or as `keep` says).

    Raises: RequestError on a wrong option.
    """
    config = DedupConfig(method=method, threshold=threshold, ngram=ngram, unit=unit, **options)
    return members(near_duplicate_roots(texts, config, workers))


def near_duplicate_roots(texts: Documents, config: DedupConfig = DEFAULT, workers: int | None = None) -> np.ndarray:
    """As near_duplicates; returns each document's cluster, named by its smallest member: int64 (n,)."""
    packed, threads = pack(texts, config.unit), worker_count(workers)
    sets = shingle_sets(packed, config.ngram, threads) if config.needs_sets else None
    roots = np.arange(len(packed), dtype=np.int64)
    if sets is not None and config.method == "exact":
        roots = components(len(packed), *exact_links(sets, config.threshold, threads))
    else:
        for documents, begins in buckets_by_band(sign(packed, config, threads), *config.bands_and_rows()):
            if sets is None or not config.verify:
                join_buckets(roots, documents, begins)
            else:
                join_verified(roots, documents, begins, documents, sets.values, sets.offsets, config.threshold)
        flatten(roots)
    if sets is not None and config.clustering == "stars":
        rank = preference(len(packed), config.keep, np.diff(packed.offsets))
        return stars(roots, rank, config.threshold, lambda documents: (sets, documents))
    return roots


def kept_documents(texts: Documents, config: DedupConfig = DEFAULT, workers: int | None = None) -> np.ndarray:
    """Numbers of the documents that stay when all but one of each cluster are dropped; int64, ascending.

    With `unit="token"` and a list of rows this gives the rows of a deduplicated twin.
    """
    packed = pack(texts, config.unit)
    kept = kept_member(near_duplicate_roots(packed, config, workers), config.keep, np.diff(packed.offsets))
    return np.flatnonzero(kept == np.arange(len(kept)))
