"""The public memorized-sequences dataset, read and written: which rows a model memorized, with their 64 ids.

Files are parquet with the columns `index` (int64, the row in training order), `tokens` (list of int64: context and continuation) and
`__index_level_0__` (int64, the line of the table they were cut from). A split is named `{duped|deduped}.{size}`, or
`{duped|deduped}.12b.{step}` for a run's earlier checkpoint; its file is `data/{split}-00000-of-00001*.parquet`.
Per-rank score files are lines `index,score` without a header; ranks overlap (a last batch was not trimmed), so equal lines are
dropped and contradictory ones refused.
Source: EleutherAI/pythia-memorized-evals. Cost: one pass over the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import atomic_write

SCHEMA = pa.schema([("index", pa.int64()), ("tokens", pa.list_(pa.int64())), ("__index_level_0__", pa.int64())])
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


def write_memorized(path: str | os.PathLike[str], index: Any, tokens: Any, *, line: Any = None) -> None:
    """Write memorized rows: index (n,) and tokens (n, 64), in the order given; `line` (n,) becomes `__index_level_0__` (default: index)."""
    numbers, ids = np.asarray(index, dtype=np.int64), np.asarray(tokens, dtype=np.int64)
    if ids.ndim != 2 or len(ids) != len(numbers):
        raise RequestError(f"{len(numbers)} row numbers and ids of shape {ids.shape}; give one line of ids for each row")
    offsets = pa.array(np.arange(len(ids) + 1) * ids.shape[1], pa.int32())
    listed = pa.ListArray.from_arrays(offsets, pa.array(ids.ravel()))
    lines = numbers if line is None else np.asarray(line, dtype=np.int64)
    with atomic_write(path) as handle:
        pq.write_table(pa.table([pa.array(numbers), listed, pa.array(lines)], schema=SCHEMA), handle)


def export(
    table: pd.DataFrame, order: Any, folder: str | os.PathLike[str], split: str, *, context: int = 32, continuation: int = 32
) -> Path:
    """Write the memorized rows of one checkpoint's item table, with their ids, as `folder/data/SPLIT-00000-of-00001.parquet`.

    Raises RequestError when the table holds several checkpoints.
    """
    parse_split(split)
    if len(table[["model", "step", "branch"]].drop_duplicates()) > 1:
        raise RequestError("the table holds several checkpoints; a split is of one: choose a model and a step")
    rows = np.sort(table.loc[table["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
    tokens = order.take(rows)[:, : context + continuation] if len(rows) else np.zeros((0, context + continuation), np.int64)
    path = Path(folder) / "data" / f"{split}-00000-of-00001.parquet"
    write_memorized(path, rows, tokens)
    return path


def read_memorized(path: str | os.PathLike[str], split: str | None = None) -> pd.DataFrame:
    """A file of the dataset, or with `split` all files of it below a copy of the dataset: columns index, tokens (arrays of ids).

    Raises RequestError for a split that is not there, DataError for files with other columns or with a row twice.
    """
    source = Path(path)
    files = [source] if source.is_file() else sorted(source.glob(f"**/{split or '*'}-*-of-*.parquet"))
    if not files:
        raise RequestError(f"{source}: no file of split {split!r}; expected data/{split or 'SPLIT'}-00000-of-00001….parquet")
    frames = [_read(file) for file in files]
    frame = pd.concat(frames, ignore_index=True)
    if frame["index"].duplicated().any():
        raise DataError(f"{source}: row {frame.loc[frame['index'].duplicated(), 'index'].iloc[0]} occurs twice")
    return frame


def as_flags(memorized: pd.DataFrame, rows: Any) -> pd.array:  # type: ignore[valid-type]
    """Nullable flags of order rows: True where the dataset lists the row. For rows the run judged; all others are False."""
    return pd.array(np.isin(np.asarray(rows), memorized["index"].to_numpy()), dtype="boolean")


def check_tokens(memorized: pd.DataFrame, order: Any) -> np.ndarray:
    """(n,) bool: whether each listed row's ids are the order's, so that indices of one dataset are not read against another."""
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
