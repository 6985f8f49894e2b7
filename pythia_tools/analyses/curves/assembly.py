"""From checkpoints one after the other to curves by token: what a sweep finds, gathered a group at a time and stored.

Memory: the values of one group of checkpoints (32 × 2 bytes per token) for every run whose checkpoints come mixed with
another's; one group where they come run by run, as a suite lists them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools.analyses.curves.store import GROUP, CurveStore, CurveWriter, StoredRun
from pythia_tools.core.errors import RequestError
from pythia_tools.suites import Checkpoint


class Assembly:
    """A store in the making; complete, with its manifest, once the last value of the last checkpoint is there.

    places: of the curves, as `CurveWriter` takes them; checkpoints: all that will come, in any order.
    """

    def __init__(self, folder: Path, places: pd.DataFrame, checkpoints: Iterable[Checkpoint]):
        self.writer, self.tokens = CurveWriter(folder, places), len(places)
        self.checkpoints: dict[str, list[Checkpoint]] = {}
        for checkpoint in checkpoints:
            self.checkpoints.setdefault(checkpoint.model.name, []).append(checkpoint)
        for model, own in self.checkpoints.items():
            own.sort(key=lambda c: c.step)
            if len({(c.suite, c.step) for c in own}) < len(own) or len({c.suite for c in own}) > 1:
                raise RequestError(f"two checkpoints are called {model} at one step; give the runs names of their own")
        self._open: dict[tuple[str, int], np.ndarray] = {}
        self._left: dict[tuple[str, int], int] = {}
        self._files: dict[str, dict[int, str]] = {model: {} for model in self.checkpoints}
        self._vocabulary: dict[str, int] = {}

    def add(self, checkpoint: Checkpoint, begin: int, values: np.ndarray, vocabulary: int) -> CurveStore | None:
        """Values of curves [begin, begin + n) at a checkpoint, float16 bits; the finished store after the last of them.
        """
        model = checkpoint.model.name
        group, within = divmod([c.step for c in self.checkpoints[model]].index(checkpoint.step), GROUP)
        size = min(GROUP, len(self.checkpoints[model]) - group * GROUP)
        key = (model, group)
        if key not in self._open:
            self._open[key] = np.full((size, self.tokens), np.nan, dtype="<f2")
            self._left[key] = size * self.tokens
        self._open[key][within, begin : begin + len(values)] = values
        self._left[key] -= len(values)
        self._vocabulary[model] = vocabulary
        if self._left[key] == 0:
            self._files[model][group] = self.writer.group(model, self._open.pop(key))
        done = all(len(named) * GROUP >= len(self.checkpoints[m]) for m, named in self._files.items())
        return self.writer.finish([self._run(m) for m in self.checkpoints]) if done else None

    def _run(self, model: str) -> StoredRun:
        own = self.checkpoints[model]
        info = own[0].model
        return StoredRun(
            own[0].suite, model, info.params, info.branch, info.seed, tuple(c.step for c in own),
            tuple(c.tokens for c in own), math.log2(self._vocabulary[model]),
            tuple(name for _, name in sorted(self._files[model].items())),
        )
