"""Which count explains accuracy: exposures up to that step, in total, or in the last steps only.

"In total" is up to the last step that was counted, whatever checkpoints were asked: count to the end of training for
the whole of it (`steps_to_count(..., end=…)`; the command does so wherever the rows are not remote).

Also one term's trajectory: exposures and accuracy on the same steps.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.term_frequency.columns import IN_LAST, IN_TOTAL, summary
from pythia_tools.analyses.term_frequency.statistics import by_term, independent
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import Estimate, rank_correlation, spearman, statistic, wilson
from pythia_tools.core.tables import IDENTITY, by_identity

FEWEST_COMPARED = 16
"""Terms below which a difference of correlations has no interval: the two order so few of them too much alike."""


def steps_to_count(steps: Iterable[int], last: int | None = None, *, end: int | None = None) -> list[int]:
    """The steps that `compare_definitions` needs exposures at: the checkpoints, `last` steps before each, the end of
    training.
    """
    known = {int(s) for s in steps}
    wanted = known | ({max(0, s - last) for s in known} if last else set()) | ({end} if end is not None else set())
    return sorted(wanted)


def exposure_definitions(exposures: pd.DataFrame, *, last: int | None = None) -> dict[str, pd.DataFrame]:
    """Other definitions of exposures: name → term, step, exposures. The total is that of the last step counted.

    `last`: also those of the last n steps. Raises RequestError when a step − n was not counted; see `steps_to_count`.
    """
    wide = exposures.pivot(index="term", columns="step", values="exposures")
    counted = [int(s) for s in wide.columns.to_numpy()]
    found = {IN_TOTAL: pd.DataFrame({s: wide[max(counted)] for s in counted})}
    if last is not None:
        known = [s for s in counted if s <= last or s - last in counted]
        if not any(s > 0 for s in known):
            needed = f"count at steps_to_count(steps, {last})"
            raise RequestError(f"exposures {last} steps before each checkpoint are needed; {needed}")
        found[IN_LAST] = pd.DataFrame({s: wide[s] - (wide[s - last] if s > last else 0) for s in known})
    return {
        name: frame.reset_index().melt(id_vars="term", var_name="step", value_name="exposures")
        for name, frame in found.items()
    }


def compare_definitions(
    table: pd.DataFrame, exposures: pd.DataFrame, *, last: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Summary: per checkpoint and task `spearman` by each other definition of exposures (subset), and
    `spearman_difference` of exposures up to the step minus each other one (reference), bootstrapped in pairs over
    terms or relations.
    """
    rows = []
    for name, counted in exposure_definitions(exposures, last=last).items():
        within = table[table["step"].isin(counted["step"].unique())]
        terms = by_term(within, exposures)
        terms["other"] = by_term(within, counted)["exposures"]  # the same terms in the same order
        for identity, (task,), part in by_identity(terms, "task"):
            x, z, y = (part[column].to_numpy(np.float64) for column in ("exposures", "other", "accuracy"))
            known, (unit, labels) = {**identity, "task": task}, independent(part)
            correlation = rank_correlation(z, y, unit=unit, clusters=labels, seed=seed)
            rows.append({**known, "subset": name, "metric": "spearman", **correlation.columns()})
            difference = difference_of_correlations(x, z, y, unit=unit, clusters=labels, seed=seed)
            rows.append({**known, "reference": name, "metric": "spearman_difference", **difference.columns()})
    return summary(rows)


def difference_of_correlations(
    x: np.ndarray, z: np.ndarray, y: np.ndarray, *, unit: str, clusters: npt.ArrayLike | None = None, seed: int = 0
) -> Estimate:
    """Spearman's rho of (n,) x and y minus that of z and y, bootstrapped in pairs (few clusters: jackknife).

    No interval below FEWEST_COMPARED units that are not clustered.
    """
    found = statistic(
        _difference, x, z, y, unit=unit, clusters=clusters, seed=seed, vectorized=True, jackknife="plain"
    )
    few = found.n == len(x) < FEWEST_COMPARED
    return Estimate(found.value, n=found.n, unit=unit) if few else found


def trajectory(table: pd.DataFrame, exposures: pd.DataFrame, term: str) -> pd.DataFrame:
    """One term over training: summary rows `term_exposures` and `term_accuracy` (Wilson's interval over questions)."""
    terms = by_term(table[table["term"] == term], exposures)
    if terms.empty:
        some = ", ".join(map(str, table["term"].unique()[:8]))
        raise RequestError(f"term {term!r} is not in the results; they have {some}, …")
    rows = []
    for row in terms.sort_values(["model", "step"]).to_dict("records"):
        known = {**{c: row[c] for c in IDENTITY}, "task": row["task"], "subset": term}
        accuracy = wilson(row["accuracy"] * row["items"], int(row["items"]), unit="question")
        seen = Estimate(float(row["exposures"]), n=1, unit="term")
        rows += [
            {**known, "metric": m, **e.columns()} for m, e in (("term_exposures", seen), ("term_accuracy", accuracy))
        ]
    return summary(rows)


def _difference(x: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(r,) how much closer y goes with x than with z, in ranks, in each row of (r, n) arrays."""
    return spearman(x, y) - spearman(z, y)
