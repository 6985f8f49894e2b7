"""Extractable and memorized rows over models × steps: shares, order, foresight, scaling.

examples:
  pythia-tools memorization pythia-micro --rows canaries --out runs/canaries
  pythia-tools memorization pythia-deduped --models 70m 160m --steps log --rows sample=5000 --out runs/m1
  pythia-tools memorization pythia-deduped --models 12b --steps last --rows 0:131072 --screen bfloat16 --out runs/blocks
  pythia-tools memorization FOLDER --rows my_rows.npy --context 16 --continuation 16 --score --out runs/own

--rows is a range 0:512, or any of steps=0:10, sample=1000, cohorts=0:1000:100 joined by commas; `canaries` (of a suite
that
pythia-tools trained); or a .npy file of token ids, rows × ids. Consecutive rows also get the test whether order matters.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.cli import planning
from pythia_tools.cli.options import add_output, add_sweep, emit, positive, recorded, require_out
from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, RequestError

SAMPLE = 1000
"""Rows asked about when the user names none."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    add_output(parser)
    parser.add_argument("--rows", metavar="ROWS", help="which rows (default sample=1000, or all where the run consumed fewer; see below)")
    parser.add_argument("--order", metavar="ORDER", help="the data order (default: the suite's own)")
    parser.add_argument("--context", type=positive, default=32, metavar="K", help="ids shown (default 32)")
    parser.add_argument("--continuation", type=positive, default=32, metavar="L", help="ids that must follow (default 32)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="where in the row the context begins (default 0)")
    parser.add_argument("--vocabulary", type=positive, metavar="N", help="only ids below N compete (default: all of the model's)")
    parser.add_argument("--score", action="store_true", help="the original memorization score too (decodes past the first miss; slow)")
    parser.add_argument("--screen", choices=["bfloat16", "float16"],
                        help="reject most rows in this format; all others are judged exactly, and rejections audited")
    parser.add_argument("--keep-from", type=positive, metavar="K", help="keep match masks from this position on (see extractable)")
    parser.add_argument("--block", type=positive, default=512, metavar="N", help="rows per block of the order test (default 512)")
    parser.add_argument("--exchange", metavar="CORPUS", choices=["duped", "deduped"],
                        help="also write memorized rows in the public dataset's format, as splits CORPUS.MODEL.STEP")
    parser.add_argument("--seed", type=int, default=0, help="of samples (default 0)")


@dataclass(frozen=True)
class Asked:
    """The rows asked about. batches: per row the batches that consumed it, or None where that is unknown."""

    tokens: Any
    ids: np.ndarray
    groups: np.ndarray | None
    batches: list[Any] | None
    order: Any
    consecutive: bool


def run(args: argparse.Namespace) -> int:
    from pythia_tools.suites import load_suite

    start = time.perf_counter()
    suite = load_suite(args.suite)
    checkpoints = suite.checkpoints(args.models, args.steps, allow_defective=args.allow_defective)
    asked = ask(args, suite)
    from pythia_tools.analyses.memorization import MemorizationTask, Window, with_exposures
    from pythia_tools.analysis import sweep
    from pythia_tools.core.results import RunFolder

    window = Window(args.context, args.continuation, args.offset, args.vocabulary, args.keep_from)
    task = MemorizationTask(
        asked.tokens, window, score=args.score, screen=args.screen, row_ids=asked.ids, groups=asked.groups, batch_size=args.batch_size,
    )
    if args.dry_run:
        return planning.show(args, checkpoints, [task], ids=_ids(args, len(asked.ids)), more={"rows": len(asked.ids)})
    folder = RunFolder(require_out(args), recorded("memorization", args))
    result = sweep(
        checkpoints, [task], cells=folder.cells, device=args.device, dtype=args.dtype, shard=args.shard,
        allow_defective=args.allow_defective,
    )
    items = result[task.name]
    if asked.batches is not None and len(items):
        items = with_exposures(items, asked.batches, row_ids=asked.ids)
    summary = pd.concat(list(numbers(items, asked, args)), ignore_index=True)
    draw(summary, items, asked, args, folder.figures)
    if args.exchange and not args.shard:
        exchange(items, asked, args, folder.path / "exchange")
    finished = folder.finish(
        items, summary, weights=result.weights, data=asked.order.fingerprint if asked.order is not None else None,
        timings={"all": time.perf_counter() - start},
    )
    shown = finished.summary[finished.summary["metric"] == "memorized_share"]
    emit(shown[["model", "step", "group", "value", "low", "high", "n"]], as_json=args.json)
    return 0


def ask(args: argparse.Namespace, suite: Any) -> Asked:
    """The rows of the request. Raises RequestError when they need an order or a truth manifest that is not there."""
    length = args.offset + args.context + args.continuation
    if str(args.rows).endswith(".npy"):
        return _from_file(Path(args.rows))
    from pythia_tools.analyses.memorization.rows import parse_rows, select_rows
    from pythia_tools.order import load_order

    name = args.order or suite.order
    order = load_order(name) if name else None
    if args.rows == "canaries":
        return _canaries(suite, order)
    if order is None:
        raise RequestError(f"{suite.name} names no data order; give one with --order, or rows as a .npy file")
    request = parse_rows(args.rows) if args.rows else {"sample": min(SAMPLE, order.steps * order.batch_rows)}
    chosen = select_rows(order, **request, seed=args.seed)
    tokens = order.take(chosen.rows)[:, :length]
    batches = [[b] for b in order.step_of(chosen.rows)]
    consecutive = "sample" not in request and "cohorts" not in request
    return Asked(tokens, chosen.rows, chosen.groups, batches, order, consecutive)


def _from_file(path: Path) -> Asked:
    try:
        tokens = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except ValueError as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error})") from error
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise DataError(f"{path}: holds {tokens.dtype} of shape {tokens.shape}; token ids are whole numbers, rows × ids")
    return Asked(tokens, np.arange(len(tokens)), None, None, None, False)


