"""What a term-frequency summary says, in words: every number, direction and claim is read off the table."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pythia_tools.analysis import Sentence
from pythia_tools.analysis.words import (
    at_last_step,
    by_size,
    compare_ends,
    direction,
    interval,
    largest,
    listing,
    percent,
    records,
    signed,
)

VERBS = ("rises", "falls", "does not change detectably")


def sentences(summary: pd.DataFrame) -> list[Sentence]:
    """Rank correlations within the last checkpoint, then accuracy over training, task by task."""
    whole = summary[(summary["branch"] == "main") & (summary["subset"] == "all") & summary["exposures_low"].isna()]
    spearman, accuracy = (whole[whole["metric"] == metric] for metric in ("spearman", "accuracy"))
    several = whole["task"].dropna().nunique() > 1
    return [*_relations(spearman, several), *_skills(accuracy, several)]


def _tasks(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for task, part in rows.groupby("task", sort=False, dropna=False):
        yield str(task), part


def _relations(spearman: pd.DataFrame, several: bool) -> Iterator[Sentence]:
    for task, part in _tasks(spearman):
        read = by_size(at_last_step(part))
        final = records(read)
        told = [direction(r["value"], r["low"], r["high"], VERBS) for r in final]
        values = listing([f"{r['model']} {signed(r['value'])}{interval(r)}" for r in final])
        if len(set(told)) == 1:
            common = f"{told[0]} with exposures in every size"
        else:
            each = ", ".join(f"{r['model']} {t}" for r, t in zip(final, told, strict=True))
            common = f"changes with exposures differently by size ({each})"
        on = f" on {task}" if several else ""
        yield Sentence.of(
            f"At step {final[-1]['step']:,} accuracy{on} {common}: rank correlation over {final[-1]['n']} terms "
            f"{values}.", read
        )


def _skills(accuracy: pd.DataFrame, several: bool) -> Iterator[Sentence]:
    for task, part in _tasks(accuracy):
        big = part[part["model"] == largest(part)].sort_values("step")
        word = compare_ends(big, VERBS)
        first, last = records(big.iloc[[0, -1]])
        on = f" on {task}" if several else ""
        yield Sentence.of(
            f"Accuracy of {last['model']}{on} {word} from {percent(first['value'])} at step {first['step']:,} "
            f"to {percent(last['value'])}{interval(last, percent)} at step {last['step']:,}.", big.iloc[[0, -1]],
        )
