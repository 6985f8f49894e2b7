"""What a part of a study is: tasks for the sweep, tables from its result, figures from the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd


@dataclass(frozen=True)
class Drawing:
    """A figure to be saved: its file name, the axes or figure, and what it shows."""

    name: str
    target: Any
    caption: str


class Part(Protocol):
    """One analysis of a study. `name` is the analysis, `method` one paragraph on how it was measured."""

    name: str
    method: str

    def tasks(self) -> list[Any]:
        """Tasks for one shared sweep (`analysis.Task`)."""

    def tables(self, result: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(items, summary) from the sweep's result."""

    def draw(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Drawing]:
        """Figures, from the tables alone."""

    def counted(self) -> pd.DataFrame | None:
        """Exposures over the whole run as this part counted them: table, item, exposures; None without planted items."""


def thin(steps: list[int], most: int) -> list[int]:
    """At most `most` steps, evenly chosen, the first and the last among them."""
    if len(steps) <= most:
        return steps
    picks = {round(i * (len(steps) - 1) / (most - 1)) for i in range(most)}
    return [steps[i] for i in sorted(picks)]
