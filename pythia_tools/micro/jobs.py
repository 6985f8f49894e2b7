"""A job is one run that a worker process can do: plain data, so that it travels as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.micro.loop import Run, train
from pythia_tools.micro.recipe import Recipe, recipe_from
from pythia_tools.micro.states import States
from pythia_tools.order import load_order


@dataclass(frozen=True)
class Job:
    """Train `name` (a run of model `model`) of the suite in `folder`; `swap` trains the pronoun branch.

    `swap` branches from the model's main run at the recipe's `swap_from`.
    """

    folder: str
    name: str
    model: str
    swap: bool = False

    def line(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def needs(self) -> tuple[str, int] | None:
        """(run, step) whose state must exist before this job can begin."""
        recipe = read_recipe(Path(self.folder))
        return (self.model, recipe.swap_from) if self.swap and recipe.swap_from else None

    @property
    def updates(self) -> int:
        recipe = read_recipe(Path(self.folder))
        return recipe.steps - (recipe.swap_from or 0) if self.swap else recipe.steps


def suite_jobs(folder: Path, recipe: Recipe) -> list[Job]:
    """Every run of a suite: the models, then their branches; the longest first."""
    by_cost = sorted(recipe.models, key=lambda m: -update_cost(recipe, m.name))
    jobs = [Job(str(folder), m.name, m.name) for m in by_cost]
    if recipe.swap_from is not None:
        jobs += [Job(str(folder), f"{m.name}-swap", m.name, swap=True) for m in by_cost]
    return jobs


def update_cost(recipe: Recipe, model: str) -> float:
    """Cost of an update in arbitrary units: weights touched per token, and a share for what does not grow with them."""
    spec = recipe.model(model)
    return float(spec.layers * (12 * spec.d_model**2 + 25_000) + recipe.vocab * (spec.d_model + 60))


def run_of(job: Job) -> Run:
    """The run that a job describes."""
    folder = Path(job.folder)
    recipe = read_recipe(folder)
    spec = recipe.model(job.model)
    main = main_states(folder, recipe, job.model)
    steps = recipe.checkpoints()
    if not job.swap:
        return Run(recipe, spec, folder / job.name, main, recipe.seed, steps, recipe.steps, tokenizer=folder / "tokenizer")
    assert recipe.swap_from is not None
    states = States(folder / "states" / job.name, files.digest([recipe.digest(), job.name]))
    after = tuple(s for s in steps if s > recipe.swap_from)
    return Run(recipe, spec, folder / job.name, states, recipe.seed, after, recipe.steps, (main, recipe.swap_from), folder / "tokenizer")


def main_states(folder: Path, recipe: Recipe, model: str) -> States:
    """The states of a model's main run."""
    return States(folder / "states" / model, files.digest([recipe.digest(), model]), recipe.branch_points())


def run_job(job: Job, on_step: Callable[[int], None]) -> None:
    """Do the job, or what is left of it; writes `losses/NAME.csv` and drops the states that nothing needs any more."""
    run = run_of(job)
    losses_file = Path(job.folder) / "losses" / f"{job.name}.csv"
    if not (run.finished() and losses_file.is_file()):
        losses = train(run, rows_of(job, run), on_step)
        lines = [f"{step},{loss:.6f}" for step, loss in enumerate(losses)][run.first:]
        files.write_text(losses_file, "\n".join(["update,loss", *lines]) + "\n")
    for step in run.states.steps():
        if step not in run.states.keep:
            run.states.path(step).unlink(missing_ok=True)
    on_step(run.end)


def rows_of(job: Job, run: Run) -> np.ndarray:
    """The rows that the run consumes, from its first step on."""
    order: Any = load_order(Path(job.folder) / "order.yaml")
    if job.swap:
        from pythia_tools.micro.tokenizer import load_tokenizer
        from pythia_tools.overlays import Overlay, PronounSwap

        order = Overlay(order, PronounSwap(load_tokenizer(job.folder)), steps=range(run.first, run.end))
    per = run.recipe.batch_rows
    return np.asarray(order.rows(run.first * per, run.end * per))


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """`recipe.json`: the recipe, its digest, and the Python whose library is the corpus."""
    import platform

    files.write_json(folder / "recipe.json", {"recipe": recipe.as_dict(), "digest": recipe.digest(), "python": platform.python_version()})


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a suite folder. Raises: DataError."""
    return recipe_from(files.read_json(folder / "recipe.json")["recipe"])
