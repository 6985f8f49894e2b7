"""Honest statistics on plain arrays: estimates that name their independent unit, paired tests, rank correlation."""

from pythia_tools.core.statistics.association import (
    auc,
    isotonic_rise,
    partial_rank_correlation,
    permuted,
    rank_correlation,
    roc,
    spearman,
)
from pythia_tools.core.statistics.estimates import (
    FEWEST,
    RESAMPLES,
    Estimate,
    crossed,
    difference,
    difference_of_means,
    dispersion,
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
    paired_test,
    permutation_pvalue,
    series_mean,
    sign_flip_test,
)

__all__ = [
    "FEWEST", "RESAMPLES", "Estimate", "adjust_pvalues", "auc", "crossed", "difference", "difference_of_means",
    "dispersion", "frequencies", "from_draws", "isotonic_rise", "mean", "minimal_detectable_effect", "normal_bounds",
    "paired_shares", "paired_test", "partial_rank_correlation", "percentiles", "permutation_pvalue", "permuted",
    "rank_correlation", "roc", "series_mean", "sign_flip_test", "spearman", "statistic", "units", "wilson",
]
