"""Finished work, kept by what it was computed on, never by a name: weights digest, task and its version, part.

One parquet file per cell, written whole or not at all, with a checksum on every page; so a run that is killed resumes
at the next cell, and a cell is removed only when its own bytes prove that it is damaged. Cost: a few milliseconds per
cell.
"""

import io
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_tools.core import progress
from pythia_tools.core.files import atomic_write, digest, sweep_parts

FORMAT = 2
"""Raised when the way cells are stored changes. What a task computes has a version of its own, in the key."""


class CellStore:
    """A folder of cells. `key` is any JSON-able value; equal keys name the same cell.

    Opening it deletes what a killed process left half-written; `only_look` leaves the folder as it is (for plans).
    """

    def __init__(self, folder: str | os.PathLike[str], *, only_look: bool = False):
        self.folder = Path(folder)
        if not only_look:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep_parts(self.folder)

    def path(self, key: object) -> Path:
        return self.folder / f"{digest([FORMAT, key])[:40]}.parquet"

    def has(self, key: object) -> bool:
        return self.path(key).exists()

    def get(self, key: object) -> pd.DataFrame | None:
        """The stored frame; None when there is none, or when its bytes are damaged (it is then removed, with a
        warning).

        Raises the operating system's error when the file is there but cannot be read now: that says nothing about it.
        """
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return parsed(data)
        except (pa.ArrowException, OSError, ValueError) as error:  # of bytes in memory: damaged, not unreachable
            progress.warn(f"{path}: damaged ({' '.join(str(error).split())[:80]}); removed, it will be computed again")
            path.unlink(missing_ok=True)
            return None

    def put(self, key: object, frame: pd.DataFrame) -> pd.DataFrame:
        """Keep a frame and return it as it will be read back, so that resumed and uninterrupted work give equal tables.
        """
        data = stored(frame)
        with atomic_write(self.path(key)) as handle:
            handle.write(data)
        return parsed(data)


def stored(frame: pd.DataFrame) -> bytes:
    """A frame as the bytes of a parquet file with page checksums."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), out, write_page_checksum=True)
    return out.getvalue()


def parsed(data: bytes) -> pd.DataFrame:
    """The frame of `stored` bytes."""
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True).to_pandas()
