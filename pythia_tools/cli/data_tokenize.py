"""Text files, jsonl, parquet or a data set to a token store (.bin/.idx), with every document's provenance beside it.

examples:
  pythia-tools data tokenize corpus.jsonl.zst more/ --tokenizer tokenizer.json --out data/train
  pythia-tools data tokenize dataset:NAME@train --tokenizer EleutherAI/gpt-neox-20b --append-eod --out data/train

Killed at any moment, the same command goes on where it was (PREFIX.encoded holds what is encoded, 4 bytes per token,
until it ends).
"""

from __future__ import annotations

import argparse
import dataclasses

from pythia_tools.cli.options import emit, positive
from pythia_tools.tokens.tokenize import tokenize

NEOX = "EleutherAI/gpt-neox-20b"


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = "jsonl or text (plain, .gz, .zst), parquet, a folder, or dataset:NAME[:CONFIG][@SPLIT]"
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=kinds)
    parser.add_argument(
        "--out", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx, .documents.parquet, .json"
    )
    parser.add_argument(
        "--tokenizer", default=NEOX, help=f"a tokenizer.json, a folder with one, or a name on the hub (default: {NEOX})"
    )
    parser.add_argument(
        "--append-eod", action="store_true",
        help="end every document with the end-of-document id (Pythia's data has none)"
    )
    parser.add_argument("--eod", type=int, metavar="ID", help="that id (default: the tokenizer's <|endoftext|>)")
    parser.add_argument("--text-key", default="text", help="field of a record that holds the text (default: text)")
    parser.add_argument("--id-key", help="field that holds the document's id (default: id, else source:position)")
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="batches encoded at once (default: all processors)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    written = tokenize(
        args.inputs, args.out, args.tokenizer, append_eod=args.append_eod, eod=args.eod, text_key=args.text_key,
        id_key=args.id_key, workers=args.workers
    )
    emit(dataclasses.asdict(written), as_json=args.json)
    return 0
