"""The public term-frequency results, read into the same frame as one's own.

EleutherAI/pythia keeps, for seven deduplicated models of its first release, accuracy per first operand: 6 checkpoints ×
5 numbers of shots × 100 operands × 2 operations, files `evals/csv/pythia-13b-deduped/term_frquency_all_shots.csv`
(spelled so). They are read by `pythia_tools.published`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.term_frequency.analysis import paper_figures
from pythia_tools.analyses.term_frequency.columns import summary
from pythia_tools.analyses.term_frequency.counted_tasks import read_exposures
from pythia_tools.analyses.term_frequency.statistics import by_term, summarize
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.core.statistics import mean
from pythia_tools.core.tables import check_items
from pythia_tools.public import published

FILE = "term_frquency_all_shots.csv"
TOKENS_PER_STEP = 2_097_152


def read_published(source: str | os.PathLike[str]) -> pd.DataFrame:
    """All published results at a path (see `pythia_tools.published`), as an accuracy table for `by_term` and
    `summarize`.

    Columns: identity (steps are those of batches of 2M tokens, which all models' labels are), task
    (`multiplication-16shot`), operation, shots, term (the first operand), accuracy, stderr, items (50). Smallest model
    first, then step, task, operand. Raises DataError when there is none or one is damaged.
    """
    whole = published(source)
    found = whole[whole["collection"] == "term-frequency"]
    if found.empty:
        raise DataError(f"{source}: no {FILE} in it; it is evals/ of EleutherAI/pythia, or an archive or a file of it")
    fields = found["task"].str.extract(r"num_reasoning_(arithmetic|op_infer)_(.+)")
    operation = fields[1].where(fields[0] == "arithmetic", "hidden-" + fields[1])
    table = found[tables.IDENTITY].assign(
        step=found["tokens"] // TOKENS_PER_STEP, task=operation + "-" + found["shots"].astype("string") + "shot",
        operation=operation, shots=found["shots"].astype("int64"), term=found["subset"], accuracy=found["value"],
        stderr=found["stderr"], items=found["n_published"].astype("int64"), operand=found["subset"].astype("int64"),
    )
    ordered = table.sort_values(["params", "step", "operation", "shots", "operand"], kind="stable")
    return check_items(ordered.drop(columns="operand"))


def publish_run(source: Path, folder: RunFolder, *, models: Sequence[str] = (), exposures: str | None = None) -> Run:
    """The published results as a run: accuracy by operand and over training, and, with exposures, its relation to them.

    Raises RequestError when none of the models is there, DataError for damaged files.
    """
    table = read_published(source)
    if models:
        table = table[table["model"].isin(models)]
        if table.empty:
            raise RequestError(f"none of {', '.join(models)} is in the published results")
    if exposures:
        seen = read_exposures(exposures)
        whole = summarize(table, seen)
        for task, own in by_term(table, seen).groupby("task", sort=False):
            for figure in paper_figures(own, whole[whole["task"] == task], str(task)):
                plots.save(figure.target, folder.figures, figure.name)
    else:
        progress.note(
            "accuracy against frequency and the gap (the paper's figure 5 and table 4) need --exposures, which were "
            "not published; count them with `pythia-tools count @keys.txt --order pile-deduped-preshuffled --steps "
            "...`, keys cleaned:0 to cleaned:99 (the script of 2023 cleaned up spaces; pythia:0 to pythia:99 do not)"
        )
        whole = summary(
            {**identity, "task": task, "metric": "accuracy",
             **mean(part["accuracy"], unit="term", share=True).columns()}
            for identity, (task,), part in tables.by_identity(table, "task")
        )
    for operation, part in table.groupby("operation"):
        plots.save(plots.accuracy_over_training(part), folder.figures, f"accuracy_over_training_{operation}")
        for shots, one in part.groupby("shots"):
            plots.save(plots.accuracy_by_operand(one), folder.figures, f"accuracy_by_operand_{operation}_{shots}shot")
    return folder.finish(table, whole, data={"results": files.sha256_file(source) if source.is_file() else str(source)})
