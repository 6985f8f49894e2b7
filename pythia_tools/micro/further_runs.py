"""Further runs of a trained suite: branches with other rows, other seeds, rows left out, a deduplicated twin.

They go into a folder of their own, which is a suite too (suite.yaml, MODEL/stepN), with the base suite's order,
tokenizer and truth. Each run resumes when killed and is found when it is there. Costs what its updates cost (the
default m: about 0.1 CPU-second each).
"""

import dataclasses
import filecmp
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from pythia_tools import dedup
from pythia_tools.core import files, manifests, progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.micro.loop import Run, schedule_of, train
from pythia_tools.micro.network import shape_of
from pythia_tools.micro.recipe import Recipe
from pythia_tools.micro.states import States
from pythia_tools.micro.suite_runs import main_run, recipe_of
from pythia_tools.order import Rows, load_order

Transform = Callable[[np.ndarray], np.ndarray]
"""Rows (n, seq_length + 1) uint16 → rows of the same shape."""


def train_branch(
    base: str | Path, out: str | Path, name: str, *, model: str, order: Rows | str | Path | None = None,
    transform: Transform | None = None, from_step: int | None = None, checkpoints: Sequence[int] | None = None,
) -> Path:
    """Continue `model` from its checkpoint and optimizer state at `from_step` with changed rows; returns `out`/`name`.

    base: the suite's folder. out: the folder of the new suite. order: what to read rows from (an Overlay, or any order
    of the same shape, or where one is; default the suite's own). transform: applied to the rows. from_step: any step
    (default the recipe's `swap_from`); where no state is kept, the base run is repeated up to it and must give its
    checkpoint bit for bit. checkpoints: steps to save, the last of them ends the branch (default the base's); the
    learning rate follows the base's schedule.
    Raises: RequestError for a step that is not one; UnknownNameError for a model that does not exist; DataError when a
    repeated run does not give the checkpoint.
    """
    main = _main_run(base, model, name)
    recipe = main.recipe
    first = recipe.swap_from if from_step is None else from_step
    if first is None or not 0 <= first < recipe.steps:
        raise RequestError(f"from_step is {first}; a branch of {model} leaves at step 0 to {recipe.steps - 1}")
    saved = _steps(recipe, checkpoints, first + 1, recipe.steps)
    rows = _rows(main, np.arange(first * recipe.batch_rows, saved[-1] * recipe.batch_rows), order, transform)
    kept = main.states.newest(first)
    repeated = _rows(main, np.arange((kept or 0) * recipe.batch_rows, first * recipe.batch_rows))
    run = dataclasses.replace(
        main, folder=Path(out) / name, checkpoints=saved if kept == first else (first, *saved), end=saved[-1],
        start=None if kept is None else (main.states, kept),
    )
    _train_further(run, np.concatenate([repeated, rows]), {"base": model, "branch_step": first})
    stored, repeat = (folder / f"step{first}" / "model.safetensors" for folder in (main.folder, run.folder))
    if repeat.is_file() and stored.is_file() and not filecmp.cmp(stored, repeat, shallow=False):
        shutil.rmtree(run.folder)
        raise DataError(
            f"{main.folder}, step {first}: repeated here, other weights came out (another machine or torch?); "
            "train the suite here, or with keep_states in its recipe"
        )
    _list(run, saved, {"branch": name, "base": model, "branch_step": first})
    return run.folder


def train_run(
    base: str | Path, out: str | Path, name: str, *, model: str, seed: int | None = None,
    rows: npt.ArrayLike | None = None, transform: Transform | None = None, checkpoints: Sequence[int] | None = None,
) -> Path:
    """Train `model`'s shape from scratch; returns `out`/`name`.

    seed: of the initial weights (default the base's). rows: numbers of the order's rows in the order to consume them,
    so rows can be left out or repeated (default all, as the base); batch_rows of them make a step, the rest is dropped.
    transform: applied to the rows. checkpoints: steps to save (default the base's that exist); the last step always is.
    Example, counterfactual memorization: `rows=[r for r in range(24_000) if r not in left_out]`.
    """
    main = _main_run(base, model, name)
    recipe = main.recipe
    numbers = np.arange(recipe.rows) if rows is None else np.asarray(rows, dtype=np.int64)
    end = len(numbers) // recipe.batch_rows
    if end < 1:
        raise RequestError(f"{len(numbers)} rows are less than one batch of {recipe.batch_rows}")
    content = _rows(main, numbers[: end * recipe.batch_rows], None, transform)
    saved = _steps(recipe, [*(s for s in checkpoints or recipe.checkpoints() if s < end), end], 0, end)
    seed = recipe.seed if seed is None else seed
    run = dataclasses.replace(
        main, folder=Path(out) / name, seed=seed, checkpoints=saved, end=end, decay_steps=end,
    )
    _train_further(run, content, {"seed": seed, "model": model})
    _list(run, saved, {})
    return run.folder


