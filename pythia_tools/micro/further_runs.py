"""Further runs of a trained suite: branches with other rows, other seeds, rows left out, a deduplicated twin.

They go into a folder of their own, which is a suite too (suite.yaml, MODEL/stepN), with the base suite's order,
tokenizer and truth. Each run resumes when killed and is found when it is there. Costs what its updates cost (the
default m: about 0.1 CPU-second each).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
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
    base, recipe = _base(base)
    main = main_run(base, recipe, recipe.model(model))
    first = recipe.swap_from if from_step is None else from_step
    if first is None or not 0 <= first < recipe.steps:
        raise RequestError(f"from_step is {first}; a branch of {model} leaves at step 0 to {recipe.steps - 1}")
    saved = _steps(recipe, checkpoints, first + 1, recipe.steps)
    end = saved[-1]
    rows = _rows(base, order, np.arange(first * recipe.batch_rows, end * recipe.batch_rows), transform)
    facts = {"base": model, "branch_step": first, "end": end, "rows": _digest(rows), "suite": recipe.digest()}
    start = (_state_at(main, Path(out), first), first)
    run = dataclasses.replace(main, checkpoints=saved, end=end, start=start, **_places(out, name, facts))
    return _train_further(run, rows, facts, {"branch": name, "base": model, "branch_step": first}, base)


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
    base, recipe = _base(base)
    main = main_run(base, recipe, recipe.model(model))
    numbers = np.arange(recipe.rows) if rows is None else np.asarray(rows, dtype=np.int64)
    end = len(numbers) // recipe.batch_rows
    if end < 1:
        raise RequestError(f"{len(numbers)} rows are less than one batch of {recipe.batch_rows}")
    content = _rows(base, None, numbers[: end * recipe.batch_rows], transform)
    seed = recipe.seed if seed is None else seed
    facts = {"seed": seed, "model": model, "end": end, "rows": _digest(content), "suite": recipe.digest()}
    saved = _steps(recipe, [*(s for s in checkpoints or recipe.checkpoints() if s < end), end], 0, end)
    run = dataclasses.replace(
        main, seed=seed, checkpoints=saved, end=end, decay_steps=end, **_places(out, name, facts),
    )
    return _train_further(run, content, facts, {}, base)


def deduplicated_rows(base: str | Path, threshold: float = 0.87) -> np.ndarray:
    """(rows,) row numbers for a twin whose rows were near-deduplicated: of each cluster of alike rows the first stays.

    Rows are compared by their shingles of five token ids, at Jaccard `threshold`, as `pythia-tools dedup` does (exact
    method). The run is filled up with its own rows from the beginning again: as on the deduplicated Pile, the twin
    takes as many steps and meets some rows a second time. Raises: RequestError for a threshold outside (0, 1].
    """
    base, recipe = _base(base)
    contents = load_order(base / "order.yaml").rows(0, recipe.rows)[:, : recipe.seq_length]
    kept = dedup.kept_documents(list(contents), dedup.DedupConfig(threshold=threshold, unit="token"))
    return np.resize(kept, recipe.rows)


def _base(folder: str | Path) -> tuple[Path, Recipe]:
    base = Path(folder)
    if not (base / "suite.yaml").is_file():
        raise RequestError(f"{base}: no trained micro suite here; run `pythia-tools train` first")
    return base, recipe_of(base)


def _steps(recipe: Recipe, asked: Sequence[int] | None, first: int, last: int) -> tuple[int, ...]:
    """Steps to save, ascending: those asked for, else the recipe's. Raises RequestError for one out of reach."""
    if asked is None:
        return tuple(s for s in recipe.checkpoints() if first <= s <= last)
    steps = sorted({int(s) for s in asked})
    if not steps or not first <= steps[0] <= steps[-1] <= last:
        raise RequestError(f"checkpoints are {list(asked)}; this run saves steps {first} to {last}")
    return tuple(steps)


