"""The inverse of an order: every (step, row, offset) at which a text or token ids were consumed.

Two ways that agree. A streaming scan needs nothing and reads every row once, about a gigatoken per second and core from memory.
An index (tokengrams' suffix array over the rows in training order, 8 bytes per token, built once) answers in microseconds;
its hits that straddle two rows are dropped, since no model ever saw them.

A text is looked up in the forms it can take in running text: as it is and with a leading space, each tokenized by itself.
Where it stands inside a longer word, or where a neighbour changes how its ends are tokenized, it is another sequence of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.core.parallel import parallel_for
from pythia_tools.order.data_order import DataOrder
from pythia_tools.tokens.local import PARALLEL_BYTES

SCAN_BYTES = 32 << 20
COLUMNS = ["step", "row", "offset", "form"]


def seen(
    order: DataOrder, query: str | Sequence[int] | np.ndarray, *, tokenizer: Any = None, steps: tuple[int, int] | None = None,
    limit: int | None = None, index: str | Path | None = None,
) -> pd.DataFrame:
    """Every occurrence within a row: columns step, row, offset, form (which of the text's forms; 0 for ids), in order.

    `steps` (a, b) looks at batches a … b-1 only; `limit` stops after so many hits; `index` is a folder made by `build_index`.
    Raises: RequestError for an empty query or ids that do not fit, without a tokenizer for text, and for a scan of a whole
    order on the hub.
    """
    needles = [needle for _, needle in forms(order, query, tokenizer)]
    if order.remote and steps is None and index is None:
        size = files.human_bytes(order.steps * order.batch_rows * order.row_tokens * order.dtype.itemsize)
        raise RequestError(f"looking through all of {order.name} would read {size} from the hub; give steps a:b, an index, or a local copy")
    first, last = row_range(order, steps)
    found = _indexed(order, needles, first, last, index) if index is not None else _scanned(order, needles, first, last, limit)
    table = pd.DataFrame(found, columns=["row", "offset", "form"]).astype(np.int64)
    table.insert(0, "step", table["row"] // order.batch_rows)
    table = table.sort_values(["row", "offset", "form"], ignore_index=True)
    return table if limit is None else table.head(limit)


def forms(order: DataOrder, query: str | Sequence[int] | np.ndarray, tokenizer: Any = None) -> list[tuple[str, np.ndarray]]:
    """The id sequences a query stands for: (label, ids in the order's dtype)."""
    if not isinstance(query, str):
        return [("ids", _ids(order, np.asarray(query)))]
    from pythia_tools.counts.text import encode

    texts = [query] if query[:1].isspace() else [query, " " + query]
    found: list[tuple[str, np.ndarray]] = []
    for text in texts:
        ids = _ids(order, np.asarray(encode(order, text, tokenizer), dtype=np.int64))
        if not any(np.array_equal(ids, known) for _, known in found):
            found.append((text, ids))
    return found


def row_range(order: DataOrder, steps: tuple[int, int] | None) -> tuple[int, int]:
    """Rows [a, b) of batches steps[0] … steps[1]-1; all rows the run consumed without `steps`."""
    if steps is None:
        return 0, order.steps * order.batch_rows
    a, b = steps
    if not 0 <= a <= b <= order.steps:
        raise RequestError(f"steps {a}:{b} of order {order.name}: it has batches 0:{order.steps}")
    return a * order.batch_rows, b * order.batch_rows


def _ids(order: DataOrder, ids: np.ndarray) -> np.ndarray:
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "ui":
        raise RequestError("nothing to look for: give a text or a non-empty list of token ids")
    limits = np.iinfo(order.dtype)
    if int(ids.min()) < max(0, limits.min) or int(ids.max()) > limits.max:
        raise RequestError(f"token ids must be 0 to {limits.max}, these go from {ids.min()} to {ids.max()}")
    if ids.size > order.row_tokens:
        raise RequestError(f"{ids.size} tokens are longer than a row ({order.row_tokens}); look for a part of it")
    return ids.astype(order.dtype)


def _scanned(order: DataOrder, needles: list[np.ndarray], first: int, last: int, limit: int | None) -> list[tuple[int, int, int]]:
    from pythia_tools.counts.place_kernels import offsets_in_row

    found: list[tuple[int, int, int]] = []
    per_chunk = max(1, SCAN_BYTES // (order.row_tokens * order.dtype.itemsize))
    with progress.bar(last - first, "scan", "row", shown=last - first > 50 * per_chunk) as shown:
        for start, rows in order.chunks(first, last, per_chunk):
            for form, needle in enumerate(needles):
                hits = np.zeros(len(rows), dtype=np.int64)
                parallel_for(len(rows), partial(_count, rows, needle, hits), pieces=None if rows.nbytes > PARALLEL_BYTES else 1)
                for i in np.flatnonzero(hits):
                    found += [(start + int(i), int(at), form) for at in offsets_in_row(rows[i], needle)]
            shown.update(len(rows))
            if limit is not None and len(found) >= limit:
                break
    return found


def _count(rows: np.ndarray, needle: np.ndarray, out: np.ndarray, first: int, last: int) -> None:
    from pythia_tools.counts.place_kernels import count_hits

    count_hits(rows, needle, first, last, out)


def build_index(order: DataOrder, folder: str | Path, *, stop: int | None = None) -> Path:
    """A suffix array over rows [0, stop) in training order, in `folder`; needs the extra `ngram-index`.

    Cost (measured): 2 million tokens per second, 8 bytes of disk per token besides the tokens themselves.
    Raises: RequestError for orders that are not uint16, EnvironmentFailure without the extra.
    """
    engine = _engine()
    if order.dtype != np.dtype("<u2"):
        raise RequestError(f"the index engine takes uint16 tokens, order {order.name} holds {order.dtype.name}; use the scan")
    stop = order.steps * order.batch_rows if stop is None else stop

    def fill(beside: Path) -> None:
        top = 0
        with open(beside / "rows.bin", "wb") as out:
            for _, rows in order.chunks(0, stop):
                out.write(rows.tobytes())
                top = max(top, int(rows.max()))
        engine.build(str(beside / "rows.bin"), str(beside / "rows.idx"), top + 1, False)
        files.write_json(beside / "index.json", {
            "fingerprint": order.fingerprint, "rows": stop, "row_tokens": order.row_tokens, "vocabulary": top + 1,
        })

    files.atomic_folder(folder, fill)
    return Path(folder)


def _indexed(
    order: DataOrder, needles: list[np.ndarray], first: int, last: int, folder: str | Path,
) -> list[tuple[int, int, int]]:
    record = files.read_json(Path(folder) / "index.json")
    if record["fingerprint"] != order.fingerprint:
        raise DataError(f"{folder}: this index is of another order ({record['fingerprint'][:12]}…); build it again for {order.name}")
    if last > record["rows"]:
        raise RequestError(
            f"{folder}: this index holds rows 0:{record['rows']}, rows up to {last} were asked; give --steps, or build it longer"
        )
    index = _engine()(str(Path(folder) / "rows.bin"), str(Path(folder) / "rows.idx"), record["vocabulary"])
    found = []
    for form, needle in enumerate(needles):
        if int(needle.max()) >= record["vocabulary"]:
            continue  # the engine would answer nonsense for an id it has never seen
        at = np.asarray(index.positions([int(t) for t in needle]), dtype=np.int64)
        row, offset = np.divmod(at, order.row_tokens)
        keep = (offset + needle.size <= order.row_tokens) & (row >= first) & (row < last)
        found += [(int(r), int(o), form) for r, o in zip(row[keep], offset[keep], strict=True)]
    return found


def _engine() -> Any:
    try:
        from tokengrams import MemmapIndex
    except ImportError as error:
        raise EnvironmentFailure("an index needs the extra: pip install 'pythia-tools[ngram-index]'; or look without --index") from error
    return MemmapIndex
