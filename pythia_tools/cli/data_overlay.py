"""Change the rows of chosen steps of an order: see the receipt and the diff, or write them out for GPT-NeoX.

rules (any of them, applied in this order):
  --remove ROWS.txt --reserve a:b     rows replaced by others; nothing shifts
  --deduplicate --reserve a:b         repeated rows replaced, the first stays
  --repeat ROWS.txt --copies N        copies of rows in the places of others
  --insert TEXT --copies N            a text at the start of rows (or at --at OFFSET)
  --replace TERMS.tsv                 whole terms, case kept: two columns, term and replacement
  --swap feminine|masculine|both      third-person pronouns

examples:
  pythia-tools data overlay pythia-micro --steps 1200:1499 --swap feminine --diff 5
  pythia-tools data overlay pile-deduped-preshuffled --steps 133000:142999 --swap feminine --out swapped --write
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pythia_tools import overlays
from pythia_tools.cli.options import RANGES, add, emit, span
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import read_lines
from pythia_tools.counts import tokenizer_of
from pythia_tools.order import Rows, load_order
from pythia_tools.overlays import Overlay
from pythia_tools.overlays.overlay import parse_steps
from pythia_tools.overlays.pronouns import CHOICES
from pythia_tools.overlays.rules import Rule

SWAP_OPTIONS = {
    "his": "what his becomes: her or hers by context, or always her", "edges": "words that touch the row's edge",
    "paired": "'he or she'",
}


def configure(parser: argparse.ArgumentParser) -> None:
    copies = "how many rows get the text, or copies of each repeated row (default 1)"
    add(parser, "order")
    add(parser, "--steps", required=True, help=f"batches to change: a:b, a:b:stride or a,b,c; {RANGES}")
    parser.add_argument("--swap", choices=["feminine", "masculine", "both"], help="swap pronouns towards …")
    for option, about in SWAP_OPTIONS.items():
        choices = CHOICES[option]
        parser.add_argument(f"--{option}", choices=choices, default=choices[0], help=f"{about} (default: {choices[0]})")
    parser.add_argument("--replace", metavar="TERMS.tsv", help="term and replacement, tab-separated, one pair a line")
    parser.add_argument("--remove", metavar="ROWS.txt", help="row numbers, one a line")
    parser.add_argument("--deduplicate", action="store_true", help="replace rows that repeat an earlier chosen row")
    parser.add_argument("--reserve", type=span, metavar="a:b", help=f"rows that stand in for removed ones; {RANGES}")
    parser.add_argument("--repeat", metavar="ROWS.txt", help="row numbers to repeat, one a line")
    parser.add_argument("--insert", metavar="TEXT", help="text to insert")
    parser.add_argument("--at", type=int, default=0, metavar="OFFSET", help="token offset of the insertion (default 0)")
    parser.add_argument("--over", action="store_true", help="overwrite instead of pushing the row's rest on")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help=copies)
    parser.add_argument("--seed", type=int, default=0, help="which rows are drawn (default 0)")
    parser.add_argument("--control", action="store_true", help="no rule: write out the unchanged rows of the steps")
    parser.add_argument("--diff", type=int, default=0, metavar="N", help="print N changed rows before and after")
    parser.add_argument("--write", action="store_true", help="write .bin/.idx and index maps for GPT-NeoX into --out")
    parser.add_argument("--neox", choices=["v1", "current"], default="v1", help="map names (default v1, Pythia's)")
    parser.add_argument("--num-samples", type=int, metavar="N", help="in the maps' names (default: rows × 1.005)")
    parser.add_argument("--map-seed", type=int, default=1234, metavar="N", help="seed in their names (default 1234)")
    add(parser, "--tokenizer", "--out")


def run(args: argparse.Namespace) -> None:
    order = load_order(args.order)
    rules = list(_rules(args, order))
    if args.write and not args.out:
        raise RequestError("--write needs --out DIR: the folder for the store and its maps")
    if args.control and (rules or not args.write):
        raise RequestError("--control goes with --write --out DIR and no rule: the unchanged rows, written out")
    if not (rules or args.control):
        allowed = "--swap, --replace, --remove, --repeat, --insert or --deduplicate (or --control)"
        raise RequestError(f"no rule was given; choose {allowed}")
    rows: Rows = order
    summary: dict[str, object] = {}
    if rules:
        rows = overlay = Overlay(order, rules, steps=args.steps)
        receipt = overlay.receipt()
        if args.out:
            overlay.save_receipt(args.out, receipt)
        summary = receipt.summary()
        if args.diff and not args.json:
            print(overlay.diff(tokenizer_of(order, args.tokenizer), limit=args.diff))
    if args.write:
        names = {"seed": args.map_seed, "num_samples": args.num_samples, "version": args.neox}
        chosen = parse_steps(args.steps, order)
        written = overlays.write_out(rows, Path(args.out) / "rows", steps=chosen, **names)
        summary["written"] = [str(path) for path in written]
    emit(summary, args)


def _rules(args: argparse.Namespace, order: Rows) -> Iterator[Rule]:
    tokenizer = partial(tokenizer_of, order, args.tokenizer)
    if args.remove:
        yield overlays.RemoveRows(_numbers(args.remove), _reserve(args))
    if args.deduplicate:
        yield overlays.Deduplicate(_reserve(args))
    if args.repeat:
        yield overlays.RepeatRows(_numbers(args.repeat), copies=args.copies, seed=args.seed)
    if args.insert:
        where = {"copies": args.copies, "at": args.at, "how": "over" if args.over else "push", "seed": args.seed}
        yield overlays.InsertText(tokenizer(), args.insert, **where)
    if args.replace:
        yield overlays.ReplaceTerms(tokenizer(), _terms(args.replace))
    if args.swap:
        yield overlays.PronounSwap(tokenizer(), args.swap, **{o: getattr(args, o) for o in SWAP_OPTIONS})


def _reserve(args: argparse.Namespace) -> overlays.Reserve:
    if args.reserve is None:
        raise RequestError("--remove and --deduplicate need --reserve; give rows as a:b, such as 146432000:146440000")
    return overlays.Reserve(range(*args.reserve))


def _numbers(path: str) -> list[int]:
    lines = read_lines(path, "row numbers")
    try:
        return [int(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{path}: row numbers are wanted, one a line ({error})") from error


def _terms(path: str) -> dict[str, str]:
    pairs = [line.split("\t") for line in read_lines(path, "terms")]
    for pair in pairs:
        if len(pair) != 2:
            raise DataError(f"{path}: {' '.join(pair)!r} is not a term, a tab and its replacement")
    return {a.strip(): b.strip() for a, b in pairs}
