"""A line per token out of its curve: how low, when, how surely, and what was forgotten again.

    best, best_step   least surprisal over training, and where
    last, final       surprisal at the last checkpoint; mean of the last 11 (of all, where there are fewer)
    variability       standard deviation over the last 11, within the run
    forgetting        last minus best
    forgettability    sum of all rises of the smooth curve from checkpoint to checkpoint (see `gam`)
    aoa_*             ages of acquisition (see `acquisition`), log10 steps
final, variability, forgettability and the fitted ages are Chang & Bergen's (TACL 2024); a curve that has a value that
is not finite has none of them. Surprisal in bits.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from pythia_tools.analyses.curves.acquisition import METHODS, PARAMETERS, log_steps
from pythia_tools.analyses.curves.gam import smoother
from pythia_tools.analyses.curves.store import CurveStore
from pythia_tools.core.errors import unknown

LAST = 11
AGES = tuple(METHODS)


def describe(
    store: CurveStore, model: str | None = None, *, ages: Iterable[str] = AGES, last: int = LAST
) -> pd.DataFrame:
    """A line per token of a run: row, position, token, and the columns of the module's first lines.

    ages: which of sigmoid, gam and crossing; each has columns aoa_X, clipped_X and failed_X. A sigmoid takes most of
    the time, about a millisecond a token. Raises RequestError for a run or method that there is not.
    """
    run = store.run(model)
    parts = [of_curves(curves, run.steps, run.chance, ages=ages, last=last) for _, curves in store.chunks(run.model)]
    return pd.concat([store.places, pd.concat(parts, ignore_index=True)], axis=1)


def of_curves(
    curves: np.ndarray, steps: Sequence[int], chance: float, *, ages: Iterable[str] = AGES, last: int = LAST
) -> pd.DataFrame:
    """The same of curves (n, steps) in bits, as a table of n lines. chance: bits of a guess, log2 of the vocabulary.

    >>> import numpy as np
    >>> told = of_curves(np.array([[9.0, 8, 3, 1, 2]]), [0, 1, 10, 100, 1000], chance=9.0, ages=["crossing"])
    >>> told[["best", "best_step", "last", "forgetting"]].iloc[0].tolist()
    [1.0, 100.0, 2.0, 1.0]
    >>> round(float(told["aoa_crossing"].iloc[0]), 3)
    0.6
    """
    wanted = list(ages)
    for name in wanted:
        if name not in METHODS:
            raise unknown("age of acquisition", name, METHODS)
    values = np.asarray(curves, dtype=np.float64)
    whole = np.isfinite(values).all(axis=1)
    with np.errstate(invalid="ignore"):
        best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=1)
        ends = values[:, -last:]
        told = {
            "best": np.where(whole, values[np.arange(len(values)), best], np.nan),
            "best_step": pd.array(np.asarray(steps)[best], dtype="Int64"), "last": values[:, -1],
            "final": ends.mean(axis=1), "variability": ends.std(axis=1),
        }
    told["best_step"][~whole] = pd.NA
    told["forgetting"] = told["last"] - told["best"]
    told["forgettability"] = np.maximum(np.diff(smooth_curves(values, steps), axis=1), 0).sum(axis=1)
    for name in wanted:
        found = METHODS[name](values, steps, chance)
        told |= {f"aoa_{name}": found.age, f"clipped_{name}": found.clipped, f"failed_{name}": found.failed}
    return pd.DataFrame(told)


def smooth_curves(curves: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """(n, steps above 0) the smooth curves of `gam` at the checkpoints; NaN where nothing can be fitted."""
    x, used = log_steps(steps)
    found = np.full((len(curves), len(x)), np.nan)
    values = np.asarray(curves, dtype=np.float64)[:, used]
    good = np.isfinite(values).all(axis=1) & (len(x) >= PARAMETERS)
    if good.any():
        found[good] = smoother(tuple(x.tolist())).smooth(values[good])[0]
    return found


def variability_between_runs(first: np.ndarray, second: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """(n,) bits²: mean squared difference between the smooth curves of the same tokens (n, steps) in two runs."""
    return np.asarray(((smooth_curves(first, steps) - smooth_curves(second, steps)) ** 2).mean(axis=1))
