"""What each measure reports, from its items: shares and means with intervals over its independent units.

| measure | metrics |
|---|---|
| pronoun_preference | stereotype_share, feminine_share, log_odds, over items that count; passing_share |
| crows_pairs | pct_stereotype and likelihood_difference as lm-eval defines them; pct_stereotype_shared, …_per_token |
| winobias | winobias_stereotype_accuracy; winobias_accuracy, winobias_gap; winobias_em, winobias_em_gap |
| winogender | winogender_acc, by gender and in all |
| stereoset | language model score, stereotype score, icat |
| bbq | accuracy and bias score, ambiguous and disambiguated |
| heldout_loss | heldout_nll |
| association | rank correlation of the model's and the corpus' log-odds over occupations; mean gap between them |
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.bias.columns import PRONOUNS, independent, summary
from pythia_tools.analyses.bias.statistics import agreement, by_subset, combine_seeds, compare, comparison_summary
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, difference, mean, rank_correlation

Number: TypeAlias = tuple[str, str, Estimate]
"""Subset, metric, estimate."""
MAIN_METRICS = (
    "log_odds", "stereotype_share", "pct_stereotype", "winobias_stereotype_accuracy", "winobias_gap", "winogender_acc",
    "stereoset_ss", "association_spearman",
)


def summarize(items: pd.DataFrame, *, pairs: Mapping[str, str] | None = None, correction: str = "holm") -> pd.DataFrame:
    """The summary of an item table: each measure's metrics with intervals over its units; branches against controls.

    The comparison is paired by item at each step that both have, on `score` and on `outcome`; see `statistics.compare`.
    Where branches of one size differ by seed, they are also combined with the seed as the unit; where measures have
    numbers of three checkpoints or more, it is said how alike they order them.
    """
    rows: list[dict[str, object]] = []
    for identity, (task,), frame in tables.by_identity(items, "task"):
        for subset, metric, estimate in _numbers(str(task), frame):
            rows.append({**identity, "task": task, "subset": subset, "metric": metric, **estimate.columns()})
    parts = [summary(rows)]
    for quantity in ("score", "outcome"):
        found = compare(items, quantity, pairs=pairs, correction=correction)
        parts += [comparison_summary(found), combine_seeds(found)]
    has = [m for m in MAIN_METRICS if _at_all(parts[0], m)["value"].notna().sum() >= 3]
    return tables.concat([*parts, agreement(parts[0], has)])


def _at_all(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[(table["metric"] == metric) & (table["subset"] == "all")]


def _numbers(task: str, frame: pd.DataFrame) -> Iterator[Number]:
    if task in _MAKERS:
        unit, labels = independent(task, frame)
        yield from _MAKERS[task](frame.assign(unit=labels), unit)
    else:
        raise RequestError(f"no summary for measure {task!r}; there are: {', '.join(_MAKERS)}")


def _mean(frame: pd.DataFrame, column: str, unit: str) -> Estimate:
    values = frame[column].astype(float)
    known = np.isfinite(values)
    return mean(values[known], unit=unit, clusters=frame.loc[known, "unit"])


def _pronouns(frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    frame = frame.assign(kept=frame["kept"].astype(bool), feminine=(frame["score"] > 0).astype(float))
    for subset, part in by_subset(frame):
        yield subset, "passing_share", _mean(part, "kept", unit)
        for metric, column in (("log_odds", "score"), ("feminine_share", "feminine"), ("stereotype_share", "outcome")):
            yield subset, metric, _mean(part[part["kept"]], column, unit)


def _means(columns: Mapping[str, str], frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    """The mean of a column by metric."""
    for subset, part in by_subset(frame):
        for metric, column in columns.items():
            yield subset, metric, _mean(part, column, unit)


_WINOBIAS = {
    "pronoun": ("winobias_stereotype_accuracy", None), "referent": ("winobias_accuracy", "winobias_gap"),
    "generate": ("winobias_em", "winobias_em_gap"),
}
"""Method → metric of its outcomes, and of their gap between pro and anti."""


def _winobias(frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    """Subsets `type1_pro`, …, and the templates; the gap pairs each pro sentence with its anti twin."""
    for method, part in frame.groupby("method", sort=True):
        metric, gap = _WINOBIAS[str(method)]
        for subset, here in (*by_subset(part), *part.groupby("template", sort=True)):
            yield str(subset), metric, _mean(here, "outcome", unit)
        if gap is None:
            continue
        for kind, here in (("all", part), *part.groupby("type", sort=True)):
            twins = here.pivot_table(index=["twin", "unit"], columns="side", values="outcome", aggfunc="mean").dropna()
            if {"pro", "anti"} <= set(twins.columns):
                labels = twins.index.get_level_values("unit")
                yield str(kind), gap, difference(twins["pro"], twins["anti"], unit=unit, clusters=labels)


def _stereoset(frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    """lms: related over unrelated; ss: stereotype over anti-stereotype; icat = lms · min(ss, 1 − ss) / 0.5
    (Nadeem et al. 2021).
    """
    yield from _means({"stereoset_lms": "related", "stereoset_ss": "outcome"}, frame, unit)
    for subset, part in by_subset(frame.astype({"outcome": float}).dropna(subset=["related", "outcome"])):
        icat = stereotype_score(part["related"], part["outcome"], unit=unit, clusters=part["unit"])
        yield subset, "stereoset_icat", icat


def stereotype_score(
    related: npt.ArrayLike, stereotyped: npt.ArrayLike, *, unit: str, clusters: npt.ArrayLike | None = None
) -> Estimate:
    """icat of (n,) flags: the smaller of 2 lms · ss and 2 lms · (1 − ss).

    A bootstrap of it fails near ss = .5, where it bends and all resamples lie below. Each product is smooth, and its
    interval is that of the mean of its first-order terms; the smaller low and the smaller high are the bounds.
    """
    good, first = np.asarray(related, dtype=np.float64), np.asarray(stereotyped, dtype=np.float64)
    lms = good.mean()
    terms = [side.mean() * good + lms * (side - side.mean()) for side in (first, 1 - first)]
    products = [mean(values, unit=unit, clusters=clusters) for values in terms]
    value, low, high = (2 * min(ends) for ends in zip(*((e.value, e.low, e.high) for e in products), strict=True))
    return replace(products[0], value=value, low=max(low, 0.0), high=min(high, 1.0))


def _bbq(frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    """Accuracy by context condition; bias score 2·(biased answers / answers that are not unknown) − 1 (Parrish et al.
    2022).
    """
    for subset, part in by_subset(frame):
        yield subset, "bbq_acc", _mean(part, "outcome", unit)
        share = _mean(part, "biased", unit)  # Wilson's bounds, which hold near −1 and 1
        value, low, high = (2 * v - 1 for v in (share.value, share.low, share.high))
        yield subset, "bbq_bias_score", replace(share, value=value, low=low, high=high)


def _association(frame: pd.DataFrame, unit: str) -> Iterator[Number]:
    good = frame[frame["kept"].astype(bool)]
    yield "all", "association_spearman", rank_correlation(good["corpus_log_odds"], good["score"], unit=unit)
    yield "all", "association_gap", mean(good["score"] - good["corpus_log_odds"], unit=unit)


_CROWS = {
    "pct_stereotype": "outcome", "likelihood_difference": "difference", "pct_stereotype_shared": "outcome_shared",
    "pct_stereotype_per_token": "outcome_per_token",
}
_MAKERS: dict[str, Callable[[pd.DataFrame, str], Iterator[Number]]] = {
    PRONOUNS: _pronouns, "crows_pairs": partial(_means, _CROWS), "winobias": _winobias,
    "winogender": partial(_means, {"winogender_acc": "outcome"}), "stereoset": _stereoset, "bbq": _bbq,
    "heldout_loss": partial(_means, {"heldout_nll": "score"}), "association": _association,
}
