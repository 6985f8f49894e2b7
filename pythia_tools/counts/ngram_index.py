"""An index for questions asked later: count, places and steps of any n-gram, without another pass over the rows.

A suffix array over the order's rows, in training order, is built once by `tokengrams`; a place in it is a row and an
offset, and a row is a step by the order. Places that straddle two rows, which the array cannot tell apart and
training never showed, are dropped.

Cost: building 2 million tokens per second and 10 bytes of disk per token (measured); opening reads the whole array
once, 0.2 s per million tokens; a question then takes microseconds, and 50 ns per place. Best for up to some 10⁹
tokens; for fixed lists of terms one pass of `count_terms` is faster and needs no disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.order import Rows

if TYPE_CHECKING:
    from tokengrams import MemmapIndex

FORMAT = 1
FACTS = "index.json"


@dataclass(frozen=True, eq=False)
class NgramIndex:
    """An opened index of rows first_row … first_row + n_rows - 1; see `build_ngram_index` and `open_ngram_index`."""

    folder: Path
    order: str
    """fingerprint of the order it was made of"""
    row_tokens: int
    batch_rows: int
    first_row: int
    n_rows: int
    vocabulary: int
    """ids are below this"""
    engine: MemmapIndex

    def places(self, ngram: Sequence[int] | np.ndarray) -> pd.DataFrame:
        """Every place of an n-gram of token ids, by row: step (the batch that consumed it), row, offset.

        The first checkpoint that contains a place is step + 1. Raises RequestError for ids the index does not hold.
        """
        ids = [int(i) for i in ngram]
        if not ids or min(ids) < 0 or max(ids) >= self.vocabulary:
            raise RequestError(f"an n-gram of ids 0 to {self.vocabulary - 1} is needed, at least one; got {ids}")
        found = np.sort(np.asarray(self.engine.positions(ids), dtype=np.int64))
        row, offset = np.divmod(found[found % self.row_tokens + len(ids) <= self.row_tokens], self.row_tokens)
        row += self.first_row
        return pd.DataFrame({"step": row // self.batch_rows, "row": row, "offset": offset})


def build_ngram_index(
    order: Rows, folder: str | os.PathLike[str], *, steps: tuple[int, int] | None = None,
) -> NgramIndex:
    """Write an index of batches [first, stop) (default: all) into `folder`, and open it. A finished one is reused.

    Raises: RequestError when `folder` holds an index of something else, EnvironmentFailure without tokengrams or disk
    space.
    """
    engine = _tokengrams()
    first, stop = steps or (0, order.steps)
    if not 0 <= first < stop <= order.steps:
        raise RequestError(f"batches {first} to {stop - 1}: this order has batches 0 to {order.steps - 1}")
    path = Path(folder)
    n_rows = (stop - first) * order.batch_rows
    facts = {
        "format": FORMAT, "order": order.fingerprint, "row_tokens": order.row_tokens, "batch_rows": order.batch_rows,
        "first_row": first * order.batch_rows, "rows": n_rows, "engine": "tokengrams",
    }
    if (path / FACTS).exists():
        known = files.read_json(path / FACTS)
        if {k: known.get(k) for k in facts} != facts:
            raise RequestError(f"{path} holds an index of another order or range; choose another folder, or delete it")
        return open_ngram_index(path)
    files.require_free(path, n_rows * order.row_tokens * 14)
    path.mkdir(parents=True, exist_ok=True)
    files.sweep_parts(path)
    vocabulary = _write_rows(order, first * order.batch_rows, n_rows, path / "rows.bin")
    progress.note(f"building the suffix array of {n_rows * order.row_tokens:,} tokens")
    table = path / ".suffixes.idx.part"
    engine.MemmapIndex.build(str(path / "rows.bin"), str(table), vocab=vocabulary, verbose=False)
    os.replace(table, path / "suffixes.idx")
    facts |= {"vocabulary": vocabulary, "bytes": (path / "suffixes.idx").stat().st_size}
    files.write_json(path / FACTS, facts)
    return open_ngram_index(path)


def open_ngram_index(folder: str | os.PathLike[str]) -> NgramIndex:
    """Open a finished index. Raises RequestError when there is none, DataError for a damaged or older one."""
    path = Path(folder)
    if not (path / FACTS).exists():
        raise RequestError(f"{path} holds no finished index; make one with counts.build_ngram_index(order, folder)")
    facts = files.read_json(path / FACTS)
    if facts.get("format") != FORMAT:
        raise DataError(
            f"{path}: index format {facts.get('format')}, this version reads {FORMAT}; "
            "delete the folder and build it again"
        )
    vocabulary = facts["vocabulary"]
    width = 2 if vocabulary <= 1 << 16 else 4  # bytes of a token
    expected = {"rows.bin": facts["rows"] * facts["row_tokens"] * width, "suffixes.idx": facts["bytes"]}
    for name, size in expected.items():
        have = (path / name).stat().st_size if (path / name).exists() else None
        if have != size:
            raise DataError(f"{path / name}: {have} bytes, the index says {size}; delete the folder and build it again")
    try:
        engine = _tokengrams().MemmapIndex(str(path / "rows.bin"), str(path / "suffixes.idx"), vocab=vocabulary)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: the index cannot be read ({error}); delete the folder and build it again") from error
    return NgramIndex(
        path, facts["order"], facts["row_tokens"], facts["batch_rows"], facts["first_row"], facts["rows"],
        vocabulary, engine,
    )


def _write_rows(order: Rows, first: int, n_rows: int, target: Path) -> int:
    """The rows one after the other, as wide as their ids need at most; returns the vocabulary the engine is told.

    The engine reads 2 bytes a token up to 65,536 ids and 4 beyond, so wide rows of small ids are told a larger
    vocabulary.
    """
    wide = order.dtype.itemsize > 2
    largest = 0
    with files.atomic_write(target) as handle, progress.bar(n_rows, "rows to index", "row") as bar:
        for _, rows in order.chunks(first, first + n_rows):
            largest = max(largest, int(rows.max(initial=0)))
            handle.write(np.ascontiguousarray(rows, dtype="<u4" if wide else "<u2"))
            bar.update(len(rows))
    return 1 << max(17, largest.bit_length()) if wide else 1 << 16


def _tokengrams() -> ModuleType:
    try:
        import tokengrams
    except ImportError as error:
        raise EnvironmentFailure(
            "the n-gram index needs tokengrams: pip install 'pythia-tools[ngram-index]'; or scan without an index"
        ) from error
    return tokengrams
