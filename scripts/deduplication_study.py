#!/usr/bin/env python3
"""What near-deduplication changes for memorization: a micro model and its twin, trained on the deduplicated rows.

    python scripts/deduplication_study.py --model s --out runs/deduplicated

The twin has the base's shape, seed and number of steps; of each cluster of near-duplicate rows only the first is left,
and the run is filled up with its own rows from the beginning again (as on the deduplicated Pile). The table compares,
by planted copies, the exposures each had and the share of canaries each memorized at the last step, paired by canary.
Cost: one training (xs about half a minute, m about three) and a few seconds; an interrupted study resumes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools import load_suite, micro
from pythia_tools.analyses import memorization
from pythia_tools.core import files, progress
from pythia_tools.core.errors import PythiaToolsError
from pythia_tools.core.statistics import difference
from pythia_tools.order import load_order


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    progress.set_quiet(args.quiet)
    base = Path(args.suite) if args.suite else micro.train()
    rows = micro.deduplicated_rows(base, args.threshold)
    name = f"{args.model}-deduplicated"
    micro.train_run(base, args.out, name, model=args.model, rows=rows)
    table = compare(base, Path(args.out), args.model, name, rows, args.device)
    with files.atomic_write(Path(args.out) / "comparison.csv", "w") as handle:
        table.to_csv(handle, index=False)
    print(f"{len(np.unique(rows)):,} of {len(rows):,} rows are left at threshold {args.threshold}")
    print(table.round(3).to_string(index=False))
    return 0


def compare(base: Path, out: Path, model: str, name: str, rows: np.ndarray, device: str) -> pd.DataFrame:
    """Per number of planted copies: canaries, mean exposures and memorized share of both, and the paired difference."""
    canaries = micro.load_truth(base).canaries
    first, twin = load_suite(base), load_suite(out)
    last = [first.checkpoint(model, first.steps(model)[-1]), twin.checkpoint(name, twin.steps(name)[-1])]
    tokens = np.array(canaries["tokens"].tolist())
    items = memorization.measure(last, tokens, row_ids=canaries["canary"].to_numpy(), device=device)
    flags = items.pivot(index="row", columns="model", values="memorized").astype(float).loc[canaries["canary"]]
    exposures = _exposures(base, rows, canaries)
    lines = []
    for copies, place in canaries.groupby("copies").indices.items():
        change = difference(flags[name].iloc[place], flags[model].iloc[place], unit="canary")
        lines.append({
            "copies": copies, "canaries": len(place), "exposures": copies,
            "exposures_deduplicated": exposures[place].mean(), "memorized": flags[model].iloc[place].mean(),
            "memorized_deduplicated": flags[name].iloc[place].mean(),
            "difference": change.value, "low": change.low, "high": change.high,
        })
    return pd.DataFrame(lines)


def _exposures(base: Path, rows: np.ndarray, canaries: pd.DataFrame) -> np.ndarray:
    """(n,) how often each canary stands in the twin's rows, counted in the rows themselves."""
    order = load_order(base / "order.yaml")
    heads: dict[bytes, int] = {}
    for start in range(0, len(rows), 4096):
        for head in np.ascontiguousarray(order.take(rows[start:start + 4096])[:, : order.seq_length]):
            heads[head.tobytes()] = heads.get(head.tobytes(), 0) + 1
    dtype = order.rows(0, 1).dtype
    return np.array([heads.get(np.asarray(tokens, dtype=dtype).tobytes(), 0) for tokens in canaries["tokens"]])


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", help="folder of a trained micro suite (default: pythia-micro, trained if need be)")
    parser.add_argument("--model", default="s", help="whose shape to train (default s)")
    parser.add_argument("--threshold", type=float, default=0.87, help="Jaccard similarity of rows (default 0.87)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the twin's suite and comparison.csv")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PythiaToolsError as error:
        print(f"deduplication_study: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
