"""Fits of tables: scaling laws, ladders, and what else a curve over sizes, steps and seeds can be asked.

Tables in, tables out: a form of fit takes a DataFrame and returns a `Fit` (items, summary, sentences). FORMS is the one
registry; the command `fit` and its options derive from it.
"""

from __future__ import annotations

import os
from dataclasses import fields

import pandas as pd

from pythia_tools.core.errors import unknown
from pythia_tools.core.options import from_mapping
from pythia_tools.fitting import decision, law_forms, mirage, phases, saturation, seeds, states
from pythia_tools.fitting.declaration import AnyForm, Fit, Form
from pythia_tools.fitting.ladder import LADDER
from pythia_tools.fitting.reading import read

FORMS: dict[str, AnyForm] = {
    "hoffmann": law_forms.HOFFMANN,
    "kaplan": law_forms.KAPLAN,
    "gadre": law_forms.GADRE,
    "flops": law_forms.COMPUTE,
    "ladder": LADDER,
    "saturation": saturation.FORM,
    "decision": decision.FORM,
    "mirage": mirage.FORM,
    "phases": phases.FORM,
    "states": states.FORM,
    "seeds": seeds.FORM,
}
"""Name → form of fit: the columns that it needs, its options, its function, and what it says."""

__all__ = ["FORMS", "AnyForm", "Fit", "Form", "fit", "form_of"]


def form_of(name: str) -> AnyForm:
    """The form of this name. Raises UnknownNameError."""
    if name not in FORMS:
        raise unknown("form of fit", name, FORMS)
    return FORMS[name]


def fit(table: pd.DataFrame | str | os.PathLike[str], form: str = "hoffmann", **options: object) -> Fit:
    """Fit a form to a table: a DataFrame, a CSV, TSV, JSON or parquet file, a summary.csv, or the folder of a run.

    options: those of the form, as `pythia-tools fit --help` lists them, with underscores.
    Raises RequestError in one line where the table cannot carry the form.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> runs = pd.DataFrame([(n, d) for n in (1e8, 3e8, 1e9, 3e9, 1e10) for d in (2e9, 8e9, 3e10, 1e11)],
    ...                     columns=["N", "D"])
    >>> runs["loss"] = 1.69 + 406.4 / runs["N"]**0.34 + 410.7 / runs["D"]**0.28
    >>> found = fit(runs, form="hoffmann", at=["70B:1.4T"], resamples=0)
    >>> round(found.value("allocation_exponent"), 6), round(found.value("predicted_loss"), 4)
    (0.451613, 1.9366)
    """
    chosen = form_of(form)
    strange = sorted(set(options) - {f.name for f in fields(chosen.options)})
    if strange:
        raise unknown(f"option of {form}", strange[0], [f.name for f in fields(chosen.options)])
    return chosen.fit(read(table), from_mapping(chosen.options, options))
