"""Honest statistics on plain arrays: estimates that name their independent unit, paired tests, rank correlation."""

from pythia_tools.core.statistics.estimates import (
    Estimate,
    crossed,
    difference,
    difference_of_means,
    from_draws,
    mean,
    normal_bounds,
    paired_shares,
    percentiles,
    statistic,
    wilson,
)
from pythia_tools.core.statistics.isotonic import isotonic_rise
from pythia_tools.core.statistics.paired_tests import (
    adjust_pvalues,
    minimal_detectable_effect,
    permutation_pvalue,
    sign_flip_test,
)
from pythia_tools.core.statistics.ranks import partial_rank_correlation, rank_correlation, spearman
from pythia_tools.core.statistics.resampling import RESAMPLES, frequencies, units
from pythia_tools.core.statistics.roc import auc, roc

__all__ = [
    "RESAMPLES", "Estimate", "adjust_pvalues", "auc", "crossed", "difference", "difference_of_means", "frequencies",
    "from_draws", "isotonic_rise", "mean", "minimal_detectable_effect", "normal_bounds", "paired_shares",
    "partial_rank_correlation", "percentiles", "permutation_pvalue", "rank_correlation", "roc",
    "sign_flip_test", "spearman", "statistic", "units", "wilson",
]
