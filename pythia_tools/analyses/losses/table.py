"""The table that is shipped: one line per checkpoint and row set, with what it was measured on and with.

    import pythia_tools as pt
    table = pt.losses(checkpoints, rows)                     # (n, L + 1) ids of one's own
    table = pt.losses(checkpoints, {"poems": a, "code": b})  # several sets
    table = pt.losses(checkpoints, ["heldout", "training"], suite=suite)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack

import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.losses import rows as sets
from pythia_tools.analyses.losses.rows import RowSet
from pythia_tools.analyses.losses.summary import estimates, subsets
from pythia_tools.analyses.losses.task import LossTask, known_bytes
from pythia_tools.analysis import Context, Execution, Where, joined, sweep
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.core.results.provenance import version_of
from pythia_tools.core.tables import COLUMNS as SHARED
from pythia_tools.core.tables import IDENTITY, Column, by_identity
from pythia_tools.order import Rows
from pythia_tools.suites import Checkpoint, Suite
from pythia_tools.tokens import Openable

ROWS = 128
_LOW, _HIGH = "lower end of its 95 % interval over rows; NaN without one", "upper end of it"
COLUMNS = {name: SHARED[name] for name in IDENTITY} | {
    "rows": Column("string", "the row set: `heldout`, `before` and `after` the step, `training`, of which the rows "
                             "consumed (`training_consumed`) and not (`training_ahead`), or a name of one's own"),
    "n_rows": Column("Int64", "rows measured, the independent units of the intervals"),
    "n_consumed": Column("Int64", "how many of them the checkpoint had consumed; <NA> where that is not known"),
    "n_tokens": Column("Int64", "targets with a finite loss"),
    "n_bytes": Column("Int64", "UTF-8 bytes of their text"),
    "nats_per_token": Column("float64", "mean loss; its exponential is the perplexity"),
    "nats_per_token_low": Column("float64", _LOW),
    "nats_per_token_high": Column("float64", _HIGH),
    "bits_per_byte": Column("float64", "loss of the text per byte, comparable across tokenizers; NaN where unknown"),
    "bits_per_byte_low": Column("float64", _LOW),
    "bits_per_byte_high": Column("float64", _HIGH),
    "weights": Column("string", "digest of the weights"),
    "data": Column("string", "fingerprint of the data order, or digest of the rows"),
    "dtype": Column("string", "number format that the model computed in"),
    "version": Column("string", "version of pythia-tools"),
}
"""The columns of `losses.csv`."""


def losses(
    checkpoints: Iterable[Checkpoint],
    rows: npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[str] = sets.NAMES, *,
    suite: Suite | None = None, order: str | Rows | None = None, tokenizer: Openable | None = None,
    **where: Unpack[Where],
) -> pd.DataFrame:
    """Nats per token and bits per byte of each row set under every checkpoint, with 95 % intervals over rows.

    rows: (n, L + 1) ids of one's own, a mapping of names to such arrays, or names of sets: `heldout`, `before`,
    `after`, `training`, of 128 rows each, drawn from the order of the checkpoints (see `losses.rows`). suite: whose
    last step, held-out rows and tokenizer hold; without it, those of the checkpoints. where: device, dtype, cells, …
    Returns: a line per checkpoint and set; columns: see `COLUMNS`. Raises: RequestError for names and rows that cannot
    be, and what `sweep` raises. Cost: one forward pass per row and checkpoint.
    """
    context = Context(checkpoints, Execution(**where), suite=suite, order=order, tokenizer=tokenizer)
    chosen, spelled = list(_chosen(context, rows)), known_bytes(context)
    result = sweep(context, [LossTask(one, spelled) for one in chosen])
    return table(with_consumed(joined(result), chosen), chosen)


def _chosen(context: Context, rows: npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[str]) -> Iterable[RowSet]:
    if isinstance(rows, Mapping):
        if not rows:
            raise RequestError("no row sets to measure; give rows, or a mapping of names to rows")
        return [sets.given(str(name), some) for name, some in rows.items()]
    names = [rows] if isinstance(rows, str) else rows
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        return [sets.given("rows", rows)]  # type: ignore[arg-type]
    for name in names:
        if name not in sets.NAMES:
            raise unknown("row set", str(name), sets.NAMES)
    found = {one.name: one for one in sets.named(context, ROWS)}
    if missing := [name for name in names if name not in found]:
        raise RequestError(f"{context.name} has no rows called {missing[0]}; it has {', '.join(found) or 'none'}")
    return [found[str(name)] for name in names]


def with_consumed(items: pd.DataFrame, chosen: Iterable[RowSet]) -> pd.DataFrame:
    """The item table with the column `consumed`, after `row`; it depends on the step, as no cell does."""
    told = pd.Series(pd.NA, index=items.index, dtype="boolean")
    for one in chosen if len(items) else ():
        of = items["subset"] == one.name
        told[of] = one.was_consumed(items[of])
    columns = [c for c in items.columns if c != "consumed"]
    place = columns.index("row") + 1 if "row" in columns else len(columns)
    return items.assign(consumed=told)[[*columns[:place], "consumed", *columns[place:]]]


def table(items: pd.DataFrame, chosen: Iterable[RowSet]) -> pd.DataFrame:
    """`losses.csv` of an item table with `consumed`: the columns of COLUMNS."""
    data, version = {one.name: one.data for one in chosen}, version_of("pythia-tools")
    lines = [
        {**identity, "rows": name, "data": data[rows["subset"].iloc[0]], "version": version, **_line(rows)}
        for identity, _, own in by_identity(items) for name, rows in subsets(own)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({name: c.dtype for name, c in COLUMNS.items()})


def _line(rows: pd.DataFrame) -> dict[str, object]:
    """What is counted and estimated of the rows of one checkpoint and set, and what it was computed with."""
    known = rows["consumed"].notna().all()
    line: dict[str, object] = {c: rows[c].iloc[0] for c in ("weights", "dtype")} | {
        "n_rows": int(rows["nll"].notna().sum()), "n_consumed": int(rows["consumed"].sum()) if known else pd.NA,
        "n_tokens": int(rows["n"].sum()), "n_bytes": rows["bytes"].sum(min_count=1),
    }
    for metric, estimate in estimates(rows).items():
        name = "nats_per_token" if metric == "nll" else metric
        line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return line
