"""A study: every analysis over one suite in one sweep, a finished run for each, and one report.

OUT/NAME is the run of each analysis; OUT itself is a run too (all items, all numbers) and holds `report.html`. Every
cell is kept as it is computed, so a killed study resumes where it stopped and ends with the same tables.
Cost: for pythia-micro about a minute on two cores, most of it forward passes of the largest model.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from pythia_tools import analyses
from pythia_tools.analysis import Context, Prepared, plan, prepare_all, run_all
from pythia_tools.core import progress, tables
from pythia_tools.core.files import write_text
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.report import build_report


@dataclass(frozen=True)
class Study:
    """A finished study: its folder, its report, its runs by analysis, and how counts compare with what was planted."""

    path: Path
    report: Path
    runs: dict[str, Run]
    truth: pd.DataFrame | None = field(repr=False, default=None)

    @property
    def findings(self) -> dict[str, list[str]]:
        """Analysis name → its sentences."""
        return {name: [s["text"] for s in run.record["sentences"]] for name, run in self.runs.items()}


def run_study(
    context: Context, out: str | Path, wanted: Sequence[str] | None = None, *,
    record: Mapping[str, object] | None = None, command: str | None = None, title: str | None = None
) -> Study:
    """The study of a context's checkpoints, written to `out`. Raises what loading, reading and writing raise (see
    `errors`).

    `wanted`: names of analyses (None: all that the suite can carry). `record`: the config that `rerun` repeats;
    `command`: the shell line shown in the report.
    """
    prepared = _prepared(context, wanted)
    record = dict(
        record or {"command": "study", "suite": context.name, "analyses": [p.analysis.name for p in prepared]}
    )
    with contextlib.ExitStack() as opened:
        folder, folders = opened.enter_context(RunFolder(out, record)), {}
        for one in prepared:
            own = RunFolder(folder.path / one.analysis.name, _own_config(record, one))
            folders[one.analysis.name] = opened.enter_context(own)
        runs = run_all(prepared, context, folder, folders)
    truth = check_truth(runs)
    whole = _finish(folder, runs, truth)
    page = build_report(
        list(runs.values()), title=title or f"Training dynamics of {context.name}", lead=lead(context, truth),
        command=command or f"pythia-tools study {context.name} --out {out}",
    )
    report = whole.path / "report.html"
    write_text(report, page)
    return Study(whole.path, report, runs, truth)


def plan_study(context: Context, wanted: Sequence[str] | None = None) -> dict[str, object]:
    """The plan of `run_study`."""
    return plan(context, [task for one in _prepared(context, wanted) for task in one.tasks])


def _prepared(context: Context, wanted: Sequence[str] | None) -> list[Prepared]:
    chosen = [analyses.get(name) for name in (analyses.names() if wanted is None else dict.fromkeys(wanted))]
    return prepare_all(chosen, context, {}, strict=wanted is not None)


def _own_config(record: Mapping[str, object], one: Prepared) -> dict[str, object]:
    """The config of one analysis of the study, as its own command would have recorded it."""
    arguments = record.get("arguments")
    shared = {k: v for k, v in arguments.items() if k != "analyses"} if isinstance(arguments, Mapping) else {}
    merged = {**shared, **asdict(one.options)}
    config = {"command": one.analysis.name, "version": one.analysis.version, "arguments": merged}
    return config | {k: record[k] for k in ("checkpoints",) if k in record}


def check_truth(runs: Mapping[str, Run]) -> pd.DataFrame | None:
    """Exposures as the analyses counted them beside those planted, a row per table; None without a truth manifest.

    Columns: table, items, planted, counted, items that differ. Warns when any differ.
    """
    rows = []
    for run in runs.values():
        told = run.summary[run.summary["metric"].isin(("exposures_planted", "exposures_counted", "items_that_differ"))]
        for table, part in told.groupby("task", sort=False):
            value = dict(zip(part["metric"], part["value"].astype(int), strict=True))
            rows.append({
                "table": table, "items": int(part["n"].iloc[0]), "planted": value["exposures_planted"],
                "counted": value["exposures_counted"], "items that differ": value["items_that_differ"],
            })
    if wrong := [str(row["table"]) for row in rows if row["items that differ"]]:
        progress.warn(f"exposures counted differ from those planted for: {', '.join(wrong)}")
    return pd.DataFrame(rows) if rows else None


def _finish(folder: RunFolder, runs: Mapping[str, Run], truth: pd.DataFrame | None) -> Run:
    """The study's own tables: every item and number of its runs, with the analysis in front."""
    items = pd.concat([run.items.assign(analysis=name) for name, run in runs.items()], ignore_index=True)
    records = [run.record for run in runs.values()]
    extra = {} if truth is None else {"truth": truth.to_dict("records")}
    return folder.finish(
        tables.check_items(items), tables.concat(run.summary for run in runs.values()), weights=records[0]["weights"],
        data=next((r["data"] for r in records if r["data"]), None), timings=records[-1]["timings_seconds"], extra=extra,
    )


def lead(context: Context, truth: pd.DataFrame | None) -> str:
    """What was studied, in two sentences."""
    checkpoints = context.checkpoints
    main = {c.model.name for c in checkpoints if c.model.branch == "main"}
    branches = {c.model.name for c in checkpoints} - main
    steps = context.steps
    text = (f"{len(checkpoints)} checkpoints of {context.name}: {len(main)} models, {len(steps)} steps from "
            f"{steps[0]:,} to {steps[-1]:,}")
    text += f", and {len(branches)} intervention branch{'es' if len(branches) != 1 else ''}. " if branches else ". "
    if truth is None:
        return text
    differ, total = int(truth["items that differ"].sum()), int(truth["items"].sum())
    if differ:
        return text + f"Exposures counted differ from what was planted for {differ:,} of {total:,} planted items."
    return text + f"Exposures counted in the training order equal what was planted for all {total:,} planted items."
