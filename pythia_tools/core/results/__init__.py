"""A run's folder: config first, cells as they are computed, tables, figures, and `run.json` last."""

from pythia_tools.core.results.cells import CellStore
from pythia_tools.core.results.folder import Run, RunFolder, load_run

__all__ = ["CellStore", "Run", "RunFolder", "load_run"]
