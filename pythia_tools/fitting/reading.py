"""What a user brings to a fit, as a table: a frame, a file, or the folder of a run, whose summary is read."""

import os
from pathlib import Path

import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.fitting.columns import is_summary


def read(table: pd.DataFrame | str | os.PathLike[str]) -> pd.DataFrame:
    """The table of a frame, a .csv, .tsv, .json, .jsonl or .parquet file, or of a run's folder (its summary.csv).

    Raises RequestError when nothing is there, DataError when it cannot be read.
    """
    if isinstance(table, pd.DataFrame):
        return tables.check_summary(table) if is_summary(table) else table
    path = Path(table)
    if path.is_dir():
        path = path / "summary.csv"
        if not path.exists():
            raise RequestError(f"{path.parent} has no summary.csv; name a finished run, or a table"
                               " (public results: pt.published reads them)")
    frame = tables.read_table(path)
    return tables.read_summary(path) if is_summary(frame) and path.suffix == ".csv" else frame
