"""The inverse of an order: every (step, row, offset) at which a text or token ids were consumed.

Two ways that agree. A scan needs nothing and reads every row once, about a gigatoken per second and core from memory.
An index (see `ngram_index`) answers in microseconds.

A text is looked up in the forms it can take in running text: as it is and with a leading space, each tokenized by
itself. Where it stands inside a longer word, or where a neighbour changes how its ends are tokenized, it is another
sequence of ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.parallel import MOST_SCANNING, map_ahead, worker_count
from pythia_tools.counts.ngram_index import NgramIndex, open_ngram_index
from pythia_tools.counts.ngram_scan import as_kernel_rows, locate_ngrams, token_ids
from pythia_tools.counts.reading import blocks, reader
from pythia_tools.counts.vocabulary import tokenizer_of, warn_of_ids, warn_of_tokenizer
from pythia_tools.order import Rows
from pythia_tools.tokens import Openable

PROGRESS_TOKENS = 1 << 29


def seen(
    order: Rows, query: str | Sequence[int] | np.ndarray, *, tokenizer: Openable | None = None,
    steps: tuple[int, int] | None = None, limit: int | None = None,
    index: NgramIndex | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Every occurrence within a row: columns step, row, offset, form (which of the text's forms; 0 for ids), in order.

    `steps` (a, b) looks at batches a … b-1 only; `limit` stops after so many hits; `index` answers instead of a scan:
    an opened one, or the folder that `build_ngram_index` filled.
    Raises: RequestError for an empty query or ids that do not fit, without a tokenizer for text, and for a scan of a
    whole order on the hub; DataError for the index of another order.
    """
    needles = forms(order, query, tokenizer)
    if order.remote and steps is None and index is None:
        size = files.human_bytes(order.steps * order.batch_rows * order.row_tokens * order.dtype.itemsize)
        raise RequestError(
            f"looking through all of {order.name} would read {size} from the hub; "
            "give steps a:b, an index, or a local copy"
        )
    a, b = steps or (0, order.steps)
    if not 0 <= a <= b <= order.steps:
        raise RequestError(f"batches {a} to {b - 1} of order {order.name}: {order.batches_in_words}")
    if not order.steps:
        raise RequestError(f"nothing to look through in order {order.name}: {order.batches_in_words}")
    if isinstance(query, str):
        warn_of_tokenizer(order, tokenizer)
    first, last = a * order.batch_rows, b * order.batch_rows
    if index is None:
        found = _scanned(order, needles, first, last, limit)
    else:
        found = _indexed(order, needles, first, last, index)
    table = pd.DataFrame(found, columns=["row", "offset", "form"])
    table.insert(0, "step", order.step_of(table["row"]))
    table = table.sort_values(["row", "offset", "form"], ignore_index=True)
    if table.empty:
        warn_of_ids(order, np.concatenate(needles).tolist(), None)
        progress.note("looked for " + ", ".join(str(needle.tolist()) for needle in needles))
    return table if limit is None else table.head(limit)


def forms(
    order: Rows, query: str | Sequence[int] | np.ndarray, tokenizer: Openable | None = None,
) -> list[np.ndarray]:
    """The id sequences a query stands for, in the order's dtype."""
    if not isinstance(query, str):
        return [_ids(order, np.asarray(query))]
    opened = tokenizer_of(order, tokenizer)
    spelled = opened.ids([query] if query[:1].isspace() else [query, " " + query])
    return [_ids(order, np.array(ids, dtype=np.int64)) for ids in dict.fromkeys(map(tuple, spelled))]


def _ids(order: Rows, ids: np.ndarray) -> np.ndarray:
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "ui":
        raise RequestError("nothing to look for: give a text or a non-empty list of token ids")
    limits = np.iinfo(order.dtype)
    if int(ids.min()) < max(0, limits.min) or int(ids.max()) > limits.max:
        raise RequestError(f"token ids must be 0 to {limits.max}, these go from {ids.min()} to {ids.max()}")
    if ids.size > order.row_tokens:
        raise RequestError(f"{ids.size} tokens are longer than a row ({order.row_tokens}); look for a part of it")
    return ids.astype(order.dtype)


def _scanned(order: Rows, needles: list[np.ndarray], first: int, last: int, limit: int | None) -> np.ndarray:
    """(hits, 3) int64: row, offset, form; the first `limit` rows' worth at least."""
    ids = token_ids(order)
    ngrams, bounds = np.concatenate(needles), np.cumsum([0, *map(len, needles)])
    read = reader(order)

    def work(span: tuple[int, int]) -> tuple[int, np.ndarray]:
        form, offset, row = locate_ngrams(as_kernel_rows(read(*span), ids), ngrams, bounds).astype(np.int64).T
        return span[1] - span[0], np.stack([row + span[0], offset, form], axis=1)

    workers = worker_count(None, MOST_SCANNING)
    found = [np.empty((0, 3), dtype=np.int64)]
    with progress.bar(last - first, "scan", "row", shown=(last - first) * order.row_tokens > PROGRESS_TOKENS) as bar:
        for rows, hits in map_ahead(work, blocks(order, first, last), workers, 2 * workers - 1):
            found.append(hits)
            bar.update(rows)
            if limit is not None and sum(map(len, found)) >= limit:
                break
    return np.concatenate(found)


def _indexed(
    order: Rows, needles: list[np.ndarray], first: int, last: int, index: NgramIndex | str | os.PathLike[str],
) -> np.ndarray:
    """(hits, 3) int64: row, offset, form."""
    index = index if isinstance(index, NgramIndex) else open_ngram_index(index)
    if index.order != order.fingerprint:
        raise DataError(f"{index.folder}: this index is of another order ({index.order[:8]}…), not of {order.name}")
    if not index.first_row <= first <= last <= index.first_row + index.n_rows:
        held = f"{index.first_row}:{index.first_row + index.n_rows}"
        raise RequestError(
            f"{index.folder}: this index holds rows {held}, not all of {first}:{last}; give --steps, or index more"
        )
    found = [np.empty((0, 3), dtype=np.int64)]
    for form, needle in enumerate(needles):
        if int(needle.max()) >= index.vocabulary:
            continue
        places = index.places(needle)[["row", "offset"]].to_numpy()
        places = places[(places[:, 0] >= first) & (places[:, 0] < last)]
        found.append(np.column_stack([places, np.full(len(places), form)]))
    return np.concatenate(found)
