"""The public memorized-sequences dataset, read and written: which rows a model memorized, with their 64 ids.

Files are parquet with the columns `index` (int64, the row in training order), `tokens` (list of int64: context and
continuation) and `__index_level_0__` (int64, the line of the table they were cut from; here the row again). A split is
named `{duped|deduped}.{size}`, or `{duped|deduped}.12b.{step}` for a run's earlier checkpoint; its file is
`data/{split}-00000-of-00001*.parquet`. Per-rank score files are lines `index,score` without a header; ranks overlap (a
last batch was not trimmed), so equal lines are dropped and contradictory ones refused. Source:
EleutherAI/pythia-memorized-evals. Cost: one pass over the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_tools.analysis import Export
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.order import Rows

_SPLIT = re.compile(r"^(duped|deduped)\.(\d+(?:\.\d+)?[mb])(?:\.(\w+))?$")


def split_name(model: str, *, deduped: bool, step: int | None = None) -> str:
    """`deduped.12b.83000`: the dataset's name for a model (`12b`, `12b-deduped`) and, for a partial run, a step."""
    size = model.removesuffix("-deduped").removeprefix("pythia-").lower()
    name = f"{'deduped' if deduped else 'duped'}.{size}" + (f".{step}" if step is not None else "")
    parse_split(name)
    return name


def parse_split(split: str) -> tuple[bool, str, str | None]:
    """(deduped, size, rest) of a split's name. Raises RequestError for another shape."""
    found = _SPLIT.match(split)
    if not found:
        raise RequestError(f"split {split!r} is not like duped.70m, deduped.1.4b or deduped.12b.83000")
    return found[1] == "deduped", found[2], found[3]


def exports(items: pd.DataFrame, numbers: np.ndarray, ids: np.ndarray, corpus: str) -> Iterator[Export]:
    """Memorized rows of every checkpoint of an item table as splits CORPUS.MODEL.STEP, below `exchange/`.

    numbers: (n,) ascending row numbers; ids: (n, w) the windows of these rows.
    """
    for (model, step), part in items.groupby(["model", "step"], sort=False):
        rows = np.sort(part.loc[part["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
        frame = memorized_frame(rows, ids[np.searchsorted(numbers, rows)])
        yield Export(Path("exchange") / file_name(f"{corpus}.{model}.{step}"), frame)


def memorized_frame(rows: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    """Rows (n,) and their ids (n, w) as the dataset's columns."""
    if ids.ndim != 2 or len(ids) != len(rows):
        raise RequestError(f"{len(rows)} row numbers and ids of shape {ids.shape}; give one line of ids for each row")
    listed = pd.Series(list(ids.astype(np.int64)), dtype=object)
    return pd.DataFrame({"index": rows.astype(np.int64), "tokens": listed, "__index_level_0__": rows.astype(np.int64)})


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


def as_flags(memorized: pd.DataFrame, rows: npt.ArrayLike) -> pd.arrays.BooleanArray:
    """Nullable flags of order rows that the run judged: True where the dataset lists the row."""
    return pd.array(np.isin(np.asarray(rows), memorized["index"].to_numpy()), dtype="boolean")


def check_tokens(memorized: pd.DataFrame, order: Rows) -> np.ndarray:
    """(n,) bool: whether each listed row's ids are the order's; else the indices are of another data set."""
    width = len(memorized["tokens"].iloc[0]) if len(memorized) else 0
    held = order.take(memorized["index"].to_numpy())[:, :width]
    return (held == np.array(memorized["tokens"].tolist())).all(axis=1) if len(memorized) else np.zeros(0, bool)


def read_scores(paths: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """Per-rank `index,score` files joined: columns row, score, memorized (score is 1); sorted, each row once.

    Raises DataError for unreadable lines, scores outside 0 … 1, or a row with two different scores.
    """
    frames = []
    for path in paths:
        try:
            frames.append(pd.read_csv(path, names=["row", "score"], dtype={"row": "int64", "score": "float64"}))
        except (ValueError, pd.errors.ParserError, OSError) as error:
            raise DataError(f"{path}: lines must be `index,score` ({error})") from error
    frame = pd.concat(frames, ignore_index=True).drop_duplicates().sort_values("row", ignore_index=True)
    twice = frame["row"].duplicated()
    if twice.any():
        raise DataError(f"row {frame.loc[twice, 'row'].iloc[0]} has two different scores; the files are not of one run")
    if not frame["score"].between(0, 1).all():
        raise DataError("a score is outside 0 … 1; these are not memorization scores")
    return frame.assign(memorized=frame["score"] == 1)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable parquet file ({error})") from error
    if not {"index", "tokens"} <= set(table.column_names):
        raise DataError(f"{path}: columns {table.column_names}; a file of memorized rows has index and tokens")
    return table.select(["index", "tokens"]).to_pandas()
