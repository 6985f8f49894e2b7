"""The public memorized-sequences dataset, written: which rows a model memorized, with their 64 ids.

Files are parquet with the columns `index` (int64, the row in training order), `tokens` (list of int64: context and
continuation) and `__index_level_0__` (int64, the line of the table they were cut from; here the row again). A split is
named `{duped|deduped}.{size}`, or `{duped|deduped}.12b.{step}` for a run's earlier checkpoint; its file is
`data/{split}-00000-of-00001*.parquet`.
Source: EleutherAI/pythia-memorized-evals. Cost: one pass over the file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools.analysis import Export


def exports(items: pd.DataFrame, numbers: np.ndarray, ids: np.ndarray, corpus: str) -> Iterator[Export]:
    """Memorized rows of every checkpoint of an item table as splits CORPUS.MODEL.STEP, below `exchange/`.

    numbers: (n,) ascending row numbers; ids: (n, w) the windows of these rows.
    """
    for (model, step), part in items.groupby(["model", "step"], sort=False):
        rows = np.sort(part.loc[part["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
        listed = pd.Series(list(ids[np.searchsorted(numbers, rows)].astype(np.int64)), dtype=object)
        frame = pd.DataFrame({"index": rows, "tokens": listed, "__index_level_0__": rows})
        yield Export(Path(f"exchange/data/{corpus}.{model}.{step}-00000-of-00001.parquet"), frame)
