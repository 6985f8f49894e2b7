#!/usr/bin/env python3
"""Counterfactual memorization: train several runs of a micro suite, each without a random half of its canaries, and
compare.

    python scripts/counterfactual_study.py --runs 8 --model xs --out runs/counterfactual

Each run has the base suite's length and order, with the rows of the canaries it leaves out taken away and the first
rows repeated at the end, so that all take as many steps. Memorization of a canary is its next-token accuracy under runs
that held it minus that under runs that did not; the table is by number of copies. Costs one training per run (xs: about
half a minute each); an interrupted study resumes at the run in progress.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools import load_suite, micro
from pythia_tools.analyses.memorization import counterfactual, mean_memorization, row_scores
from pythia_tools.core import files, progress
from pythia_tools.core.errors import PythiaToolsError, RequestError


def main() -> int:
    args = _arguments()
    progress.set_quiet(args.quiet)
    base = Path(args.suite) if args.suite else micro.train()
    canaries = micro.load_truth(base).canaries
    planted = canaries[canaries["copies"] > 0].reset_index(drop=True)
    if args.runs < 2:
        raise RequestError(f"{args.runs} run cannot show a difference; choose at least 2, better 8")
    included = np.random.default_rng(args.seed).random((args.runs, len(planted))) < 0.5
    for number, held in enumerate(included):
        left_out = {int(r) for rows in planted.loc[~held, "rows"] for r in rows}
        micro.train_run(
            base, args.out, f"{args.model}-half{number}", model=args.model, rows=rows_without(base, left_out)
        )
    suite = load_suite(args.out)
    names = [f"{args.model}-half{number}" for number in range(args.runs)]
    last = [suite.checkpoint(name, suite.steps(name)[-1]) for name in names]
    table = row_scores(
        last, np.array(planted["tokens"].tolist()), row_ids=planted["canary"].to_numpy(), device=args.device
    )
    values = table.pivot(index="model", columns="row", values="top1").loc[names, planted["canary"]].to_numpy()
    found = counterfactual(values, included).assign(canary=planted["canary"], copies=planted["copies"])
    with files.atomic_write(Path(args.out) / "counterfactual.parquet") as handle:
        found.to_parquet(handle, index=False)
    lines = [
        {"copies": copies, **mean_memorization(values[:, place], included[:, place]).columns()}
        for copies, place in found.groupby("copies").indices.items()
    ]
    print(pd.DataFrame(lines).to_string(index=False))
    return 0


def rows_without(base: Path, left_out: set[int]) -> np.ndarray:
    """Row numbers of the base suite's run without some, filled up with its own first rows."""
    total = micro.recipe_of(base).rows
    kept = np.array([r for r in range(total) if r not in left_out], dtype=np.int64)
    return np.resize(kept, total)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", help="folder of a trained micro suite (default: pythia-micro, trained if need be)")
    parser.add_argument("--model", default="xs", help="whose shape to train (default xs)")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new suite of runs")
    parser.add_argument("--seed", type=int, default=0, help="of the random halves")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PythiaToolsError as error:
        print(f"counterfactual_study: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
