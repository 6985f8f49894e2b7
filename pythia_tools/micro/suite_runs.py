"""A suite's folder: its recipe, and its runs, every model and its branch with swapped pronouns."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.manifests import checked, mapping, text
from pythia_tools.micro.loop import OnStep, Run, train
from pythia_tools.micro.recipe import ModelSpec, Recipe, recipe_from
from pythia_tools.micro.states import States
from pythia_tools.order import Rows, load_order
from pythia_tools.overlays import Overlay, PronounSwap


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """`recipe.json`: the recipe, its digest, and the Python whose library is the corpus."""
    value = {"recipe": dataclasses.asdict(recipe), "digest": recipe.digest(), "python": platform.python_version()}
    files.write_json(folder / "recipe.json", value)


def recipe_record(folder: Path) -> dict[str, Any]:
    """What `write_recipe` wrote. Raises: DataError when it is missing or something else."""
    path = folder / "recipe.json"
    return checked(path, files.read_json(path), {"recipe": mapping, "digest": text}, {"python": text})


def recipe_of(folder: str | Path) -> Recipe:
    """The recipe of a suite's folder. Raises: DataError when it holds none."""
    try:
        return recipe_from(recipe_record(Path(folder))["recipe"])
    except RequestError as error:
        raise DataError(f"{Path(folder) / 'recipe.json'}: {error}; train the suite again") from error


def suite_runs(folder: Path) -> list[Run]:
    """Every run of the suite in `folder`: the models, the longest first, then their branches, the longest last."""
    recipe = recipe_of(folder)
    mains = [main_run(folder, recipe, m) for m in sorted(recipe.models, key=lambda m: -update_cost(recipe, m))]
    return [*mains, *(_swap_run(main, recipe.swap_from) for main in mains[::-1] if recipe.swap_from)]


def main_run(folder: Path, recipe: Recipe, spec: ModelSpec) -> Run:
    """The main run of one model."""
    return Run(
        folder, recipe, spec, folder / spec.name, _states(folder, recipe, spec.name, recipe.branch_points()),
        recipe.seed, recipe.checkpoints(), end=recipe.steps, decay_steps=recipe.steps,
    )


def _swap_run(main: Run, first: int) -> Run:
    name, after = f"{main.name}-swap", tuple(s for s in main.checkpoints if s > first)
    states = _states(main.suite, main.recipe, name)
    start = (main.states, first)
    return dataclasses.replace(main, folder=main.suite / name, states=states, checkpoints=after, start=start)


def _states(folder: Path, recipe: Recipe, name: str, keep: frozenset[int] = frozenset()) -> States:
    return States(folder / "states" / name, files.digest([recipe.digest(), name]), keep)


def update_cost(recipe: Recipe, spec: ModelSpec) -> float:
    """Cost of an update in arbitrary units: weights touched per token, and a share for what does not grow with them."""
    return float(spec.layers * (12 * spec.d_model**2 + 25_000) + recipe.vocab * (spec.d_model + 60))


def train_suite_run(run: Run, on_step: OnStep) -> None:
    """Train a run of a suite, or what is left of it; writes `losses/NAME.csv`, drops states that nothing needs."""
    losses_file = run.suite / "losses" / f"{run.name}.csv"
    if run.missing() or not losses_file.is_file():
        losses = train(run, rows_of(run), on_step)
        lines = [f"{step},{loss:.6f}" for step, loss in enumerate(losses)][run.first:]
        files.write_text(losses_file, "\n".join(["update,loss", *lines]) + "\n")
    run.states.drop()
    on_step(run.end)


def rows_of(run: Run) -> np.ndarray:
    """The rows that a run of a suite consumes from its first step on, a branch's with swapped pronouns."""
    order: Rows = load_order(run.suite / "order.yaml")
    if run.start is not None:
        order = Overlay(order, PronounSwap(run.suite / "tokenizer"), steps=range(run.first, run.end))
    return np.asarray(order.rows(run.first * run.recipe.batch_rows, run.end * run.recipe.batch_rows))
