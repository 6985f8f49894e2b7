"""From finished runs to one page: a section per run, its figures, its computed sentences, its numbers, its receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import Run
from pythia_tools.report.page import Picture, Section, render
from pythia_tools.report.sentences import at_last_step, sentences_for

TITLES = {
    "memorization": "Memorization", "term-frequency": "Term frequency", "bias": "Gender bias", "learning": "Learning curve",
    "dedup": "Near-duplicates", "count": "Exposures",
}


def analysis_of(run: Run) -> str:
    """Which analysis a run holds: what a study named it, else its command."""
    return str(run.config.get("analysis") or run.config.get("command"))


def section(run: Run) -> Section:
    """One run as a section. An analysis without sentences still shows its figures and numbers."""
    analysis = analysis_of(run)
    try:
        findings = sentences_for(analysis, run.summary)
    except RequestError:
        findings = []
    captions: dict[str, str] = run.record.get("captions") or {}
    vector = [p for p in run.figures if p.suffix == ".svg"]
    lone = [p for p in run.figures if p.suffix == ".png" and p.with_suffix(".svg") not in vector]
    order = {name: i for i, name in enumerate(captions)}
    files = sorted([*vector, *lone], key=lambda p: (order.get(p.stem, len(order)), p.stem))
    pictures = [Picture(p, captions.get(p.stem, p.stem.replace("_", " "))) for p in files]
    return Section(
        title=TITLES.get(analysis, analysis), findings=findings, pictures=pictures, table=last_numbers(run.summary),
        table_title="Numbers at the last step", method=str(run.record.get("method") or ""), name=analysis,
    )


def last_numbers(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's last step, with the columns a reader compares."""
    columns = ["model", "branch", "step", "group", "metric", "value", "low", "high", "n", "interval"]
    return at_last_step(summary)[columns].reset_index(drop=True)


def build_report(runs: Sequence[Run], *, title: str, lead: str, command: str, timings: dict[str, float] | None = None) -> str:
    """The page of several finished runs as HTML text. Raises RequestError for none."""
    if not runs:
        raise RequestError("a report needs at least one finished run")
    weights: dict[str, str] = {}
    spent: dict[str, float] = {}
    fingerprints = []
    for run in runs:
        weights |= run.record.get("weights") or {}
        spent |= {f"{analysis_of(run)}: {k}": v for k, v in (run.record.get("timings_seconds") or {}).items()}
        data = run.record.get("data")
        if data and data not in fingerprints:
            fingerprints.append(data)
    record: dict[str, Any] = {**runs[0].record, "weights": weights, "data": "; ".join(map(str, fingerprints)) or None}
    return render(title, lead, [section(r) for r in runs], command=command, record=record, timings=timings or spent)
