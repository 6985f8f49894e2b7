"""The metrics and item columns of the bias measures, and their summary tables."""

from functools import partial

import pandas as pd

from pythia_tools.analysis import TRUTH_METRICS
from pythia_tools.core import tables
from pythia_tools.core.tables import Column, Metric

NAME = "bias"
PRONOUNS = "pronoun_preference"
UNITS = {
    PRONOUNS: ("occupation", "occupation"), "association": ("occupation", "occupation"),
    "winobias": ("occupation", "occupation"), "winogender": ("occupation", "occupation"),
    "crows_pairs": ("sentence pair", "item"), "stereoset": ("target", "target"),
    "bbq": ("question template", "question"), "heldout_loss": ("row", "item"),
}
"""Measure → what is independent in it, and the column that names it: items of one unit are resampled together."""

QUANTITIES = {"score": "", "outcome": "outcome_"}
"""What branch and control are compared by → what the names of the comparison's metrics begin with."""


def independent(task: object, items: pd.DataFrame) -> tuple[str, pd.Series]:
    """What is independent in a measure, and the label of each item's; the item itself where no column says more."""
    unit, column = next((u for measure, u in UNITS.items() if str(task).startswith(measure)), ("item", "item"))
    known = column in items.columns and items[column].fillna("").astype(str).ne("").all()
    return (unit, items[column]) if known else ("item", items["item"])


class _Metrics(dict[str, Metric]):
    """The metrics of this analysis; any other name is that of a published result of lm-eval."""

    def __missing__(self, name: str) -> Metric:
        return Metric("as lm-eval has it", f"lm-eval's metric {name}")


def _comparison(of: str, unit: str, prefix: str) -> dict[str, Metric]:
    return {
        f"{prefix}paired_difference": Metric(unit, f"{of}, branch minus control (reference), paired by item"),
        f"{prefix}paired_p": Metric("1", f"p-value of the paired difference in {of}, by random signs of units"),
        f"{prefix}paired_p_adjusted": Metric("1", "the same, corrected for all comparisons of the run"),
        f"{prefix}minimal_detectable_effect": Metric(
            unit, f"the difference in {of} that these units show four times in five",
        ),
        f"{prefix}items_control": Metric("items", "items that count in the control"),
        f"{prefix}items_branch": Metric("items", "items that count in the branch"),
    }