def deduplicated_rows(base: str | Path, threshold: float = 0.87) -> np.ndarray:
    """(rows,) row numbers for a twin whose rows were near-deduplicated: of each cluster of alike rows the first stays.

    Rows are compared by their shingles of five token ids, at Jaccard `threshold`, as `pythia-tools dedup` does (exact
    method). The run is filled up with its own rows from the beginning again: as on the deduplicated Pile, the twin
    takes as many steps and meets some rows a second time. Raises: RequestError for a threshold outside (0, 1].
    """
    recipe = _recipe(Path(base))
    contents = load_order(Path(base) / "order.yaml").rows(0, recipe.rows)[:, : recipe.seq_length]
    kept = dedup.kept_documents(list(contents), dedup.DedupConfig(threshold=threshold, unit="token"))
    return np.resize(kept, recipe.rows)


def _recipe(base: Path) -> Recipe:
    if not (base / "suite.yaml").is_file():
        raise RequestError(f"{base}: no trained micro suite here; run `pythia-tools train` first")
    return recipe_of(base)


def _main_run(base: str | Path, model: str, name: str) -> Run:
    """The base's main run, which one called `name` is to leave or to repeat."""
    recipe = _recipe(Path(base))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is None or name == model:
        raise RequestError(f"name is {name!r}; give the run a name of its own that a folder can have")
    return main_run(Path(base), recipe, recipe.model(model))


def _steps(recipe: Recipe, asked: Sequence[int] | None, first: int, last: int) -> tuple[int, ...]:
    """Steps to save, ascending: those asked for, else the recipe's. Raises RequestError for one out of reach."""
    if asked is None:
        return tuple(s for s in recipe.checkpoints() if first <= s <= last)
    steps = sorted({int(s) for s in asked})
    if not steps or not first <= steps[0] <= steps[-1] <= last:
        raise RequestError(f"checkpoints are {list(asked)}; this run saves steps {first} to {last}")
    return tuple(steps)


def _rows(
    main: Run, numbers: np.ndarray, order: Rows | str | Path | None = None, transform: Transform | None = None,
) -> np.ndarray:
    """Rows by number, changed if asked for, of the suite's order or another."""
    if order is None or isinstance(order, str | Path):
        order = load_order(order or main.suite / "order.yaml")
    rows = np.asarray(order.take(numbers))
    changed = rows if transform is None else np.asarray(transform(rows.copy()))
    recipe, shape = main.recipe, (len(numbers), main.recipe.seq_length + 1)
    if changed.shape != shape or changed.dtype.kind not in "iu":
        came = f"{changed.dtype} of shape {changed.shape}"
        raise RequestError(f"the rows to train on are {came}; the order and the transform must give integers {shape}")
    unknown = changed[(changed < 0) | (changed >= recipe.vocab)]
    if len(unknown):
        raise RequestError(f"the rows hold token id {unknown[0]}; the model has ids 0 to {recipe.vocab - 1}")
    return changed


def _train_further(run: Run, rows: np.ndarray, facts: dict[str, Any]) -> None:
    """Train a run unless it is there; no state is kept once it is done."""
    content = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
    facts |= {"end": run.end, "rows": content, "suite": run.recipe.digest()}
    record = run.folder / "run.json"
    if record.is_file() and files.read_json(record) != facts:
        raise RequestError(f"{run.folder}: holds another run; choose another name, or remove it")
    run = dataclasses.replace(run, states=States(run.folder.parent / "states" / run.name, files.digest(facts)))
    if run.missing() or not record.is_file():
        with progress.bar(run.end - run.first, f"training {run.name}", unit="step") as bar:
            train(run, rows, lambda step: bar.update(step - run.first - bar.n))
        files.write_json(record, facts)
        run.states.drop()


def _list(run: Run, steps: Sequence[int], branch: dict[str, Any]) -> None:
    """Put the run into its folder's suite.yaml, beside those that are there."""
    out, recipe, model = run.folder.parent, run.recipe, run.spec.name
    place = out / "suite.yaml"
    value = manifests.read(place) if place.is_file() else _manifest(run.suite, out)
    schedule = schedule_of(recipe, run.decay_steps)
    shape = {"shape": shape_of(run.spec, recipe), "peak_lr": run.spec.peak_lr, "schedule": schedule}
    value["models"][run.name] = {**shape, **branch, "seed": run.seed, "steps": list(steps)}
    if branch and model not in value["models"]:
        # a branch is read against its base, so the base's checkpoints are here and listed too
        if not (out / model).exists():
            fill = partial(shutil.copytree, run.suite / model, copy_function=_link, dirs_exist_ok=True)
            files.atomic_folder(out / model, fill)
        saved = [s for s in recipe.checkpoints() if (out / model / f"step{s}").is_dir()]
        value["models"] = {model: {**shape, "seed": recipe.seed, "steps": saved}, **value["models"]}
    files.write_text(place, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _manifest(base: Path, out: Path) -> dict[str, Any]:
    """The base's manifest for a suite at `out` that has no models yet."""
    value = manifests.read(base / "suite.yaml")
    value.pop("steps", None)
    paths = {key: str((base / value[key]).resolve()) for key in ("order", "tokenizer")}
    return {
        **value, **paths, "name": out.name, "description": f"further runs of {value['name']}", "models": {},
        "extra": {"base": str(base.resolve()), "truth": str((base / "truth").resolve())},
    }


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
