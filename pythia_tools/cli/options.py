"""Options that commands share: each is spelled, explained and checked here, and nowhere else."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pythia_tools.core.errors import RequestError

RANGES = "ranges of steps include both ends, ranges of rows leave out the second"
"""Said by the help of every option that takes a range."""
INPUTS = "jsonl or text (plain, .gz, .zst), parquet, a folder, or dataset:NAME[:CONFIG][@SPLIT]"


def amount(text: str) -> int:
    """Bytes as people write them."""
    from pythia_tools.hub import parse_bytes

    try:
        return parse_bytes(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least(least: int) -> Callable[[str], int]:
    """The parser of a whole number from `least` (0 or 1) on."""
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'' if least else '0 or '}a positive whole number")
        return int(text)
    return parse


positive = at_least(1)


def span(text: str) -> tuple[int, int]:
    """`a:b` with 0 ≤ a ≤ b."""
    a, colon, b = text.partition(":")
    if not (colon and a.isdecimal() and b.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a:b, for example 0:4")
    if int(a) > int(b):
        raise argparse.ArgumentTypeError(f"{text!r}: the numbers must rise from 0 or more")
    return int(a), int(b)


def shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n."""
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n, for example 0/4")
    if int(i) >= int(n):
        allowed = f"i must be 0 to n-1, so 0/{n} to {int(n) - 1}/{n}" if int(n) else "n must be positive"
        raise argparse.ArgumentTypeError(f"{text!r}: {allowed}")
    return int(i), int(n)


def folder(text: str) -> str:
    """A folder that is there or can be made: not a file."""
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; name a folder")
    return text


SHARED: Mapping[str, Mapping[str, Any]] = {
    "suite": {"metavar": "SUITE", "help": "a suite's name, a manifest, or a folder that holds stepN or MODEL/stepN"},
    "order": {"metavar": "ORDER", "help": "an order's name, a manifest path, or a .bin/.idx prefix"},
    "inputs": {"metavar": "INPUT", "help": INPUTS},
    "--models": {"nargs": "+", "metavar": "MODEL", "help": "models of the suite (default: all)"},
    "--steps": {"default": "all", "help": "all, log, last, 0,512,143000, 1000:143000:10000, tokens=2B, 10%% "
                                          f"(default: %(default)s); {RANGES}"},
    "--allow-defective": {"action": "store_true", "help": "go on with checkpoints that are known to be wrong"},
    "--leave-out-defective": {"action": "store_true", "help": "choose no checkpoint that is known to be wrong"},
    "--order": {"metavar": "ORDER", "help": "a data order: a name, a manifest or a prefix (default: the suite's)"},
    "--tokenizer": {"metavar": "PATH", "help": "a tokenizer.json, its folder, or a hub name (default: the data's own)"},
    "--local": {"metavar": "DIR", "help": "folder that already holds the files of an order on the hub"},
    "--batch-rows": {"type": positive, "metavar": "B", "help": "rows per step (default: the order's own, or 1024)"},
    "--device": {"default": "auto", "help": "cpu, cuda, cuda:1, mps, or auto (default)"},
    "--dtype": {"choices": ["float32", "bfloat16", "float16"], "help": "default: the suite's own policy"},
    "--batch-size": {"type": positive, "metavar": "N", "help": "rows or items per forward pass (default: what fits)"},
    "--workers": {"type": positive, "metavar": "N", "help": "how many at once (default: one per core)"},
    "--shard": {"type": shard, "metavar": "i/n", "help": "part i of n only (0-based); join with `pythia-tools merge`"},
    "--budget": {"type": amount, "metavar": "BYTES", "help": "most disk that fetched checkpoints may take, e.g. 50GB; "
                                                             "others make room (default: $PYTHIA_TOOLS_DISK_BUDGET)"},
    "--dry-run": {"action": "store_true", "help": "print the plan (bytes, disk, amount of work, time); do nothing"},
    "--text-key": {"default": "text", "help": "field of a record that holds the text (default: text)"},
    "--id-key": {"help": "field that holds the document's id (default: id, else source:position)"},
    "--out": {"type": folder, "metavar": "DIR", "help": "folder of the run (config, items, summary, figures)"},
    "--json": {"action": "store_true", "help": "print the result as JSON on stdout"},
    "--quiet": {"action": "store_true", "help": "no progress on stderr"},
}
SELECTION = ("--models", "--steps", "--allow-defective", "--leave-out-defective")
COMPUTE = ("--device", "--dtype", "--batch-size", "--shard", "--budget", "--dry-run")
SWEEP = (*SELECTION, "--order", "--tokenizer", *COMPUTE)
"""Which checkpoints, with what belongs to them, and where and how to compute."""


def add(parser: argparse.ArgumentParser, *names: str, **changes: object) -> None:
    """Shared options by name; `changes` to what SHARED says hold for all of them."""
    for name in names:
        parser.add_argument(name, **{**SHARED[name], **changes})


Result = pd.DataFrame | Mapping[str, object] | Sequence[object]


def emit(value: Result, args: argparse.Namespace, shown: pd.DataFrame | str | None = None) -> None:
    """A result on stdout: as JSON with --json, else as people read it, which is `shown` where it is given."""
    if not args.json and shown is not None:
        value = shown
    if isinstance(value, pd.DataFrame):
        print(value.to_json(orient="records") if args.json else value.to_string(index=False, max_rows=None))
    elif isinstance(value, str):
        print(value)
    else:
        print(json.dumps(value, indent=None if args.json else 2, default=str, ensure_ascii=False))


TRANSIENT = {"out": None, "json": False, "quiet": False, "dry_run": False, "device": "auto", "batch_size": None,
             "budget": None, "workers": None, "backend": "local", "memory_mb": 1024, "typed": None}
"""Arguments that do not decide a result, and what a repeated run sets them to: where it is written, how it is shown,
what it is computed with, and the command line as it was typed.
"""


def recorded(command: str, args: argparse.Namespace, **resolved: object) -> dict[str, Any]:
    """The config of a run: its command, every argument that decides the result, and what they were `resolved` to.
    `rerun` and `merge` read it.
    """
    arguments = {k: v for k, v in sorted(vars(args).items()) if k not in TRANSIENT}
    return {"command": command, "arguments": arguments, **resolved}


def require_out(args: argparse.Namespace) -> str:
    if not args.out:
        raise RequestError("--out DIR is needed: the folder that will hold the run")
    return str(args.out)
