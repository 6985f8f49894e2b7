"""An analysis, declared once: command, dry run, shards, merge, rerun, section of the study and page of the report
derive from it.

    class WeightNorms(Analysis[NormOptions]):
        \"\"\"Norm of every weight matrix over training.\"\"\"      # first line: help of the command, title of its
        section

        name, version, Options = "weight-norms", 1, NormOptions
        metrics = {"norm": Metric("1", "Frobenius norm")}

        def tasks(self, context, options): return [NormTask(options.matrices)]
        def summarize(self, items, context, options): ...

`pythia_tools.register(WeightNorms)` makes it known; a package of its own names it as an entry point of the group
`pythia_tools.analyses`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias

import pandas as pd

from pythia_tools.analysis.context import Context
from pythia_tools.analysis.sweep import Task, joined
from pythia_tools.core.options import Chosen, Options
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Drawn: TypeAlias = "Axes | Canvas"


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure to be saved: its file name, the axes or figure, and what it shows."""

    name: str
    target: Drawn
    caption: str


@dataclass(frozen=True)
class Export:
    """A further file of a run, below its folder: a table (.csv, .parquet), a JSON value (.json), or several, a line
    each (.jsonl).
    """

    path: Path
    content: pd.DataFrame | Mapping[str, object] | Sequence[Mapping[str, object]]


class Analysis(ABC, Generic[Chosen]):
    """What every analysis declares. Only `tasks` and `summarize` are needed; an instance holds nothing.

    name: of the command. version: raised when its numbers change. metrics, columns: the dictionary of what its summary
    and its item table hold. methods: how it was measured, in two sentences; names of options in braces are filled in.
    shown: metrics that a person looks at first. exported: name → columns of the tables among the `exports`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    Options: ClassVar[type[Options]] = Options
    metrics: ClassVar[Mapping[str, Metric]] = {}
    columns: ClassVar[Mapping[str, Column]] = {}
    methods: ClassVar[str] = ""
    shown: ClassVar[Sequence[str]] = ()
    exported: ClassVar[Mapping[str, Mapping[str, Column]]] = {}

    @abstractmethod
    def tasks(self, context: Context, options: Chosen) -> Sequence[Task]:
        """Tasks for one sweep over the context's checkpoints. Cheap: nothing is fetched but what names the items."""

    def items(self, result: Mapping[str, pd.DataFrame], context: Context, options: Chosen) -> pd.DataFrame:
        """One item table out of the sweep's (task name → table)."""
        return joined(result)

    @abstractmethod
    def summarize(self, items: pd.DataFrame, context: Context, options: Chosen) -> pd.DataFrame:
        """The summary table of an item table (see `core.tables`)."""

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        """Figures, from the tables alone. One that the tables cannot carry is left out."""
        return iter(())

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        """Findings computed from the summary alone."""
        return []

    def exports(self, items: pd.DataFrame, context: Context, options: Chosen) -> Iterable[Export]:
        """Further files that the options ask for."""
        return ()

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring, without its full stop."""
        return (cls.__doc__ or cls.name).strip().splitlines()[0].rstrip(".")

    @classmethod
    def examples(cls) -> str:
        """The rest of the docstring, for the command's help."""
        return "\n".join(line.removeprefix("    ") for line in (cls.__doc__ or "").strip().splitlines()[1:]).strip()

    def method_text(self, options: Chosen) -> str:
        """`methods`, with the options filled in."""
        return self.methods.format_map(asdict(options)) if self.methods else ""


AnyAnalysis: TypeAlias = "Analysis[Any]"
