"""Audit a suite's integrity without downloading it: files, duplicates, sizes, shapes, embedding rows, step 0, NaN.

example:
  pythia-tools doctor pythia --models 70m                     # at most 1 MB per checkpoint
  pythia-tools doctor pythia --models 2.8b --quick            # listings only, a few hundred kB in all
  pythia-tools doctor ./my-suite --out runs/doctor            # folders: read whole; findings.csv and norms.csv in --out
  pythia-tools doctor --results published_evals.json          # published evaluation results instead of weights

Exit code 1 when something is wrong. Known defects are marked, not hidden.
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
    add(parser, "--json", "--quiet")


def run(args: argparse.Namespace) -> int:
    if (args.suite is None) == (args.results is None):
        raise RequestError("one of SUITE and --results FILE is needed")
    if args.results is not None:
        audit = doctor.audit_results(args.results)
    else:
        suite = suites.load_suite(args.suite)
        audit = doctor.audit(suite, args.models, args.steps, quick=args.quick)
    verdict = {"suite": audit.suite, "examined": audit.examined, "sound": audit.sound, "verdict": audit.verdict}
    findings = audit.findings.to_dict(orient="records")
    if args.out:
        files.write_text(Path(args.out) / "findings.csv", audit.findings.to_csv(index=False))
        files.write_text(Path(args.out) / "norms.csv", audit.curve.to_csv(index=False))
        files.write_json(Path(args.out) / "verdict.json", verdict)
    if args.json:
        emit({**verdict, "findings": findings}, as_json=True)
    else:
        for f in findings:
            mark = "known" if f["known"] else f["severity"]
            print(f"{mark:5}  {f['model']}  step {f['step']}  {f['check']}: {f['detail']}")
        print(audit.verdict)
    return EXIT_DONE if audit.sound else EXIT_FOUND
