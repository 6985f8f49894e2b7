"""Per-token learning curves: surprisal over checkpoints in a compact store, and what follows from it."""

from pythia_tools.analyses.curves.acquisition import Ages, by_crossing, by_gam, by_sigmoid
from pythia_tools.analyses.curves.analysis import Curves, CurvesOptions
from pythia_tools.analyses.curves.joins import ngram_surprisals
from pythia_tools.analyses.curves.measures import describe, of_curves, smooth_curves, variability_between_runs
from pythia_tools.analyses.curves.measuring import token_curves
from pythia_tools.analyses.curves.store import CurveStore, CurveWriter, StoredRun, open_store

__all__ = [
    "Ages", "CurveStore", "CurveWriter", "Curves", "CurvesOptions", "StoredRun", "by_crossing", "by_gam", "by_sigmoid",
    "describe", "ngram_surprisals", "of_curves", "open_store", "smooth_curves", "token_curves",
    "variability_between_runs",
]
