"""Which count explains accuracy: exposures up to that step, in total, or in the last steps only.

"In total" is up to the last step that was counted, whatever checkpoints were asked: count to the end of training for the
whole of it (`steps_to_count(..., end=…)`; the command does so wherever the rows are not remote).

Also one term's trajectory: exposures and accuracy on the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pythia_tools.analyses.term_frequency.analysis import _checkpoints, by_term
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, from_draws, rank_correlation, spearman, statistic, wilson
from pythia_tools.core.tables import IDENTITY

AT_STEP, TOTAL = "up to the step", "in total"


def steps_to_count(steps: Iterable[int], last: int | None = None, *, end: int | None = None) -> list[int]:
    """The steps that `compare_definitions` needs exposures at: the checkpoints, `last` steps before each, and the end of training."""
    known = {int(s) for s in steps}
    wanted = known | ({max(0, s - last) for s in known} if last else set()) | ({end} if end is not None else set())
    return sorted(wanted)


def exposure_definitions(exposures: pd.DataFrame, *, last: int | None = None) -> dict[str, pd.DataFrame]:
    """Definition → term, step, exposures. The total is that of the last step counted; `last`: also those of the last n steps.

    Raises RequestError when a step − n was not counted; see `steps_to_count`.
    """
    wide = exposures.pivot(index="term", columns="step", values="exposures")
    counted = [int(s) for s in wide.columns.to_numpy()]
    found = {AT_STEP: wide, TOTAL: pd.DataFrame({s: wide[max(counted)] for s in counted})}
    if last is not None:
        known = [s for s in counted if s <= last or s - last in counted]
        if not any(s > 0 for s in known):
            raise RequestError(f"exposures {last} steps before each checkpoint are needed; count at steps_to_count(steps, {last})")
        found[f"in the last {last} steps"] = pd.DataFrame({s: wide[s] - (wide[s - last] if s > last else 0) for s in known})
    return {name: _long(frame) for name, frame in found.items()}


def compare_definitions(table: pd.DataFrame, exposures: pd.DataFrame, *, last: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Summary: `spearman` per checkpoint with the definition as the group, and `spearman_difference` of the first definition minus
    each other one (group `up to the step minus in total`), bootstrapped over terms in pairs. Several tasks precede groups by name.
    """
    definitions = exposure_definitions(exposures, last=last)
    joined = {name: by_term(_within(table, counted), counted) for name, counted in definitions.items()}
    several = next(iter(joined.values()))["task"].nunique() > 1
    columns = {name: {_key(i, t): part for i, t, part in _checkpoints(terms)} for name, terms in joined.items()}
    rows = []
    for identity, task, part in _checkpoints(joined[AT_STEP]):
        x, y = part["exposures"].to_numpy(np.float64), part["accuracy"].to_numpy(np.float64)
        for name, by_checkpoint in columns.items():
            other = by_checkpoint.get(_key(identity, task))
            if other is None:
                continue
            z = other.set_index("term").loc[part["term"], "exposures"].to_numpy(np.float64)
            group = f"{task}: {name}" if several else name
            rows.append({**identity, "group": group, "metric": "spearman", **rank_correlation(z, y, unit="term", seed=seed).columns()})
            if name != AT_STEP:
                difference = _difference(x, z, y, seed)
                group = f"{AT_STEP} minus {name}"
                rows.append({
                    **identity, "group": f"{task}: {group}" if several else group, "metric": "spearman_difference", **difference.columns(),
                })
    return tables.summary(rows)


def trajectory(table: pd.DataFrame, exposures: pd.DataFrame, term: str) -> pd.DataFrame:
    """One term over training: summary rows `exposures` (a count) and `accuracy` (Wilson's interval over questions), group `term NAME`."""
    terms = by_term(table[table["term"] == term], exposures)
    if terms.empty:
        raise RequestError(f"term {term!r} is not in the results; they have {', '.join(map(str, table['term'].unique()[:8]))}, …")
    rows = []
    for row in terms.sort_values(["model", "step"]).to_dict("records"):
        identity = {c: row[c] for c in IDENTITY}
        group = f"{row['task']}: term {term}" if terms["task"].nunique() > 1 else f"term {term}"
        accuracy = wilson(row["accuracy"] * row["items"], int(row["items"]), unit="question")
        seen = Estimate(float(row["exposures"]), n=1, unit="term")
        rows += [{**identity, "group": group, "metric": m, **e.columns()} for m, e in (("exposures", seen), ("accuracy", accuracy))]
    return tables.summary(rows)


def _difference(x: np.ndarray, z: np.ndarray, y: np.ndarray, seed: int) -> Estimate:
    if len(y) < 3:
        return from_draws(np.nan, [], n=len(y), unit="term")
    return statistic(lambda a, b, c: spearman(a, c) - spearman(b, c), x, z, y, unit="term", seed=seed, vectorized=True)


def _key(identity: dict[str, object], task: str) -> tuple[object, ...]:
    return (identity["model"], identity["branch"], identity["step"], task)


def _within(table: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    return table[table["step"].isin(counted["step"].unique())]


def _long(wide: pd.DataFrame) -> pd.DataFrame:
    return wide.reset_index().melt(id_vars="term", var_name="step", value_name="exposures")
