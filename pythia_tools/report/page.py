"""From finished runs to one page: a section per run, its figures, its computed sentences, its numbers, its receipts.

Everything shown was recorded when the run finished, so a page needs neither the models nor the analysis that made it.
Figures are embedded as data URIs, so the page has no other file, no script and no request.
Cost: the size of its figures, about 50–150 kB each.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import Run
from pythia_tools.core.tables import at_last_step

HIDDEN = ["suite", "params", "tokens", "seed", "analysis"]
"""Columns of a summary that a section's table leaves to summary.csv."""
UNDEFINED = {"value": "undefined"}
"""Columns in which nothing means more than that nothing applies."""
_MIME = {".svg": "image/svg+xml", ".png": "image/png"}

_CSS = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Picture:
    """A figure file (.svg or .png) and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """One analysis: what was found (computed sentences), figures, a table of numbers, and how it was measured."""

    title: str
    findings: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    table: pd.DataFrame | None = None
    table_title: str = "Numbers"
    method: str = ""
    name: str = ""

    @property
    def anchor(self) -> str:
        return self.name or "".join(c if c.isalnum() else "-" for c in self.title.lower())


def render(
    title: str, lead: str, sections: Sequence[Section], *, command: str, record: Mapping[str, Any],
    timings: Mapping[str, float]
) -> str:
    """The page. `command` repeats the run; `record` is provenance (run.json's content); `timings` seconds by stage."""
    links = " ".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>', f"<nav>{links}</nav>"]
    body += [_section(s) for s in sections]
    body.append(_receipts(command, record, timings))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{_CSS}</style></head>\n<body>\n"
        + "\n".join(body) + "\n</body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f'<section id="{escape(section.anchor)}"><h2>{escape(section.title)}</h2>']
    if section.findings:
        parts.append('<ul class="findings">' + "".join(f"<li>{escape(f)}</li>" for f in section.findings) + "</ul>")
    parts += [_picture(p) for p in section.pictures]
    if section.table is not None and len(section.table):
        parts.append(f"<details><summary>{escape(section.table_title)}</summary>{table_html(section.table)}</details>")
    if section.method:
        parts.append(f'<p class="soft">{escape(section.method)}</p>')
    return "\n".join([*parts, "</section>"])


def _picture(picture: Picture) -> str:
    kind = _MIME.get(picture.path.suffix)
    if kind is None:
        raise DataError(f"{picture.path}: a report holds {', '.join(_MIME)} figures")
    content, caption = picture.path.read_bytes(), escape(picture.caption)
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content[:2000])  # an SVG's header says it
    wide = ' class="wide"' if size and float(size[1]) >= 2 * float(size[2]) else ""  # panels side by side
    image = f'<div class="scroll"><img alt="{caption}" src="{source}"></div>'
    return f"<figure{wide}>{image}<figcaption>{caption}</figcaption></figure>"


def table_html(frame: pd.DataFrame, *, limit: int = 60) -> str:
    """A small table; more rows than `limit` are counted, not shown."""
    kinds = ["num" if pd.api.types.is_numeric_dtype(frame[c]) else "text" for c in frame.columns]
    head = _row("th", kinds, map(str, frame.columns))
    gaps = [UNDEFINED.get(str(c), "–") for c in frame.columns]
    rows = "".join(_row("td", kinds, map(_cell, values, gaps)) for values in frame.head(limit).itertuples(index=False))
    more = f'<p class="soft">… and {len(frame) - limit} more rows in summary.csv</p>' if len(frame) > limit else ""
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{more}'


def _row(tag: str, kinds: Iterable[str], values: Iterable[str]) -> str:
    cells = (f'<{tag} class="{kind}">{escape(value)}</{tag}>' for kind, value in zip(kinds, values, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any, gap: str) -> str:
    if pd.isna(value):
        return gap
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _receipts(command: str, record: Mapping[str, Any], timings: Mapping[str, float]) -> str:
    facts = {
        "written": record.get("written_at"), "code revision": record.get("git_revision"),
        "Python": record.get("python"), "platform": record.get("platform"), "processors": record.get("processors"),
        **(record.get("versions") or {}),
    }
    weights = record.get("weights") or {}
    return (
        '<section id="receipts"><h2>Receipts</h2><p>Repeat this study with</p>'
        f"<pre>{escape(command)}</pre>"
        + _pairs("stage", "seconds", {k: f"{v:,.1f}" for k, v in timings.items()})
        + _pairs("made with", "version", {k: v for k, v in facts.items() if v})
        + f'<p class="soft">Fingerprint of the data order: <code>{escape(str(record.get("data") or "–"))}</code></p>'
        f"<details><summary>Weights digests of {len(weights)} checkpoints</summary>"
        + _pairs("checkpoint", "digest", weights) + "</details></section>"
    )


def _pairs(what: str, value: str, pairs: Mapping[str, object]) -> str:
    """A table of two columns, whole."""
    return table_html(pd.DataFrame({what: pairs.keys(), value: map(str, pairs.values())}), limit=len(pairs))


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
