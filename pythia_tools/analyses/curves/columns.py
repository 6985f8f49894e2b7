"""The metrics and item columns of token curves."""

from pythia_tools.analyses.curves.ngrams import LONGEST
from pythia_tools.core.tables import Column, Metric

NAME = "curves"
TOKEN, ROW = "token", "row"
"""The two kinds of items: a line per run and token, at the run's last checkpoint; a line per checkpoint and row."""
AGE_NAMES = {
    "sigmoid": "a fitted sigmoid", "gam": "a penalized spline", "crossing": "the curve as measured, without a fit",
}
METRICS = {
    "surprisal": Metric("bits", "mean −log2 p of the chosen tokens, over rows"),
    "icl_score": Metric("nats per token", "in-context learning: loss at a late position of the row minus that at an "
                                          "early one (see the item columns late and early)"),
    "ngram_kl": Metric("bits", "mean KL divergence from the predictions of n-grams (n in task) to the model's"),
    "ngram_kl_least_step": Metric("steps", "checkpoint at which ngram_kl is least"),
    "acquired_share": Metric("share", "tokens whose measured curve has crossed half-way from chance to its best"),
    "never_acquired_share": Metric("share", "tokens whose surprisal is never below chance, and so never crosses"),
    **{f"aoa_{name}": Metric("log10 steps", f"mean age of acquisition by {how}") for name, how in AGE_NAMES.items()},
    "fit_failed_share": Metric("share", "curves that the method in task could not be fitted to at the first tolerance"),
    "age_clipped_share": Metric("share", "ages by the method in task that were put at the first or last checkpoint"),
    "aoa_frequency": Metric("1", "rank correlation of aoa_crossing and the token's exposures, over tokens"),
    "final": Metric("bits", "mean surprisal of the last 11 checkpoints"),
    "best": Metric("bits", "mean over tokens of their least surprisal over training"),
    "forgetting": Metric("bits", "mean surprisal at the last checkpoint minus that at the token's best"),
    "forgettability": Metric("bits", "mean over tokens of the sum of the rises of their smooth curve"),
    "variability": Metric("bits", "mean standard deviation of the last 11 checkpoints, within the run"),
}
_TOKEN_COLUMNS = {
    "position": Column("Int64", "token: position t, the prediction of id t + 1 from ids 0 … t of the row"),
    "token": Column("Int64", "token: the true id there"),
    "document": Column("Int64", "token: the document it is of, where the order knows"),
    "consumed": Column("Int64", "token: first checkpoint that has consumed the row; <NA> for held-out rows"),
    "exposures": Column("Int64", "token: exposures of the id up to the run's last checkpoint"),
    "trigram_exposures": Column("Int64", "token: exposures of the id with the two before it, likewise"),
    "exposures_at_crossing": Column("float64", "token: exposures of the id up to aoa_crossing (interpolated)"),
    **{f"ngram_{n}": Column("float64", f"token: surprisal by {n}-grams of the rows consumed, with back-off, bits")
       for n in range(1, LONGEST + 1)},
    "best": Column("float64", "token: least surprisal over training, bits"),
    "best_step": Column("Int64", "token: the checkpoint where it is least"),
    "last": Column("float64", "token: surprisal at the last checkpoint, bits"),
    "final": Column("float64", "token: mean surprisal of the last 11 checkpoints, bits"),
    "variability": Column("float64", "token: standard deviation of the last 11 checkpoints, bits"),
    "forgetting": Column("float64", "token: last minus best, bits"),
    "forgettability": Column("float64", "token: sum of the rises of the smooth curve, bits"),
}
_AGE_COLUMNS = {
    column: told for name, how in AGE_NAMES.items() for column, told in (
        (f"aoa_{name}", Column("float64", f"token: age of acquisition by {how}, log10 steps")),
        (f"clipped_{name}", Column("boolean", "token: that age was put at the first or last checkpoint")),
        (f"failed_{name}", Column("boolean", "token: no fit at the first tolerance, or a value that is not finite")),
    )
}
_ROW_COLUMNS = {
    "bits": Column("float64", "row: mean surprisal of its chosen tokens at the checkpoint, bits"),
    "early": Column("float64", "row: loss at position 50 (in rows of up to 500, at an eighth of their length), nats"),
    "late": Column("float64", "row: loss at position 500 (in rows of up to 500, at three quarters of them), nats"),
    **{f"kl_{n}": Column("float64", f"row: mean KL divergence from {n}-grams to the model at its chosen positions, "
                                    "where their context was seen, bits") for n in range(1, LONGEST + 1)},
}
COLUMNS = {
    "task": Column("string", "what the line is of: token (a run's curve there) or row (of a checkpoint)"),
    "subset": Column("string", "where the rows are from: heldout or order (rows consumed in training)"),
    "row": Column("int64", "the row's number in the order (its place, for held-out rows)"),
    **_TOKEN_COLUMNS, **_AGE_COLUMNS, **_ROW_COLUMNS,
}
