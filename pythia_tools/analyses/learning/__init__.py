"""Learning curves: loss on held-out rows, and on the batches before and after each checkpoint."""

from pythia_tools.analyses.learning.analysis import Learning, LearningOptions
from pythia_tools.analyses.learning.curves import LossTask, before_and_after, summarize

__all__ = ["Learning", "LearningOptions", "LossTask", "before_and_after", "summarize"]
