"""All analyses over a suite in one sweep, and one report.

examples:
  pythia-tools study pythia-micro --out runs/micro
  pythia-tools study pythia-deduped --models 70m 160m --steps log --analyses memorization losses --out runs/pythia

Each analysis runs with its default options. One that the suite cannot carry (no order, no tokenizer) is left out with a
note, unless --analyses names it. `pythia-tools NAME SUITE` has the options of each.
"""

import argparse
import time

from pythia_tools import analyses
from pythia_tools.cli.analyses import chosen, context_of, show_plan
from pythia_tools.cli.options import SWEEP, add, emit, recorded, require_out
from pythia_tools.core import progress


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, "suite", *SWEEP, "--out")
    add_analyses(parser)


def add_analyses(parser: argparse.ArgumentParser, default: list[str] | None = None) -> None:
    known = list(analyses.names())
    help = f"{', '.join(known)} (default: {', '.join(default or ['all'])})"
    parser.add_argument("--analyses", nargs="+", choices=known, metavar="NAME", default=default, help=help)


def run(args: argparse.Namespace, command: str = "study", title: str | None = None) -> int | None:
    """The study as the command `command`, which is what its config names."""
    from pythia_tools.study import plan_study, run_study

    began = time.monotonic()
    context = context_of(args)
    if args.dry_run:
        return show_plan(plan_study(context, args.analyses), args)
    progress.note(f"study: {args.suite} into {args.out}")
    study = run_study(
        context, require_out(args), args.analyses, record=recorded(command, args, checkpoints=chosen(context)),
        command=args.typed, title=title,
    )
    truth = [] if study.truth is None else study.truth.to_dict("records")
    lines = [line for name, said in study.findings.items() for line in (name, *(f"  - {s}" for s in said))]
    if study.truth is not None:
        lines += ["exposures counted against planted", study.truth.to_string(index=False)]
    lines.append(f"\n{study.report}   ({time.monotonic() - began:.0f} s)")
    emit({"report": str(study.report), "findings": study.findings, "truth": truth}, args, "\n".join(lines))
    return None
