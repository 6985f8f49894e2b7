"""Audit a suite's integrity without downloading it: files, duplicates, sizes, shapes, embedding rows, step 0, NaN.

example:
  pythia-tools doctor pythia --models 70m                     # 1 MB per checkpoint and its one-dimensional tensors
  pythia-tools doctor pythia --models 2.8b --quick            # listings only, a few hundred kB in all
  pythia-tools doctor ./my-suite --out runs/doctor            # folders: read whole; findings.csv and norms.csv in --out
  pythia-tools doctor --results published_evals.json          # published evaluation results instead of weights

Exit code 1 when something is wrong. Known defects are marked, not hidden. The verdict says what was looked at and what
was not; a suite is called sound only when everything was.
"""

import argparse
from pathlib import Path

from pythia_tools import doctor, suites
from pythia_tools.cli.options import add, emit
from pythia_tools.core import files
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, "suite", nargs="?")
    add(parser, "--models", "--steps")
    parser.add_argument("--quick", action="store_true", help="file listings only, no weights (suites on the hub)")
    results = "audit a JSON of evaluation results {model: {step: {metric: value}}} instead"
    parser.add_argument("--results", metavar="FILE", help=results)
    add(parser, "--out", help="folder for findings.csv, norms.csv and verdict.json")


def run(args: argparse.Namespace) -> int:
    if (args.suite is None) == (args.results is None):
        raise RequestError("one of SUITE and --results FILE is needed")
    if args.results is not None:
        audit = doctor.audit_results(args.results)
    else:
        suite = suites.load_suite(args.suite)
        audit = doctor.audit(suite, args.models, args.steps, quick=args.quick)
    verdict = {"suite": audit.suite, "examined": audit.examined, "clean": audit.clean, "sound": audit.sound,
               "verdict": audit.verdict}
    if args.out:
        files.write_text(Path(args.out) / "findings.csv", audit.findings.to_csv(index=False))
        files.write_text(Path(args.out) / "norms.csv", audit.curve.to_csv(index=False))
        files.write_json(Path(args.out) / "verdict.json", verdict)
    findings = audit.findings.to_dict(orient="records")
    marks = ["known" if f["known"] else f["severity"] for f in findings]
    lines = [f"{mark:5}  {f['model']}  step {f['step']}  {f['check']}: {f['detail']}"
             for mark, f in zip(marks, findings, strict=True)]
    emit({**verdict, "findings": findings}, args, "\n".join([*lines, audit.verdict]))
    return EXIT_DONE if audit.clean else EXIT_FOUND
