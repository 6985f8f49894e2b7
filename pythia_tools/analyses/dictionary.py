"""The column dictionary: what every column of every table holds, in Markdown, from the declarations themselves.

    python -m pythia_tools.analyses.dictionary > docs/columns.md
"""

from collections.abc import Iterable, Mapping

from pythia_tools import analyses, fitting, public
from pythia_tools.core.tables import COLUMNS, IDENTITY, KEYS, Column


def markdown() -> str:
    """Summaries, then each built-in analysis: its metrics with their units, its item columns."""
    parts = [
        "# Columns",
        "Meaning is in columns, never in text to parse. This page is written from the code: "
        "`python -m pythia_tools.analyses.dictionary > docs/columns.md`.",
        "## Summaries (`summary.csv`)",
        f"One row per number. Together, {_listed(KEYS)} name it; no two rows share them all.",
        _columns(COLUMNS),
        "## Items (`items.parquet`)",
        f"One row per checkpoint and item. All begin with {_listed(IDENTITY)}, as above; analyses add columns.",
    ]
    published = [
        "## Public results (`pt.published`)", "One row per published number, whatever the layout it came in.",
        _columns(public.COLUMNS),
    ]
    for name in analyses.BUILT_IN:
        analysis = analyses.get(name)
        metrics = [(f"`{m}`", metric.unit, metric.meaning) for m, metric in analysis.metrics.items()]
        parts += [
            f"## {name}", analysis.title() + ".", _table(("metric", "unit", "meaning"), metrics),
            _columns(analysis.columns)
        ]
        for file, columns in analysis.exported.items():
            parts += [f"`{file}`:", _columns(columns)]
    fits = ["## fit", "The metrics of each form of `pythia-tools fit TABLE`, and the columns that it needs."]
    for name, form in fitting.FORMS.items():
        metrics = [(f"`{m}`", metric.unit, metric.meaning) for m, metric in form.metrics.items()]
        needed = [(f"`{column}`", meaning) for column, meaning in form.columns.items()]
        fits += [f"### {name}", form.says + ".", _table(("needs", "meaning"), needed)]
        fits += [_table(("metric", "unit", "meaning"), metrics)]
    return "\n\n".join(parts + fits + published) + "\n"


def _columns(columns: Mapping[str, Column]) -> str:
    return _table(("column", "type", "meaning"), [(f"`{n}`", c.dtype, c.meaning) for n, c in columns.items()])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<NA>", "`<NA>`")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(markdown(), end="")
