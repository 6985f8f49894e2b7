"""Published numbers as a summary table, with intervals from their own standard errors."""

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.core.statistics import normal_bounds
from pythia_tools.core.tables import IDENTITY, Metric
from pythia_tools.public.columns import SHARES

METRIC_UNITS: dict[str, Metric] = {
    **{name: Metric("share", "share of the items, as published") for name in SHARES},
    "ppl": Metric("perplexity", "perplexity of the last word, as published"),
    "perplexity": Metric("perplexity", "perplexity, as published"),
    "word_perplexity": Metric("perplexity", "perplexity per word, as published"),
    "byte_perplexity": Metric("perplexity", "perplexity per byte, as published"),
    "bits_per_byte": Metric("bits per byte", "bits per byte, as published"),
    "likelihood_difference": Metric("nats", "mean absolute difference of a pair's log-likelihoods, as published"),
}
HENDRYCKS = "hendrycksTest"
"""The task that the 57 published ones of this beginning make together."""


def to_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of published numbers as a summary: subset is the collection (`zero-shot`, `baseline`) and, where a number
    is of some of the items only, which; intervals are ± 1.96 standard errors; n is items.
    """
    low, high = normal_bounds(frame["value"].to_numpy(float), frame["stderr"].to_numpy(float))
    part = frame["collection"].mask(frame["subset"] != "all", frame["subset"])
    rows = frame[[*IDENTITY, "task", "metric", "value"]].assign(
        analysis="published", subset=part, low=low, high=high, n=frame["n_items"], unit="item",
        metric_unit=[METRIC_UNITS[m].unit if m in METRIC_UNITS else "as published" for m in frame["metric"]],
        interval=np.where(np.isfinite(low), "normal95 of the published stderr", "none"),
    )
    return tables.check_summary(rows.reindex(columns=tables.SUMMARY))


def of_tasks(frame: pd.DataFrame, names: list[str], metric: str, shots: int) -> pd.DataFrame:
    """The numbers of tasks in Pythia's zero- or five-shot collections, by `metric` or, where a task lacks it, by `acc`.

    `hendrycksTest` is all of its 57 tasks together, each as often as it has items. Numbers that were run with other
    shots than asked are left out, whatever their collection is called. Raises: UnknownNameError naming the tasks
    there are; RequestError when none has the metric.
    """
    asked = frame[frame["release"].notna() & frame["collection"].isin(["zero-shot", "five-shot"])
                  & frame["shots"].eq(shots).fillna(False)]
    asked = asked[asked["collection"].eq("five-shot" if shots == 5 else "zero-shot")]
    asked = pd.concat([asked, _together(asked[asked["task"].str.startswith(f"{HENDRYCKS}-")])], ignore_index=True)
    for name in names:
        if not asked["task"].eq(name).any():
            raise unknown(f"task with {shots} shots", name, sorted(asked["task"].unique()))
    chosen = asked[asked["task"].isin(names)]
    has = chosen.groupby("task")["metric"].transform(lambda metrics: metric in set(metrics))
    found = chosen[chosen["metric"].eq(metric) | (~has & chosen["metric"].eq("acc"))]
    if found.empty:
        raise RequestError(f"no task of {', '.join(names)} has the metric {metric!r}; they have "
                           f"{', '.join(sorted(chosen['metric'].unique()))}")
    return found


def _together(parts: pd.DataFrame) -> pd.DataFrame:
    """One number per checkpoint and metric of several tasks: each weighs as many items as it has."""
    keys = [*IDENTITY, "release", "collection", "shots", "metric", "chance"]
    weight = parts["n_published"].astype(float)
    sums = parts.assign(value=parts["value"] * weight, stderr=(parts["stderr"] * weight) ** 2,
                        n_items=parts["n_items"].astype(float), weight=weight)
    pooled = sums.groupby(keys, dropna=False, sort=False)[["value", "stderr", "n_items", "weight"]].sum().reset_index()
    return pooled.assign(
        value=pooled["value"] / pooled["weight"], stderr=np.sqrt(pooled["stderr"]) / pooled["weight"],
        n_items=pooled["weight"].astype("Int64"), task=HENDRYCKS, subset="all",
    ).drop(columns="weight")
