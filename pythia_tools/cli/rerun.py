"""Repeat a run from what it recorded, and compare the numbers.

example:
  pythia-tools rerun runs/m1 --out runs/m1-again

Exit code 0: every number of the summary is the same. Exit code 1: some differ; the largest difference is printed.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pythia_tools.cli.main import find
from pythia_tools.cli.options import TRANSIENT, add, emit
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, DataError, RequestError
from pythia_tools.core.results import Run, load_run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    add(parser, "--out", help="folder of the new run (default: RUN-rerun)")
    add(parser, "--device")


def run(args: argparse.Namespace) -> int:
    before = load_run(args.run)
    out = args.out or f"{before.path}-rerun"
    with contextlib.redirect_stdout(sys.stderr):  # what the command itself shows; the comparison is the result
        run_recorded(before.config, out=out, quiet=args.quiet, device=args.device, typed=args.typed)
    report = compare(before, load_run(out))
    emit(report, args)
    return EXIT_DONE if report["same"] else EXIT_FOUND


def run_recorded(config: Mapping[str, Any], **transient: object) -> None:
    """Run a recorded config's command again, with these of the arguments that decide no result.

    An argument that is younger than the run gets its default. Raises RequestError when the config names no command of
    this version.
    """
    name = config.get("command")
    if not name or "arguments" not in config:
        raise RequestError(f"this run's config names no command to repeat (command: {name!r}); see its config.json")
    command = find(str(name))
    flags = [option for option in command.parser(str(name))._actions if option.default is not argparse.SUPPRESS]
    defaults = {option.dest: option.default for option in flags}
    given = {k: tuple(v) if k == "shard" and v else v for k, v in config["arguments"].items()}
    args = argparse.Namespace(**{**defaults, **given, **TRANSIENT, **transient})
    progress.set_quiet(args.quiet)
    command.run(args)


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
