"""Computed cells, kept by what was computed on, never by a name: digest of the weights, task, code version, part.

One parquet file per cell, written whole or not at all, so a sweep that is killed resumes at the next cell.
Cost: a few milliseconds per cell.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from pythia_tools.core.files import atomic_write, digest, sweep_parts

CODE_VERSION = 1
"""Raised whenever an analysis changes what it computes, so that stale cells are not taken for new ones."""


class CellStore:
    """A folder of cells. `key` is any JSON-able value; equal keys name the same cell.

    Opening it sweeps what a killed process left half-written; `only_look` leaves the folder as it is (for plans).
    """

    def __init__(self, folder: str | os.PathLike[str], *, only_look: bool = False):
        self.folder = Path(folder)
        if not only_look:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep_parts(self.folder)

    def path(self, key: object) -> Path:
        return self.folder / f"{digest([CODE_VERSION, key])[:40]}.parquet"

    def get(self, key: object) -> pd.DataFrame | None:
        """The stored frame, or None; an unreadable file counts as absent and is computed again."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            return pd.read_parquet(path)
        except Exception:
            path.unlink(missing_ok=True)
            return None

    def put(self, key: object, frame: pd.DataFrame) -> None:
        with atomic_write(self.path(key)) as handle:
            frame.to_parquet(handle, index=False)
