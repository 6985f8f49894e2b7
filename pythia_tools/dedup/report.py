"""What a deduplication dropped: members of clusters, cluster sizes, which kinds of documents repeat, bytes and tokens.

Cost: one pass over the labels.
"""

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.statistics import Estimate
from pythia_tools.dedup.cluster import text_bytes
from pythia_tools.dedup.config import DedupConfig
from pythia_tools.dedup.parts import Part
from pythia_tools.dedup.sign import Labels
from pythia_tools.tokens.documents import repaired

SIZE_EDGES = (2, 3, 4, 6, 11, 101, 1001)
LARGEST = 20
METRICS = {
    "documents": tables.Metric("documents", "documents read"),
    "dropped_documents": tables.Metric("documents", "documents left out because another of their cluster was kept"),
    "dropped_of_kind": tables.Metric("documents", "of the kind that `subset` names, documents left out"),
    "clusters": tables.Metric("clusters", "clusters of two documents and more"),
    "largest_cluster": tables.Metric("documents", "documents of the largest cluster"),
    "bytes": tables.Metric("bytes", "UTF-8 bytes of all texts"),
    "dropped_bytes": tables.Metric("bytes", "those of the documents left out"),
    "dropped_share": tables.Metric("share", "documents left out, of all"),
    "dropped_byte_share": tables.Metric("share", "bytes left out, of all"),
    "dropped_below_threshold": tables.Metric("documents", "left out below the threshold to the one kept, by a chain"),
    "dropped_below_threshold_share": tables.Metric("share", "those, of the documents left out"),
    "recall": tables.Metric("share", "of a document's near-duplicates, those in its cluster; a sample judged exactly"),
}


def member_table(signed: list[Part], clusters: Part, config: DedupConfig) -> pd.DataFrame:
    """One row per member of a cluster: cluster, document, kept (its number), dropped, similarity to the kept one (1 for
    itself) and what kind of number that is, bytes, id, group, preview."""
    roots, kept = np.asarray(clusters.array("roots")), np.asarray(clusters.array("kept"))
    dropped = np.asarray(clusters.array("dropped"))
    members = np.flatnonzero(np.isin(roots, roots[dropped]))
    members = members[np.lexsort((members, roots[members]))]
    similarity = np.ones(len(roots))
    similarity[dropped] = clusters.array("similarity")
    labels = Labels(signed)
    named = [[repaired(v) for v in labels[d]] for d in members.tolist()]
    return pd.DataFrame({
        "cluster": roots[members], "document": members, "kept": kept[members], "dropped": kept[members] != members,
        "similarity": similarity[members], "similarity_kind": config.similarity_kind(),
        "bytes": text_bytes(signed)[members],
        **{name: pd.Series([n[i] for n in named], dtype="string") for i, name in enumerate(("id", "group", "preview"))},
    })


def summary_table(signed: list[Part], clusters: Part, recall: Estimate | None = None) -> pd.DataFrame:
    """Counts as a summary table: of all documents, and how many were dropped of each kind, which `subset` names."""
    roots, kept = np.asarray(clusters.array("roots")), np.asarray(clusters.array("kept"))
    gone = kept != np.arange(len(kept))
    sizes = np.bincount(roots, minlength=len(roots))[np.unique(roots)] if len(roots) else np.zeros(1, np.int64)
    lengths = text_bytes(signed)
    count, below = len(roots), clusters.facts["below_threshold"]
    values: dict[str, float] = {
        "documents": count, "dropped_documents": gone.sum(), "clusters": (sizes > 1).sum(),
        "largest_cluster": sizes.max(), "bytes": lengths.sum(), "dropped_bytes": lengths[gone].sum(),
        "dropped_share": gone.sum() / max(1, count),
        "dropped_byte_share": lengths[gone].sum() / max(1, lengths.sum()),
        "dropped_below_threshold": below, "dropped_below_threshold_share": below / max(1, int(gone.sum())),
    }
    shared = {"unit": "document", "interval": "none"}
    rows = [{**shared, "metric": metric, "value": float(value), "n": count} for metric, value in values.items()]
    rows += [] if recall is None else [{"metric": "recall", **recall.columns()}]
    kinds = kind_table(signed, clusters)[["kind", "dropped", "documents"]]
    for kind, dropped, documents in kinds.itertuples(index=False, name=None):
        rows.append({**shared, "subset": kind, "metric": "dropped_of_kind", "value": float(dropped), "n": documents})
    return tables.summary(rows, analysis="dedup", metrics=METRICS)


def kind_table(signed: list[Part], clusters: Part) -> pd.DataFrame:
    """Which kinds of documents repeat: kind, documents, dropped, share, dropped_bytes; most dropped first."""
    kept = np.asarray(clusters.array("kept"))
    kinds = pd.Series([repaired(group) for _, group, _ in Labels(signed)], dtype="string")
    frame = pd.DataFrame({"kind": kinds, "dropped": kept != np.arange(len(kept)), "bytes": text_bytes(signed)})
    frame["dropped_bytes"] = frame.bytes * frame.dropped
    grouped = frame.groupby("kind").agg(
        documents=("dropped", "size"), dropped=("dropped", "sum"), dropped_bytes=("dropped_bytes", "sum"),
    )
    grouped["share"] = grouped.dropped / grouped.documents
    return grouped.reset_index().sort_values(["dropped", "kind"], ascending=[False, True], ignore_index=True)


def size_table(clusters: Part) -> pd.DataFrame:
    """Clusters by size: from, to (inclusive), clusters, documents."""
    roots = np.asarray(clusters.array("roots"))
    sizes = np.bincount(roots, minlength=1)
    sizes = sizes[sizes > 1]
    rows = []
    for low, high in zip(SIZE_EDGES, (*SIZE_EDGES[1:], None), strict=True):
        inside = sizes[(sizes >= low) & (sizes < (high or np.inf))]
        if len(inside):
            last = (high or int(inside.max()) + 1) - 1
            rows.append({"from": low, "to": last, "clusters": len(inside), "documents": int(inside.sum())})
    return pd.DataFrame(rows, columns=["from", "to", "clusters", "documents"])


def largest_clusters(members: pd.DataFrame, count: int = LARGEST) -> pd.DataFrame:
    """The largest clusters: cluster, documents, least similarity to the kept one, id and preview of the kept one."""
    grouped = members.groupby("cluster").agg(documents=("document", "size"), least_similarity=("similarity", "min"))
    kept = members[~members.dropped].set_index("cluster")[["id", "preview"]]
    return grouped.join(kept).sort_values("documents", ascending=False, kind="stable").head(count).reset_index()
