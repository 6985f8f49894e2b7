"""What a form of fit is, declared once: the columns it needs, its options, what it says; the command and Python's door
derive from it. Tables in, tables out: nothing here opens a file, loads a model or draws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias

import pandas as pd

from pythia_tools.core.options import Chosen
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Sentence


@dataclass(frozen=True)
class Fit:
    """What a form found in a table.

    items: one row per point (run, checkpoint) with what the fit says of it; the form documents its columns.
    summary: a summary table (`core.tables`), derived quantities and predictions first, single constants last.
    sentences: findings, each with the rows of the summary that it was read off.
    """

    items: pd.DataFrame
    summary: pd.DataFrame
    sentences: tuple[Sentence, ...] = ()

    def value(self, metric: str) -> float:
        """The first value of a metric. Raises KeyError naming the metrics there are."""
        rows = self.summary[self.summary["metric"] == metric]
        if rows.empty:
            raise KeyError(f"no metric {metric!r}; there are {', '.join(self.summary['metric'].unique())}")
        return float(rows["value"].iloc[0])


@dataclass(frozen=True)
class Form(Generic[Chosen]):
    """A form of fit.

    says: in one line, what it tells. fit: a table with the columns `columns` (name → what it holds) and the options.
    metrics, items: what its summary holds, and its items beside a curve's keys, step and value.
    figures: names in `pythia_tools.plots`, of functions of (summary, items) → caption.
    methods: how it was computed, in two sentences; names of options in braces are filled in.
    """

    says: str
    fit: Callable[[pd.DataFrame, Chosen], Fit]
    options: type[Chosen]
    columns: Mapping[str, str]
    metrics: Mapping[str, Metric]
    items: Mapping[str, Column] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    methods: str = ""


AnyForm: TypeAlias = "Form[Any]"
