"""The steps, rows and offsets at which a text was consumed.

example:
  pythia-tools data seen pythia-micro "The export of" --limit 5
  pythia-tools data seen data/train --ids 12092 13 309 717 --steps 0:1000

Orders on the hub need --steps, --index or --local. Without an index every row is read (about a gigatoken per second and
core from memory); --index DIR builds one on first use and answers from it afterwards. Exit code 0 also when nothing was
found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pythia_tools.cli.data_batch import add_order, span
from pythia_tools.cli.options import add_output, emit, positive
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import build_ngram_index, seen
from pythia_tools.order import load_order


def configure(parser: argparse.ArgumentParser) -> None:
    add_order(parser)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="looked up as it is and with a leading space")
    parser.add_argument("--ids", nargs="+", type=int, metavar="ID", help="token ids instead of a text")
    parser.add_argument("--steps", type=span, metavar="a:b", help="only batches a to b-1 (default: all)")
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after N hits")
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="tokenizer.json, its folder, or a hub model (default: the order's own)"
    )
    parser.add_argument(
        "--index", metavar="DIR", help="answer from this index; built there if missing (10 bytes per token)"
    )
    add_output(parser, out=False)


def run(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.ids is None):
        raise RequestError("give a TEXT or --ids, one of the two")
    order = load_order(args.order, batch_rows=args.batch_rows, local=args.local)
    if args.index and not (Path(args.index) / "index.json").is_file():
        progress.note(f"building the index of {order.n_rows} rows in {args.index}")
        build_ngram_index(order, args.index)
    query = args.text if args.ids is None else args.ids
    table = seen(order, query, tokenizer=args.tokenizer, steps=args.steps, limit=args.limit, index=args.index)
    if args.json or len(table):
        emit(table, as_json=args.json)
    progress.note(f"{len(table)} occurrence(s) in {table['step'].nunique()} step(s) of {order.name}")
    return 0
