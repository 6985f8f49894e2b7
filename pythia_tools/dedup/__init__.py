"""Near-duplicate documents: MinHash signatures equal to datasketch's, LSH, exact Jaccard clusters, and stages on disk.

Small corpora: `near_duplicates(texts)`. Corpora on disk: `run_stages` (sign → band → cluster → filter), or the command
`pythia-tools dedup`. Names resolve on first use, since compiled kernels take a moment to load.
"""

import importlib
from typing import Any

_NAMES = {
    "minhash_signatures": "signatures", "near_duplicates": "near", "near_duplicate_roots": "near",
    "kept_documents": "near", "choose_bands": "config", "hit_probability": "config", "curve_in_words": "config",
    "DedupConfig": "config", "PRESETS": "config", "preset": "config", "components": "connected",
    "kept_member": "connected", "members": "connected", "shingle_sets": "sets", "pack": "shingles",
    "run_stages": "stages", "DedupResult": "stages", "exposure_effect": "effect", "effect_summary": "effect",
    "repeated_runs": "substrings", "run_shares": "substrings",
}

__all__ = sorted(_NAMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'pythia_tools.dedup' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"pythia_tools.dedup.{_NAMES[name]}"), name)
