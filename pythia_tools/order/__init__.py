"""The exact training order: what a model saw at each step, on disk or by range over HTTP."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pythia_tools.order.data_order import DataOrder, packed_order, store_digest
from pythia_tools.order.layout import Layout, num_samples, split_documents
from pythia_tools.order.load import load_order
from pythia_tools.order.map_files import MapName, find_maps, load_maps, save_maps, verify_maps
from pythia_tools.order.maps import IndexMaps, build_index_maps, plan_epochs, rebuild_shuffles
from pythia_tools.order.rows import ArrayRows, Rows

if TYPE_CHECKING:
    from pythia_tools.order.loader import OrderDataset, OrderLoader
    from pythia_tools.order.verify import verify_order, verify_store

__all__ = [
    "ArrayRows", "DataOrder", "IndexMaps", "Layout", "MapName", "OrderDataset", "OrderLoader", "Rows",
    "build_index_maps", "find_maps", "load_maps", "load_order", "num_samples", "packed_order", "plan_epochs",
    "rebuild_shuffles", "save_maps", "split_documents", "store_digest", "verify_maps", "verify_order", "verify_store",
]

# These need torch or pandas, which an order itself does not.
_LATER = {"OrderDataset": "loader", "OrderLoader": "loader", "verify_order": "verify", "verify_store": "verify"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"pythia_tools.order.{_LATER[name]}"), name)
    raise AttributeError(f"module 'pythia_tools.order' has no attribute {name!r}")
