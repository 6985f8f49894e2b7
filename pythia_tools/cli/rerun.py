"""Repeat a run from what it recorded, and compare the numbers.

example:
  pythia-tools rerun runs/m1 --out runs/m1-again

Exit code 0: every number of the summary is the same. Exit code 1: some differ; the largest difference is printed.
"""

from __future__ import annotations

import argparse

import pandas as pd

from pythia_tools.cli.main import find
from pythia_tools.cli.options import emit, replayed
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, DataError, RequestError
from pythia_tools.core.results import Run, load_run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", metavar="DIR", help="folder of the new run (default: RUN-rerun)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto (default)")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    before = load_run(args.run)
    out = args.out or f"{before.path}-rerun"
    run_recorded(before.config, out=out, quiet=args.quiet, device=args.device)
    report = compare(before, load_run(out))
    emit(report, as_json=args.json)
    return EXIT_DONE if report["same"] else EXIT_FOUND


def run_recorded(config: dict, *, out: str, quiet: bool, device: str = "auto") -> None:
    """Run a recorded config's command into `out`. Raises RequestError when the config names no command of this version.
    """
    name = config.get("command")
    if not name or "arguments" not in config:
        raise RequestError(f"this run's config names no command to repeat (command: {name!r}); see its config.json")
    command = find(str(name))
    progress.set_quiet(quiet)
    command.run(replayed(config, out=out, quiet=quiet, device=device))


def compare(before: Run, after: Run) -> dict[str, object]:
    """How two runs' summaries differ: rows only in one, and the largest absolute difference of a value."""
    for run_ in (before, after):
        if run_.summary.duplicated(tables.KEYS).any():
            raise DataError(f"{run_.path}: summary.csv names a number twice; it cannot be compared")
    both = before.summary.merge(after.summary, on=tables.KEYS, how="outer", suffixes=("_a", "_b"), indicator=True)
    lone = int((both["_merge"] != "both").sum())
    gaps = {c: _largest_gap(both[f"{c}_a"], both[f"{c}_b"]) for c in ("value", "low", "high")}
    return {
        "before": str(before.path), "after": str(after.path), "rows": len(both), "rows_in_one_only": lone,
        "largest_difference": gaps, "weights_same": before.record.get("weights") == after.record.get("weights"),
        "same": lone == 0 and all(g == 0 for g in gaps.values()),
    }


def _largest_gap(a: pd.Series, b: pd.Series) -> float:
    gap = (a - b).abs().where(a.notna() | b.notna(), 0.0)
    return float(gap.fillna(float("inf")).max()) if len(gap) else 0.0
