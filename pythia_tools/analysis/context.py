"""What an analysis is about: checkpoints, and lazily the suite's order, tokenizer, truth and held-out rows, each
resolved here only; and where and how it is computed, in one small record instead of long parameter lists.

A tokenizer is the user's, else the suite's, else its order's, else the tokenizer files of the first model's repository
or folder (no weights are fetched for it). An order is the user's, else the suite's. What is missing is said in one
line.
Cost: nothing until asked; then one manifest, or a few small files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pythia_tools import counts
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.core.tables import Metric
from pythia_tools.micro import Truth, load_truth
from pythia_tools.order import Rows, load_order
from pythia_tools.suites import Checkpoint, Folder, HubRevision, Suite
from pythia_tools.tokens import Openable, Tokenizer, open_store, open_tokenizer

HELDOUT_ROWS = 512
"""Rows beyond the last step that serve as held out where a suite has no rows of its own for it."""

TRUTH_METRICS = {
    "exposures_counted": Metric("exposures", "exposures of all items of a table up to the step, counted in the order"),
    "exposures_planted": Metric("exposures", "the same, as the truth manifest lists them"),
    "items_that_differ": Metric("items", "items whose counted and planted exposures differ"),
}


class Where(TypedDict, total=False):
    """The keywords of an Execution; functions that sweep checkpoints take them (`**where: Unpack[Where]`)."""

    device: str | torch.device
    dtype: str | torch.dtype | None
    batch_size: int | None
    cells: CellStore | None
    shard: tuple[int, int] | None
    prefetch: bool
    allow_defective: bool


@dataclass(frozen=True)
class Execution:
    """device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`; dtype: None for the suite's own policy.

    batch_size: rows or items per forward pass, None for one that fits; cells: where finished cells are kept and found
    again; shard (i, n): compute the i-th of n parts only (0-based); prefetch: fetch the next checkpoint while one
    computes; allow_defective: go on with checkpoints that are known to be wrong. Of these only dtype changes a number.
    """

    device: str | torch.device = "auto"
    dtype: str | torch.dtype | None = None
    batch_size: int | None = None
    cells: CellStore | None = None
    shard: tuple[int, int] | None = None
    prefetch: bool = True
    allow_defective: bool = False


class Context:
    """Checkpoints with what belongs to them. `suite` None: the checkpoints were given without one.

    order: a name, path or order; tokenizer: anything `tokens.open_tokenizer` takes. Both win over the suite's.
    """

    def __init__(
        self, checkpoints: Iterable[Checkpoint], execution: Execution | None = None, *, suite: Suite | None = None,
        order: str | Rows | None = None, tokenizer: Openable | None = None,
    ):
        self.checkpoints: Sequence[Checkpoint] = list(checkpoints)
        self.execution = execution or Execution()
        self.suite = suite
        self._order, self._tokenizer = order, tokenizer

    @property
    def name(self) -> str:
        """The suite's name, or the first checkpoint's."""
        return self.suite.name if self.suite is not None else self.checkpoints[0].suite

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints, ascending, each once."""
        return sorted({c.step for c in self.checkpoints})

    @property
    def names_order(self) -> bool:
        """Whether there is an order to open."""
        return self._order is not None or self._common("order") is not None

    def _common(self, what: str) -> str | None:
        """The order or tokenizer that the checkpoints' models name, else their suite. Raises RequestError when they
        differ.
        """
        named = {getattr(c.model, what) for c in self.checkpoints} - {None}
        if len(named) > 1:
            raise RequestError(
                f"the models of {self.name} that were chosen have different {what}s ({', '.join(sorted(named))}); "
                f"choose models of one with --models, or give --{what}"
            )
        return named.pop() if named else getattr(self.suite, what, None)

    @cached_property
    def order(self) -> Rows:
        """The data order. Raises RequestError when none is named, and what opening it raises."""
        if self._order is not None and not isinstance(self._order, str):
            return self._order
        name = self._order or self._common("order")
        if name is None:
            raise RequestError(f"{self.name} names no data order; give one with --order, or `order:` in its manifest")
        return load_order(name)

    def knows_order_of(self, checkpoint: Checkpoint) -> bool:
        """Whether the order is that which the checkpoint's run consumed: it was given, or its model names one."""
        return self._order is not None or checkpoint.model.order is not None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; see the module's first lines for whose. Raises RequestError when nobody names one."""
        for place in self._tokenizer_places():
            if place is not None:
                return open_tokenizer(place)
        raise RequestError(
            f"{self.name} names no tokenizer; give one with --tokenizer, or `tokenizer:` in its manifest"
        )

    def _tokenizer_places(self) -> Iterable[Openable | None]:
        yield self._tokenizer
        if self.suite is not None:
            own = self.suite.folder / "tokenizer" if self.suite.folder else None
            yield own if own is not None and own.is_dir() else None
        yield self._common("tokenizer")
        if self.names_order:
            yield self.order.tokenizer
        location = self.checkpoints[0].location
        if isinstance(location, HubRevision):
            yield f"{location.repo}@{location.revision}"
        elif isinstance(location, Folder) and (location.path / "tokenizer.json").is_file():
            yield location.path

    @property
    def vocabulary(self) -> int:
        """Ids that exist in the tokenizer; only these compete in an argmax."""
        return len(self.tokenizer)

    @cached_property
    def truth(self) -> Truth | None:
        """What was planted, for suites that pythia-tools trained; else None. Raises DataError when its files are
        damaged.
        """
        folder = self.suite.folder if self.suite is not None else None
        return load_truth(folder) if folder is not None and (folder / "truth" / "truth.json").is_file() else None

    def need_truth(self, what: str) -> Truth:
        """The truth manifest. Raises RequestError saying that `what` needs one."""
        if self.truth is None:
            raise RequestError(
                f"{self.name} has no truth manifest, so no {what}; suites that `pythia-tools train` made have one"
            )
        return self.truth

    @property
    def last_step(self) -> int:
        """The last step that any run of the suite was saved at (of the checkpoints, without a suite)."""
        if self.suite is None:
            return self.steps[-1]
        return max(max(self.suite.steps(model)) for model in self.suite.models)

    @property
    def last_steps(self) -> dict[str, int]:
        """Main run → the last step it was saved at."""
        if self.suite is None:
            return {
                c.model.name: c.step for c in sorted(self.checkpoints, key=lambda c: c.step) if c.model.branch == "main"
            }
        return {name: max(self.suite.steps(name)) for name, info in self.suite.models.items() if info.branch == "main"}

    @property
    def consumed_rows(self) -> int:
        """Rows of the order that the longest run consumed."""
        return min(self.order.n_rows, self.last_step * self.order.batch_rows)

    @property
    def unconsumed_rows(self) -> tuple[int, int] | None:
        """[start, stop): rows of the order beyond the last step, enough of them to be held out; else None."""
        if not self.names_order:
            return None
        first = self.last_step * self.order.batch_rows
        stop = min(self.order.n_rows, first + HELDOUT_ROWS)
        return (first, stop) if stop >= first + 64 else None

    @cached_property
    def heldout(self) -> np.ndarray | None:
        """(n, L + 1) rows that no step consumed, at most one of a document: those of the order beyond the last step,
        else the suite's own.

        The former are like the rows that were consumed; a store of the suite's own may come from other documents.
        """
        beyond = self.unconsumed_rows
        if beyond is not None:
            return self.order.rows(*beyond)[self.order.apart(np.arange(*beyond))]
        own = self.suite.folder / "data" / "heldout" if self.suite is not None and self.suite.folder else None
        if own is not None and Path(f"{own}.bin").is_file():
            store = open_store(own)
            return np.stack([np.asarray(store[i]) for i in range(len(store))])
        return None

    def exposures(self, patterns: Sequence[counts.Pattern], steps: Iterable[int] | None = None) -> pd.DataFrame:
        """Exposures of each pattern up to each step (default: the checkpoints'), counted in the order in one pass.

        Columns: item (the pattern's place), term, step, exposures. Finished parts are kept in the execution's cells.
        Raises: RequestError without an order; what `counts.count_terms` raises.
        """
        wanted = sorted(set(self.steps if steps is None else steps))
        tokenizer = None if all(isinstance(p, counts.Ngram) for p in patterns) else self.tokenizer
        table = counts.count_terms(self.order, patterns, wanted, tokenizer=tokenizer, cells=self.execution.cells)
        if len(table) != len(patterns) * len(wanted):
            raise DataError(
                f"{len(table)} counts for {len(patterns)} patterns at {len(wanted)} steps; two patterns have one name"
            )
        table = table.assign(item=np.repeat(np.arange(len(patterns)), len(wanted)))
        return table[["item", "term", "step", "exposures"]]


def compare_with_truth(context: Context, table: str, counted: npt.ArrayLike) -> Iterator[dict[str, object]]:
    """Exposures that an analysis counted in the order, beside those that were planted there: rows of its summary, of
    one table of the truth manifest, at the last of the context's steps. Exposures are always counted; the truth
    manifest is only compared with.

    counted: (n,) exposures up to that step of the table's items, in its order.
    """
    step = context.steps[-1]
    planted, found = context.need_truth("planted items").exposures(table, step), np.asarray(counted)
    shared = {"suite": context.name, "branch": "main", "step": step, "task": table}
    shared |= {"n": len(planted), "unit": "item", "interval": "none"}
    yield {**shared, "metric": "exposures_counted", "value": float(found.sum())}
    yield {**shared, "metric": "exposures_planted", "value": float(planted.sum())}
    yield {**shared, "metric": "items_that_differ", "value": float((planted != found).sum())}
