"""Options that several commands share, spelled and checked once."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd

from pythia_tools.core.errors import RequestError


def add_output(parser: argparse.ArgumentParser, *, out: bool = True) -> None:
    """--out, --json, --quiet."""
    if out:
        parser.add_argument(
            "--out", metavar="DIR", help="folder of the run (config, items, summary, figures, run.json)"
        )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """SUITE, and which of its checkpoints, and how to compute."""
    what = "a suite's name, a manifest path, or a folder FOLDER/stepN or FOLDER/MODEL/stepN"
    parser.add_argument("suite", metavar="SUITE", help=what)
    add_selection(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """--models, --steps, and where and how to compute."""
    steps = "all, log, last, 0,512,143000, 1000:143000:10000 (both ends included), tokens=2B, 10%% (default: all)"
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="models of the suite (default: all)")
    parser.add_argument("--steps", default="all", help=steps)
    parser.add_argument(
        "--allow-defective", action="store_true", help="go on with checkpoints that are known to be wrong"
    )
    add_compute(parser)
    shards = "compute part i of n (0-based); join with `pythia-tools merge`"
    parser.add_argument("--shard", type=shard, metavar="i/n", help=shards)
    add_budget(parser)
    plan = "print the plan: cells, bytes, disk peak, estimated time; compute nothing"
    parser.add_argument("--dry-run", action="store_true", help=plan)


def add_about(parser: argparse.ArgumentParser) -> None:
    """--order and --tokenizer, for suites that name none, or to use others."""
    parser.add_argument(
        "--order", metavar="ORDER", help="the data order: a name or a manifest (default: the suite's own)"
    )
    what = "a tokenizer.json, its folder, or a hub name (default: the suite's own)"
    parser.add_argument("--tokenizer", metavar="PATH", help=what)


def add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto (default)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: the suite's own policy")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="rows or items per forward pass (default: chosen to fit)"
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """--budget, which `main` hands to the hub before the command runs."""
    what = "most disk that fetched checkpoints may take, e.g. 50GB; others make room (default: $PYTHIA_TOOLS_DISK_BUDGET)"
    parser.add_argument("--budget", type=amount, metavar="BYTES", help=what)


def amount(text: str) -> int:
    """Bytes as people write them."""
    from pythia_tools.hub import parse_bytes

    try:
        return parse_bytes(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n."""
    try:
        i, n = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n, for example 0/4") from None
    if not 0 <= i < n:
        allowed = f"i must be 0 to n-1, so 0/{n} to {n - 1}/{n}" if n > 0 else "n must be positive"
        raise argparse.ArgumentTypeError(f"{text!r}: {allowed}")
    return i, n


def emit(value: Any, *, as_json: bool) -> None:
    """A table or mapping on stdout, for people or as JSON."""
    if isinstance(value, pd.DataFrame):
        text = value.to_json(orient="records") if as_json else value.to_string(index=False, max_rows=None)
    else:
        text = json.dumps(value, indent=None if as_json else 2, default=str, ensure_ascii=False)
    print(text)


TRANSIENT = frozenset({"out", "json", "quiet", "dry_run", "device", "batch_size", "budget"})
"""Arguments that do not decide a result: where it is written, how it is shown, what it is computed with."""


def recorded(command: str, args: argparse.Namespace) -> dict[str, Any]:
    """The config of a run: its command and every argument that decides the result. `rerun` and `merge` read it."""
    return {"command": command, "arguments": {k: v for k, v in sorted(vars(args).items()) if k not in TRANSIENT}}


def replayed(config: dict[str, Any], *, out: str, quiet: bool, device: str = "auto") -> argparse.Namespace:
    """The arguments of a recorded run, to be run again into `out`."""
    arguments = {k: tuple(v) if k == "shard" and v else v for k, v in config["arguments"].items()}
    return argparse.Namespace(
        **arguments, out=out, quiet=quiet, json=False, dry_run=False, device=device, batch_size=None, budget=None
    )


def require_out(args: argparse.Namespace) -> str:
    if not args.out:
        raise RequestError("--out DIR is needed: the folder that will hold the run")
    return str(args.out)
