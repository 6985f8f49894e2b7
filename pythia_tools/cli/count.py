"""Exposures of terms, numbers, pairs and sets up to each step of a training order.

example:
  pythia-tools count " Paris" "number:23" "word:cat" --order pythia-micro --steps log
  pythia-tools count @terms.txt --all-pairs --window 5 --order pile-deduped-preshuffled --steps 1000:143000:1000

TERMS are, one by one or as lines of @FILE (or of a .txt file):
  any text          its occurrences in the decoded rows        word:cat      as a whole word
  number:23         as a number, not within 123 or 230         tokens:12,34  token ids one after the other
  pair:A & B        both within --window words (or tokens)     set:A + B     rows that hold both; aliases as A|B
  pythia:7-day      a key of the Pythia paper's rule (7, 7-12 or 7-day); paper:7-day is the same
  cleaned:7-day     the same in text with cleaned-up spaces, as the paper's script of 2023 decoded it
  label:NAME=TERM   any of these, called NAME in the table     text:number:1 the text itself, whatever it begins with
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Literal

import pandas as pd

from pythia_tools import counts
from pythia_tools.cli.options import add, emit, positive, recorded
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import human_bytes, read_lines
from pythia_tools.core.parallel import worker_count
from pythia_tools.core.results import RunFolder
from pythia_tools.counts.patterns import Leaf
from pythia_tools.order import DataOrder, load_order
from pythia_tools.suites.steps import select

Unit = Literal["words", "tokens"]
METRICS = {"exposures": tables.Metric("exposures", "occurrences of the term that subset names, up to the step")}
SCAN_RATE = 100e6
CLEANED_RATE = 7e6
"""Tokens per second and core that a plan reckons with; of text that is cleaned up first."""


def configure(parser: argparse.ArgumentParser) -> None:
    inputs_only = "leave out each row's last token, which is only a label"
    parser.add_argument("terms", nargs="+", metavar="TERMS", help="terms, or @FILE with one to a line")
    add(parser, "--order", required=True, help="a data order: a name, a manifest path, or a .bin/.idx prefix")
    add(parser, "--batch-rows", "--tokenizer")
    add(parser, "--steps", default="log")
    parser.add_argument("--all-pairs", action="store_true", help="also every pair of the terms within --window")
    parser.add_argument("--window", type=positive, default=5, help="largest distance of the two of a pair (default 5)")
    parser.add_argument("--unit", choices=["words", "tokens"], default="words", help="of --window (default words)")
    parser.add_argument("--inputs-only", action="store_true", help=inputs_only)
    add(parser, "--workers", "--shard", "--dry-run", "--out")


def run(args: argparse.Namespace) -> None:
    order = load_order(args.order, batch_rows=args.batch_rows)
    patterns = [_pattern(line, args.window, args.unit) for text in args.terms for line in _written(text)]
    if args.all_pairs:
        for a, b in combinations_with_replacement([p for p in patterns if isinstance(p, Leaf)], 2):
            patterns.append(counts.Pair(a, b, args.window, args.unit, label=f"{a.name} & {b.name}"))
    per_step = order.batch_rows * order.seq_length
    steps = select(args.steps, range(order.steps + 1), tokens_per_step=per_step, who=f"order {order.name}")
    if args.dry_run:
        return emit(_plan(order, patterns, steps, args.workers), args)
    if args.shard and not args.out:
        raise RequestError("--shard needs --out DIR: its part is kept there until `pythia-tools merge` joins all parts")
    start = time.perf_counter()
    with RunFolder(args.out, recorded("count", args, steps=steps)) if args.out else nullcontext() as folder:
        found = counts.count(
            order, patterns, steps, tokenizer=args.tokenizer, inputs_only=args.inputs_only, workers=args.workers,
            cells=folder.cells if folder else None,
            batches=counts.shard_batches(order, steps[-1], args.shard) if args.shard else None,
        )
        first, stop = found.batches
        rows = f"{order.batch_rows * (stop - first):,} rows of {order.row_tokens} tokens"
        progress.note(f"{order.name}: {rows}, of {stop - first} batch(es) from {first} on")
        frame = found.frame() if found.complete else pd.DataFrame({"term": [], "step": [], "exposures": []})
        if folder is not None:
            timings = {"count": time.perf_counter() - start}
            folder.finish(frame, _summary(order, frame), data=order.fingerprint, timings=timings)
    if found.complete:
        emit(frame, args, _wide(found))
    else:
        emit({"shard": args.shard, "batches": [found.batches], "out": args.out}, args)


def _pattern(text: str, window: int, unit: Unit) -> counts.Pattern:
    kind, colon, rest = text.partition(":")
    if colon and kind == "label":
        name, equals, term = rest.partition("=")
        if not (name and equals):
            raise RequestError(f"{text!r}: a label is written label:NAME=TERM, for example label:one=number:1")
        return replace(_pattern(term, window, unit), label=name)
    if colon and kind == "pair":
        first, ampersand, second = rest.partition(" & ")
        if not ampersand:
            raise RequestError(f"{text!r}: a pair is written pair:A & B")
        return counts.Pair(_leaf(first), _leaf(second), window, unit, label=rest)
    if colon and kind == "set":
        members = tuple(tuple(member.split("|")) for member in rest.split(" + "))
        return counts.CoOccurrence(members, label=rest)
    if colon and kind in ("pythia", "paper", "cleaned"):
        return counts.PythiaRule(rest, clean_up=kind == "cleaned")
    return _leaf(text)


def _leaf(text: str) -> Leaf:
    kind, colon, rest = text.partition(":")
    return LEAVES[kind](rest) if colon and kind in LEAVES else counts.Text(text)


def _ngram(ids: str) -> Leaf:
    if not all(i.strip().isdecimal() for i in ids.split(",")):
        raise RequestError(f"'tokens:{ids}': token ids are written tokens:12,34")
    return counts.Ngram(tuple(map(int, ids.split(","))))


LEAVES: dict[str, Callable[[str], Leaf]] = {
    "number": counts.Number, "word": partial(counts.Text, whole_word=True), "text": counts.Text, "tokens": _ngram,
}


def _written(text: str) -> list[str]:
    """The terms of one argument: the lines of @FILE or of a .txt file, or the argument itself."""
    if not text.startswith("@") and not text.endswith(".txt"):
        return [text]
    if not text.startswith("@") and not Path(text).is_file():
        raise RequestError(f"{text}: no such file of terms; a term that ends in .txt goes into a file given as @FILE")
    return read_lines(text.removeprefix("@"), "terms")


def _plan(
    order: DataOrder, patterns: Sequence[counts.Pattern], steps: Sequence[int], workers: int | None
) -> dict[str, object]:
    rows = steps[-1] * order.batch_rows
    tokens = rows * order.row_tokens
    rate = CLEANED_RATE if any(isinstance(p, counts.PythiaRule) and p.clean_up for p in patterns) else SCAN_RATE
    return {
        "order": order.name, "terms": len(patterns), "steps": len(steps), "batches": steps[-1], "rows": rows,
        "tokens": tokens, "read": human_bytes(tokens * order.dtype.itemsize),
        "parts": len(counts.counting.part_ranges(order, 0, steps[-1])),
        "seconds": round(tokens / rate / worker_count(workers), 1),
        "note": "time of the scan itself; remote or slow disks take longer",
    }


def _summary(order: DataOrder, frame: pd.DataFrame) -> pd.DataFrame:
    """Exposures as summary rows, a term in `subset`; an order has no model, so its columns stay empty."""
    per_step = order.batch_rows * order.seq_length
    rows = zip(frame["term"], frame["step"].tolist(), frame["exposures"].tolist(), strict=True)
    shared = {"suite": order.name, "branch": "main", "metric": "exposures", "unit": "occurrence", "interval": "none"}
    return tables.summary(
        ({**shared, "step": step, "tokens": step * per_step, "subset": term, "value": float(seen), "n": seen}
         for term, step, seen in rows),
        analysis="count", metrics=METRICS,
    )


def _wide(found: counts.Counts) -> pd.DataFrame:
    """One line per term, one column per step, as people read it."""
    wide = pd.DataFrame(found.matrix(), columns=[f"step {s}" for s in found.steps])
    wide.insert(0, "term", [repr(term)[1:-1] for term in found.terms])
    return wide
