"""Learning curves: loss on held-out rows, and on the rows just before and just after each checkpoint."""

from pythia_tools.analyses.learning.around import RowsByStep, around
from pythia_tools.analyses.learning.curves import LossTask, collect, measure, summarize, tasks

__all__ = ["LossTask", "RowsByStep", "around", "collect", "measure", "summarize", "tasks"]
