"""Honest statistics on plain arrays: estimates that name their independent unit, paired tests, rank correlation."""

from pythia_tools.core.statistics.association import (
    auc,
    isotonic_rise,
    partial_rank_correlation,
    rank_correlation,
    roc,
    spearman,
)
from pythia_tools.core.statistics.estimates import (
    RESAMPLES,
    Estimate,
    crossed,
    difference,
    difference_of_means,
    frequencies,
    from_draws,
    mean,
    normal_bounds,
    paired_shares,
    percentiles,
    statistic,
    units,
    wilson,
)
from pythia_tools.core.statistics.paired_tests import (
    adjust_pvalues,
    minimal_detectable_effect,
    permutation_pvalue,
    sign_flip_test,
)

__all__ = [
    "RESAMPLES", "Estimate", "adjust_pvalues", "auc", "crossed", "difference", "difference_of_means", "frequencies",
    "from_draws", "isotonic_rise", "mean", "minimal_detectable_effect", "normal_bounds", "paired_shares",
    "partial_rank_correlation", "percentiles", "permutation_pvalue", "rank_correlation", "roc",
    "sign_flip_test", "spearman", "statistic", "units", "wilson",
]
