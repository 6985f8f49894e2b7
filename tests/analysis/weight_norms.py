"""An analysis declared outside the package: the norm of every weight matrix, in forty lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import ClassVar

import pandas as pd
from matplotlib import pyplot as plt
from torch import nn

from pythia_tools.analysis import Analysis, Context, Figure, Options, Sentence, Task, option
from pythia_tools.core import tables
from pythia_tools.core.tables import Column, Metric

METRICS = {"mean_norm": Metric("1", "mean Frobenius norm of the weight matrices")}
summary = partial(tables.summary, analysis="weight-norms", metrics=METRICS)


@dataclass(frozen=True)
class NormOptions(Options):
    matrices: str = option("*", "glob over tensor names")


class NormTask(Task):
    name = "weight-norms/matrices"

    def __init__(self, matrices: str):
        self.matrices = self.digest = matrices

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        found = {n: p for n, p in model.named_parameters() if p.ndim == 2 and fnmatch(n, self.matrices)}
        return pd.DataFrame({"tensor": list(found), "norm": [float(p.float().norm()) for p in found.values()]})


class WeightNorms(Analysis[NormOptions]):
    """Norm of every weight matrix over training.

    example: pythia-tools weight-norms pythia-micro --matrices '*mlp*'
    """

    name, version, Options, metrics = "weight-norms", 1, NormOptions, METRICS
    columns: ClassVar = {"tensor": Column("string", "the matrix"), "norm": Column("float64", "its Frobenius norm")}
    methods = "The Frobenius norm of every matrix that matches {matrices}."

    def tasks(self, context: Context, options: NormOptions) -> list[Task]:
        return [NormTask(options.matrices)]

    def summarize(self, items: pd.DataFrame, context: Context, options: NormOptions) -> pd.DataFrame:
        return summary({**who, "metric": "mean_norm", "value": part["norm"].mean(), "n": len(part), "unit": "matrix"}
                       for who, _, part in tables.by_identity(items))

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        _, ax = plt.subplots()
        ax.plot(summary["step"], summary["value"])
        yield Figure("norms", ax, "Mean norm over training.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        last = tables.at_last_step(summary).tail(1)
        return [Sentence.of(f"The mean norm ends at {last['value'].iloc[0]:.3f}.", last)]
