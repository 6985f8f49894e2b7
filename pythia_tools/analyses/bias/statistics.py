"""Is the intervention's effect more than noise? Paired by item at each checkpoint, corrected for the number of looks.

Units are items (and seeds, where several exist), never tokens. Interval: bootstrap over items; test: random signs of
the paired differences (Fisher 1935); correction: Holm or Benjamini–Hochberg over all comparisons of a table; and the
minimal effect that these items could have shown, so that "nothing found" is never mistaken for "nothing there".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import (
    Estimate,
    adjust_pvalues,
    difference,
    minimal_detectable_effect,
    rank_correlation,
    sign_flip_test,
)

COMPARISON = [
    *tables.IDENTITY, "control", "measure", "group", "quantity", "value", "low", "high", "n", "unit", "interval", "p", "p_adjusted",
    "correction", "minimal_effect", "detected", "items_control", "items_treated",
]


def compare(
    items: pd.DataFrame, quantity: str = "score", *, pairs: Mapping[str, str] | None = None, control: str = "main",
    groups: bool = True, correction: str = "holm", level: float = 0.95, seed: int = 0,
) -> pd.DataFrame:
    """Intervention minus control, paired by item, at each step that both have.

    Args:
        items: item table of `measure`; rows that are not `kept`, or whose quantity is missing, are left out of a pair. Items
            of one `unit` (a sentence asked with several templates) are averaged first, so that n counts units.
        quantity: the column compared: `score`, `outcome`, or any other number per item.
        pairs: branch model → its control; by default a model of branch B called X-B is compared with X.
        groups: also within each group of items, not only over all of them.
    WinoBias' ways of asking are compared apart (`winobias_pronoun`, …), and so is the gap pro − anti, twin by twin
    (`winobias_referent_gap`, …).
    Returns: one row per branch model × step × measure × group, columns COMPARISON. `value` is a mean difference with its
        interval; `p_adjusted` is corrected over the whole table; `detected`: the adjusted test and the interval agree.
    """
    if quantity not in items.columns:
        raise RequestError(f"no column {quantity!r} to compare; the items have {', '.join(map(str, items.columns))}")
    asked = _ways_of_asking(items, quantity)
    rows = [row for treated, base in _pairs(asked, pairs, control) for row in _compare_models(treated, base, quantity, groups, level, seed)]
    frame = pd.DataFrame(rows, columns=COMPARISON)
    if frame.empty:
        return frame
    frame["p_adjusted"] = adjust_pvalues(frame["p"], correction)
    frame["correction"] = correction
    outside = (frame["low"] > 0) | (frame["high"] < 0)
    frame["detected"] = outside & (frame["p_adjusted"] < 1 - level)
    return tables.check_items(frame)


def _ways_of_asking(items: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Items with WinoBias' methods as measures of their own, and the difference of each pro sentence and its anti twin as items."""
    if "method" not in items.columns:
        return items
    wino = (items["measure"] == "winobias").to_numpy()
    apart = items.assign(measure=items["measure"].where(~wino, "winobias_" + items["method"].astype(str)))
    asked = apart[wino & (items["method"] != "pronoun").to_numpy()]
    keys = [*tables.IDENTITY, "measure", "type", "template", "twin"]
    columns = [*keys, quantity, "kept"]
    both = asked.loc[asked["side"] == "pro", columns].merge(
        asked.loc[asked["side"] == "anti", columns], on=keys, suffixes=("", "_anti"), validate="one_to_one"
    )
    gaps = both[tables.IDENTITY].assign(
        measure=both["measure"] + "_gap", group=both["type"], item=both["template"].astype(str) + "|" + both["twin"].astype(str),
        unit=both["twin"], kept=both["kept"].astype(bool) & both["kept_anti"].astype(bool),
        **{quantity: both[quantity] - both[f"{quantity}_anti"]},
    )
    return pd.concat([apart, gaps], ignore_index=True) if len(gaps) else apart


def _pairs(items: pd.DataFrame, pairs: Mapping[str, str] | None, control: str) -> Iterable[tuple[pd.DataFrame, pd.DataFrame]]:
    models = items.groupby("model", sort=False, dropna=False)
    frames = {str(name): frame for name, frame in models}
    if pairs is None:
        branch = {name: str(frame["branch"].iloc[0]) for name, frame in frames.items()}
        pairs = {n: n.removesuffix(f"-{b}") for n, b in branch.items() if b != control and n.endswith(f"-{b}")}
    for treated, base in pairs.items():
        if treated in frames and base in frames:
            yield frames[treated], frames[base]


