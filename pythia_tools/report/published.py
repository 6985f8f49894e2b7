"""The paper's figures from public results: accuracy over sizes and steps, the deduplicated corpus against the standard
one, the interventions. Points are the published ones, intervals ± 1.96 of their standard errors.
"""

from collections.abc import Sequence

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.bias import published as bias
from pythia_tools.core import tables
from pythia_tools.core.errors import DataError
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.public import of_tasks, to_summary

TASKS = (
    "lambada_openai", "piqa", "winogrande", "wsc", "arc_easy", "arc_challenge", "sciq", "logiqa", "hendrycksTest",
)
"""What the paper draws; `hendrycksTest` is its 57 tasks together."""
SHOTS = (0, 5)


def accuracy(
    frame: pd.DataFrame, folder: RunFolder, *, tasks: Sequence[str] = (), metric: str = "acc", shots: int = 0
) -> Run:
    """Figures of a metric against step and against size, one pair to a task (default: the paper's that are there).

    frame: as `pythia_tools.published` gives it. Raises: UnknownNameError for a task that is not there; DataError when
    there are no results with these shots.
    """
    drawn = _accuracy(frame, folder, tasks, metric, shots)
    return folder.finish(tables.check_items(drawn), to_summary(drawn), data={"results": "published"})


def figures(frame: pd.DataFrame, folder: RunFolder, *, metric: str = "acc") -> Run:
    """All of the paper's: accuracy of every task, zero- and five-shot, deduplicated against standard, interventions."""
    parts = []
    for shots in SHOTS:
        if frame["shots"].eq(shots).any() and _there(frame, shots):
            parts.append(_accuracy(frame, folder, (), metric, shots))
    if not parts:
        raise DataError("these results have neither zero- nor five-shot numbers of Pythia; fetch its evals/")
    study = bias.of_study(frame)
    summaries = [to_summary(part) for part in parts]
    if len(study):
        bias.draw(bias.with_changes(study), folder.figures)
    whole = pd.concat(parts, ignore_index=True)
    return folder.finish(tables.check_items(whole), tables.concat(summaries), data={"results": "published"})


def _there(frame: pd.DataFrame, shots: int) -> list[str]:
    """The paper's tasks of which there are numbers with these shots."""
    asked = frame[frame["collection"].eq("five-shot" if shots == 5 else "zero-shot") & frame["shots"].eq(shots)]
    names = set(asked["task"].str.replace(r"^hendrycksTest-.*", "hendrycksTest", regex=True))
    return [task for task in TASKS if task in names]


def _accuracy(
    frame: pd.DataFrame, folder: RunFolder, tasks: Sequence[str], metric: str, shots: int
) -> pd.DataFrame:
    """Draw them; returns the numbers drawn."""
    names = list(tasks) or _there(frame, shots)
    if not names:
        raise DataError(f"these results have no {shots}-shot numbers of Pythia's zero-shot or five-shot collections")
    chosen = of_tasks(frame[frame["release"].eq("v1").fillna(False)], names, metric, shots)
    summary, ending = to_summary(chosen), f"{shots}shot"
    known = chosen.dropna(subset=["chance"])
    chances = dict(zip(known["task"].astype(str), known["chance"].astype(float), strict=True))
    for task in names:
        rows = summary[summary["task"] == task]
        label = f"{task}: {rows['metric'].iloc[0]}, {shots}-shot"
        over = plots.benchmark_over_training(rows, label=label, chance=chances.get(task))
        plots.save(over, folder.figures, f"{task}_over_training_{ending}")
        by = plots.benchmark_by_size(rows, label=label, chance=chances.get(task))
        plots.save(by, folder.figures, f"{task}_by_size_{ending}")
    last = summary[summary["step"] == summary["step"].max()]
    if last["suite"].nunique() > 1:
        both = plots.suites_by_size(last, label=f"{metric}, {shots}-shot, step {last['step'].max():,}", chances=chances)
        plots.save(both, folder.figures, f"deduplicated_against_standard_{ending}")
    return chosen
