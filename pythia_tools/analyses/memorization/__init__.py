"""Memorization: which training rows a checkpoint reproduces, when, at which size, and whether that can be predicted.

`measure` judges rows over checkpoints in one staged pass; `row_scores` gives every row's losses; all else reads those
two tables. Declared: `Memorization`, and `MemorizationEffects` for what consuming a row did to its loss.
"""

from pythia_tools.analyses.memorization import public_format, rows, taxonomy
from pythia_tools.analyses.memorization.analysis import Memorization, MemorizationOptions
from pythia_tools.analyses.memorization.counterfactual import counterfactual, mean_memorization
from pythia_tools.analyses.memorization.effects import EffectOptions, MemorizationEffects
from pythia_tools.analyses.memorization.extract import Window, decoding_table, extract
from pythia_tools.analyses.memorization.measure import MemorizationTask, extractable, measure, measure_model
from pythia_tools.analyses.memorization.order_effect import block_counts, order_effect, qq_points, summarize_order
from pythia_tools.analyses.memorization.overlap import Overlap, duplicate_counts
from pythia_tools.analyses.memorization.predictability import Confusion, confusion, predictability, published, scaling
from pythia_tools.analyses.memorization.profiles import cohort_of, forgetting_curve, profiles, summarize_profiles
from pythia_tools.analyses.memorization.row_scores import row_scores, score_model
from pythia_tools.analyses.memorization.rows import select_rows
from pythia_tools.analyses.memorization.screen import screened
from pythia_tools.analyses.memorization.summary import exposure_bins, summarize, with_exposures
from pythia_tools.core.statistics import auc

__all__ = [
    "Confusion", "EffectOptions", "Memorization", "MemorizationEffects", "MemorizationOptions", "MemorizationTask",
    "Overlap", "Window", "auc", "block_counts", "cohort_of", "confusion", "counterfactual", "decoding_table",
    "duplicate_counts", "exposure_bins", "extract", "extractable", "forgetting_curve", "mean_memorization", "measure",
    "measure_model", "order_effect", "predictability", "profiles", "public_format", "published", "qq_points",
    "row_scores", "rows", "scaling", "score_model", "screened", "select_rows", "summarize", "summarize_order",
    "summarize_profiles", "taxonomy", "with_exposures",
]