def _canaries(suite: Any, order: Any) -> Asked:
    from pythia_tools.micro import load_truth

    if suite.folder is None:
        raise RequestError(f"{suite.name} has no planted canaries; only suites that pythia-tools trained do (pythia-micro)")
    table = load_truth(suite.folder).canaries
    tokens = np.array(table["tokens"].tolist(), dtype=np.int64)
    return Asked(tokens, table["canary"].to_numpy(np.int64), None, table["steps"].tolist(), order, False)


def _ids(args: argparse.Namespace, rows: int) -> int:
    """Ids that pass through a model at least: the contexts, and the continuations where every position is wanted."""
    return rows * (args.context + (args.continuation - 1 if args.keep_from or args.score else 0))


def numbers(items: pd.DataFrame, asked: Asked, args: argparse.Namespace) -> Iterator[pd.DataFrame]:
    """Summary tables: shares by cohort and by exposures; order, foresight and scaling where the items can tell (not in
    a shard).
    """
    from pythia_tools.analyses.memorization import exposure_bins, foresight, scaling, summarize, summarize_order

    if asked.groups is not None:
        yield summarize(items, by="group")
    yield summarize(items, by=[])
    if "exposures" in items.columns:
        yield summarize(items.assign(exposures=exposure_bins(items["exposures"])), by="exposures")
    if args.shard or items.empty:
        return
    if asked.consecutive and len(asked.ids) >= 3 * args.block:
        yield summarize_order(items, block=args.block)
    main = items[items["branch"] == "main"]
    if len(main[["model", "step"]].drop_duplicates()) > 1:
        yield foresight(main)
        yield scaling(main)


def draw(summary: pd.DataFrame, items: pd.DataFrame, asked: Asked, args: argparse.Namespace, folder: Path) -> None:
    """The figures that the summary has numbers for."""
    from pythia_tools import plots
    from pythia_tools.analyses.memorization import block_counts, qq_points

    overall = summary[(summary["group"] == "all") | ~summary["metric"].eq("memorized_share")]
    wanted = {
        "memorization": (plots.memorization, overall), "by_exposures": (plots.memorization_by_exposures, summary),
        "order_effect": (plots.order_effect, summary), "foresight": (plots.foresight, summary),
        "scaling": (plots.memorization_scaling, overall),
    }
    for name, (figure, table) in wanted.items():
        try:
            plots.save(figure(table), folder, name)
        except RequestError as error:
            progress.note(f"no figure {name}: {error}")
    if asked.consecutive and len(asked.ids) >= 3 * args.block and len(items) and not args.shard:
        last = items.sort_values(["params", "step"]).iloc[-1]
        rows = items[(items["model"] == last["model"]) & (items["step"] == last["step"])].sort_values("row")
        counts, _ = block_counts(rows["memorized"], args.block)
        plots.save(plots.poisson_qq(qq_points(counts)), folder, "poisson_qq")


def exchange(items: pd.DataFrame, asked: Asked, args: argparse.Namespace, folder: Path) -> None:
    """Memorized rows of every checkpoint in the public dataset's format."""
    from pythia_tools.analyses.memorization.exchange import write_memorized

    place = pd.Series(np.arange(len(asked.ids)), index=asked.ids)
    for (model, step), part in items.groupby(["model", "step"], sort=False):
        rows = np.sort(part.loc[part["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
        tokens = np.asarray(asked.tokens)[place.loc[rows].to_numpy()][:, args.offset : args.offset + args.context + args.continuation]
        write_memorized(folder / "data" / f"{args.exchange}.{model}.{step}-00000-of-00001.parquet", rows, tokens)
