"""Join the shards of a run (`--shard 0/4` … `--shard 3/4`) into one finished run.

example:
  pythia-tools merge runs/m1-shard0 runs/m1-shard1 --out runs/m1

What the shards computed is brought together; nothing is computed again. A shard that is missing or of another run is
refused by name.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from pythia_tools.cli.options import add, require_out
from pythia_tools.cli.rerun import run_recorded
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import read_json
from pythia_tools.core.results import Run, load_run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of all shards")
    add(parser, "--out")


def run(args: argparse.Namespace) -> None:
    out = Path(require_out(args))
    shards = [load_run(folder) for folder in args.runs]
    config = whole_config(shards)
    if (out / "config.json").exists() and read_json(out / "config.json") != config:
        raise RequestError(f"{out} holds another run; choose another --out")
    (out / "cells").mkdir(parents=True, exist_ok=True)
    for cell in (cell for shard in shards for cell in (shard.path / "cells").glob("*.parquet")):
        if not (out / "cells" / cell.name).exists():
            shutil.copy2(cell, out / "cells" / cell.name)
    run_recorded(config, out=str(out), quiet=args.quiet, json=args.json, typed=args.typed)


def whole_config(shards: list[Run]) -> dict[str, Any]:
    """The config of the run that the shards are parts of. Raises RequestError naming what is missing or foreign."""
    parts = [shard.config.get("arguments", {}).get("shard") for shard in shards]
    for shard, part in zip(shards, parts, strict=True):
        if not part:
            raise RequestError(f"{shard.path} is not a shard; merge takes runs made with --shard i/n")
    total = parts[0][1]
    missing = sorted(set(range(total)) - {i for i, n in parts if n == total})
    if missing:
        raise RequestError(f"shards {', '.join(f'{i}/{total}' for i in missing)} are missing; give all {total} folders")
    whole = [{**s.config, "arguments": {**s.config["arguments"], "shard": None}} for s in shards]
    for shard, config in zip(shards, whole, strict=True):
        if config != whole[0]:
            raise RequestError(f"{shard.path} is no shard of the run of {shards[0].path}: their config.json differ")
    return whole[0]
