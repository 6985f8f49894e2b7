"""The whole study on pythia-micro: train (or reuse) the suite, order, dedup, analyses, figures, report.html.

examples:
  pythia-tools demo
  pythia-tools demo --out runs/mine --models xs s

The suite is trained once and kept in the cache folder ($PYTHIA_TOOLS_HOME); a second demo reuses it. Interrupt it
whenever you like: the same command resumes where it stopped. `pythia-tools study SUITE` studies another suite in the
same way.
"""

import argparse

from pythia_tools.cli import study
from pythia_tools.cli.options import SWEEP, add

SHOWN = ["memorization", "term-frequency", "bias", "losses"]
"""What the demo shows; `study pythia-micro` makes every analysis, which takes longer."""


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, *SWEEP, "--out")
    study.add_analyses(parser, default=SHOWN)
    parser.set_defaults(suite="pythia-micro", out="runs/demo")


def run(args: argparse.Namespace) -> int | None:
    from pythia_tools import micro

    if not args.dry_run:
        micro.train()
    return study.run(args, "demo", "pythia-micro: training dynamics on this machine")