def _compare_models(
    treated: pd.DataFrame, base: pd.DataFrame, quantity: str, groups: bool, level: float, seed: int
) -> Iterable[dict[Any, Any]]:
    columns = ["step", "measure", "group", "item", quantity, "kept"]
    keys = ["step", "measure", "group", "item"]
    both = treated[columns].merge(base[columns], on=keys, suffixes=("_t", "_c"), validate="one_to_one")
    unit = treated.assign(unit=treated["unit"].fillna(treated["item"]) if "unit" in treated.columns else treated["item"])
    both = both.merge(unit[[*keys, "unit"]], on=keys, validate="one_to_one")
    records = treated.drop_duplicates("step")[tables.IDENTITY].to_dict("records")
    both = both[both[f"{quantity}_t"].notna() | both[f"{quantity}_c"].notna()]
    identity: dict[Any, dict[Any, Any]] = {record["step"]: record for record in records}
    for (step, measure), here in both.groupby(["step", "measure"], sort=True):
        sets = [("all", here)]
        if groups and here["group"].nunique() > 1:
            sets += [(str(name), part) for name, part in here.groupby("group", sort=True)]
        for group, chosen in sets:
            yield {
                **identity[step], "control": str(base["model"].iloc[0]), "measure": measure,
                "group": group, "quantity": quantity, **_difference(chosen, quantity, level, seed),
            }


def _difference(pairs: pd.DataFrame, quantity: str, level: float, seed: int) -> dict[str, Any]:
    a, b = pairs[f"{quantity}_t"].to_numpy(float), pairs[f"{quantity}_c"].to_numpy(float)
    pass_t, pass_c = pairs["kept_t"].to_numpy(bool) & np.isfinite(a), pairs["kept_c"].to_numpy(bool) & np.isfinite(b)
    good = pass_t & pass_c
    differences = pd.Series(a[good] - b[good]).groupby(pairs["unit"].to_numpy()[good], sort=False).mean().to_numpy(float)
    found = difference(differences, unit="item", level=level, seed=seed)
    return {
        **found.columns(),
        "p": sign_flip_test(differences, seed=seed) if good.any() else float("nan"),
        "minimal_effect": minimal_detectable_effect(differences, level=level),
        "items_control": int(pass_c.sum()), "items_treated": int(pass_t.sum()),
    }


def comparison_summary(comparison: pd.DataFrame) -> pd.DataFrame:
    """A comparison as summary rows: `paired_difference` (with interval), `paired_p`, `paired_p_adjusted`, `minimal_detectable_effect`.

    Groups are those of the items; for other measures than the pronoun preference they begin with the measure's name.
    """
    rows = []
    for record in comparison.to_dict("records"):
        identity = {c: record[c] for c in tables.IDENTITY}
        own = record["measure"] == "pronoun_preference" and record["quantity"] == "score"
        group = record["group"] if own else f"{record['measure']}/{record['quantity']}/{record['group']}"
        bare = {"n": record["n"], "unit": record["unit"], "interval": "none"}
        found = {c: record[c] for c in ("value", "low", "high", "n", "unit", "interval")}
        rows.append({**identity, "group": group, "metric": "paired_difference", **found})
        for metric, column in (("paired_p", "p"), ("paired_p_adjusted", "p_adjusted"), ("minimal_detectable_effect", "minimal_effect")):
            rows.append({**identity, "group": group, "metric": metric, "value": record[column], **bare})
    return tables.summary(rows)


def combine_seeds(comparison: pd.DataFrame, seeds: Mapping[str, int | None], *, level: float = 0.95) -> pd.DataFrame:
    """Comparisons of several seeds' branches joined: the seed is the unit, so the interval covers training noise too.

    Args:
        comparison: rows of `compare`, one branch model per seed.
        seeds: model → seed; models without one are left out. Models of equal size are one family.
    Returns: one row per family × step × measure × group: mean over seeds, bootstrap over seeds, exact sign-flip p,
        columns params, step, branch, measure, group, quantity, value, low, high, n, unit, interval, p, minimal_effect.
    """
    known = comparison.assign(seed=comparison["model"].map({k: v for k, v in seeds.items() if v is not None})).dropna(subset=["seed"])
    keys = ["params", "step", "branch", "measure", "group", "quantity"]
    rows = []
    for key, here in known.groupby(keys, dropna=False, sort=True):
        values = here["value"].to_numpy(float)
        values = values[np.isfinite(values)]
        found = difference(values, unit="seed", level=level)
        p = sign_flip_test(values) if values.size else float("nan")
        named = dict(zip(keys, key, strict=True)) if isinstance(key, tuple) else {}
        rows.append({**named, **found.columns(), "p": p, "minimal_effect": minimal_detectable_effect(values, level=level)})
    return pd.DataFrame(rows)


