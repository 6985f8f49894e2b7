"""Is the intervention's effect more than noise? Paired by item at each checkpoint, corrected for the number of looks.

Items that share an occupation, a target or a template are not independent, so each measure declares its unit
(`columns.UNITS`): whole units are resampled and counted (and seeds, where several exist), never items or tokens.
Interval: bootstrap over units; test: random signs of the units' paired differences (Fisher 1935); correction: Holm or
Benjamini–Hochberg over all comparisons of a table; and the minimal effect that these units could have shown, so that
"nothing found" is never mistaken for "nothing there".
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.bias.columns import QUANTITIES, independent, summary
from pythia_tools.core import statistics, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.words import records

ALPHA = 0.05
ESTIMATE = ["value", "low", "high", "n", "unit", "interval"]
COMPARISON = [
    *tables.IDENTITY, "reference", "task", "subset", "quantity", *ESTIMATE, "p", "p_adjusted", "correction",
    "minimal_effect", "detected", "items_control", "items_branch",
]
_NUMBERS = {
    "paired_p": "p", "paired_p_adjusted": "p_adjusted", "minimal_detectable_effect": "minimal_effect",
    "items_control": "items_control", "items_branch": "items_branch",
}
"""Metrics of a comparison that have no interval → its columns."""


def compare(
    items: pd.DataFrame, quantity: str = "score", *, pairs: Mapping[str, str] | None = None, subsets: bool = True,
    correction: str = "holm",
) -> pd.DataFrame:
    """Intervention minus control, paired by item, at each step that both have.

    Args:
        items: item table of `measure`; rows that are not `kept`, or whose quantity is missing, are left out of a pair.
            n counts the measure's independent units, which are resampled whole.
        quantity: the column compared: `score`, `outcome`, or any other number per item.
        pairs: branch model → its control; by default a model of branch B called X-B is compared with X.
        subsets: also within each subset of items, not only over all of them.
    WinoBias' ways of asking are compared apart (`winobias_pronoun`, …), and so is the gap pro − anti, twin by twin
    (`winobias_referent_gap`, …).
    Returns: one row per branch model × step × task × subset, columns COMPARISON; `reference` is the control. `value` is
        a mean difference with its interval; `p_adjusted` is corrected over the whole table; `detected`: the adjusted
        test and the interval agree.
    """
    if quantity not in items.columns:
        has = ", ".join(map(str, items.columns))
        raise RequestError(f"no column {quantity!r} to compare; the items have {has}")
    asked = _ways_of_asking(items, quantity)
    rows = []
    for treated, base in _pairs(asked, pairs):
        for named, both in _compared(treated, base, quantity, subsets):
            rows.append(named | {"quantity": quantity} | _difference(both, quantity))
    frame = pd.DataFrame(rows, columns=COMPARISON)
    if frame.empty:
        return frame
    frame["p_adjusted"] = statistics.adjust_pvalues(frame["p"], correction)
    frame["correction"] = correction
    outside = (frame["low"] > 0) | (frame["high"] < 0)
    frame["detected"] = outside & (frame["p_adjusted"] < ALPHA)
    return tables.check_items(frame)


def _ways_of_asking(items: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Items with WinoBias' methods as tasks of their own, and the difference of each pro sentence and its anti twin as
    items.
    """
    if "method" not in items.columns:
        return items
    wino = (items["task"] == "winobias").to_numpy()
    apart = items.assign(task=items["task"].where(~wino, "winobias_" + items["method"].astype(str)))
    asked = apart[wino & (items["method"] != "pronoun").to_numpy()]
    keys = [*tables.IDENTITY, "task", "type", "template", "twin"]
    columns = [*keys, "occupation", quantity, "kept"]
    both = asked.loc[asked["side"] == "pro", columns].merge(
        asked.loc[asked["side"] == "anti", columns], on=keys, suffixes=("", "_anti"), validate="one_to_one"
    )
    gaps = both[tables.IDENTITY].assign(
        task=both["task"] + "_gap", subset=both["type"], occupation=both["occupation"],
        item=both["template"].astype(str) + "|" + both["twin"].astype(str),
        kept=both["kept"].astype(bool) & both["kept_anti"].astype(bool),
        **{quantity: both[quantity] - both[f"{quantity}_anti"]},
    )
    return pd.concat([apart, gaps], ignore_index=True) if len(gaps) else apart


def _pairs(items: pd.DataFrame, pairs: Mapping[str, str] | None) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    frames = {str(model): frame for model, frame in items.groupby("model", sort=False)}
    if pairs is None:
        branches = {model: str(frame["branch"].iloc[0]) for model, frame in frames.items()}
        pairs = {m: m.removesuffix(f"-{b}") for m, b in branches.items() if b != "main" and m.endswith(f"-{b}")}
    for treated, base in pairs.items():
        if treated in frames and base in frames:
            yield frames[treated], frames[base]


