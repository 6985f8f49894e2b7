"""What a study looks at: the rows, terms and sentences it asks every checkpoint about.

A suite that pythia_tools trained comes with a truth manifest, so its study asks about planted canaries, facts, sums and
occupations. Of any other suite, the study samples rows of its order and asks the public questions. Either way exposures
are counted in the order, never taken from the truth; the truth is only compared with.
Cost: one pass over the rows of the order (24,000 short rows for pythia-micro: well under a second).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools import counts
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.micro import Truth, load_truth
from pythia_tools.order import DataOrder, load_order
from pythia_tools.suites.suite import Suite

ROW_SAMPLE = 4096
"""Rows over which the training order is looked at (evenly spaced, at the last checkpoint)."""


@dataclass(frozen=True)
class Material:
    """A suite with its order, tokenizer and, where there is one, its truth manifest."""

    suite: Suite
    order: DataOrder
    tokenizer: Any
    truth: Truth | None
    heldout: np.ndarray | None = field(repr=False, default=None)

    @property
    def vocabulary(self) -> int:
        """Ids that exist in the tokenizer; only these compete in an argmax."""
        return len(self.tokenizer)

    @property
    def consumed_rows(self) -> int:
        """Rows of the order that the longest main run consumed."""
        last = max(max(self.suite.steps(m)) for m in self.suite.models)
        return min(self.order.n_rows, last * self.order.batch_rows)


def gather(suite: Suite) -> Material:
    """The material of a suite. Raises RequestError when the suite names no order, DataError when a file is damaged."""
    if suite.order is None:
        raise RequestError(f"{suite.name} names no data order; give its manifest an `order` (a name or a path)")
    order = load_order(suite.order)
    truth = load_truth(suite.folder) if suite.folder and (suite.folder / "truth" / "truth.json").exists() else None
    return Material(suite, order, load_tokenizer(suite), truth, _heldout(suite, order))


def load_tokenizer(suite: Suite) -> Any:
    """The suite's tokenizer, from its own folder or the hub. Raises DataError when it cannot be read."""
    from transformers import AutoTokenizer

    local = suite.folder / "tokenizer" if suite.folder else None
    where: Any = local if local and local.exists() else suite.tokenizer
    if where is None:
        raise RequestError(f"{suite.name} names no tokenizer; give its manifest a `tokenizer`")
    try:
        return AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: no tokenizer can be read there ({' '.join(str(error).split())[:200]})") from error


def exposures_of(
    order: DataOrder, patterns: Sequence[Any], steps: Iterable[int], tokenizer: Any, cells: CellStore | None = None
) -> pd.DataFrame:
    """Exposures of each pattern up to each step, counted in one pass over the order: item (its place), step, exposures."""
    wanted = sorted(set(steps))
    table = counts.count_terms(order, patterns, wanted, tokenizer=tokenizer, cells=cells)
    table["item"] = np.repeat(np.arange(len(patterns)), len(wanted))
    return table[["item", "step", "exposures"]]


def _heldout(suite: Suite, order: DataOrder) -> np.ndarray | None:
    """Rows that no step consumed: the suite's own held-out store, or rows of the order beyond the last step."""
    from pythia_tools.tokens import open_store

    own = suite.folder / "data" / "heldout" if suite.folder else None
    if own is not None and Path(f"{own}.bin").exists():
        store = open_store(own)
        return np.stack([np.asarray(store[i]) for i in range(len(store))])
    last = max(max(suite.steps(m)) for m in suite.models) * order.batch_rows
    if order.n_rows >= last + 64:
        return order.rows(last, min(order.n_rows, last + 512))
    return None


def compare_with_truth(counted: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Exposures counted by the analyses beside what was planted: one row per table, with the number that disagree.

    `counted`: columns table, item, exposures (over the whole run).
    """
    rows = []
    for name, part in counted.groupby("table", sort=False):
        planted = getattr(truth, str(name))["rows"].map(len).to_numpy()
        seen = part.sort_values("item")["exposures"].to_numpy()
        rows.append({"table": name, "items": len(planted), "planted": int(planted.sum()), "counted": int(seen.sum()),
                     "items that differ": int((planted != seen).sum()) if len(planted) == len(seen) else len(planted)})
    return pd.DataFrame(rows)