def agreement(summary: pd.DataFrame, metrics: Iterable[tuple[str, str]], *, branch: str | None = None) -> pd.DataFrame:
    """Do measures order the checkpoints alike? Spearman's rho of each pair of (metric, group) over checkpoints.

    Returns: columns first, second, value, low, high, n, unit, interval (bootstrap over checkpoints).
    """
    chosen = summary if branch is None else summary[summary["branch"] == branch]
    columns = {}
    for metric, group in metrics:
        rows = chosen[(chosen["metric"] == metric) & (chosen["group"] == group)]
        columns[f"{metric} ({group})"] = rows.set_index(["model", "step"])["value"]
    names = list(columns)
    rows_out = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = pd.concat([columns[first], columns[second]], axis=1, join="inner").dropna()
            found: Estimate = rank_correlation(both.iloc[:, 0], both.iloc[:, 1], unit="checkpoint")
            rows_out.append({"first": first, "second": second, **found.columns()})
    return pd.DataFrame(rows_out, columns=["first", "second", "value", "low", "high", "n", "unit", "interval"])


def verdicts(comparison: pd.DataFrame, *, group: str = "all", last_only: bool = False) -> list[str]:
    """One sentence per comparison of a group, computed from its row: what moved, by how much, or that it is within noise."""
    rows = comparison[comparison["group"] == group]
    if last_only and len(rows):
        rows = rows.loc[rows.groupby(["model", "measure", "quantity"])["step"].idxmax()]
    looks = len(comparison)
    return [_verdict(record, looks) for record in rows.to_dict("records")]


_QUANTITY = {
    ("pronoun_preference", "score"): "the log-odds of she over he",
    ("pronoun_preference", "outcome"): "the share of items with the stereotyped pronoun",
    ("crows_pairs", "score"): "the log-likelihood margin of the stereotyped sentence",
    ("crows_pairs", "outcome"): "the share of pairs with the stereotyped sentence preferred",
    ("winobias_pronoun", "outcome"): "the share of WinoBias sentences with the stereotyped pronoun",
    ("winobias_pronoun", "score"): "the log-odds of the stereotyped pronoun in WinoBias",
    ("winobias_referent", "outcome"): "the accuracy on WinoBias",
    ("winobias_referent", "score"): "the log-odds of the right answer on WinoBias",
    ("winobias_referent_gap", "outcome"): "the WinoBias gap, accuracy on pro − anti",
    ("winobias_referent_gap", "score"): "the WinoBias gap, log-odds on pro − anti",
    ("winobias_generate", "outcome"): "exact match on WinoBias",
    ("winobias_generate_gap", "outcome"): "the WinoBias gap, exact match on pro − anti",
}


def _verdict(record: Mapping[Any, Any], looks: int) -> str:
    what = _QUANTITY.get((record["measure"], record["quantity"]), f"{record['measure']} {record['quantity']}")
    who = f"{record['model']} against {record['control']} at step {int(record['step']):,}, {what}"
    n, value = int(record["n"]), float(record["value"])
    control, treated = int(record["items_control"]), int(record["items_treated"])
    counted = f"{n:,} paired items of {control:,} that count in the control and {treated:,} in the branch"
    if n < 2 or not np.isfinite(value):
        return f"{who}: no comparison, {counted}."
    numbers = f"{value:+.3g} ({record['low']:+.3g} to {record['high']:+.3g}; {counted})"
    p = f"p = {_p(record['p_adjusted'])} after {record['correction']} correction over {looks} comparison{'s' if looks != 1 else ''}"
    if record["detected"]:
        return f"{who}: {'higher' if value > 0 else 'lower'} by {numbers}, {p}."
    floor = float(record["minimal_effect"])
    seen = f"; these items would show a difference of {floor:.2g} four times in five" if np.isfinite(floor) and floor > 0 else ""
    return f"{who}: within noise, {numbers}, {p}{seen}."


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1g}"
