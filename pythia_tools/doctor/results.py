"""Audit of published evaluation results: wrong weights betray themselves in the numbers.

Four signs, none of which needs a model: results of two runs equal to the last digit, or far closer than other runs
come; results of two steps of a run equal; and a likelihood that leaves both neighbours behind at one step.
Cost: every pair of runs at every step, milliseconds for a suite.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.doctor.audit import COLUMNS, CURVE, Audit
from pythia_tools.doctor.evidence import Finding

Results = Mapping[str, Mapping[int, Mapping[str, float]]]
CONTINUOUS = ("ppl", "perplexity", "likdiff", "likelihood", "nll", "loss", "bits")
"""A metric whose name holds one of these is a likelihood: equal or near-equal values are no coincidence."""
LATE = 1000
"""Steps before this one still resemble the initialisation that runs may share."""
NEAR = 2e-3
"""Two runs whose likelihoods all agree this well (relative) after LATE steps hold the same weights, or almost."""
SPIKE = 1.3
"""A likelihood difference this many times both of its neighbours'."""
CLOSER = 0.25
"""Runs this share of the usual distance to the nearest other run apart are remarkable."""


def audit_results(path: str | Path) -> Audit:
    """Audits a JSON `{model: {step: {metric: value}}}`. Raises: RequestError when there is no such file, DataError when
    it is not one.
    """
    if not Path(path).is_file():
        raise RequestError(f"{path}: no such file of results")
    value = files.read_json(path)
    try:
        results = {str(model): {int(step): {k: float(x) for k, x in found.items() if isinstance(x, int | float)}
                                for step, found in steps.items()} for model, steps in value.items()}
    except (AttributeError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: not a table of results; expected JSON {{model: {{step: {{metric: value}}}}}} ({error})"
        ) from error
    return audit_table(results, Path(path).stem)


def audit_table(results: Results, name: str) -> Audit:
    """The same for results in memory, `{model: {step: {metric: value}}}`."""
    found = [*_same(results), *_near_runs(results), *_spikes(results)]
    order = list(results)
    found.sort(key=lambda f: (order.index(f.model), f.step, f.check))
    rows = [[name, f.model, f.step, f.check, f.severity, False, f.detail] for f in found]
    examined = sum(len(steps) for steps in results.values())
    looked = f"published results of {len(results)} models"
    return Audit(name, examined, pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(columns=CURVE), looked)


def _same(results: Results) -> list[Finding]:
    """Equal results of two steps of a run, or of two runs at a step.

    Before the first update that counts both are expected (its learning rate is 0; runs may share a seed): a note.
    """
    cells = [(model, *cell) for model, steps in results.items() for cell in sorted(steps.items()) if cell[1]]
    return [
        Finding(one, b, "same results", f"every metric equals that of {two if a == b else f'step {a}'}",
                "note" if b < 2 else "wrong")
        for (one, a, x), (two, b, y) in combinations(cells, 2) if (one == two or a == b) and x == y
    ]


def _near_runs(results: Results) -> Iterator[Finding]:
    distances = {pair: _late_distances(results, *pair) for pair in combinations(results, 2)}
    medians = {pair: float(np.median(list(d.values()))) for pair, d in distances.items() if d}
    if not medians:
        return
    of_model = [[v for pair, v in medians.items() if model in pair] for model in results]
    usual = float(np.median([min(values) for values in of_model if values]))
    for (one, other), by_step in distances.items():
        for step, distance in by_step.items():
            if 0 < distance < NEAR:
                yield Finding(one, step, "near results", f"likelihoods agree with {other}'s to {distance:.1e}")
        if (one, other) in medians and 0 < medians[one, other] < CLOSER * usual:
            detail = (f"likelihoods are {medians[one, other]:.1e} from those of {other} (median over steps from "
                      f"{LATE}); other runs' nearest are {usual:.1e} away")
            yield Finding(one, max(by_step), "near results", detail, "note")


def _late_distances(results: Results, one: str, other: str) -> dict[int, float]:
    """{step: largest relative difference of any likelihood} at shared steps from LATE on."""
    found = {}
    for step in sorted(set(results[one]) & set(results[other])):
        a, b = results[one][step], results[other][step]
        shared = [k for k in a if k in b and "stderr" not in k and any(part in k for part in CONTINUOUS)]
        metrics = [k for k in shared if max(abs(a[k]), abs(b[k])) > 0]
        if step >= LATE and metrics:
            found[step] = max(abs(a[k] - b[k]) / max(abs(a[k]), abs(b[k])) for k in metrics)
    return found


def _spikes(results: Results) -> Iterator[Finding]:
    """Likelihood differences that stand out from both neighbours (perplexities fall too fast early on for that)."""
    for model, steps in results.items():
        order = sorted(steps)
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            for metric, value in steps[here].items():
                sides = [steps[s].get(metric) for s in (before, after)]
                if "diff" not in metric or not all(sides):
                    continue
                factor = value / max(s for s in sides if s is not None)
                if factor > SPIKE:
                    detail = (f"{metric} is {value:.2f}, {factor:.1f} times the larger of its neighbours "
                              f"(steps {before} and {after})")
                    yield Finding(model, here, "spike", detail)
