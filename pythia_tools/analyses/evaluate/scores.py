"""From stored log-likelihoods and texts to metrics: by each task's own code, with intervals over its documents.

Responses are given back to the task (`process_results`, filters, aggregations, groups), so every number is the
harness' own; nothing of it is written anew. Intervals are ours: means by `core.statistics.mean`; perplexities and bits
per byte as the functions of means and of ratios that they are; other aggregations have none. Documents that share a
source (`CLUSTERS`, or `metadata: {cluster: FIELD, unit: NAME}` in a task's definition) are resampled together.
Cost: microseconds per document and checkpoint, and a bootstrap per metric that is no share.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pythia_tools.analyses.evaluate import agreement
from pythia_tools.analyses.evaluate.columns import summary
from pythia_tools.analyses.evaluate.documents import documents
from pythia_tools.analyses.evaluate.harness import Asked, HarnessTask, Outcomes, Response, compiled_once
from pythia_tools.core import statistics, tables
from pythia_tools.core.statistics import Estimate

UNIT = "document"
WHOLE = "none"
"""The harness' name for the filter that leaves answers as they are."""
CLUSTERS = {"boolq": ("passage", "passage"), "multirc": ("paragraph", "passage"), "race": ("article", "article")}
"""Task → the field of its documents that tells which belong together, and what that is."""
OWN = {"acc": "right", "brier": "brier", "gold_probability": "gold_probability", "acc_norm": "right_norm",
       "acc_bytes": "right_bytes", "gold_bits_per_byte": "gold_bits_per_byte"}
"""Metrics of multiple choice that are read off our own columns where the task does not name them itself; the last three
only where it is the choices that are scored, and not what follows them."""


def summarize(items: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """Every metric of every task and group at every checkpoint, self-consistency, and agreement of seeds.

    items: as `evaluate` gives them; asked: the tasks that they were asked by. `subset` names the filter that read the
    answers where a task has several.
    """
    table = documents(items)
    rows: list[dict[str, object]] = []
    for who, _, part in tables.by_identity(items):
        found = {str(task): _Scored(asked.tasks[str(task)], some) for task, some in part.groupby("task", sort=False)}
        for scored in found.values():
            rows += [{**who, **row} for row in scored.rows()]
        rows += [{**who, **row} for row in _groups(asked, found)]
    own = [name for name in asked.tasks if _reads_choices(asked.tasks[name])]
    rows += list(_own(table[table["task"].isin(own)], asked, {_named(row) for row in rows}))
    return summary([*rows, *agreement.self_consistency(table), *agreement.seed_agreement(table)])


def outcomes(items: pd.DataFrame, task: HarnessTask) -> tuple[list[int], Outcomes]:
    """What a task makes of the rows of one checkpoint: document numbers, and (metric, filter) → a value for each of
    them, as the harness collects them. Documents that are not whole are left out.
    """
    with compiled_once():
        return task.outcomes(responses(items, task))


def responses(items: pd.DataFrame, task: HarnessTask) -> list[Response | None]:
    """The responses to a task's requests in the rows of one checkpoint; None for those that are not there."""
    kept = items[["doc_id", "choice", "ll", "is_greedy", "text"]].set_index(["doc_id", "choice"])
    rows = kept.reindex(pd.MultiIndex.from_arrays([task.documents, task.numbers]))
    found: list[Response | None] = []
    columns = (rows["ll"].to_numpy(float), rows["is_greedy"].to_numpy(object), rows["text"].to_numpy(object))
    for instance, ll, greedy, text in zip(task.instances, *columns, strict=True):
        if instance.request_type == "generate_until":
            found.append(None if pd.isna(text) else str(text))
        elif math.isnan(ll):
            found.append(None)
        else:
            found.append((float(ll), bool(greedy)) if instance.request_type == "loglikelihood" else float(ll))
    return found


class _Scored:
    """One task's outcomes at one checkpoint."""

    def __init__(self, task: HarnessTask, items: pd.DataFrame):
        self.task = task
        self.documents, self.outcomes = outcomes(items, task)
        self.unit, self.clusters = clusters(task, self.documents)

    def rows(self) -> Iterator[dict[str, object]]:
        for (metric, filter), values in self.outcomes.items():
            found = self.estimate(metric, values)
            if found is not None:
                yield {"task": self.task.name, "subset": _subset(filter), "metric": metric, **found.columns()}

    def estimate(self, metric: str, values: list[object]) -> Estimate | None:
        """The task's own aggregation, with our interval; None for what is no number."""
        aggregate = self.aggregation(metric)
        value = aggregate(values)
        if not isinstance(value, numbers.Real):
            return None
        labels = self.clusters if len(values) == len(self.documents) else None
        n = len(set(labels)) if labels is not None else len(values)
        found = _interval(aggregate, values, self.unit if labels is not None else UNIT, labels)
        bare = Estimate(float(value), n=n, unit=self.unit if labels is not None else UNIT)
        return bare if found is None else replace(found, value=float(value))

    def aggregation(self, metric: str) -> Callable[[list[object]], object]:
        from lm_eval.api.metrics import mean

        return self.task.task.aggregation().get(metric, mean)  # type: ignore[no-any-return]


def clusters(task: HarnessTask, wanted: Sequence[int]) -> tuple[str, list[str] | None]:
    """What is independent in a task, and the label of each document's; None where documents themselves are."""
    metadata = task.task.config.metadata if isinstance(task.task.config.metadata, dict) else {}
    field, unit = CLUSTERS.get(task.name, (None, UNIT))
    field = metadata.get("cluster", field)
    if field is None:
        return UNIT, None
    by_doc = {doc: instance.doc for doc, instance in zip(task.documents, task.instances, strict=True)}
    if not all(field in by_doc[doc] for doc in wanted):
        return UNIT, None
    return str(metadata.get("unit", unit)), [str(by_doc[doc][field]) for doc in wanted]


def _interval(
    aggregate: Callable[[list[object]], object], values: list[object], unit: str, labels: list[str] | None
) -> Estimate | None:
    """Bounds for the aggregations whose form is known; None for others, and for values that are no numbers."""
    from lm_eval.api import metrics

    if aggregate is metrics.brier_score:
        each = [aggregate([value]) for value in values]
        return _within(statistics.mean(np.array(each, dtype=float), unit=unit, clusters=labels), 2.0)
    data = np.array(values, dtype=float) if aggregate in (metrics.mean, metrics.perplexity) else None
    if data is not None and not np.isfinite(data).all():
        return None
    if aggregate is metrics.mean and data is not None:
        return statistics.mean(data, unit=unit, clusters=labels)
    if aggregate is metrics.perplexity and data is not None:
        return _mapped(statistics.mean(data, unit=unit, clusters=labels), lambda v: math.exp(-v))
    if aggregate in (metrics.weighted_perplexity, metrics.bits_per_byte):
        lls, weights = np.array(values, dtype=float).T
        ratio = statistics.statistic(
            lambda a, b: a.sum(axis=1) / b.sum(axis=1), lls, weights, unit=unit, clusters=labels, vectorized=True
        )
        last = (lambda v: math.exp(-v)) if aggregate is metrics.weighted_perplexity else (lambda v: -v / math.log(2))
        return _mapped(ratio, last)
    return None


def _mapped(found: Estimate, falling: Callable[[float], float]) -> Estimate:
    """An estimate of a falling function of what was estimated: its bounds change places."""
    return replace(found, value=falling(found.value), low=falling(found.high), high=falling(found.low))


def _subset(filter: str) -> str:
    return "all" if filter == WHOLE else filter


def _groups(asked: Asked, found: dict[str, _Scored]) -> Iterator[dict[str, object]]:
    """The groups' own means; with an interval where they are the mean over all documents of all members."""
    if not asked.groups:
        return
    values: dict[str, dict[str, object]] = {}
    for name, scored in found.items():
        values[name] = {f"{m},{f}": scored.aggregation(m)(v) for (m, f), v in scored.outcomes.items()}
        values[name]["sample_len"] = max(map(len, scored.outcomes.values()), default=0)
    for group in asked.groups:
        for key, value in group.aggregate(values).items():
            metric, comma, filter = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, numbers.Real):
                estimate = _pooled(group, found, metric, filter, float(value))
                yield {"task": group.name, "subset": _subset(filter), "metric": metric, **estimate.columns()}


