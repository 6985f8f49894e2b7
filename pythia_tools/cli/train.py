"""Train a small suite with checkpoints: GPT-NeoX models, rows and planted truth, from one recipe.

Without CONFIG it trains pythia-micro once, into the cache folder, and finds it there from then on. CONFIG is a YAML
file with what should differ from that recipe (`base: tiny` starts from one that takes seconds):

    base: tiny
    name: my-suite
    steps: 200
    models:
      - {name: xs, d_model: 32, layers: 2, heads: 4, peak_lr: 0.012}

A run that was stopped resumes with the same command and ends with the same bits.

example:
  pythia-tools train
  pythia-tools train my-suite.yaml --out suites/my-suite
  pythia-tools train my-suite.yaml --dry-run
"""

import argparse
from pathlib import Path

from pythia_tools import micro
from pythia_tools.cli.options import add, at_least, emit
from pythia_tools.core import files, manifests
from pythia_tools.core.parallel import worker_count
from pythia_tools.micro import Recipe, is_trained
from pythia_tools.micro.suite import disk_bytes
from pythia_tools.micro.suite_runs import update_cost
from pythia_tools.suites.shapes import neox_params

SECONDS_PER_COST = 9e-8
"""Measured on one 2026 server core with AVX-512; an estimate elsewhere."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML with what differs from the default recipe")
    add(parser, "--out", help="the suite's folder (default: below the cache folder)")
    add(parser, "--workers", type=at_least(0), help="processes of one thread each; 0: this one (default: one per core)")
    add(parser, "--dry-run")


def run(args: argparse.Namespace) -> None:
    recipe = micro.recipe_from(manifests.read(args.config)) if args.config else micro.Recipe()
    if args.dry_run:
        return emit(plan(recipe, Path(args.out) if args.out else micro.micro_folder(recipe)), args)
    trained = micro.train(recipe, args.out, workers=args.workers)
    models, steps = [m.name for m in recipe.models], list(recipe.checkpoints())
    emit({"suite": recipe.name, "folder": str(trained), "models": models, "steps": steps}, args)


def plan(recipe: Recipe, folder: Path) -> dict[str, object]:
    """What training would do, and what it needs."""
    branches = recipe.steps - recipe.swap_from if recipe.swap_from else 0
    seconds = sum(update_cost(recipe, m) * (recipe.steps + branches) for m in recipe.models) * SECONDS_PER_COST
    return {
        "suite": recipe.name, "folder": str(folder), "trained": is_trained(folder, recipe), "digest": recipe.digest(),
        "models": {m.name: neox_params(m.layers, m.d_model, recipe.vocab) for m in recipe.models},
        "steps": recipe.steps, "rows": recipe.rows, "checkpoints": list(recipe.checkpoints()),
        "swap_from": recipe.swap_from, "workers": worker_count(None, len(recipe.models)), "cpu_seconds": round(seconds),
        "disk": files.human_bytes(disk_bytes(recipe)),
    }
