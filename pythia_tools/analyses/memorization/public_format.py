"""The public memorized-sequences dataset, read and written: which rows a model memorized, with their 64 ids.

Files are parquet with the columns `index` (int64, the row in training order), `tokens` (list of int64: context and
continuation) and `__index_level_0__` (int64, the line of the table they were cut from; here the row again). A split is
named `{duped|deduped}.{size}`, or `{duped|deduped}.12b.{step}` for a run's earlier checkpoint; its file is
`data/{split}-00000-of-00001*.parquet`.
Source: EleutherAI/pythia-memorized-evals. Cost: one pass over the file.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_tools.analysis import Export
from pythia_tools.core.errors import DataError, RequestError


def exports(items: pd.DataFrame, numbers: np.ndarray, ids: np.ndarray, corpus: str) -> Iterator[Export]:
    """Memorized rows of every checkpoint of an item table as splits CORPUS.MODEL.STEP, below `exchange/`.

    numbers: (n,) ascending row numbers; ids: (n, w) the windows of these rows.
    """
    for (model, step), part in items.groupby(["model", "step"], sort=False):
        rows = np.sort(part.loc[part["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
        listed = pd.Series(list(ids[np.searchsorted(numbers, rows)].astype(np.int64)), dtype=object)
        frame = pd.DataFrame({"index": rows, "tokens": listed, "__index_level_0__": rows})
        yield Export(Path("exchange") / file_name(f"{corpus}.{model}.{step}"), frame)


def file_name(split: str) -> Path:
    """Where the file of a split lies in the dataset."""
    return Path("data") / f"{split}-00000-of-00001.parquet"


def read_memorized(path: str | os.PathLike[str], split: str | None = None) -> pd.DataFrame:
    """A file of the dataset, or with `split` all files of it below a copy of the dataset: columns index, tokens (arrays
    of ids).

    Raises RequestError for a split that is not there, DataError for files with other columns or with a row twice.
    """
    source = Path(path)
    files = [source] if source.is_file() else sorted(source.glob(f"**/{split or '*'}-*-of-*.parquet"))
    if not files:
        expected = f"data/{split or 'SPLIT'}-00000-of-00001….parquet"
        raise RequestError(f"{source}: no file of split {split!r}; expected {expected}")
    frames = [_read(file) for file in files]
    frame = pd.concat(frames, ignore_index=True)
    if frame["index"].duplicated().any():
        raise DataError(f"{source}: row {frame.loc[frame['index'].duplicated(), 'index'].iloc[0]} occurs twice")
    return frame


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable parquet file ({error})") from error
    if not {"index", "tokens"} <= set(table.column_names):
        raise DataError(f"{path}: columns {table.column_names}; a file of memorized rows has index and tokens")
    return table.select(["index", "tokens"]).to_pandas()
