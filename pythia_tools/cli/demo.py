"""The whole study on pythia-micro: train (or reuse) the suite, order, dedup, analyses, figures, report.html.

example:
  pythia-tools demo
  pythia-tools demo --out runs/mine --models xs s

The suite is trained once and kept in the cache folder ($PYTHIA_TOOLS_HOME); a second demo reuses it. Interrupt it whenever
you like: the same command goes on where it stopped. `--suite NAME` studies another suite in the same way.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time

from pythia_tools.cli.options import add_budget, add_compute, recorded
from pythia_tools.core import progress

ANALYSES = ("memorization", "term-frequency", "bias", "learning")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", default="runs/demo", help="folder of the study (default: runs/demo)")
    parser.add_argument("--suite", default="pythia-micro", help="another suite's name, manifest or folder (default: pythia-micro)")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="models of the suite (default: all)")
    parser.add_argument("--steps", default="all", help="all, log, last, 0,512, 0:1500:300, 10%% (default: all)")
    parser.add_argument("--analyses", nargs="+", choices=ANALYSES, default=list(ANALYSES), help="default: all four")
    parser.add_argument("--allow-defective", action="store_true", help="go on with checkpoints that are known to be wrong")
    add_compute(parser)
    add_budget(parser)
    parser.add_argument("--json", action="store_true", help="print paths, findings and the truth check as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    if args.suite == "pythia-micro":
        from pythia_tools import micro

        micro.train()
    from pythia_tools.report import sentences_for
    from pythia_tools.study import run_study

    progress.note(f"study: {args.suite} into {args.out}")
    study = run_study(
        args.suite, args.out, models_wanted=args.models, steps=args.steps, analyses=args.analyses, device=args.device, dtype=args.dtype,
        allow_defective=args.allow_defective, config=recorded("demo", args), command=shell_line(args),
        title="pythia-micro: training dynamics on this machine" if args.suite == "pythia-micro" else None,
    )
    findings = {name: sentences_for(name, one.summary) for name, one in study.runs.items()}
    truth = None if study.truth is None else json.loads(study.truth.to_json(orient="records"))
    if args.json:
        print(json.dumps({"report": str(study.report), "findings": findings, "truth": truth}, ensure_ascii=False))
        return 0
    for name, sentences in findings.items():
        print(f"{name}\n" + "\n".join(f"  - {s}" for s in sentences))
    if study.truth is not None:
        print("exposures counted against planted\n" + study.truth.to_string(index=False))
    print(f"\n{study.report}   ({time.monotonic() - began:.0f} s)")
    return 0


def shell_line(args: argparse.Namespace) -> str:
    """The command that repeats this study, with every argument that is not its default."""
    defaults = {"suite": "pythia-micro", "out": "runs/demo", "steps": "all", "analyses": list(ANALYSES), "device": "auto"}
    words = ["pythia-tools", "demo"]
    for name in ("suite", "models", "steps", "analyses", "dtype", "device", "out"):
        value = getattr(args, name)
        if value and value != defaults.get(name):
            words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    if args.allow_defective:
        words.append("--allow-defective")
    return shlex.join(words)
