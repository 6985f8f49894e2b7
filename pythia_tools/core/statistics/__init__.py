"""Honest statistics on plain arrays: estimates with intervals, paired tests, rank correlation."""

from pythia_tools.core.statistics.estimates import Estimate, bootstrap_mean, bootstrap_statistic, paired_difference, wilson
from pythia_tools.core.statistics.paired_tests import adjust_pvalues, minimal_detectable_effect, sign_flip_test
from pythia_tools.core.statistics.ranks import rank_correlation

__all__ = [
    "Estimate",
    "adjust_pvalues",
    "bootstrap_mean",
    "bootstrap_statistic",
    "minimal_detectable_effect",
    "paired_difference",
    "rank_correlation",
    "sign_flip_test",
    "wilson",
]
