"""What a term-frequency summary says, in words: every number, direction and claim is read off the table."""

from collections.abc import Iterator

import pandas as pd

from pythia_tools.analysis import Sentence, words

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
        read = words.by_size(words.at_last_step(part))
        final = words.records(read)
        told = [words.direction(r["value"], r["low"], r["high"], VERBS) for r in final]
        values = words.listing([f"{r['model']} {words.signed(r['value'])}{words.interval(r)}" for r in final])
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
        big = part[part["model"] == words.largest(part)].sort_values("step")
        word = words.compare_ends(big, VERBS)
        ends = big.iloc[[0, -1]]
        first, last = words.records(ends)
        on = f" on {task}" if several else ""
        yield Sentence.of(
            f"Accuracy of {last['model']}{on} {word} from {words.percent(first['value'])} at step {first['step']:,} "
            f"to {words.percent(last['value'])}{words.interval(last, words.percent)} at step {last['step']:,}.", ends,
        )
