"""The item columns and the metrics of evaluations."""

from functools import partial

from pythia_tools.core import tables
from pythia_tools.core.tables import Column, Metric

NAME = "evaluate"
REQUEST = {
    "task": Column("string", "lm-eval's name of the task (of a group: of each of its members)"),
    "kind": Column("string", "`multiple_choice`, `loglikelihood`, `loglikelihood_rolling` or `generate_until`"),
    "shots": Column("int64", "examples in the prompt"),
    "doc_id": Column("int64", "the document's number in the task's split"),
    "choice": Column("int64", "the request's number within its document; 0 where there is one"),
    "gold": Column("boolean", "whether this choice is right; <NA> for what is no choice"),
    "ll": Column("float64", "log-likelihood of the continuation, nats; NaN for generated text and what does not fit"),
    "is_greedy": Column("boolean", "each id of the continuation is the likeliest one; <NA> where that is not asked"),
    "lead": Column("float64", "nats that the continuation's ids lead the likeliest other id by, at the closest one"),
    "margin": Column("float64", "ll minus the highest ll of the document's other choices, nats; NaN without others"),
    "n_tokens": Column("int64", "ids of the continuation"),
    "characters": Column("int64", "characters of the choice, without its delimiter (of the continuation, of the text)"),
    "bytes": Column("int64", "the same in UTF-8 bytes"),
    "cut": Column("int64", "ids of the context that were cut off on the left, as the model's positions ended"),
    "text": Column("string", "what was generated, stop strings removed; <NA> for other kinds"),
}
"""Columns of an item table: one row per checkpoint, task, document and request."""


class _Metrics(dict[str, Metric]):
    """Those that are described here; tasks bring their own."""

    def __missing__(self, name: str) -> Metric:
        return Metric("as lm-eval has it", f"lm-eval's metric {name}")


METRICS = _Metrics({
    "acc": Metric("share", "documents whose likeliest choice is right; where there are no choices, whose continuation "
                           "is what greedy decoding gives"),
    "acc_norm": Metric("share", "documents whose likeliest choice per character is right"),
    "acc_bytes": Metric("share", "documents whose likeliest choice per byte is right"),
    "exact_match": Metric("share", "documents answered exactly; subset names the filter that read the answers"),
    "perplexity": Metric("1", "exp of the mean negative log-likelihood per document"),
    "word_perplexity": Metric("1", "exp of the negative log-likelihood per word"),
    "byte_perplexity": Metric("1", "exp of the negative log-likelihood per byte"),
    "bits_per_byte": Metric("bits per byte", "negative log-likelihood of all texts per byte"),
    "likelihood_diff": Metric("nats", "how far the log-likelihoods of two sentences lie apart"),
    "pct_stereotype": Metric("share", "pairs whose stereotyped sentence is likelier"),
    "brier": Metric("1", "squared distance of the choices' probabilities from the right answer (0 to 2)"),
    "gold_probability": Metric("share", "probability of the right choice among the choices"),
    "gold_bits_per_byte": Metric("bits per byte", "negative log-likelihood of the right choice per byte of its text"),
    "self_consistency": Metric("1", "Cohen's kappa of predictions with those of the model's last step"),
    "self_consistency_weighted": Metric("1", "the same with linear weights, as if choices were ordered"),
    "seed_agreement": Metric("1", "Cohen's kappa of predictions with those of the run named as reference"),
    "seed_agreement_weighted": Metric("1", "the same with linear weights, as if choices were ordered"),
})
summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
