"""The summary of a comparison, and what it comes to in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pythia_tools.analysis import Sentence
from pythia_tools.core import words as say
from pythia_tools.core.tables import IDENTITY
from pythia_tools.verification.columns import EQUAL, OUTSIDE, UNCOMPARED, WITHIN, summary

COUNTED = {"numbers_equal": EQUAL, "numbers_within_noise": WITHIN, "numbers_outside": OUTSIDE,
           "numbers_not_compared": UNCOMPARED}
ALL = "all tasks"


def summarize(numbers: pd.DataFrame, neighbours: pd.DataFrame, apart: pd.DataFrame | None) -> pd.DataFrame:
    """Counts of verdicts per checkpoint and task, of checkpoints that fit, and what number formats were measured to
    differ.
    """
    return summary([*_counts(numbers), *_fits(neighbours), *_formats(apart)])


def _counts(numbers: pd.DataFrame) -> Iterator[dict[str, object]]:
    for who, at in numbers.groupby(IDENTITY, sort=False, dropna=False):
        identity = dict(zip(IDENTITY, who, strict=True))
        for task, part in [(ALL, at), *at.groupby("task", sort=False)]:
            for metric, verdict in COUNTED.items():
                yield {**identity, "task": task, "metric": metric, "value": float((part["verdict"] == verdict).sum()),
                       "n": len(part), "unit": "number", "interval": "none"}


def _fits(neighbours: pd.DataFrame) -> Iterator[dict[str, object]]:
    published = neighbours[neighbours["side"] == "published"]
    for who, at in published.groupby([*IDENTITY, "collection"], sort=False, dropna=False):
        identity = dict(zip([*IDENTITY, "subset"], who, strict=True))
        others = at[~at["claimed"]]
        yield {**identity, "task": ALL, "metric": "checkpoints_that_fit", "value": float(len(others)),
               "n": int(at["numbers"].max()), "unit": "number", "interval": "none"}


def _formats(apart: pd.DataFrame | None) -> Iterator[dict[str, object]]:
    if apart is None:
        return
    for (suite, model, task, metric), part in apart.groupby(["suite", "model", "task", "metric"], sort=False):
        low, middle, high = part["apart"].quantile([0.25, 0.5, 0.75])
        yield {"suite": suite, "model": model, "task": task, "subset": metric, "metric": "format_difference",
               "value": middle, "low": low, "high": high, "n": len(part), "unit": "document", "interval": "quartiles"}


def sentences(table: pd.DataFrame, numbers: pd.DataFrame, neighbours: pd.DataFrame) -> list[Sentence]:
    """The verdict on the whole, then on each checkpoint that is not what was published, and why."""
    whole = table[table["task"] == ALL]
    told = [_whole(whole)]
    for who, at in numbers.groupby(["model", "step"], sort=False):
        rows = whole[(whole["model"] == who[0]) & (whole["step"] == who[1])]
        if (at["verdict"] == OUTSIDE).any():
            told.append(Sentence.of(_outside(at, neighbours), rows))
        elif (at["verdict"] != UNCOMPARED).any():
            told += [Sentence.of(text, rows) for text in _plateau(at, neighbours)]
    formats = table[table["metric"] == "format_difference"]
    if formats.empty:
        told.append(Sentence("Number formats were not compared: only rounding is allowed for.", ()))
    return told


def verdict(counts: dict[str, int]) -> str:
    """What a comparison comes to."""
    if counts["numbers_outside"]:
        return OUTSIDE
    return WITHIN if counts["numbers_within_noise"] else EQUAL


def counted(table: pd.DataFrame) -> dict[str, int]:
    """How many numbers have each verdict."""
    whole = table[(table["task"] == ALL) & table["metric"].isin(COUNTED)]
    return {metric: int(whole.loc[whole["metric"] == metric, "value"].sum()) for metric in COUNTED}


def _whole(whole: pd.DataFrame) -> Sentence:
    n = counted(whole)
    compared = n["numbers_equal"] + n["numbers_within_noise"] + n["numbers_outside"]
    told = (f"Of {say.plural(compared, 'published number')}, {n['numbers_equal']:,} are equal to rounding, "
            f"{n['numbers_within_noise']:,} within the noise of number formats, and {n['numbers_outside']:,} outside")
    lost = n["numbers_not_compared"]
    more = f"; {say.plural(lost, 'further number')} could not be compared" if lost else ""
    return Sentence.of(f"{told}{more}.", whole[whole["metric"].isin(COUNTED)])


def _outside(at: pd.DataFrame, neighbours: pd.DataFrame) -> str:
    wrong = at[at["verdict"] == OUTSIDE]
    first = wrong.iloc[int(np.argmax(wrong["difference"].abs().fillna(0).to_numpy()))]
    cause = wrong["detail"].mode().iloc[0]
    tasks = list(dict.fromkeys(wrong["task"]))
    fits = list(_run_fits(at, neighbours))
    more = f" Published for it were the numbers of {fits[0]} of this run." if fits else ""
    return (f"{first['model']} at step {first['step']:,}: {say.plural(len(wrong), 'number')} outside "
            f"({', '.join(tasks[:4])}{', …' if len(tasks) > 4 else ''}); {first['task']} {first['metric']} is "
            f"{first['ours']:.4g}, published {first['published']:.4g}; {cause}.{more}")


def _run_fits(at: pd.DataFrame, neighbours: pd.DataFrame) -> Iterator[str]:
    """Checkpoints of the run that fit what was published wholly."""
    rows = neighbours[(neighbours["side"] == "run") & ~neighbours["claimed"] & (neighbours["outside"] == 0)]
    here = rows[(rows["model"] == at["model"].iloc[0]) & (rows["step"] == at["step"].iloc[0])]
    yield from (f"{r.other_model} step {r.other_step:,}" for r in here.itertuples())


def _plateau(at: pd.DataFrame, neighbours: pd.DataFrame) -> Iterator[str]:
    rows = neighbours[(neighbours["side"] == "published") & ~neighbours["claimed"]]
    here = rows[(rows["model"] == at["model"].iloc[0]) & (rows["step"] == at["step"].iloc[0])]
    if len(here):
        names = list(dict.fromkeys(f"{r.other_model} step {r.other_step:,}" for r in here.itertuples()))
        would = say.listing(names[:3]) + (" and more" if len(names) > 3 else "")
        yield (f"{at['model'].iloc[0]} at step {at['step'].iloc[0]:,} fits what was published, and "
               f"{would} would fit too.")
