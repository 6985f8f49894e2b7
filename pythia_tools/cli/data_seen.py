"""The steps, rows and offsets at which a text was consumed.

example:
  pythia-tools data seen pythia-micro "The export of" --limit 5
  pythia-tools data seen data/train --ids 12092 13 309 717 --steps 0:999

Orders on the hub need --steps, --index or --local. Without an index every row is read, about a gigatoken per second and
core from memory. Exit code 0 also when nothing was found.
"""

import argparse
from pathlib import Path

from pythia_tools.cli.options import RANGES, add, emit, positive, span
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import build_ngram_index, seen
from pythia_tools.order import load_order


def configure(parser: argparse.ArgumentParser) -> None:
    index = "answer from this index, which is built there if missing (10 bytes per token)"
    add(parser, "order", "--local", "--batch-rows", "--tokenizer")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="looked up as it is and with a leading space")
    parser.add_argument("--ids", nargs="+", type=int, metavar="ID", help="token ids instead of a text")
    add(parser, "--steps", type=span, metavar="a:b", default=None, help=f"only these batches (default: all); {RANGES}")
    parser.add_argument("--limit", type=positive, metavar="N", help="stop after N hits")
    parser.add_argument("--index", metavar="DIR", help=index)


def run(args: argparse.Namespace) -> None:
    if (args.text is None) == (args.ids is None):
        raise RequestError("give a TEXT or --ids, one of the two")
    order = load_order(args.order, batch_rows=args.batch_rows, local=args.local)
    if args.index and not (Path(args.index) / "index.json").is_file():
        progress.note(f"building the index of {order.n_rows} rows in {args.index}")
        build_ngram_index(order, args.index)
    steps = (args.steps[0], args.steps[1] + 1) if args.steps else None
    where = {"steps": steps, "limit": args.limit, "index": args.index}
    table = seen(order, args.ids or args.text, tokenizer=args.tokenizer, **where)
    if args.json or len(table):
        emit(table, args)
    progress.note(f"{len(table)} occurrence(s) in {table['step'].nunique()} step(s) of {order.name}")