def _rows(
    base: Path, order: Rows | str | Path | None, numbers: np.ndarray, transform: Transform | None = None,
) -> np.ndarray:
    if order is None or isinstance(order, str | Path):
        order = load_order(order or base / "order.yaml")
    rows = order.take(numbers)
    if transform is None:
        return rows
    changed = np.asarray(transform(rows.copy()))
    if changed.shape != rows.shape:
        made = f"rows of shape {changed.shape} out of {rows.shape}"
        raise RequestError(f"the transform made {made}; it must keep the shape")
    return changed


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def _places(out: str | Path, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Where a further run and its states go; no state is kept once it is done."""
    return {"folder": Path(out) / name, "states": States(Path(out) / "states" / name, files.digest(facts))}


def _state_at(main: Run, out: Path, step: int) -> States:
    """The main run's states that hold `step`: those kept, or those of the run repeated up to it (once, in `out`)."""
    kept = main.states
    if kept.path(step).is_file():
        return kept
    again = States(out / "states" / f"{main.name}-main", kept.key, frozenset([step]))
    folder = out / "states" / f"{main.name}-main-step{step}"
    if again.newest(step) == step and not folder.exists():  # the folder goes when the state was found to be right
        return again
    before = kept.newest(step)
    start = (kept, before) if before is not None else None
    run = dataclasses.replace(main, folder=folder, states=again, checkpoints=(step,), end=step, start=start)
    per = run.recipe.batch_rows
    rows = _rows(main.folder.parent, None, np.arange(run.first * per, step * per))
    _train(run, rows, f"{main.name} up to step {step}, for its optimizer state")
    if not _same_weights(main.folder / f"step{step}", folder / f"step{step}"):
        again.path(step).unlink(missing_ok=True)
        raise DataError(
            f"{main.folder}, step {step}: repeated here, other weights came out (another machine or torch?); "
            "train the suite here, or with keep_states in its recipe"
        )
    shutil.rmtree(folder)
    return again


def _same_weights(stored: Path, repeated: Path) -> bool:
    """Whether a repeated checkpoint equals the stored one bit for bit (or none is stored)."""
    from safetensors.numpy import load_file

    if not stored.is_dir():
        return True
    a, b = (load_file(folder / "model.safetensors") for folder in (stored, repeated))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _train(run: Run, rows: np.ndarray, label: str) -> None:
    with progress.bar(run.end - run.first, label, unit="step") as bar:
        train(run, rows, lambda step: bar.update(step - run.first - bar.n))


def _train_further(run: Run, rows: np.ndarray, facts: dict[str, Any], entry: dict[str, Any], base: Path) -> Path:
    record = run.folder / "run.json"
    if record.is_file() and files.read_json(record) != facts:
        raise RequestError(f"{run.folder}: holds another run; choose another name, or remove it")
    if run.missing() or not record.is_file():
        _train(run, rows, f"training {run.name}")
        files.write_json(record, facts)
        run.states.drop()
    _list(run, entry, base)
    return run.folder


def _list(run: Run, entry: dict[str, Any], base: Path) -> None:
    """Put the run into its folder's suite.yaml, beside those that are there."""
    out, recipe = run.folder.parent, run.recipe
    value = manifests.read(out / "suite.yaml") if (out / "suite.yaml").is_file() else _manifest(base, out)
    schedule = schedule_of(recipe, run.decay_steps)
    shape = {"shape": shape_of(run.spec, recipe), "peak_lr": run.spec.peak_lr, "schedule": schedule}
    value["models"][run.name] = {**shape, **entry, "seed": run.seed, "steps": list(run.checkpoints)}
    main = entry.get("base")
    if main is not None and main not in value["models"]:
        # a branch is read against its base, so the base's checkpoints are listed here too
        _link(base / main, out / main)
        steps = [s for s in recipe.checkpoints() if (out / main / f"step{s}").is_dir()]
        value["models"] = {main: {**shape, "seed": recipe.seed, "steps": steps}, **value["models"]}
    files.write_text(out / "suite.yaml", yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _manifest(base: Path, out: Path) -> dict[str, Any]:
    """The base's manifest for a suite at `out` that has no models yet."""
    value = manifests.read(base / "suite.yaml")
    value.pop("steps", None)
    paths = {key: str((base / value[key]).resolve()) for key in ("order", "tokenizer")}
    return {
        **value, **paths, "name": out.name, "description": f"further runs of {value['name']}", "models": {},
        "extra": {"base": str(base.resolve()), "truth": str((base / "truth").resolve())},
    }


def _link(source: Path, target: Path) -> None:
    """Hard links to the base's checkpoints (copies where the file system has none)."""

    def copy(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    def fill(part: Path) -> None:
        shutil.copytree(source, part, copy_function=copy, dirs_exist_ok=True)

    if not target.exists():
        files.atomic_folder(target, fill)
