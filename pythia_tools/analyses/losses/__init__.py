"""Losses over checkpoints: nats per token and bits per byte, on held-out rows, around each checkpoint, over training.

`losses(checkpoints, rows)` is the table, `Losses` the analysis that writes it as `losses.csv`.
"""

from pythia_tools.analyses.losses.analysis import Losses, LossesOptions
from pythia_tools.analyses.losses.rows import RowSet, Stretch, before_and_after, from_training, given
from pythia_tools.analyses.losses.summary import summarize
from pythia_tools.analyses.losses.table import losses
from pythia_tools.analyses.losses.task import LossTask, bytes_of_ids

__all__ = [
    "LossTask", "Losses", "LossesOptions", "RowSet", "Stretch", "before_and_after", "bytes_of_ids", "from_training",
    "given", "losses", "summarize",
]
