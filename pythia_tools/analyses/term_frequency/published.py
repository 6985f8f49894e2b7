"""The public term-frequency results, read into the same frame as one's own.

EleutherAI/pythia keeps, for seven deduplicated models of its first release, accuracy per first operand: 6 checkpoints ×
5 numbers of shots × 100 operands × 2 operations, files `evals/csv/pythia-13b-deduped/term_frquency_all_shots.csv`
(spelled so). The models have the names they had before January 2023; 160m, 410m and 1.4b were trained with batches of
4M tokens and their steps are relabelled to 2M.
"""

import io
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
from pythia_tools.suites import load_suite

SUITE = "pythia-v0-deduped"
FILE = "term_frquency_all_shots.csv"
TOKENS_PER_STEP = 2_097_152
QUESTIONS = 50
CURRENT_NAMES = {
    "19m": "70m", "125m": "160m", "350m": "410m", "800m": "1b", "1.3b": "1.4b", "2.7b": "2.8b", "6.7b": "6.9b",
    "13b": "12b",
}
"""Old name → today's name."""
_COLUMNS = ["model", "checkpoint", "task", "fewshot", "acc", "acc_stderr"]
_TASK = r"num_reasoning_(arithmetic|op_infer)_(multiplication|addition)_(\d+)"


def read_published(source: str | os.PathLike[str]) -> pd.DataFrame:
    """All published results below a folder, in a tar archive, or in one CSV file, as an accuracy table for `by_term`
    and `summarize`.

    Columns: identity (model is today's name), task (`multiplication-16shot`), operation, shots, term (the first
    operand), accuracy, stderr, items (50). Smallest model first, then step, task, operand. Raises DataError when there
    is none or one is damaged.
    """
    path = Path(source)
    alone = [("", path.read_bytes())] if path.suffix == ".csv" and path.is_file() else None
    found = alone or files.published(path, lambda name: Path(name).name == FILE)
    frames = [_tidy(str(path / name), content) for name, content in found]
    if not frames:
        raise DataError(f"{source}: no {FILE} in it; it is evals/ of EleutherAI/pythia, or an archive or a file of it")
    table = pd.concat(frames, ignore_index=True)
    twice = table.duplicated(["model", "step", "task", "term"])
    if twice.any():
        first = table[twice].iloc[0]
        raise DataError(
            f"{source}: {first['model']} step {first['step']} {first['task']} operand {first['term']} is there twice"
        )
    table["operand"] = table["term"].astype(int)
    ordered = table.sort_values(["params", "step", "operation", "shots", "operand"], kind="stable")
    return check_items(ordered.drop(columns="operand"))


def _tidy(name: str, content: bytes) -> pd.DataFrame:
    try:
        raw = pd.read_csv(io.BytesIO(content))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not a CSV file ({error})") from error
    if raw.columns.tolist() != _COLUMNS:
        raise DataError(f"{name}: columns are {raw.columns.tolist()}, these results have {_COLUMNS}")
    fields = raw["task"].str.extract(rf"^{_TASK}$")
    if fields[0].isna().any():
        raise DataError(f"{name}: task {raw.loc[fields[0].isna(), 'task'].iloc[0]!r} is none of the study's")
    model = raw["model"].str.extract(r"pythia-(?:v1\.1-)?([\d.]+[mb])", expand=False).replace(CURRENT_NAMES)
    unknown = raw.loc[~model.isin(CURRENT_NAMES.values()), "model"]
    if len(unknown):
        raise DataError(f"{name}: model {unknown.iloc[0]!r} is not known")
    params = {size: info.params for size, info in load_suite("pythia-deduped").models.items()}
    operation = fields[1].where(fields[0] == "arithmetic", "hidden-" + fields[1])
    return pd.DataFrame({
        "suite": SUITE, "model": model, "params": model.map(params),
        "step": raw["checkpoint"], "tokens": raw["checkpoint"] * TOKENS_PER_STEP, "branch": "main", "seed": pd.NA,
        "task": operation + "-" + raw["fewshot"].astype(str) + "shot", "operation": operation, "shots": raw["fewshot"],
        "term": fields[2], "accuracy": raw["acc"].astype("float64"), "stderr": raw["acc_stderr"].astype("float64"),
        "items": QUESTIONS
    })


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
