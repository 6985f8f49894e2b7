"""Audit a suite's integrity without downloading it: missing and duplicated files, sizes, shapes, embedding rows, step
0, NaN.

example:
  pythia-tools doctor pythia --models 70m                     # at most 1 MB per checkpoint
  pythia-tools doctor pythia --models 2.8b --quick            # listings only, a few hundred kB in all
  pythia-tools doctor ./my-suite --out runs/doctor            # folders: read whole; findings.csv and norms.csv in --out
  pythia-tools doctor --results published_evals.json          # published evaluation results instead of weights

Exit code 1 when something is wrong. Known defects are marked, not hidden.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pythia_tools import doctor, suites
from pythia_tools.cli.options import add_output, emit, positive
from pythia_tools.core import files
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "suite", nargs="?", metavar="SUITE", help="a suite's name, a manifest path, or a folder of checkpoints"
    )
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="models of the suite (default: all)")
    parser.add_argument(
        "--steps", default="all", help="all, log, last, 0,512,143000, 1000:143000:10000, tokens=2B, 10%% (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="file listings only, no bytes of weights (suites on the hub)"
    )
    rows = "embedding rows to read per checkpoint (default: 256, fewer from width 2048 on, so that it costs at most 1 MB)"
    parser.add_argument("--rows", type=positive, metavar="N", help=rows)
    parser.add_argument(
        "--results", metavar="FILE", help="audit a JSON of evaluation results {model: {step: {metric: value}}} instead"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    if (args.suite is None) == (args.results is None):
        raise RequestError("one of SUITE and --results FILE is needed")
    if args.results is not None:
        audit = doctor.audit_results(args.results)
    else:
        suite = suites.load_suite(args.suite)
        audit = doctor.audit(suite, args.models, args.steps, quick=args.quick, rows=args.rows)
    if args.out:
        _write(audit, Path(args.out))
    if args.json:
        emit({**_verdict(audit), "findings": audit.findings.to_dict(orient="records")}, as_json=True)
    else:
        _print(audit)
    return EXIT_DONE if audit.sound else EXIT_FOUND


def _verdict(audit: doctor.Audit) -> dict[str, object]:
    return {"suite": audit.suite, "examined": audit.examined, "sound": audit.sound, "verdict": audit.verdict}


def _print(audit: doctor.Audit) -> None:
    for f in audit.findings.to_dict(orient="records"):
        mark = "known" if f["known"] else f["severity"]
        print(f"{mark:5}  {f['model']}  step {f['step']}  {f['check']}: {f['detail']}")
    print(audit.verdict)


def _write(audit: doctor.Audit, out: Path) -> None:
    files.write_text(out / "findings.csv", audit.findings.to_csv(index=False))
    files.write_text(out / "norms.csv", audit.curve.to_csv(index=False))
    files.write_json(out / "verdict.json", _verdict(audit))
