"""What a term-frequency summary says, in words: every number, direction and claim is read off the table."""

from collections.abc import Iterator

import pandas as pd

from pythia_tools.analysis import Sentence, words
from pythia_tools.core.tables import at_last_step

RELATIONS: words.Words = (
    "rises with exposures", "falls with exposures", "does not change detectably with exposures",
    "goes with exposures to a degree that no interval judges",
)
UNDEFINED = "has no defined relation with exposures"


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
        read = words.by_size(at_last_step(part))
        final = words.records(read)
        told: list[str] = [
            UNDEFINED if pd.isna(r["value"]) else words.direction(r["value"], r["low"], r["high"], RELATIONS)
            for r in final
        ]
        values = words.listing([f"{r['model']} {words.number(r['value'], '+.2f')}{words.interval(r)}" for r in final])
        by = "size" if read["params"].notna().all() and read["params"].is_unique else "model"
        if len(set(told)) == 1:
            common = f"{told[0]} in every {by}"
        else:
            each = ", ".join(f"{r['model']} {t}" for r, t in zip(final, told, strict=True))
            common = f"differs in its relation with exposures by {by} ({each})"
        on = f" on {task}" if several else ""
        yield Sentence.of(
            f"At step {final[-1]['step']:,} accuracy{on} {common}: rank correlation over {words.units(final[-1])} "
            f"{values}.", read
        )


def _skills(accuracy: pd.DataFrame, several: bool) -> Iterator[Sentence]:
    """The change of the largest model; of every one where sizes are unknown."""
    for task, part in _tasks(accuracy):
        on = f" on {task}" if several else ""
        models = [words.largest(part)] if part["params"].notna().all() else sorted(part["model"].unique())
        for model in models:
            here = part[part["model"] == model].sort_values("step")
            ends = here.iloc[[0, -1]]
            first, last = words.records(ends)
            shown = f"{words.percent(last['value'])}{words.interval(last, words.percent)} at step {last['step']:,}"
            if ends["value"].isna().any():
                text = f"Accuracy of {model}{on} is undefined where no answer could be judged; {shown}."
            else:
                start = f"{words.compare_ends(here)} from {words.percent(first['value'])} at step {first['step']:,} to"
                text = f"Accuracy of {model}{on} {start if len(here) > 1 else 'is'} {shown}."
            yield Sentence.of(text, ends)
