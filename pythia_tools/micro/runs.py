"""Further runs of a trained suite: branches with other rows, other seeds, rows left out, a deduplicated twin.

They go into a folder of their own, which is a suite too (suite.yaml, MODEL/stepN), with the base suite's order,
tokenizer and truth. Each run resumes when killed and is found when it is there. Costs what its updates cost (the
default m: about 0.1 CPU-second each).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pythia_tools.core import files, manifests, progress
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.micro.jobs import main_states, read_recipe
from pythia_tools.micro.recipe import ModelSpec, Recipe
from pythia_tools.order import load_order

Transform = Callable[[np.ndarray], np.ndarray]
"""Rows (n, seq_length + 1) uint16 → rows of the same shape."""


def train_branch(
    base: str | Path, out: str | Path, name: str, *, model: str, order: Any = None, transform: Transform | None = None,
    from_step: int | None = None, until: int | None = None, checkpoints: Sequence[int] | None = None,
) -> Path:
    """Continue `model` from its checkpoint and optimizer state at `from_step` with changed rows; returns `out`/`name`.

    base: the suite's folder. out: the folder of the new suite. order: what to read rows from (an Overlay, or any order of
    the same shape; default the suite's own). transform: applied to the rows. from_step: any step (default the recipe's
    `swap_from`); where no state is kept, the base run is repeated up to it and must give its checkpoint bit for bit.
    until: the last step (default the base's end); the learning rate follows the base's schedule. checkpoints: default the base's.
    Raises: RequestError for a step that is not one; UnknownNameError for a model that does not exist; DataError when a
    repeated run does not give the checkpoint.
    """
    from pythia_tools.micro.loop import Run

    base, out, recipe = Path(base), Path(out), _recipe(base)
    spec = recipe.model(model)
    first = recipe.swap_from if from_step is None else from_step
    if first is None or not 0 <= first < recipe.steps:
        raise RequestError(f"from_step is {first}; a branch of {model} leaves at step 0 to {recipe.steps - 1}")
    end = recipe.steps if until is None else until
    if not first < end <= recipe.steps:
        raise RequestError(f"until is {end}; a branch from step {first} ends at {first + 1} to {recipe.steps}")
    numbers = np.arange(first * recipe.batch_rows, end * recipe.batch_rows)
    rows = _rows(order if order is not None else load_order(base / "order.yaml"), numbers, transform)
    saved = _checkpoints(checkpoints if checkpoints is not None else recipe.checkpoints(), first + 1, end)
    states = _state_at(base, out, recipe, spec, first)
    facts = {"base": model, "branch_step": first, "end": end, "rows": _rows_digest(rows), "suite": recipe.digest()}
    run = Run(recipe, spec, out / name, _states(out, name, facts), recipe.seed, saved, end, (states, first), base / "tokenizer")
    entry = {"branch": name, "base": model, "branch_step": first, "seed": recipe.seed}
    return _do(run, rows, base, out, name, entry, facts, with_base=model)


def train_run(
    base: str | Path, out: str | Path, name: str, *, model: str, seed: int | None = None, rows: Sequence[int] | np.ndarray | None = None,
    transform: Transform | None = None, checkpoints: Sequence[int] | None = None,
) -> Path:
    """Train `model`'s shape from scratch; returns `out`/`name`.

    seed: of the initial weights (default the base's). rows: numbers of the order's rows in the order to consume them, so
    rows can be left out or repeated (default all, as the base); batch_rows of them make a step, the rest is dropped.
    transform: applied to the rows. checkpoints: steps to save (default the base's that exist, and the last).
    Example, counterfactual memorization: `rows=[r for r in range(24_000) if r not in left_out]`.
    """
    from pythia_tools.micro.loop import Run

    base, out, recipe = Path(base), Path(out), _recipe(base)
    spec = recipe.model(model)
    numbers = np.arange(recipe.rows) if rows is None else np.asarray(rows, dtype=np.int64)
    end = len(numbers) // recipe.batch_rows
    if end < 1:
        raise RequestError(f"{len(numbers)} rows are less than one batch of {recipe.batch_rows}")
    content = _rows(load_order(base / "order.yaml"), numbers[: end * recipe.batch_rows], transform)
    saved = _checkpoints(checkpoints if checkpoints is not None else recipe.checkpoints(), 0, end)
    first_seed = recipe.seed if seed is None else seed
    facts = {"seed": first_seed, "model": model, "end": end, "rows": _rows_digest(content), "suite": recipe.digest()}
    run = Run(recipe, spec, out / name, _states(out, name, facts), first_seed, saved, end, None, base / "tokenizer")
    return _do(run, content, base, out, name, {"seed": first_seed}, facts)


def deduplicated_rows(base: str | Path, threshold: float = 0.87) -> np.ndarray:
    """(rows,) row numbers for a twin whose rows were near-deduplicated: of each cluster of alike rows the first stays.

    Rows are compared by their shingles of five token ids, at Jaccard `threshold`, as `pythia-tools dedup` does (exact method).
    The run is filled up with its own rows from the beginning again: as on the deduplicated Pile, the twin takes as many
    steps and meets some rows a second time. Raises: RequestError for a threshold outside (0, 1].
    """
    from pythia_tools.dedup import kept_documents

    recipe = _recipe(Path(base))
    contents = load_order(Path(base) / "order.yaml").rows(0, recipe.rows)[:, : recipe.seq_length]
    kept = kept_documents(list(contents), threshold, unit="token", keep="first")
    return np.resize(kept, recipe.rows)


def _state_at(base: Path, out: Path, recipe: Recipe, spec: ModelSpec, step: int) -> Any:
    """States of `spec`'s main run that hold `step`: kept ones, or those of the run repeated up to it (once, in `out`)."""
    from pythia_tools.micro.loop import Run, train
    from pythia_tools.micro.states import States

    kept = main_states(base, recipe, spec.name)
    if kept.path(step).is_file():
        return kept
    again = States(out / "states" / f"{spec.name}-main", kept.key, frozenset([step]))
    folder = out / "states" / f"{spec.name}-main-step{step}"
    if again.newest(step) == step and not folder.exists():  # the folder goes when the state was found to be right
        return again
    before = kept.newest(step)
    start = (kept, before) if before is not None else None
    run = Run(recipe, spec, folder, again, recipe.seed, (step,), step, start, None, recipe.steps)
    rows = np.asarray(load_order(base / "order.yaml").rows(run.first * recipe.batch_rows, step * recipe.batch_rows))
    with progress.bar(step - run.first, f"{spec.name} up to step {step}, for its optimizer state", unit="step") as bar:
        train(run, rows, lambda at: bar.update(at - run.first - bar.n))
    _check_repeated(base / spec.name / f"step{step}", folder / f"step{step}", again.path(step))
    shutil.rmtree(folder)
    return again


def _check_repeated(first: Path, second: Path, state: Path) -> None:
    """Raises DataError, and removes the state, when a repeated checkpoint differs from the stored one (if there is one)."""
    from pythia_tools.models import weights_digest

    if not first.is_dir() or weights_digest(first) == weights_digest(second):
        return
    state.unlink(missing_ok=True)
    raise DataError(
        f"{first}: repeated here, the run gives other weights (another machine or torch trained it?); train the suite here, or "
        "with keep_states in its recipe"
    )


def _do(
    run: Any, rows: np.ndarray, base: Path, out: Path, name: str, entry: dict[str, Any], facts: dict[str, Any],
    with_base: str | None = None,
) -> Path:
    from pythia_tools.micro.loop import train

    record = run.folder / "run.json"
    if record.is_file() and files.read_json(record) != facts:
        raise RequestError(f"{run.folder}: holds another run; choose another name, or remove it")
    if not (record.is_file() and run.finished()):
        with progress.bar(run.end - run.first, f"training {name}", unit="step") as bar:
            train(run, rows, lambda step: bar.update(step - run.first - bar.n))
        files.write_json(record, facts)
        for step in run.states.steps():
            run.states.path(step).unlink(missing_ok=True)
    _list(base, out, name, run, entry, with_base)
    return Path(run.folder)


def _list(base: Path, out: Path, name: str, run: Any, entry: dict[str, Any], with_base: str | None) -> None:
    """Put the run into `out`/suite.yaml, beside those that are there."""
    from pythia_tools.micro.loop import schedule_of
    from pythia_tools.micro.network import shape_of

    path = out / "suite.yaml"
    value = manifests.read(path) if path.is_file() else _manifest(base, out)
    shape = {"shape": shape_of(run.spec, run.recipe), "peak_lr": run.spec.peak_lr, "schedule": schedule_of(run.recipe, run.decay_steps)}
    value["models"][name] = {**shape, **entry, "steps": list(run.checkpoints)}
    if with_base is not None and with_base not in value["models"]:
        # a branch is read against its base, so the base's checkpoints are listed here too
        spec: ModelSpec = run.spec
        steps = [s for s in run.recipe.checkpoints() if (base / spec.name / f"step{s}").is_dir()]
        _link(base / spec.name, out / spec.name)
        value["models"] = {with_base: {**shape, "seed": run.recipe.seed, "steps": steps}, **value["models"]}
    files.write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _link(source: Path, target: Path) -> None:
    """Hard links to the base's checkpoints (copies where the file system has none)."""
    import os

    def copy(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    if not target.exists():
        def fill(part: Path) -> None:
            shutil.copytree(source, part, copy_function=copy, dirs_exist_ok=True)

        files.atomic_folder(target, fill)


def _manifest(base: Path, out: Path) -> dict[str, Any]:
    value = manifests.read(base / "suite.yaml")
    value.pop("steps", None)
    order, tokenizer = (str((base / value[key]).resolve()) for key in ("order", "tokenizer"))
    return {
        **value, "name": out.name, "description": f"further runs of {value['name']}", "order": order, "tokenizer": tokenizer, "models": {},
        "extra": {"base": str(base.resolve()), "truth": str((base / "truth").resolve())},
    }


def _recipe(base: Path) -> Recipe:
    if not (base / "suite.yaml").is_file():
        raise RequestError(f"{base}: no trained micro suite here; run `pythia-tools train` first")
    return read_recipe(base)


def _rows(order: Any, numbers: np.ndarray, transform: Transform | None) -> np.ndarray:
    rows = np.asarray(order.take(numbers))
    if transform is None:
        return rows
    changed = np.asarray(transform(rows.copy()))
    if changed.shape != rows.shape:
        raise RequestError(f"the transform made rows of shape {changed.shape} out of {rows.shape}; it must keep the shape")
    return changed


def _rows_digest(rows: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def _states(out: Path, name: str, facts: dict[str, Any]) -> Any:
    from pythia_tools.micro.states import States

    return States(out / "states" / name, files.digest(facts))


def _checkpoints(steps: Sequence[int], first: int, end: int) -> tuple[int, ...]:
    return tuple(sorted({*(int(s) for s in steps if first <= s <= end), end}))
