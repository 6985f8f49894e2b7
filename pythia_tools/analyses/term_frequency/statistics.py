"""Does accuracy on a term follow how often the term was seen, at each checkpoint, and from which step and size on?

Everything is computed within one checkpoint, over terms; checkpoints are never pooled, because exposures and skill both
grow with training and would correlate in any model. Exposures are those up to the checkpoint's own step, unless another
definition is asked for. A term is the unit of every interval: its questions are averaged first. Facts of one relation
are not independent, so where there are several relations they are the unit.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.term_frequency.columns import summary
from pythia_tools.analyses.term_frequency.gap import gap
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, isotonic_rise, mean, partial_rank_correlation, rank_correlation
from pythia_tools.core.tables import IDENTITY, by_identity
from pythia_tools.tokens import Openable, open_tokenizer

PAPER_EDGES = tuple(float(e) for e in np.logspace(5, np.log10(2e8), 20))
"""Of the paper's 19 logarithmic bins of exposures."""


def by_term(table: pd.DataFrame, exposures: pd.DataFrame | None = None) -> pd.DataFrame:
    """Per checkpoint, task and term: accuracy (share of right answers), items, relation, and exposures up to that step.

    table: as `measure` gives it, or one with `accuracy` per term already (`read_published`); answers that are <NA> are
    left out. exposures: term, step, exposures, as `counts.count_terms` gives it; default: those in the table. Raises
    RequestError when a term's exposures are missing.
    """
    frame = table if "task" in table else table.assign(task="all")
    if "accuracy" in frame:
        terms = frame[[*IDENTITY, "task", "term", "accuracy"]].assign(items=frame.get("items", 1), relation="")
    else:
        known = frame[frame["correct"].notna()].assign(relation=frame.get("relation", ""))
        answers = known.groupby([*IDENTITY, "task", "term"], sort=False, dropna=False, observed=True)
        columns = {"accuracy": ("correct", "mean"), "items": ("correct", "size"), "relation": ("relation", "first")}
        terms = answers.agg(**columns).reset_index().astype({"accuracy": "float64"})
    known_exposures = table.drop_duplicates(["term", "step"]) if exposures is None else exposures
    seen = known_exposures[["term", "step", "exposures"]].astype({"step": "Int64"})
    joined = terms.merge(seen, on=["term", "step"], how="left", validate="many_to_one")
    lost = joined[joined["exposures"].isna()]
    if len(lost):
        first = lost.iloc[0]
        raise RequestError(
            f"exposures of term {first['term']!r} up to step {first['step']} are missing ({len(lost)} term × "
            "checkpoint cells in all); count them with counts.count_terms(order, terms, steps)"
        )
    return joined


