"""The columns of what `verify` returns, and the metrics of its summary."""

from functools import partial

from pythia_tools.core import tables
from pythia_tools.core.tables import Column, Metric

NAME = "verify"
EQUAL, WITHIN, OUTSIDE, UNCOMPARED = "equal", "within noise", "outside", "not compared"
NUMBER = {
    "task": Column("string", "lm-eval's name of the task"),
    "subset": Column("string", "the filter that read the answers, or `all`"),
    "shots": Column("Int64", "examples in the prompt; <NA> where the published table does not say"),
    "metric": Column("string", "lm-eval's name of the metric"),
    "ours": Column("float64", "the value of the run; NaN where it has none"),
    "published": Column("float64", "the published value"),
    "difference": Column("float64", "ours minus published"),
    "documents": Column("Int64", "documents behind ours"),
    "documents_published": Column("Int64", "documents behind the published value, stated or from its standard error"),
    "rounding": Column("float64", "half a unit of the last digit published, and what float32 leaves open"),
    "low": Column("float64", "the least that another number format may make of ours"),
    "high": Column("float64", "the most that another number format may make of ours"),
    "basis": Column("string", "what low and high rest on: `margins` or `values` of documents, in two number formats; "
                              "`none`: only rounding"),
    "may_flip": Column("Int64", "documents whose margin is below the largest difference measured between formats"),
    "verdict": Column("string", "`equal` to rounding, `within noise`, `outside`, or `not compared`"),
    "cause": Column("string", "`same weights`, `other checkpoint`, `other task`, `other items`, `other shots`, "
                              "`overflow`, `known defect`, `missing`, `unknown`; <NA> where there is none to tell"),
    "detail": Column("string", "the cause in words"),
    "collection": Column("string", "the published set of results"),
    "published_task": Column("string", "the task as it was published"),
    "source": Column("string", "the file that the published value was read from"),
}
"""One row per published number of the run's checkpoints, after IDENTITY."""
NEIGHBOUR = {
    "side": Column("string", "`published`: other published numbers against the run's at this checkpoint; `run`: other "
                             "numbers of the run against those published for it"),
    "collection": Column("string", "the published set of results"),
    "other_model": Column("string", "the model of the other checkpoint"),
    "other_step": Column("Int64", "its step"),
    "numbers": Column("int64", "numbers that both have"),
    "equal": Column("int64", "of them equal to rounding"),
    "within": Column("int64", "of them within noise"),
    "outside": Column("int64", "of them outside"),
    "distance": Column("float64", "mean difference in units of one document and the noise together"),
    "claimed": Column("boolean", "whether it is the checkpoint that the numbers were published for"),
}
"""One row per checkpoint and checkpoint that it was compared with, after IDENTITY."""
FORMAT = {
    "suite": Column("string", "the suite whose answers were computed twice"),
    "model": Column("string", "the model"),
    "task": Column("string", "the task"),
    "metric": Column("string", "the metric whose margins or values differ"),
    "doc_id": Column("int64", "the document"),
    "apart": Column("float64", "how far margin or value of the document differ between two number formats, nats (for "
                               "acc_norm per character, acc_bytes per byte); inf where one of them overflows"),
}
"""One row per document that was answered in two number formats."""
FINDING = {
    "suite": Column("string", "the suite"), "model": Column("string", "the model"), "step": Column("Int64", "the step"),
    "collection": Column("string", "the published set of results"),
    "task": Column("string", "the task as published; <NA> for a whole checkpoint"),
    "metric": Column("string", "the metric as published; <NA> for several"),
    "check": Column("string", "`items`, `range`, `chance`, `duplicate`, `spike`, `parts`, `defect`"),
    "known": Column("boolean", "whether it is documented, and so no news"),
    "severity": Column("string", "`wrong`, or `note` for what is expected"),
    "detail": Column("string", "what was found"),
    "source": Column("string", "where it is documented, or the file it was found in"),
}
"""One row per thing that published tables say against themselves."""
METRICS = {
    "numbers_equal": Metric("numbers", "published numbers that the run repeats to rounding"),
    "numbers_within_noise": Metric("numbers", "published numbers that another number format would explain"),
    "numbers_outside": Metric("numbers", "published numbers that it would not"),
    "numbers_not_compared": Metric("numbers", "published numbers that the run has no counterpart of"),
    "checkpoints_that_fit": Metric("checkpoints", "other published checkpoints that fit as well or better"),
    "format_difference": Metric("as the metric in subset", "median distance of a document's margin or value between "
                                                           "two number formats; bounds: quartiles"),
    "findings": Metric("findings", "things that published tables say against themselves"),
    "findings_known": Metric("findings", "those that are documented"),
}
summary = partial(tables.summary, analysis=NAME, metrics=METRICS)
