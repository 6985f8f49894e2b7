"""One self-contained HTML page: figures inline, readable on a phone and on paper, everything escaped.

Figures are embedded as data URIs, so the page has no other file, no script and no request.
Cost: the size of its figures, about 50–150 kB each.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools.core.errors import DataError

_MIME = {".svg": "image/svg+xml", ".png": "image/png"}

_CSS = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5a6570; --line: #d9dee3; --accent: #2f5f93; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 54rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p.lead, .soft, figcaption { color: var(--soft); }
nav { margin: 1rem 0; font-size: .95rem; } nav a { margin-right: 1rem; } a { color: var(--accent); }
ul.findings { padding-left: 1.2rem; } ul.findings li { margin: .35rem 0; }
figure { margin: 1.2rem 0; } figure img { width: 100%; height: auto; max-width: 48rem; display: block; }
figcaption { font-size: .88rem; margin-top: .3rem; } code { overflow-wrap: anywhere; }
figure.wide .scroll img { min-width: 40rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86rem; }
pre { background: #f4f6f8; padding: .7rem .9rem; overflow-x: auto; border-radius: 4px; white-space: pre-wrap;
  word-break: break-word; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
@media print {
  figure.wide .scroll img { min-width: 0; }
  body { max-width: none; font-size: 10.5pt; } nav { display: none; } details > * { display: block; }
  h2 { break-after: avoid; } figure, table, li { break-inside: avoid; } pre { border: 1px solid var(--line); } }
"""


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
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
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
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = escape(picture.caption)
    image = f'<div class="scroll"><img alt="{caption}" src="data:{kind};base64,{data}"></div>'
    wide = ' class="wide"' if _is_wide(picture.path) else ""
    return f"<figure{wide}>{image}<figcaption>{caption}</figcaption></figure>"


def _is_wide(path: Path) -> bool:
    """Panels side by side: at least twice as wide as high. Read from an SVG's header; other files count as narrow."""
    found = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', path.read_bytes()[:2000])
    return found is not None and float(found[1]) >= 2 * float(found[2])


def table_html(frame: pd.DataFrame, *, limit: int = 60) -> str:
    """A small table; more rows than `limit` are counted, not shown."""
    kinds = ["num" if pd.api.types.is_numeric_dtype(frame[c]) else "text" for c in frame.columns]
    head = _row("th", kinds, map(str, frame.columns))
    rows = "".join(_row("td", kinds, map(_cell, values)) for values in frame.head(limit).itertuples(index=False))
    more = f'<p class="soft">… and {len(frame) - limit} more rows in summary.csv</p>' if len(frame) > limit else ""
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{more}'


def _row(tag: str, kinds: Iterable[str], values: Iterable[str]) -> str:
    cells = (f'<{tag} class="{kind}">{escape(value)}</{tag}>' for kind, value in zip(kinds, values, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "–"
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
    rows = [(str(k), str(v)) for k, v in pairs.items()]
    return table_html(pd.DataFrame(rows, columns=[what, value]), limit=len(rows))
