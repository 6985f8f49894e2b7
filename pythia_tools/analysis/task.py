"""What a sweep runs on every checkpoint: built once, in parts that can be resumed, with a version of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pandas as pd
from torch import nn

from pythia_tools.analysis.context import Context
from pythia_tools.suites import Checkpoint

Key: TypeAlias = "str | int | Sequence[Key] | Mapping[str, Key]"
"""A JSON-able value."""


class Task(ABC):
    """A task of a sweep: `run` returns one row per item of a part, without identity columns.

    name: unique in its analysis. digest: covers inputs and parameters. parts: units of resume.
    version: raised when what `run` computes or returns changes, so that no stale cell is taken for a new one.
    ids: token ids that pass through each model, at least, for plans; None when that is not known before.
    """

    name: str
    digest: str
    parts: int = 1
    version: int = 1
    ids: int | None = None

    @abstractmethod
    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame: ...

    def key(self, checkpoint: Checkpoint) -> Key | None:
        """What of the items depends on the checkpoint (the rows it has just seen); None: nothing to do there."""
        return ""
