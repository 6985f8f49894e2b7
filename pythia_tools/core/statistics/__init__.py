"""Honest statistics on plain arrays: estimates that name their independent unit, paired tests, rank correlation."""

from pythia_tools.core.statistics.association import (
    isotonic_rise,
    partial_rank_correlation,
    permuted,
    rank_correlation,
    spearman,
)
from pythia_tools.core.statistics.detection import auc, roc
from pythia_tools.core.statistics.estimates import (
    FEWEST,
    RESAMPLES,
    Estimate,
    difference,
    dispersion,
    fitted,
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
from pythia_tools.core.statistics.samples import difference_of_means, sums_of_means

__all__ = [
    "FEWEST", "RESAMPLES", "Estimate", "adjust_pvalues", "auc", "difference", "difference_of_means", "dispersion",
    "fitted", "frequencies", "from_draws", "isotonic_rise", "mean", "minimal_detectable_effect", "normal_bounds",
    "paired_shares", "paired_test", "partial_rank_correlation", "percentiles", "permutation_pvalue", "permuted",
    "rank_correlation", "roc", "series_mean", "sign_flip_test", "spearman", "statistic", "sums_of_means",
    "units", "wilson",
]