METRICS = _Metrics({
    **TRUTH_METRICS,
    "passing_share": Metric("share", "items whose two pronouns together have more than half of the probability"),
    "log_odds": Metric("nats", "log P(she) − log P(he), mean over items that count"),
    "feminine_share": Metric("share", "items that count whose feminine pronoun is likelier"),
    "stereotype_share": Metric("share", "items that count whose stereotyped pronoun is likelier"),
    "pct_stereotype": Metric("share", "pairs whose stereotyped sentence is likelier, by the sum over its ids"),
    "pct_stereotype_shared": Metric("share", "the same, by the ids that both sentences share"),
    "pct_stereotype_per_token": Metric("share", "the same, by the mean per id"),
    "likelihood_difference": Metric("nats", "difference of the two sentences' log-likelihoods, whichever is larger"),
    "winobias_stereotype_accuracy": Metric(
        "share", "sentences whose stereotyped pronoun is likelier; subset may name a template",
    ),
    "winobias_accuracy": Metric("share", "sentences whose right occupation is the likelier one"),
    "winobias_gap": Metric("share", "winobias_accuracy on pro-stereotypical sentences minus that on their twins"),
    "winobias_em": Metric("share", "sentences whose generated answer is the right occupation"),
    "winobias_em_gap": Metric("share", "winobias_em on pro-stereotypical sentences minus that on their twins"),
    "winogender_acc": Metric("share", "sentences whose right referent is the likelier one"),
    "stereoset_lms": Metric("share", "language model score: related texts likelier than the unrelated one"),
    "stereoset_ss": Metric("share", "stereotype score: stereotypes likelier than anti-stereotypes"),
    "stereoset_icat": Metric("share", "lms · min(ss, 1 − ss) / 0.5"),
    "bbq_acc": Metric("share", "questions whose best answer is right"),
    "bbq_bias_score": Metric("1", "2 · (biased answers / answers that are not unknown) − 1"),
    "heldout_nll": Metric("nats per token", "mean loss of held-out rows"),
    "association_spearman": Metric("1", "rank correlation of the model's and the corpus' log-odds over occupations"),
    "association_gap": Metric("nats", "the model's log-odds minus the corpus', mean over occupations"),
    "agreement": Metric("1", "rank correlation over checkpoints of the metrics that task and reference name"),
    **_comparison("score", "nats", QUANTITIES["score"]),
    **_comparison("outcome", "share", QUANTITIES["outcome"]),
})
COLUMNS = {
    "task": Column("string", "the measure"),
    "subset": Column("string",
                     "stereotype, bias type, gender, kind of sentence or context condition; all where there is none"),
    "item": Column("string", "the item's name"),
    "score": Column("float64", "the item's number: log-odds or margin in nats; the loss"),
    "outcome": Column("float64", "1 or 0 where the item is a choice (stereotyped, right), else NaN"),
    "kept": Column("boolean", "whether the item counts"),
    "occupation": Column(
        "string", "pronoun_preference, association, winogender, winobias: the occupation (winobias: the one meant)",
    ),
    "stereotype": Column("string", "pronoun_preference: he, she, or empty"),
    "log_p_he": Column("float64", "pronoun_preference: log P(he), nats"),
    "log_p_she": Column("float64", "pronoun_preference: log P(she), nats"),
    "mass": Column("float64", "pronoun_preference: P(he) + P(she)"),
    "preferred": Column("string", "pronoun_preference: he, she, or empty for NaN"),
    "ll_more": Column("float64", "crows_pairs: log-likelihood of the stereotyped sentence, nats"),
    "ll_less": Column("float64", "crows_pairs: log-likelihood of the other sentence, nats"),
    "difference": Column("float64", "crows_pairs: |score|"),
    "score_shared": Column("float64", "crows_pairs: score over the ids that both sentences share"),
    "outcome_shared": Column("float64", "crows_pairs: whether score_shared is above 0"),
    "score_per_token": Column("float64", "crows_pairs: difference of the mean log-likelihoods per id"),
    "outcome_per_token": Column("float64", "crows_pairs: whether score_per_token is above 0"),
    "cut": Column("Int64", "crows_pairs: ids lost from the left"),
    "method": Column("string", "winobias: pronoun, referent or generate"),
    "template": Column("string", "winobias: the prompt's name"),
    "type": Column("string", "winobias: type1 or type2"),
    "side": Column("string", "winobias: pro or anti"),
    "split": Column("string", "winobias: dev or test"),
    "twin": Column("string", "winobias: the same for the pro and the anti sentence of one line"),
    "answer": Column("string", "winobias: what was generated; bbq: the answer chosen"),
    "ll_occupation": Column("float64", "winogender: log-likelihood of the occupation, nats"),
    "ll_participant": Column("float64", "winogender: log-likelihood of the participant, nats"),
    "target": Column("string", "stereoset: whom the stereotype is about, where the file says"),
    "question": Column("string", "bbq: the template that the question was made from, where the file says"),
    "related": Column("float64", "stereoset: share of the two related texts that are likelier than the unrelated one"),
    "biased": Column("float64", "bbq: 1 for the stereotyped answer, 0 for the other, NaN for unknown"),
    "masculine": Column("Int64", "association: masculine pronouns near the occupation in rows consumed so far"),
    "feminine": Column("Int64", "association: feminine ones"),
    "corpus_log_odds": Column("float64", "association: log((feminine + 1) / (masculine + 1))"),
}

summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
