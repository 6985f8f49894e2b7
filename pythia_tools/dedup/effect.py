"""What deduplication changes for training: exposures per remaining document under an order, before and after.

Before: the order as it is; a kept document's content is also met in the members dropped for it, so the exposures of a
cluster's members are added. After: the same store, seed, row length and number of rows, built from kept documents only;
the run is as long, so what remains is seen more often.
Cost: one pass over the order's maps, twice.
"""

import os
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core.errors import RequestError
from pythia_tools.counts.documents import document_exposures, packed_rows
from pythia_tools.dedup.sign import Labels
from pythia_tools.dedup.stages import stored_parts
from pythia_tools.order import DataOrder, build_index_maps, packed_order
from pythia_tools.tokens.documents import repaired

DEFAULT_SEED = 1234
CLUSTER_SIZES = {1: "1 (unique)", 2: "2", 3: "3 to 5", 6: "6 to 20", 21: "21 and more"}


def exposure_effect(
    folder: str | os.PathLike[str], order: DataOrder, provenance: pd.DataFrame, *, step: int | None = None,
    seed: int = DEFAULT_SEED,
) -> pd.DataFrame:
    """Per kept document of the order's store, times its tokens are trained on by a step, before and after.

    Args:
        folder: a finished deduplication.
        order: an order with index maps over the store of the same documents.
        provenance: of that store (tokens.tokenize.read_provenance); documents are matched by id.
        step: checkpoint; the order's last by default.
        seed: of the order after.

    Returns:
        document (in the store), id, tokens, members (of its cluster), before, after (mean times per token).

    Raises: RequestError when ids do not match one to one, or the order holds no document boundaries.
    """
    signed, clusters = stored_parts(folder)
    kept = _kept_in_store(Labels(signed), np.asarray(clusters.array("kept")), provenance)
    step = order.steps if step is None else step
    rows = packed_rows(order)
    before = document_exposures(order, step)["mean"].fillna(0.0).to_numpy()
    remaining = np.flatnonzero(kept == np.arange(len(kept)))
    length, count = order.seq_length, order.batch_rows
    maps = build_index_maps(rows.store.sizes, length, seed, max(1, step * count), documents=remaining)
    twin = packed_order(rows.store, maps, length, count, name=f"{order.name}-deduplicated", steps=step)
    after = document_exposures(twin, step)["mean"].fillna(0.0).to_numpy()
    members = np.bincount(kept, minlength=len(kept))
    summed = np.bincount(kept, weights=before, minlength=len(kept))
    return pd.DataFrame({
        "document": remaining, "id": provenance.id.to_numpy()[remaining], "tokens": rows.store.sizes[remaining],
        "members": members[remaining], "before": summed[remaining], "after": after[remaining],
    })


def effect_summary(effect: pd.DataFrame, tokens: int) -> pd.DataFrame:
    """Token-weighted mean exposures by cluster size: members, documents, before, after; attrs: the tokens removed."""
    classes = pd.cut(effect.members, [*CLUSTER_SIZES, np.inf], right=False, labels=[*CLUSTER_SIZES.values()])
    rows: list[dict[str, Any]] = []
    for name, chosen in [*effect.groupby(classes, observed=True), ("all", effect)][: None if len(effect) else 0]:
        rows.append({
            "members": name, "documents": len(chosen), "tokens": int(chosen.tokens.sum()),
            **{when: float(np.average(chosen[when], weights=chosen.tokens)) for when in ("before", "after")},
            "most_before": float(chosen.before.max()), "most_after": float(chosen.after.max()),
        })
    table = pd.DataFrame(rows)
    table.attrs["tokens_removed"] = int(tokens - effect.tokens.sum())
    return table


def _kept_in_store(labels: Labels, kept: np.ndarray, provenance: pd.DataFrame) -> np.ndarray:
    """For each document of the store the store number of its kept one."""
    ids = [repaired(name) for name, _, _ in labels]
    if len(set(ids)) != len(ids):
        raise RequestError("ids of the deduplicated documents repeat, so they match no store; name an --id-key")
    place = {name: i for i, name in enumerate(provenance.id.tolist())}
    store_of = np.array([place.get(name, -1) for name in ids], np.int64)
    found = store_of >= 0
    targets = store_of[kept[found]]
    if int(found.sum()) != len(provenance) or (targets < 0).any():
        held = f"{int(found.sum())} of them in this deduplication, {int((targets < 0).sum())} without their kept one"
        raise RequestError(f"the store has {len(provenance)} documents, {held}; both need the same input")
    out = np.arange(len(provenance))
    out[store_of[found]] = targets
    return out
