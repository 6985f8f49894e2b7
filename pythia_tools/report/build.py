"""From finished runs to one page: a section per run, its figures, its computed sentences, its numbers, its receipts.

Everything shown was recorded when the run finished, so a page needs neither the models nor the analysis that made it.
"""

from collections.abc import Sequence

import pandas as pd

from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import Run
from pythia_tools.core.tables import at_last_step
from pythia_tools.report.page import Picture, Section, render

HIDDEN = ["suite", "params", "tokens", "seed", "analysis"]
"""Columns of a summary that a section's table leaves to summary.csv."""


def name_of(run: Run) -> str:
    """Which analysis a run holds, or which command made it."""
    return str(run.record.get("analysis") or run.config.get("command"))


def section(run: Run) -> Section:
    """One run as a section."""
    captions: dict[str, str] = run.record.get("captions") or {}
    figures = {p.stem: p for p in sorted(run.figures, key=lambda p: p.suffix)}  # the .svg where there are both
    names = [name for name in captions if name in figures]
    names += sorted(figures.keys() - captions.keys())
    return Section(
        title=str(run.record.get("title") or name_of(run).replace("-", " ").capitalize()),
        findings=[s["text"] for s in run.record.get("sentences") or []],
        pictures=[Picture(figures[name], captions.get(name, name.replace("_", " "))) for name in names],
        table=last_numbers(run.summary), table_title="Numbers at the last step",
        method=str(run.record.get("method") or ""), name=name_of(run),
    )


def last_numbers(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's last step, with the columns a reader compares; columns that say nothing are left out."""
    last = at_last_step(summary)
    if summary["model"].isna().all():  # of an order or of documents
        last = summary[(summary["step"] == summary["step"].max()).fillna(True)]
    last = last.drop(columns=HIDDEN)
    return last.drop(columns=[c for c in last.columns if last[c].isna().all()]).reset_index(drop=True)


def build_report(runs: Sequence[Run], *, title: str, lead: str, command: str) -> str:
    """The page of several finished runs as HTML text. Raises RequestError for none."""
    if not runs:
        raise RequestError("a report needs at least one finished run")
    weights, spent = ({k: v for run in runs for k, v in (run.record.get(part) or {}).items()}
                      for part in ("weights", "timings_seconds"))
    fingerprints = dict.fromkeys(str(run.record["data"]) for run in runs if run.record.get("data"))
    record = {**runs[0].record, "weights": weights, "data": "; ".join(fingerprints) or None}
    timings = spent | {"all": sum(spent.values())}
    return render(title, lead, [section(r) for r in runs], command=command, record=record, timings=timings)
