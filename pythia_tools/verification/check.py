"""`verify`: the comparison of a finished run with a table of published numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd

from pythia_tools import public
from pythia_tools.analysis import Sentence
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import Run, load_run
from pythia_tools.verification import compare, words
from pythia_tools.verification.causes import Evidence, with_causes
from pythia_tools.verification.columns import NUMBER, UNCOMPARED
from pythia_tools.verification.neighbours import neighbours
from pythia_tools.verification.noise import differences, kept_in

Path: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True, eq=False)
class Verification:
    """numbers: one row per published number of the run's checkpoints; neighbours: which checkpoints fit; formats: what
    number formats were measured to differ (None: not measured); summary: counts; see `columns`.
    """

    numbers: pd.DataFrame
    neighbours: pd.DataFrame
    formats: pd.DataFrame | None
    summary: pd.DataFrame
    sentences: list[Sentence]

    @property
    def verdict(self) -> str:
        """`outside` when any number is, else `within noise` when any is, else `equal`."""
        return words.verdict(words.counted(self.summary))


def verify(
    run: Run | Path, published: pd.DataFrame | Path, *, other_format: Run | Path | pd.DataFrame | None = None
) -> Verification:
    """A run of `evaluate` (or its folder) against published numbers (a table of `pt.published`, or what it reads).

    other_format: the same documents answered in another number format, or some of them: a run, its folder, or an item
    table. What the two differ by is the noise that is allowed; without it only rounding is.
    Raises: RequestError when the two have no checkpoint or no number in common.
    Cost: a pass over the items; pairs of checkpoints × numbers for the neighbours.
    """
    finished = _run(run)
    table = published if isinstance(published, pd.DataFrame) else public.published(published)
    apart = None
    if other_format is not None:
        apart = differences(finished.items, _others(other_format))
    return compared(finished.summary, finished.items, table, apart, finished.record.get("weights", {}))


def _others(given: Run | Path | pd.DataFrame) -> pd.DataFrame:
    """Items in another format; of a run with --dtype, as a harness of that format keeps them."""
    if isinstance(given, pd.DataFrame):
        return given
    run = _run(given)
    dtype = run.config.get("arguments", {}).get("dtype")
    return run.items if dtype is None else kept_in(run.items, dtype)


def _run(run: Run | Path) -> Run:
    return run if isinstance(run, Run) else load_run(run)


def compared(
    summary: pd.DataFrame, items: pd.DataFrame, published: pd.DataFrame, apart: pd.DataFrame | None,
    weights: Mapping[str, str],
) -> Verification:
    """The same from tables: a run's summary and items, published numbers, measured differences between formats, and
    checkpoint → digest of its weights.
    """
    if "shots" not in items.columns:
        raise RequestError("this run holds no answers of `evaluate`; give one that `pythia-tools evaluate` made")
    table = compare.of_suites(compare.theirs(published), items)
    judged = compare.judged(compare.joined(compare.ours(summary, items), table), items, apart)
    fits = neighbours(judged, table)
    numbers = compare.tidy(with_causes(judged, Evidence(items, weights, fits)))
    if (numbers["verdict"] == UNCOMPARED).all():
        raise RequestError(f"nothing to compare: {_reasons(numbers)}")
    counts = words.summarize(numbers, fits, apart)
    return Verification(numbers, fits, apart, counts, words.sentences(counts, numbers, fits))


def _reasons(numbers: pd.DataFrame) -> str:
    told = list(dict.fromkeys(numbers[list(NUMBER)]["detail"].dropna()))
    return "; ".join(told[:3])