def _compared(
    treated: pd.DataFrame, base: pd.DataFrame, quantity: str, subsets: bool
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Identity, reference, task and subset of each comparison, and its pairs of items."""
    keys = ["step", "task", "subset", "item"]
    both = treated.merge(
        base[[*keys, quantity, "kept"]], on=keys, suffixes=("_t", "_c"), validate="one_to_one"
    ).dropna(subset=[f"{quantity}_t", f"{quantity}_c"], how="all")
    for identity, (task,), here in tables.by_identity(both.sort_values(["step", "task"], kind="stable"), "task"):
        for subset, part in by_subset(here) if subsets else [("all", here)]:
            yield {**identity, "reference": str(base["model"].iloc[0]), "task": task, "subset": subset}, part


def by_subset(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All items, then each subset of them where there are several."""
    yield "all", frame
    if frame["subset"].nunique() > 1:
        yield from ((str(name), part) for name, part in frame.groupby("subset", sort=True))


def _difference(pairs: pd.DataFrame, quantity: str) -> dict[str, Any]:
    a, b = pairs[f"{quantity}_t"].to_numpy(float), pairs[f"{quantity}_c"].to_numpy(float)
    pass_t, pass_c = pairs["kept_t"].to_numpy(bool) & np.isfinite(a), pairs["kept_c"].to_numpy(bool) & np.isfinite(b)
    good = pass_t & pass_c
    unit, labels = independent(pairs["task"].iloc[0], pairs[good])
    counted = {"items_control": int(pass_c.sum()), "items_branch": int(pass_t.sum())}
    return {**effect((a - b)[good], unit, labels), **counted}


def effect(differences: np.ndarray, unit: str, clusters: npt.ArrayLike | None = None) -> dict[str, Any]:
    """Interval, p-value and minimal effect of (n,) differences, those of one cluster not independent."""
    return {
        **statistics.difference(differences, unit=unit, clusters=clusters).columns(),
        "p": statistics.paired_test(differences, clusters=clusters),
        "minimal_effect": statistics.minimal_detectable_effect(differences, clusters=clusters),
    }


def comparison_summary(comparison: pd.DataFrame) -> pd.DataFrame:
    """A comparison by score or outcome as summary rows: `paired_difference` with its interval, `paired_p`, …

    The metrics of a comparison by outcome begin with `outcome_`; `reference` is the control.
    """
    rows = []
    for record in records(comparison):
        prefix = QUANTITIES[record["quantity"]]
        named = {c: record.get(c) for c in (*tables.IDENTITY, "reference", "task", "subset", "n", "unit")}
        bounds = {c: record[c] for c in ("value", "low", "high", "interval")}
        rows.append({**named, "metric": f"{prefix}paired_difference", **bounds})
        rows += [
            {**named, "metric": f"{prefix}{metric}", "value": record[column], "interval": "none"}
            for metric, column in _NUMBERS.items() if column in record
        ]
    return summary(rows)


def combine_seeds(comparison: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of several seeds' branches joined: the seed is the unit, so the interval covers training noise too.

    comparison: rows of `compare`, one branch model per seed; models without a seed are left out, models of equal size
    are one family. Summary rows per family of two seeds or more × step × task × subset, model <NA>: mean over seeds
    with Student's interval and p over few seeds, minimal effect.
    """
    rows = []
    keys = ["suite", "params", "step", "tokens", "branch", "task", "subset", "quantity"]
    for key, here in comparison.dropna(subset=["seed"]).groupby(keys, dropna=False, sort=True):
        values = here["value"].to_numpy(float)
        values = values[np.isfinite(values)]
        if values.size > 1:
            rows.append({**dict(zip(keys, key, strict=True)), **effect(values, "seed")})
    empty = ["model", "seed", "reference"]
    return comparison_summary(pd.DataFrame(rows, columns=[*keys, *empty, *ESTIMATE, "p", "minimal_effect"]))


def agreement(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Do measures order the checkpoints alike? Spearman's rho of each pair of metrics over checkpoints, all items.

    Summary rows with metric `agreement`: task names the one metric, reference the other. Checkpoints of one run follow
    each other, so runs are resampled, and one run alone gives no interval.
    """
    whole = table[table["subset"] == "all"]
    columns = [whole[whole["metric"] == m].set_index(["model", "branch", "step"])["value"].rename(m) for m in metrics]
    rows = []
    for first, second in itertools.combinations(columns, 2):
        both = pd.concat([first, second], axis=1, join="inner").dropna()
        runs = [f"{model} {branch}" for model, branch, _ in both.index]
        found = statistics.rank_correlation(both.iloc[:, 0], both.iloc[:, 1], unit="run", clusters=runs)
        named = {"suite": table["suite"].iloc[0], "task": first.name, "reference": second.name, "metric": "agreement"}
        rows.append({**named, **found.columns()})
    return summary(rows)
