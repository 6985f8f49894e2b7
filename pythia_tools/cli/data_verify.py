"""Checksums of an order's files: stores, shards, index maps. Exit code 1 when something is wrong.

example:
  pythia-tools data verify data/train
  pythia-tools data verify pile-deduped-idxmaps --local /data/pile --sums shard_hashes.txt

Local files are read byte by byte; without --local, files of an order on the hub are compared with the hub's own
records.
"""

import argparse
from pathlib import Path

from pythia_tools.cli.options import add, emit
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND
from pythia_tools.order import load_order
from pythia_tools.order.verify import read_sums, verify_order, verify_store
from pythia_tools.tokens.store import prefix_of


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, "order", "--local")
    parser.add_argument("--sums", metavar="FILE", help="published sha256: lines of `name digest` or `digest name`")


def run(args: argparse.Namespace) -> int:
    sums = read_sums(args.sums) if args.sums else None
    base = prefix_of(args.order)
    if not args.order.endswith((".yaml", ".yml")) and Path(f"{base}.idx").exists():
        table = verify_store(base, sums)
    else:
        table = verify_order(load_order(args.order, local=args.local), args.local, sums)
    emit(table, args)
    return EXIT_FOUND if table["status"].isin(["wrong", "missing"]).any() else EXIT_DONE
