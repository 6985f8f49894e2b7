"""Ordered training data: what a model saw at a step, and when it saw a text.

commands:
  batch        the rows a step consumed, as ids or text
  seen         the steps, rows and offsets at which a text was consumed
  build-order  GPT-NeoX's index maps for a token store
  verify       checksums of stores, shards and index maps
  tokenize     text files to a token store
  overlay      a token-level change of an order, with its report

examples:
  pythia-tools data batch pile-deduped-preshuffled --step 3000 --rows 0:2 --text
  pythia-tools data batch --help
"""

import argparse

from pythia_tools.cli.main import of_module

COMMANDS = ("batch", "seen", "build-order", "verify", "tokenize", "overlay")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", choices=COMMANDS, help="what to do; each has its own --help")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="…", help="its arguments")


def run(args: argparse.Namespace) -> int:
    name = f"data {args.command}"
    return of_module(name).execute(name, args.rest)
