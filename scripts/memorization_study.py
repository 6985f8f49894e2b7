#!/usr/bin/env python3
"""The case study of memorization for any suite: order, foresight, scaling, profiles, forgetting, membership, kinds, branches.

    python scripts/memorization_study.py pythia-micro --out runs/memorization-study
    python scripts/memorization_study.py pythia --models 70m 410m --steps 23000:143000:20000 --rows 1048576 --screen bfloat16 --out runs/m

Writes a run's folder (config, items, summary, figures, run.json, and kinds.parquet: the memorized rows and what may explain them);
run it again after an interruption and it resumes.
"""

from __future__ import annotations

import argparse
import sys
import time

from pythia_tools import load_order, load_suite, plots
from pythia_tools.analyses.memorization import Window, block_counts, qq_points
from pythia_tools.analyses.memorization.case_study import CaseStudy, Design, case_study, tell
from pythia_tools.cli.options import add_output, add_sweep, positive, recorded, require_out
from pythia_tools.core import files, progress
from pythia_tools.core.errors import PythiaToolsError, RequestError
from pythia_tools.core.results import RunFolder
from pythia_tools.study.material import load_tokenizer

FIGURES = {
    "memorization": plots.memorization, "foresight": plots.foresight, "scaling": plots.memorization_scaling,
    "order_effect": plots.order_effect, "profile": plots.memorization_profile, "persistence": plots.memorization_persistence,
    "forgetting": plots.forgetting, "membership": plots.membership, "kinds": plots.memorization_kinds,
}


def main() -> int:
    args = _arguments()
    progress.set_quiet(args.quiet)
    start = time.perf_counter()
    suite = load_suite(args.suite)
    if not (args.order or suite.order):
        raise RequestError(f"{suite.name} names no data order; give one with --order")
    order = load_order(args.order or suite.order)
    tokenizer = load_tokenizer(suite)
    folder = RunFolder(require_out(args), recorded("memorization_study", args))
    window = Window(args.context, args.continuation, vocabulary=len(tokenizer))
    design = Design(args.rows, args.block, args.per_cohort, args.controls, window, reference=args.reference, seed=args.seed)
    checkpoints = suite.checkpoints(args.models, args.steps, allow_defective=args.allow_defective)
    study = case_study(
        checkpoints, order, design, decode=tokenizer.decode, cells=folder.cells, device=args.device, dtype=args.dtype,
        allow_defective=args.allow_defective, screen=args.screen,
    )
    tell(study.notes)
    with files.atomic_write(folder.path / "kinds.parquet") as handle:
        study.kinds.to_parquet(handle, index=False)
    draw(study, folder, args.block)
    run = folder.finish(
        study.items, study.summary, weights=study.weights, data=order.fingerprint, timings={"all": time.perf_counter() - start},
        extra={"notes": study.notes},
    )
    print(f"{run.path}: {len(study.items)} judged, {len(study.summary)} numbers, {len(run.figures)} figures")
    return 0


def draw(study: CaseStudy, folder: RunFolder, block: int) -> None:
    """Every figure whose numbers exist."""
    everything = study.summary
    curve = everything[(everything["metric"] != "memorized_share") | (everything["group"] == "all")]
    for name, figure in FIGURES.items():
        try:
            ax = figure(curve)
        except RequestError as error:
            progress.note(f"no figure {name}: {error}")
            continue
        plots.save(ax, folder.figures, name)
    last = study.items.sort_values(["params", "step"]).iloc[-1]
    rows = study.items[(study.items["model"] == last["model"]) & (study.items["step"] == last["step"])].sort_values("row")
    counts, _ = block_counts(rows["memorized"], block)
    if len(counts) >= 3:
        plots.save(plots.poisson_qq(qq_points(counts)), folder.figures, "poisson_qq")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sweep(parser)
    add_output(parser)
    parser.add_argument("--order", help="the data order (default: the suite's own)")
    parser.add_argument("--rows", type=positive, default=16384, help="consecutive rows, from the first on (default 16384)")
    parser.add_argument("--block", type=positive, default=512, help="rows per block of the Poisson check (default 512)")
    parser.add_argument("--context", type=positive, default=32)
    parser.add_argument("--continuation", type=positive, default=32)
    parser.add_argument("--per-cohort", type=positive, default=50, help="rows followed from each interval between checkpoints")
    parser.add_argument("--controls", type=positive, default=500, help="rows never consumed, at most")
    parser.add_argument("--screen", choices=["bfloat16", "float16"],
                        help="reject most rows in this format; all others are judged exactly, and rejections audited")
    parser.add_argument("--reference", metavar="MODEL", help="membership also against this model's last step (default: the smallest)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PythiaToolsError as error:
        print(f"memorization_study: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
