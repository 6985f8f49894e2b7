"""Join the shards of a run (`--shard 0/4` … `--shard 3/4`) into one finished run.

example:
  pythia-tools merge runs/m1-shard0 runs/m1-shard1 --out runs/m1

The cells that the shards computed are brought together; nothing is computed again. A shard that is missing or
of another run is refused by name.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from pythia_tools.cli.options import require_out
from pythia_tools.cli.rerun import run_recorded
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import read_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of all shards")
    parser.add_argument("--out", metavar="DIR", help="folder of the joined run")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    out = Path(require_out(args))
    folders = [Path(r) for r in args.runs]
    config = whole_config(folders)
    if (out / "config.json").exists() and read_json(out / "config.json") != config:
        raise RequestError(f"{out} holds another run; choose another --out")
    cells = out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for cell in (folder / "cells").glob("*.parquet"):
            if not (cells / cell.name).exists():
                shutil.copy2(cell, cells / cell.name)
    run_recorded(config, out=str(out), quiet=args.quiet)
    return 0


def whole_config(folders: list[Path]) -> dict[str, Any]:
    """The config of the run that the shards are parts of. Raises RequestError naming what is missing or foreign."""
    configs = []
    for folder in folders:
        if not (folder / "run.json").exists():
            raise RequestError(f"{folder} is not a finished run (no run.json); finish every shard before merging")
        configs.append(read_json(folder / "config.json"))
    shards = [c.get("arguments", {}).get("shard") for c in configs]
    for folder, shard in zip(folders, shards, strict=True):
        if not shard:
            raise RequestError(
                f"{folder} is not a shard (it was run without --shard); merge takes runs made with --shard i/n"
            )
    total = shards[0][1]
    missing = sorted(set(range(total)) - {s[0] for s in shards if s[1] == total})
    if missing:
        raise RequestError(f"shards {', '.join(f'{i}/{total}' for i in missing)} are missing; give all {total} folders")
    whole = [_without_shard(c) for c in configs]
    for folder, config in zip(folders, whole, strict=True):
        if config != whole[0]:
            raise RequestError(f"{folder} is a shard of another run than {folders[0]} (their config.json differ)")
    return whole[0]


def _without_shard(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "arguments": {**config["arguments"], "shard": None}}
