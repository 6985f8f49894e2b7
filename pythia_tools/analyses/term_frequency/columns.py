"""The metrics and item columns of term frequency, and its summary tables."""

from functools import partial

from pythia_tools.analysis import TRUTH_METRICS
from pythia_tools.core import tables
from pythia_tools.core.tables import Column, Metric

NAME = "term-frequency"
IN_TOTAL, IN_LAST = "in_total", "in_last_steps"
METRICS = {
    **TRUTH_METRICS,
    "accuracy": Metric("share", "mean accuracy over terms, of all of them or of a bin of exposures up to the step"),
    "spearman": Metric(
        "1", "rank correlation of accuracy and exposures over terms; subset: exposures up to the step (all), "
        "in_total, or in_last_steps"
    ),
    "spearman_difference": Metric("1", "spearman with exposures up to the step minus that with the reference's"),
    "partial_spearman": Metric("1", "rank correlation with the reference's columns taken out"),
    "gap": Metric("percentage points", "accuracy of the most seen terms minus that of the least seen ones"),
    "monotone_rise": Metric("percentage points", "rise of the best non-decreasing fit of accuracy to exposures"),
    "monotone_rise_p": Metric("1", "share of permutations of accuracy over terms that rise as much"),
    "term_exposures": Metric("exposures", "exposures of the term that subset names, up to the step"),
    "term_accuracy": Metric("share", "accuracy on the term that subset names"),
    "emergence_step": Metric("steps", "first step from which on the relation holds beyond chance; NaN: never"),
    "emerged_share": Metric("share", "share of resamples in which the relation emerged at any step"),
    "emergence_params": Metric("parameters", "size of the smallest model from which on it holds; NaN: never"),
}
COLUMNS = {
    "task": Column("string", "the task: facts, sums, multiplication-16shot"),
    "item": Column("string", "the question's name"),
    "term": Column("string", "the term whose exposures accuracy is set against"),
    "relation": Column("string", "the relation that a fact is of; empty where there is none"),
    "correct": Column("boolean", "whether the answer is right; <NA> where the model gave NaN"),
    "chosen": Column("string", "the candidate chosen (closed answer sets)"),
    "answer": Column("string", "the right answer (closed), or the answer that was read (decoded)"),
    "output": Column("string", "what was decoded, to the end of its line"),
    "logprob": Column("float64", "log-probability of the right answer, nats (closed)"),
    "margin": Column("float64", "logprob minus that of the best wrong candidate, nats (closed)"),
    "exposures": Column("Int64", "exposures of the term up to the step"),
}

summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
