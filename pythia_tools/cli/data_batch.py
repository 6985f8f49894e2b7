"""What the model saw at a step: batch N, consumed by the update from step N to N+1.

example:
  pythia-tools data batch pile-deduped-preshuffled --step 3000 --rows 0:2 --text
  pythia-tools data batch pythia-micro --step 100 --out batch100.npy

Only the rows shown are read, by HTTP range where the order is not local. With --text, orders with index maps also say
which document each stretch comes from.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import documents_of_rows, tokenizer_of
from pythia_tools.order import DataOrder, load_order
from pythia_tools.order.sources import PackedRows
from pythia_tools.tokens import Tokenizer


def configure(parser: argparse.ArgumentParser) -> None:
    add_order(parser)
    parser.add_argument(
        "--step", type=int, required=True, metavar="N",
        help="batch number; the first checkpoint that contains it is N+1"
    )
    parser.add_argument("--rows", type=span, metavar="a:b", help="rows of the batch to show (default: all)")
    parser.add_argument("--text", action="store_true", help="decode with the order's tokenizer")
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="tokenizer.json, its folder, or a hub model (default: the order's own)"
    )
    parser.add_argument("--out", metavar="FILE", help="write the ids to an .npy file instead of stdout")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def add_order(parser: argparse.ArgumentParser) -> None:
    """ORDER and where its files are."""
    parser.add_argument("order", metavar="ORDER", help="an order's name, a manifest path, or a .bin/.idx prefix")
    parser.add_argument("--local", metavar="DIR", help="folder that already holds the shards of an order on the hub")
    parser.add_argument(
        "--batch-rows", type=int, metavar="B", help="rows per step (default: the order's own, or 1024 for a prefix)"
    )


def span(text: str) -> tuple[int, int]:
    """`a:b` with 0 ≤ a ≤ b."""
    try:
        a, b = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a:b, for example 0:4") from None
    if not 0 <= a <= b:
        raise argparse.ArgumentTypeError(f"{text!r}: the numbers must rise from 0 or more")
    return a, b


def run(args: argparse.Namespace) -> int:
    order = load_order(args.order, batch_rows=args.batch_rows, local=args.local)
    a, b = args.rows or (0, order.batch_rows)
    if b > order.batch_rows:
        raise RequestError(f"--rows {a}:{b}: a batch of order {order.name} has rows 0:{order.batch_rows}")
    if not 0 <= args.step < order.steps:
        raise RequestError(f"--step {args.step}: order {order.name} has batches 0 to {order.steps - 1}")
    tokenizer = tokenizer_of(order, args.tokenizer) if args.text else None
    first = args.step * order.batch_rows + a
    rows = order.rows(first, first + b - a)
    if args.out:
        with files.atomic_write(args.out) as out:
            np.lib.format.write_array(out, rows, allow_pickle=False)
        progress.note(
            f"{args.out}: rows {first} to {first + b - a - 1} of {order.name}, shape {rows.shape}, {rows.dtype}"
        )
    elif args.json:
        print(json.dumps({
            "order": order.name, "fingerprint": order.fingerprint, "step": args.step, "first_row": first,
            "rows": [_row(order, first + i, row, tokenizer) for i, row in enumerate(rows)],
        }, ensure_ascii=False))
    else:
        for i, row in enumerate(rows):
            _show(order, first + i, row, tokenizer)
    return 0


def _row(order: DataOrder, number: int, row: np.ndarray, tokenizer: Tokenizer | None) -> dict[str, Any]:
    record: dict[str, Any] = {"row": number, "tokens": row.tolist()}
    if tokenizer is not None:
        record["documents"] = [
            {"document": document, "tokens": [a, b], "text": tokenizer.decode(row[a:b])}
            for document, a, b in pieces(order, number)
        ]
    return record


def pieces(order: DataOrder, row: int) -> list[tuple[int | None, int, int]]:
    """(document, first token, end) of each stretch of a row; one stretch with document None where boundaries are
    unknown.
    """
    if not isinstance(order.source, PackedRows):
        return [(None, 0, order.row_tokens)]
    table = documents_of_rows(order, row, row + 1)
    return [
        (int(d), int(a), int(b))
        for d, a, b in zip(table["document"], table["row_start"], table["row_stop"], strict=True)
    ]


def _show(order: DataOrder, number: int, row: np.ndarray, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None:
        print(f"{number}\t" + " ".join(map(str, row.tolist())))
        return
    print(f"=== row {number} (step {number // order.batch_rows})")
    for document, a, b in pieces(order, number):
        if document is not None:
            print(f"--- document {document}, tokens {a}:{b} of the row")
        print(tokenizer.decode(row[a:b]))
