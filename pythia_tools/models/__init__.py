"""Live models: checkpoints loaded, digested, scored, and streamed through one module."""

from pythia_tools.models.devices import choose_device, choose_dtype
from pythia_tools.models.digest import weights_digest
from pythia_tools.models.loading import load
from pythia_tools.models.score import Scores, rows_digest, score_rows
from pythia_tools.models.streaming import checkpoint_of, stream

__all__ = [
    "Scores", "checkpoint_of", "choose_device", "choose_dtype", "load", "rows_digest", "score_rows", "stream",
    "weights_digest"
]
