"""The kinds of the rows that were memorized, and what may explain them: columns of the item table, shares, a table of
rows.

Perplexities are those of the largest main model's last checkpoint, counts those of the rows consumed by then.
Cost: one scan of the rows consumed, and a pass over the memorized rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.extract import Window
from pythia_tools.analyses.memorization.overlap import CHUNK, duplicate_counts
from pythia_tools.analyses.memorization.rows import rows_by
from pythia_tools.analyses.memorization.taxonomy import KINDS, features, kinds
from pythia_tools.analysis import Context, ScoreTask, sweep
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import wilson
from pythia_tools.core.tables import by_identity
from pythia_tools.suites import Checkpoint


def last_checkpoint(context: Context, sizes: Mapping[str, int]) -> Checkpoint:
    """The last main checkpoint, of the largest model there by its name's size.

    Raises RequestError when the order does not hold all it consumed.
    """
    main = [c for c in context.checkpoints if c.model.branch == "main"]
    if not main:
        raise RequestError("kinds of memorization need a main run; choose one with --models")
    last = max(main, key=lambda c: (c.step, sizes.get(c.model.name, 0)))
    rows_by(context.order, last.step)
    return last


def with_kinds(
    table: pd.DataFrame, windows: np.ndarray, numbers: np.ndarray, context: Context, window: Window
) -> pd.DataFrame:
    """The item table with kind, duplicates and `taxonomy.features` on the lines of memorized rows.

    windows: (n, w) ids of rows `numbers` (ascending), as `window` cuts them.
    """
    flags = table["memorized"].fillna(False).astype(bool)
    rows = np.unique(table.loc[flags, "row"].to_numpy(dtype=np.int64))
    if not len(rows):
        progress.note("no row was memorized by any checkpoint")
        none = {"kind": pd.Series(pd.NA, table.index, "string"), "duplicates": pd.Series(pd.NA, table.index, "Int64")}
        return table.assign(**none)
    sizes = table.dropna(subset=["params"]).drop_duplicates("model").set_index("model")["params"]
    last, order = last_checkpoint(context, {str(k): int(v) for k, v in sizes.items()}), context.order
    held = windows[np.searchsorted(numbers, rows)]
    counts = np.zeros(int(held.max()) + 1, np.int64)
    duplicates = duplicate_counts(held, _counted(order.chunks(0, rows_by(order, last.step), CHUNK), counts))
    alone = Context([last], replace(context.execution, shard=None))
    scores = sweep(alone, [ScoreTask(held, vocabulary=window.vocabulary)])[ScoreTask.name]
    nll = scores["nll"].to_numpy().reshape(len(held), -1)
    found = features(held, context=window.context, nll=nll, token_counts=counts, duplicates=duplicates)
    try:
        found["kind"] = kinds(duplicates, [context.tokenizer.decode(row) for row in held])
    except RequestError as error:
        progress.note(f"kinds of memorization were not told apart: {error}")
        found["kind"] = pd.NA
    place = np.where(flags, pd.Index(rows).get_indexer(table["row"]), -1)
    return table.join(found.reindex(place).set_axis(table.index)).astype({"kind": "string", "duplicates": "Int64"})


def _counted(chunks: Iterable[tuple[int, np.ndarray]], counts: np.ndarray) -> Iterator[np.ndarray]:
    """The chunks' rows, while `counts` (ids,) grows by their ids; larger ids are in no memorized row."""
    for _, chunk in chunks:
        counts += np.bincount(chunk.ravel(), minlength=len(counts))[: len(counts)]
        yield chunk


def kind_shares(items: pd.DataFrame) -> pd.DataFrame:
    """`kind_share` per checkpoint and kind (its subset), of the rows it memorized."""
    lines = []
    for identity, (task,), part in by_identity(items[items["kind"].notna()], "task"):
        for kind in KINDS:
            share = wilson(int((part["kind"] == kind).sum()), len(part), unit="row")
            lines.append({**identity, "task": task, "subset": kind, "metric": "kind_share", **share.columns()})
    return declared.summary(lines)


def table_of_kinds(items: pd.DataFrame) -> pd.DataFrame:
    """One line per memorized row: its kind, and what may explain it."""
    first = list(items.columns).index("duplicates")
    return items[items["duplicates"].notna()].drop_duplicates("row").sort_values("row")[["row", *items.columns[first:]]]