def summarize(
    table: pd.DataFrame, exposures: pd.DataFrame, *, controls: Mapping[str, Mapping[str, float]] | None = None,
    bins: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Per checkpoint and task, over terms, with intervals over terms or relations, as a summary table (see
    `columns.METRICS`).

    controls: name → term → value (token length, magnitude), for `partial_spearman`.
    bins: edges of exposures, for accuracy by exposures; default powers of ten.
    """
    rows = []
    for identity, (task,), part in by_identity(by_term(table, exposures), "task"):
        for where, metric, estimate in _estimates(part, controls or {}, bins):
            rows.append({**identity, "task": task, **where, "metric": metric, **estimate.columns()})
    return summary(rows)


def _estimates(
    part: pd.DataFrame, controls: Mapping[str, Mapping[str, float]], bins: Sequence[float] | None
) -> Iterator[tuple[dict[str, object], str, Estimate]]:
    x, y = part["exposures"].to_numpy(np.float64), part["accuracy"].to_numpy(np.float64)
    unit, labels = independent(part)
    yield {}, "accuracy", mean(y, unit=unit, clusters=labels, share=True)
    yield {}, "spearman", rank_correlation(x, y, unit=unit, clusters=labels)
    yield {}, "gap", gap(x, y, unit=unit, clusters=labels)
    rise, p = isotonic_rise(x, 100 * y, clusters=labels)
    yield {}, "monotone_rise", Estimate(rise, n=labels.nunique(), unit=unit)
    yield {}, "monotone_rise_p", Estimate(p, n=labels.nunique(), unit=unit)
    if controls:
        columns = [_control(part["term"], name, values) for name, values in controls.items()]
        partial = partial_rank_correlation(x, y, columns, unit=unit, clusters=labels)
        yield {"reference": ", ".join(controls)}, "partial_spearman", partial
    edges = np.asarray(bins if bins is not None else power_bins(x))
    place = np.searchsorted(edges, x, side="right")
    for k in np.unique(place):
        here = place == k
        found = mean(y[here], unit=unit, clusters=labels[here], share=True)
        yield bin_of(edges, int(k)), "accuracy", found


def independent(terms: pd.DataFrame) -> tuple[str, pd.Series]:
    """What is independent, and each term's: its relation where there are several, else the term.

    Few relations leave Student's interval to accuracy and none to the rest: intervals over the terms of two to five
    relations, as simulated, hold the truth of other relations in 57 to 88 % of the cases.
    """
    relations = terms["relation"]
    named = "relation" if relations.ne("").all() and relations.nunique() > 1 else "term"
    return named, terms[named]


def _control(terms: pd.Series, name: str, values: Mapping[str, float]) -> np.ndarray:
    missing = terms[~terms.isin(values)]
    if len(missing):
        raise RequestError(f"control {name!r} has no value for term {missing.iloc[0]!r} ({len(missing)} missing)")
    return terms.map(values).to_numpy(np.float64)


def power_bins(exposures: npt.ArrayLike, base: int = 10) -> np.ndarray:
    """Edges 1, base, base², … until one exceeds the most exposures; 0 exposures are a bin of their own."""
    edges, most = [1.0], np.max(np.asarray(exposures), initial=1)
    while edges[-1] <= most:
        edges.append(edges[-1] * base)
    return np.array(edges)


def bin_of(edges: np.ndarray, k: int) -> dict[str, object]:
    """exposures_low and exposures_high of bin k, both included: 10 to 99 lies between the edges 10 and 100."""
    low = 0 if k == 0 else int(edges[k - 1])
    return {"exposures_low": low, "exposures_high": int(edges[k]) - 1 if k < len(edges) else None}


def binned_accuracy(
    table: pd.DataFrame, exposures: pd.DataFrame | None = None, *, edges: Sequence[float] = PAPER_EDGES
) -> pd.DataFrame:
    """Per checkpoint, task and bin (left edge exclusive, right inclusive): left, right, accuracy (mean over terms), n
    (terms).

    Terms outside all bins are left out, as in the paper: Biderman et al. 2023, figure 5. Its table 4 is the metric
    `gap` of `summarize`.
    """
    terms = by_term(table, exposures)
    limits = np.asarray(edges, dtype=np.float64)
    place = np.searchsorted(limits, terms["exposures"].to_numpy(np.float64), side="left") - 1
    inside = (place >= 0) & (place < len(limits) - 1)
    kept = terms[inside].assign(left=limits[place[inside]], right=limits[place[inside] + 1])
    bins = kept.groupby([*IDENTITY, "task", "left", "right"], sort=False, dropna=False)["accuracy"]
    found = bins.agg(accuracy="mean", n="size").reset_index()
    return found.sort_values(["params", "step", "task", "left"], ignore_index=True)


def number_controls(terms: Sequence[str], tokenizer: Openable) -> dict[str, Mapping[str, float]]:
    """What goes with a number's frequency besides it: length in tokens (after a space) and magnitude, for `summarize`.
    """
    lengths = open_tokenizer(tokenizer).ids(f" {t}" for t in terms)
    return {
        "token length": {t: float(len(ids)) for t, ids in zip(terms, lengths, strict=True)},
        "magnitude": {t: float(int(t)) for t in terms},
    }