def _pooled(group: object, found: dict[str, _Scored], metric: str, filter: str, value: float) -> Estimate:
    from lm_eval.api.metrics import mean

    members = [found[t.task_name] for t in group.get_all_tasks() if t.task_name in found]  # type: ignore[attr-defined]
    holding = [m for m in members if (metric, filter) in m.outcomes]
    pooled = [v for m in holding for v in m.outcomes[metric, filter]]
    bare = Estimate(value, n=len(pooled), unit=UNIT)
    if not all(m.aggregation(metric) is mean and m.clusters is None for m in holding):
        return bare
    estimate = statistics.mean(np.array(pooled, dtype=float), unit=UNIT)
    same = math.isclose(estimate.value, value, rel_tol=1e-9, abs_tol=1e-12)
    return replace(estimate, value=value) if same else bare


def _reads_choices(task: HarnessTask) -> bool:
    """Whether right and wrong are a matter of the choices alone: the task has no metrics of its own making."""
    return task.kind == "multiple_choice" and not callable(task.task.config.process_results)


def _named(row: dict[str, object]) -> tuple[object, ...]:
    return row["model"], row["step"], row["task"], row["metric"]


def _own(table: pd.DataFrame, asked: Asked, known: set[tuple[object, ...]]) -> Iterator[dict[str, object]]:
    """Metrics of OWN that the task itself does not have."""
    for who, (name,), part in tables.by_identity(table, "task"):
        task = asked.tasks[str(name)]
        for metric, column in list(OWN.items())[: 3 if _scores_the_rest(task) else None]:
            row, kept = {**who, "task": name, "metric": metric}, part[part[column].notna()]
            if len(kept) and _named(row) not in known:
                unit, labels = clusters(task, kept["doc_id"].tolist())
                found = statistics.mean(
                    kept[column].to_numpy(float), unit=unit, clusters=labels, share=metric == "gold_probability"
                )
                yield {**row, **(found if metric != "brier" else _within(found, 2.0)).columns()}


def _within(found: Estimate, most: float) -> Estimate:
    """Bounds from 0 to the largest value there is."""
    return replace(found, low=max(found.low, 0.0), high=min(found.high, most))


def _scores_the_rest(task: HarnessTask) -> bool:
    """Partial scoring, as winogrande has it: the choices differ in the context, and what follows them is scored."""
    return bool(getattr(task.task, "multiple_input", 0))
