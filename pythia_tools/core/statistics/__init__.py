"""Honest statistics on plain arrays: estimates that name their independent unit, paired tests, rank correlation."""

from pythia_tools.core.statistics.estimates import (
    Estimate,
    difference,
    from_draws,
    mean,
    percentiles,
    share,
    statistic,
    wilson,
)
from pythia_tools.core.statistics.paired_tests import adjust_pvalues, minimal_detectable_effect, sign_flip_test
from pythia_tools.core.statistics.ranks import partial_rank_correlation, rank_correlation, spearman
from pythia_tools.core.statistics.resampling import RESAMPLES, Units, units

__all__ = [
    "RESAMPLES", "Estimate", "Units", "adjust_pvalues", "difference", "from_draws", "mean",
    "minimal_detectable_effect", "partial_rank_correlation", "percentiles", "rank_correlation", "share",
    "sign_flip_test", "spearman", "statistic", "units", "wilson",
]
