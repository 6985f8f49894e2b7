"""What the model saw at a step: batch N, consumed by the update from step N to N+1.

example:
  pythia-tools data batch pile-deduped-preshuffled --step 3000 --rows 0:2 --text
  pythia-tools data batch pythia-micro --step 100 --out batch100.npy

Only the rows shown are read, by HTTP range where the order is not local. With --text, orders with index maps also say
which document each stretch comes from.
"""

import argparse
from typing import Any

import numpy as np

from pythia_tools.cli.options import RANGES, add, emit, span
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import documents_of_rows, tokenizer_of
from pythia_tools.order import DataOrder, load_order
from pythia_tools.order.sources import PackedRows
from pythia_tools.tokens import Tokenizer


def configure(parser: argparse.ArgumentParser) -> None:
    step = "batch number; the first checkpoint that contains it is N+1"
    add(parser, "order", "--local", "--batch-rows", "--tokenizer")
    parser.add_argument("--step", type=int, required=True, metavar="N", help=step)
    parser.add_argument("--rows", type=span, metavar="a:b", help=f"rows of the batch (default: all); {RANGES}")
    parser.add_argument("--text", action="store_true", help="decode with the order's tokenizer")
    add(parser, "--out", type=str, metavar="FILE", help="write the ids to an .npy file instead of stdout")


def run(args: argparse.Namespace) -> None:
    order = load_order(args.order, batch_rows=args.batch_rows, local=args.local)
    a, b = args.rows or (0, order.batch_rows)
    if b > order.batch_rows:
        raise RequestError(f"--rows {a}:{b}: a batch of order {order.name} has rows 0:{order.batch_rows}")
    if not 0 <= args.step < order.steps:
        raise RequestError(f"--step {args.step} of order {order.name}: {order.batches_in_words}")
    tokenizer = tokenizer_of(order, args.tokenizer) if args.text else None
    first = args.step * order.batch_rows + a
    rows = order.rows(first, first + b - a)
    if args.out:
        with files.atomic_write(args.out) as out:
            np.lib.format.write_array(out, rows, allow_pickle=False)
        progress.note(f"{args.out}: rows {first}:{first + b - a} of {order.name}, shape {rows.shape}, {rows.dtype}")
    elif args.json:
        shown = [
            {"row": i, "tokens": row.tolist()} | ({"documents": _pieces(order, i, row, tokenizer)} if tokenizer else {})
            for i, row in enumerate(rows, first)
        ]
        head = {"order": order.name, "fingerprint": order.fingerprint, "step": args.step, "first_row": first}
        emit({**head, "rows": shown}, args)
    else:
        for i, row in enumerate(rows, first):
            _print(order, i, row, tokenizer)


def _print(order: DataOrder, number: int, row: np.ndarray, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None:
        print(f"{number}\t" + " ".join(map(str, row.tolist())))
        return
    print(f"=== row {number} (step {number // order.batch_rows})")
    for piece in _pieces(order, number, row, tokenizer):
        if piece["document"] is not None:
            print("--- document {}, tokens {}:{} of the row".format(piece["document"], *piece["tokens"]))
        print(piece["text"])


def _pieces(order: DataOrder, number: int, row: np.ndarray, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Document, token range and text of each stretch of a row; one of document None where boundaries are unknown."""
    spans: list[tuple[int | None, int, int]] = [(None, 0, order.row_tokens)]
    if isinstance(order.source, PackedRows):
        table = documents_of_rows(order, number, number + 1)
        spans = list(table[["document", "row_start", "row_stop"]].itertuples(index=False, name=None))
    return [{"document": d, "tokens": [a, b], "text": tokenizer.decode(row[a:b])} for d, a, b in spans]
