"""The numbers of this room: every metric with its unit, and how summaries of them are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import pandas as pd

from pythia_tools.analysis import TRUTH_METRICS, Drawn, Figure
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import Column, Metric

NAME = "memorization"
EFFECTS = "memorization-effects"

COLUMNS = {
    "task": Column("string", "`canaries`, `rows` (of the order or a file), `order`: evenly spaced rows of the order"),
    "row": Column("int64", "number of the canary, or of the row in the order or file"),
    "cohort": Column("Int64", "the row was consumed before this step, and not before the previous cohort's"),
    "text": Column("int64", "first of the rows that share a document or the window, which count as one unit"),
    "memorized": Column("boolean", "greedy decoding gives the whole continuation; <NA> unless status is `ok`"),
    "status": Column("string", "`ok`, or why there is no answer"),
    "matched": Column("Int32", "leading ids of the continuation that greedy decoding gives"),
    "margin": Column("float32", "logits: least lead of a true id over the best other, over judged positions"),
    "judged": Column("int32", "positions of the continuation that were looked at"),
    "dtype": Column("string", "number format of the pass that decided"),
    "decided": Column("string", "with a screen: what settled the row"),
    "doubt": Column("float32", "with a screen: the margin in logits that a rejection needed"),
    "score": Column("float64", "share of the continuation that greedy decoding gives at its place"),
    "edit_distance": Column("int64", "ids to insert, delete or replace in what was decoded"),
    "span": Column("int64", "longest run of ids that decoded and true continuation share"),
    "mask": Column("object", "packed bits, one per position from keep_from on: whether the true id is the argmax"),
    "exposures": Column(
        "Int64", "occurrences of the planted text, or of the row's window, in rows consumed before the checkpoint"),
    "consumed": Column("boolean", "the row itself was consumed before the checkpoint"),
    "kind": Column("string", "of memorized rows: recitation, reconstruction or recollection"),
    "duplicates": Column("Int64", "of memorized rows: occurrences of the window in the rows consumed"),
}
METRICS = {
    "memorized_share": Metric("share", "rows whose continuation greedy decoding gives"),
    "mean_matched": Metric("tokens", "leading tokens of the continuation that greedy decoding gives"),
    "mean_score": Metric("share", "tokens of the continuation that greedy decoding gives at their place"),
    "mean_edit_distance": Metric("tokens", "edits between what greedy decoding gives and the continuation"),
    "mean_span": Metric("tokens", "longest run of tokens that both share"),
    "screen_overturned": Metric("share", "audited rejections of the screen that were wrong"),
    "undecided": Metric("rows", "rows without an answer, left out of the shares"),
    "spearman_exposures": Metric("rho", "rank correlation of matched tokens with exposures, within a checkpoint"),
    "memorized_share_difference": Metric("share", "minus the reference model's share, paired by row"),
    "memorized_difference": Metric("share", "minus the share of the run that the branch left, paired by row"),
    "burst_gain": Metric("tokens", "matched after a burst of exposures minus before; exposures are its copies"),
    "mean_burst_gain": Metric("tokens", "the same, mean over all bursts of so many copies"),
    **TRUTH_METRICS,
    "block_rows": Metric("rows", "rows per block of the order test"),
    "block_mean": Metric("rows", "memorized rows per block"),
    "dispersion": Metric("ratio", "variance over mean of memorized rows per block; 1 for a Poisson process"),
    "dispersion_permuted": Metric("ratio", "the same for shuffled rows: 1, and the middle 95 % of shuffles"),
    "position_correlation": Metric("rho", "rank correlation of memorized rows per block with position"),
    "position_correlation_permuted": Metric("rho", "the same for shuffled rows"),
    "p_dispersion": Metric("probability", "two-sided p-value of the dispersion among shuffles"),
    "p_position": Metric("probability", "two-sided p-value of the position correlation among shuffles"),
    "both": Metric("rows", "memorized by the predictor and by the reference checkpoint"),
    "missed": Metric("rows", "memorized by the reference checkpoint alone"),
    "false_alarm": Metric("rows", "memorized by the predictor alone"),
    "neither": Metric("rows", "memorized by neither"),
    "precision": Metric("share", "predicted rows that the reference checkpoint memorized"),
    "recall": Metric("share", "rows of the reference checkpoint that were predicted"),
    "f1": Metric("share", "harmonic mean of precision and recall"),
    "predicted_share": Metric("share", "rows that the predictor memorized"),
    "true_share": Metric("share", "rows that the reference checkpoint memorized"),
    "parameters_exponent": Metric("exponent", "a of share ~ parameters^a at one step, over models"),
    "tokens_exponent": Metric("exponent", "b of share ~ tokens^b of one model, over steps"),
    "kind_share": Metric("share", "memorized rows of the kind that `subset` names"),
}
EFFECT_COLUMNS = {
    "row": Column("int64", "number of the row in the order"),
    "cohort": Column("Int64", "first checkpoint that contains the row; <NA> for rows never consumed, the controls"),
    "status": Column("string", "`ok`, or why there is no answer"),
    "nll": Column("float64", "nats per token"),
    "nll_sum": Column("float64", "nats of the row"),
    "top1": Column("float64", "share of positions whose true id is the argmax"),
    "entropy": Column("float64", "nats, mean over positions"),
    "min_k": Column("float64", "mean log-probability of the least likely fifth of the tokens"),
    "min_k_plus": Column("float64", "the same, standardized by the model's own distribution at each position"),
    "positions": Column("int64", "tokens that were predicted"),
    "zlib_bytes": Column("int64", "compressed size of the row's text (of its ids without a tokenizer)"),
}
_LOSS = "nats per token"
EFFECT_METRICS = {
    "effect": Metric(_LOSS, "what consuming a cohort did to its loss by each checkpoint (above 0: known better)"),
    "instantaneous": Metric(_LOSS, "the effect at the first checkpoint that contains the cohort"),
    "residual": Metric(_LOSS, "the effect on a cohort that is left at the last checkpoint"),
    "persistent_effect": Metric(_LOSS, "mean effect `since` steps after the first checkpoint with the rows"),
    "before_effect": Metric(_LOSS, "placebo: mean effect that many steps before it; 0 under parallel trends"),
    "mean_instantaneous": Metric(_LOSS, "instantaneous effect, over cohorts"),
    "mean_residual": Metric(_LOSS, "effect left at the last checkpoint, over cohorts"),
    "mean_before": Metric(_LOSS, "placebo effect, over cohorts and earlier checkpoints"),
    "advantage_after_exposure": Metric(_LOSS, "loss below that of rows never consumed, `since` steps after exposure"),
    "nll_after_exposure": Metric(_LOSS, "loss `since` steps after exposure"),
    "auc": Metric("share", "area under the ROC curve of members against non-members, by the signal that `task` names"),
    "tpr_at_fpr_0.001": Metric("share", "members found where 0.1 % of non-members are"),
    "tpr_at_fpr_0.01": Metric("share", "members found where 1 % of non-members are"),
    "tpr_at_fpr_0.1": Metric("share", "members found where 10 % of non-members are"),
}


Drawings: TypeAlias = "dict[str, tuple[Callable[[pd.DataFrame], Drawn], str]]"
"""Name of a figure → how it is drawn from a summary, and its caption."""


def figures(summary: pd.DataFrame, wanted: Drawings) -> Iterator[Figure]:
    """The figures that the tables can carry; of each other one it is said why not."""
    for name, (draw, caption) in wanted.items():
        try:
            yield Figure(name, draw(summary), caption)
        except RequestError as error:
            progress.note(f"no figure {name}: {error}")


summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
effects = partial(tables.summary, analysis=EFFECTS)
