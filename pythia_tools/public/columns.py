"""The frame of public results: its columns, what they mean, and the counts that follow from a standard error.

One row per published number. The identity columns name checkpoints as the shipped suites do, so that a run of one's own
joins on them; `task_now` and `metric_now` are the names that lm-eval 0.4.13 has for the same thing.
"""

import numpy as np
import numpy.typing as npt

from pythia_tools.core import tables
from pythia_tools.core.tables import IDENTITY, Column

COLUMNS: dict[str, Column] = {
    **{name: tables.COLUMNS[name] for name in IDENTITY},
    "release": Column("string", "release of the suite, `v0` or `v1`; <NA> where there is one only"),
    "collection": Column(
        "string", "the set of results it was published in: `zero-shot`, `five-shot`, `baseline`, `intervention`, "
        "`batch-size`, `bias`, `winobias`, `term-frequency`, `training-maps`, `predictable-memorization`, "
        "`memorized-evals`, `table`, `lm-eval`, `datadecide`, `signal-and-noise`, `ladder`, `other-models`"),
    "task": Column("string", "the task as published (`hendrycksTest-anatomy`, `wsc`)"),
    "subset": Column("string", "which of its items or answers: WinoBias' prompt, an arithmetic task's first operand, "
                               "lm-eval's filter; `all` for all of them"),
    "shots": Column("Int64", "examples that were in the prompt, by the file's config, not its name; <NA> unknown"),
    "metric": Column("string", "the metric as published (`acc`, `ppl`, `pct_stereotype`)"),
    "value": Column("float64", "the number as published"),
    "stderr": Column("float64", "its standard error as published; NaN without one"),
    "n_items": Column("Int64", "items behind it: counted in the samples or by the harness, else, for shares, "
                               "recovered from the standard error; <NA> unknown"),
    "n_published": Column("Int64", "items that the source says its task or data set has; <NA> unknown"),
    "chance": Column("float64", "a random guess's value, for shares; NaN unknown"),
    "task_now": Column("string", "the task of lm-eval 0.4.13; <NA> where it has none"),
    "metric_now": Column("string", "the metric of lm-eval 0.4.13; <NA> where it has none"),
    "match": Column("string", "whether that task asks the same: `same`, `nearly`, `differs`, `none`; <NA> unknown"),
    "note": Column("string", "what differs, or what the measure really is; <NA> for nothing"),
    "defect": Column("string", "what is known to be wrong with the number; <NA> for nothing"),
    "defect_source": Column("string", "where that is documented; `computed` where it follows from the numbers"),
    "source": Column("string", "the file, in the folder or archive that was read"),
}
"""Column → type and meaning; in this order."""
CELL = ["suite", "model", "branch", "step", "collection", "task", "subset", "shots", "metric"]
"""The columns that together name a number."""
SHARES = ("acc", "acc_norm", "acc_bytes", "pct_stereotype", "em", "exact_match")
"""Metrics that are means of 0 and 1, so that their standard errors tell the number of items."""
COMPUTED = "computed"


def items(value: npt.ArrayLike, stderr: npt.ArrayLike) -> np.ndarray:
    """Items behind shares and their standard errors, p(1 − p)/se² + 1, as float64; NaN where the error is 0 or missing.

    The harness' standard error of a share is the sample's standard deviation (n − 1) over √n, in every version.

    >>> items([0.18455268775470599], [0.00540468283118203]).round(3).tolist()
    [5153.0]
    """
    p, error = np.asarray(value, float), np.asarray(stderr, float)
    known = (error > 0) & (p > 0) & (p < 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, p * (1 - p) / error**2 + 1, np.nan)
