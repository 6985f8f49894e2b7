"""Text files, jsonl, parquet or a data set to a token store (.bin/.idx), with every document's provenance beside it.

examples:
  pythia-tools data tokenize corpus.jsonl.zst more/ --tokenizer tokenizer.json --out data/train
  pythia-tools data tokenize dataset:NAME@train --tokenizer EleutherAI/gpt-neox-20b --append-eod --out data/train

Killed at any moment, the same command resumes where it stopped; until it ends, PREFIX.encoded holds what is encoded, 4
bytes per token.
"""

import argparse
import dataclasses

from pythia_tools.cli.options import add, emit
from pythia_tools.tokens.tokenize import tokenize

NEOX = "EleutherAI/gpt-neox-20b"


def configure(parser: argparse.ArgumentParser) -> None:
    end = "end every document with the end-of-document id (Pythia's data has none)"
    add(parser, "inputs", nargs="+")
    files = "writes PREFIX.bin, .idx, .documents.parquet, .tokenizer.json, .json"
    add(parser, "--out", type=str, required=True, metavar="PREFIX", help=files)
    add(parser, "--tokenizer", default=NEOX, help=f"a tokenizer.json, its folder, or a hub name (default: {NEOX})")
    parser.add_argument("--append-eod", action="store_true", help=end)
    parser.add_argument("--eod", type=int, metavar="ID", help="that id (default: the tokenizer's <|endoftext|>)")
    add(parser, "--text-key", "--id-key", "--workers")


def run(args: argparse.Namespace) -> None:
    written = tokenize(
        args.inputs, args.out, args.tokenizer, append_eod=args.append_eod, eod=args.eod, text_key=args.text_key,
        id_key=args.id_key, workers=args.workers,
    )
    emit(dataclasses.asdict(written), args)
