"""Small stores and orders for the tests of this folder, and the slow reader they are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pythia_tools.order import IndexMaps, MapName, build_index_maps, save_maps
from pythia_tools.tokens import StoreWriter, write_index

MANIFEST = """name: {name}
kind: packed
seq_length: {length}
batch_rows: {batch_rows}
store: {{prefix: data/train}}
maps: {{folder: data}}
seed: {seed}
num_samples: {num_samples}
"""


def slow_rows(documents: list[list[int]], maps: IndexMaps, length: int) -> list[list[int]]:
    """Every row of an order, token by token: the item-by-item reader without its arithmetic."""
    stream = [token for d in maps.doc_idx for token in documents[d]]
    return [stream[s * length : s * length + length + 1] for s in maps.shuffle_idx.tolist()]


def make_documents(sizes: list[int], seed: int = 0, top: int = 50_000) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, top, n).tolist() for n in sizes]


def packed_folder(
    folder: Path, documents: list[list[int]], length: int, num_samples: int, *, batch_rows: int = 4, seed: int = 1234,
) -> IndexMaps:
    """A folder with `order.yaml` and `data/`, as a trained suite has them."""
    with StoreWriter(folder / "data" / "train") as out:
        for document in documents:
            out.add_document(document)
    maps = build_index_maps([len(d) for d in documents], length, seed, num_samples)
    save_maps(maps, MapName(folder / "data" / "train", num_samples, length, seed))
    text = MANIFEST.format(name=folder.name, length=length, batch_rows=batch_rows, seed=seed, num_samples=num_samples)
    (folder / "order.yaml").write_text(text)
    return maps


def preshuffled_store(prefix: Path, rows: np.ndarray) -> Path:
    """Rows as the published stores hold them: the document index is [0] alone."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    rows.tofile(prefix.with_name(prefix.name + ".bin"))
    write_index(prefix.with_name(prefix.name + ".idx"), rows.dtype, np.full(*rows.shape), np.array([0]))
    return prefix
