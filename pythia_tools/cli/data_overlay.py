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
from pathlib import Path

import numpy as np

from pythia_tools import overlays
from pythia_tools.cli.options import add_output, emit
from pythia_tools.core.errors import RequestError
from pythia_tools.order import Rows, load_order
from pythia_tools.overlays import Overlay
from pythia_tools.overlays.overlay import parse_steps
from pythia_tools.overlays.pronouns import CHOICES
from pythia_tools.overlays.rules import Rule
from pythia_tools.tokens import Openable

KEEP = 1_000_000
SWAP_OPTIONS = {
    "his": "what his becomes: her or hers by context, or always her", "edges": "words that touch the row's edge",
    "paired": "'he or she'",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order", metavar="ORDER", help="an order's name, manifest, or .bin/.idx prefix")
    steps = "batches to change: a:b or a:b:stride, both ends included, or a,b,c"
    parser.add_argument("--steps", required=True, help=steps)
    parser.add_argument("--swap", choices=["feminine", "masculine", "both"], help="swap pronouns towards …")
    for option, about in SWAP_OPTIONS.items():
        choices = CHOICES[option]
        parser.add_argument(f"--{option}", choices=choices, default=choices[0], help=f"{about} (default: {choices[0]})")
    parser.add_argument("--replace", metavar="TERMS.tsv", help="term and replacement, tab-separated, one pair a line")
    parser.add_argument("--remove", metavar="ROWS.txt", help="row numbers, one a line")
    parser.add_argument("--deduplicate", action="store_true", help="replace rows that repeat an earlier chosen row")
    parser.add_argument("--reserve", metavar="a:b", help="rows that stand in for removed ones")
    parser.add_argument("--repeat", metavar="ROWS.txt", help="row numbers to repeat, one a line")
    parser.add_argument("--insert", metavar="TEXT", help="text to insert")
    parser.add_argument("--at", type=int, default=0, metavar="OFFSET", help="token offset of the insertion (default 0)")
    parser.add_argument("--over", action="store_true", help="overwrite instead of pushing the row's rest on")
    copies = "how many rows get the text, or copies of each repeated row (default 1)"
    parser.add_argument("--copies", type=int, default=1, metavar="N", help=copies)
    parser.add_argument("--seed", type=int, default=0, help="which rows are drawn (default 0)")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenizer.json or its folder (default: the order's own)")
    parser.add_argument("--control", action="store_true", help="no rule: write out the unchanged rows of the steps")
    parser.add_argument("--diff", type=int, default=0, metavar="N", help="print N changed rows before and after")
    parser.add_argument("--write", action="store_true", help="write .bin/.idx and index maps for GPT-NeoX into --out")
    parser.add_argument(
        "--neox", choices=["v1", "current"], default="v1", help="whose names the maps get (default: v1, Pythia's)",
    )
    parser.add_argument("--num-samples", type=int, metavar="N", help="in the maps' names (default: rows × 1.005)")
    parser.add_argument("--map-seed", type=int, default=1234, metavar="N", help="seed in their names (default 1234)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    order = load_order(args.order)
    if args.write and not args.out:
        raise RequestError("--write needs --out DIR: the folder for the store and its maps")
    if args.control:
        return _write_control(args, order)
    tokenizer = args.tokenizer or order.tokenizer
    overlay = Overlay(order, _rules(args, tokenizer), steps=args.steps)
    receipt = overlay.receipt(keep=KEEP)
    if args.out:
        overlay.save_receipt(args.out, receipt)
    summary = receipt.summary()
    if args.write:
        summary["written"] = _write(args, overlay, None)
    if args.diff and not args.json:
        print(overlay.diff(_given(tokenizer), limit=args.diff))
    emit(summary, as_json=args.json)
    return 0


def _write_control(args: argparse.Namespace, order: Rows) -> int:
    if not args.write:
        raise RequestError("--control goes with --write --out DIR: the unchanged rows of the steps, written out")
    if any((args.swap, args.replace, args.remove, args.deduplicate, args.repeat, args.insert)):
        raise RequestError("--control takes no rule")
    emit({"written": _write(args, order, parse_steps(args.steps, order))}, as_json=args.json)
    return 0


def _write(args: argparse.Namespace, order: Rows, steps: np.ndarray | None) -> list[str]:
    prefix = Path(args.out) / "rows"
    names = {"seed": args.map_seed, "num_samples": args.num_samples, "version": args.neox}
    return [str(p) for p in overlays.write_out(order, prefix, steps=steps, **names).files]


def _rules(args: argparse.Namespace, tokenizer: Openable | None) -> list[Rule]:
    rules: list[Rule] = []
    if args.remove:
        rules.append(overlays.RemoveRows(_numbers(args.remove), _reserve(args)))
    if args.deduplicate:
        rules.append(overlays.Deduplicate(_reserve(args)))
    if args.repeat:
        rules.append(overlays.RepeatRows(_numbers(args.repeat), copies=args.copies, seed=args.seed))
    if args.insert:
        where = {"copies": args.copies, "at": args.at, "how": "over" if args.over else "push", "seed": args.seed}
        rules.append(overlays.InsertText(_given(tokenizer), args.insert, **where))
    if args.replace:
        rules.append(overlays.ReplaceTerms(_given(tokenizer), _terms(args.replace)))
    if args.swap:
        choices = {option: getattr(args, option) for option in SWAP_OPTIONS}
        rules.append(overlays.PronounSwap(_given(tokenizer), args.swap, **choices))
    if not rules:
        allowed = "--swap, --replace, --remove, --repeat, --insert or --deduplicate (or --control)"
        raise RequestError(f"no rule was given; choose {allowed}")
    return rules


def _given(tokenizer: Openable | None) -> Openable:
    if tokenizer is None:
        raise RequestError("this order names no tokenizer; give one: a tokenizer.json, its folder, or a hub name")
    return tokenizer


def _reserve(args: argparse.Namespace) -> overlays.Reserve:
    try:
        first, last = (int(p) for p in str(args.reserve).split(":"))
    except ValueError:
        example = "146432000:146440000 (the last is not among them)"
        raise RequestError(f"--reserve {args.reserve}: give rows as a:b, for example {example}") from None
    return overlays.Reserve(range(first, last))


def _numbers(path: str) -> list[int]:
    try:
        return [int(line) for line in Path(path).read_text("utf-8").split()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: row numbers are wanted, one a line ({error})") from error


def _terms(path: str) -> dict[str, str]:
    try:
        lines = [line for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    pairs = [line.split("\t") for line in lines]
    wrong = [i + 1 for i, p in enumerate(pairs) if len(p) != 2]
    if wrong:
        raise RequestError(f"{path}:{wrong[0]}: two columns are wanted, term and replacement, with a tab between them")
    return {a.strip(): b.strip() for a, b in pairs}
