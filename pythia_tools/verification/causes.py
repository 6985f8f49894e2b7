"""Why a number is outside, or has no counterpart, where the tables can tell.

Told from the strongest evidence down: answers that are no numbers, weights that are those of another step, a definition
that is known to have changed, other documents, a defect that is documented, another checkpoint that fits. What no table
explains is called unknown.
Cost: microseconds per number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pythia_tools.core import words as say
from pythia_tools.core.words import Row
from pythia_tools.verification.columns import OUTSIDE, UNCOMPARED
from pythia_tools.verification.compare import rival_of

FIRST_UPDATE = 1
"""Steps 0 to this have equal weights where the learning rate begins at 0."""


class Cause(NamedTuple):
    """A value of the column `cause`, and the same in words."""

    cause: str
    detail: str


class Evidence:
    """What is known besides the two tables: digests of weights, lost answers, which checkpoints fit."""

    def __init__(self, items: pd.DataFrame, weights: Mapping[str, str], neighbours: pd.DataFrame):
        self.tasks = set(items["task"].unique())
        asked = items[(items["kind"] != "generate_until") & items["ll"].isna()]
        self.lost = asked.groupby(["model", "step", "task"]).size().to_dict()
        self.twins = _twins(weights)
        self.better = _better(neighbours)


def with_causes(judged: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """The numbers with columns cause and detail; <NA> for those that fit."""
    found = [_cause(row, evidence) for row in say.records(judged)]
    return judged.assign(
        cause=pd.array([c.cause if c else None for c in found], dtype="string"),
        detail=pd.array([c.detail if c else None for c in found], dtype="string"),
    )


def _cause(row: Row, evidence: Evidence) -> Cause | None:
    if row["verdict"] not in (OUTSIDE, UNCOMPARED):
        return None
    for rule in _RULES[row["verdict"]]:
        found = rule(row, evidence)
        if found is not None:
            return found
    return Cause("unknown", "nothing that is known explains it") if row["verdict"] == OUTSIDE else Cause(
        "missing", f"the run has no {row['metric']} of {row['task']}")


def _overflow(row: Row, evidence: Evidence) -> Cause | None:
    lost = evidence.lost.get((row["model"], row["step"], row["task"]))
    if lost:
        return Cause("overflow", f"{lost:,} log-likelihoods of the run are no numbers: its number format overflows")
    if not np.isfinite(row["published"]):
        return Cause("overflow", "the published value is no number")
    return None


def _same_weights(row: Row, evidence: Evidence) -> Cause | None:
    twins = evidence.twins.get((row["model"], row["step"]))
    if not twins:
        return None
    return Cause("same weights", f"the weights of {row['model']} step {row['step']} are those of {_listed(twins)}")


def _definition(row: Row, evidence: Evidence) -> Cause | None:
    return Cause("other task", _noted(row)) if row["match"] in ("nearly", "differs") else None


def _noted(row: Row) -> str:
    how = "differs from" if row["match"] == "differs" else "is only nearly"
    note: str = "" if pd.isna(row["note"]) else f": {row['note']}"
    return f"today's {row['task']} {how} the published {row['published_task']}{note}"


def _items(row: Row, evidence: Evidence) -> Cause | None:
    mine, published = row["documents"], row["documents_published"]
    if pd.isna(mine) or pd.isna(published) or int(mine) == int(published):
        return None
    return Cause("other items", f"{int(mine):,} documents here, {int(published):,} published")


def _defect(row: Row, evidence: Evidence) -> Cause | None:
    return None if pd.isna(row["defect"]) else Cause("known defect", f"{row['defect']} ({row['defect_source']})")


def _other_checkpoint(row: Row, evidence: Evidence) -> Cause | None:
    fits = evidence.better.get((row["model"], row["step"], row["collection"]))
    return None if not fits else Cause("other checkpoint", f"the numbers are those of {_listed(fits)}")


def _rival(row: Row, evidence: Evidence) -> Cause | None:
    taken = None if row["task"] in evidence.tasks else rival_of(str(row["published_task"]), evidence.tasks)
    note: str = "" if pd.isna(row["note"]) else f": {row['note']}"
    return None if taken is None else Cause(
        "other task", f"{taken} of the run is not the published {row['published_task']}{note}")


def _shots(row: Row, evidence: Evidence) -> Cause | None:
    if not row["other_shots"]:
        return None
    return Cause("other shots", f"{row['shots_ours']} examples here, {row['shots']} published")


Rule = Callable[[Row, Evidence], Cause | None]
_RULES: dict[str, Sequence[Rule]] = {
    OUTSIDE: (_overflow, _same_weights, _definition, _items, _defect, _other_checkpoint),
    UNCOMPARED: (_rival, _shots, _overflow),
}


def _twins(weights: Mapping[str, str]) -> dict[tuple[str, int], list[str]]:
    """(model, step) → other checkpoints of the same digest. Those of a run before its first update are left out."""
    places = {}
    for name, digest in weights.items():
        _, model, step = name.rsplit("/", 2)
        places[model, int(step.removeprefix("step"))] = digest
    return {
        one: found for one, digest in places.items()
        if (found := [f"{m} step {s}" for (m, s), other in places.items() if other == digest and (m, s) != one
                      and max(s, one[1]) > FIRST_UPDATE])
    }


def _better(neighbours: pd.DataFrame) -> dict[tuple[str, int, str], list[str]]:
    """(model, step, collection) → published checkpoints that fit wholly where the claimed one does not, best first."""
    published = neighbours[neighbours["side"] == "published"]
    key = ["model", "step", "collection"]
    outside = published[published["claimed"]].set_index(key)["outside"]
    found: dict[tuple[str, int, str], list[str]] = {}
    for row in say.records(published[~published["claimed"]]):
        at = row["model"], row["step"], row["collection"]
        if outside.loc[at] and row["outside"] <= outside.loc[at] / 2:
            found.setdefault(at, []).append(f"{row['other_model']} step {row['other_step']}")
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:3])})"
