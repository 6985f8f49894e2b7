"""Training a whole suite into its folder: build the data, train every run, and write suite.yaml last.

The folder is complete when suite.yaml is there. Whatever is killed on the way resumes: the data are renamed into place
as a whole, checkpoints and states one by one. A suite of another recipe or Python is never taken for this one: in the
cache it is moved beside (`pythia-micro-<digest>`), a folder of the user's own is refused.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError, refused
from pythia_tools.core.parallel import worker_count
from pythia_tools.micro.build import build
from pythia_tools.micro.loop import schedule_of
from pythia_tools.micro.network import shape_of
from pythia_tools.micro.pool import train_all
from pythia_tools.micro.recipe import Recipe
from pythia_tools.micro.suite_runs import recipe_record, suite_runs
from pythia_tools.suites.shapes import neox_params


def micro_folder(recipe: Recipe | None = None) -> Path:
    """Where `train` puts a suite by default: `<cache_dir>/suites/pythia-micro`; other recipes add their digest."""
    root = files.cache_dir() / "suites"
    if recipe is None or recipe == Recipe():
        return root / Recipe().name
    return root / f"{recipe.name}-{recipe.digest()[:8]}"


def is_trained(folder: Path, recipe: Recipe) -> bool:
    """The folder holds this recipe's suite, whole."""
    return (folder / "suite.yaml").is_file() and _digest(folder) == recipe.digest()


def train(recipe: Recipe | None = None, folder: str | Path | None = None, *, workers: int | None = None) -> Path:
    """The trained suite's folder; trains it, or what is left of it, or nothing when it is there.

    `folder` None means `micro_folder(recipe)`. `workers` processes of one thread each (default: one per core, at most
    one per model; 0: in this process). Repeats bit for bit on one machine. Cost: the default recipe takes about 220
    CPU-seconds. Raises: RequestError when `folder` holds another suite; EnvironmentFailure on a full disk.
    """
    recipe = recipe or Recipe()
    target = Path(folder) if folder is not None else micro_folder(recipe)
    if is_trained(target, recipe):
        return target
    with _lock(target):
        _make_way(target, recipe, ours=folder is None)
        if is_trained(target, recipe):  # another process trained it while this one waited
            return target
        files.require_free(target, disk_bytes(recipe))
        if not (target / "recipe.json").is_file():
            files.atomic_folder(target, partial(build, recipe))
        began = time.monotonic()
        train_all(suite_runs(target), worker_count(None, len(recipe.models)) if workers is None else workers)
        files.write_text(target / "suite.yaml", yaml.safe_dump(_manifest(recipe), sort_keys=False, allow_unicode=True))
        progress.note(f"micro: {target} is trained ({time.monotonic() - began:.0f} s)")
    return target


def disk_bytes(recipe: Recipe) -> int:
    """Bytes of all checkpoints and states, generously."""
    params = sum(neox_params(m.layers, m.d_model, recipe.vocab) for m in recipe.models)
    return params * 4 * (len(recipe.checkpoints()) + 12) + 40_000_000


def _manifest(recipe: Recipe) -> dict[str, Any]:
    steps = list(recipe.checkpoints())
    models: dict[str, Any] = {
        m.name: {"shape": shape_of(m, recipe), "seed": recipe.seed, "peak_lr": m.peak_lr} for m in recipe.models
    }
    for spec in recipe.models if recipe.swap_from else ():
        models[f"{spec.name}-swap"] = {
            **models[spec.name], "branch": "swap", "base": spec.name, "branch_step": recipe.swap_from,
            "steps": [s for s in steps if s > (recipe.swap_from or 0)],
            "note": f"masculine pronouns became feminine in the rows from step {recipe.swap_from} on",
        }
    about = "Small GPT-NeoX models trained on this machine on the same rows in the same order, with planted truth."
    return {
        "name": recipe.name, "description": about, "location": {"folder": "{model}/step{step}"}, "models": models,
        "steps": steps, "tokens_per_step": recipe.batch_rows * recipe.seq_length, "batch_rows": recipe.batch_rows,
        "seq_length": recipe.seq_length, "order": "order.yaml", "tokenizer": "tokenizer", "dtype": "float32",
        "stored_dtype": "float32", "buffers": "none", "initialisation": "small-wang",
        "schedule": schedule_of(recipe, recipe.steps), "extra": {"recipe": recipe.digest(), "truth": "truth"},
    }


def _make_way(target: Path, recipe: Recipe, *, ours: bool) -> None:
    """What stands at `target` is this recipe's, or nothing; another is moved beside (ours) or refused (the user's).

    A suite of this recipe that was moved beside earlier comes back.
    """
    files.sweep_parts(target.parent, f"{target.name}.")
    there = _digest(target)
    if there == recipe.digest() or (target.is_dir() and not any(target.iterdir())):
        return
    if target.exists():
        if there is None or not ours:
            what = "a suite of another recipe or Python" if there else "other files"
            raise RequestError(f"{target}: holds {what}; choose another --out, or remove it")
        shutil.rmtree(_beside(target, there), ignore_errors=True)
        os.replace(target, _beside(target, there))
        progress.note(f"micro: another recipe's or Python's suite was at {target}; it is now {_beside(target, there)}")
    if ours and is_trained(_beside(target, recipe.digest()), recipe):
        os.replace(_beside(target, recipe.digest()), target)


def _beside(target: Path, digest: str) -> Path:
    return target.with_name(f"{target.name}-{digest[:8]}")


def _digest(folder: Path) -> str | None:
    """The digest of the recipe in a folder; None when there is none."""
    return str(recipe_record(folder)["digest"]) if (folder / "recipe.json").exists() else None


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One trainer per folder: a second one waits. The lock dies with its process, however that ends."""
    from huggingface_hub.utils import WeakFileLock

    place = target.with_name(f".{target.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            place.touch()  # a lock that cannot be made would be waited for
            try:
                held.enter_context(WeakFileLock(place, timeout=0.1))
            except TimeoutError:
                progress.note(f"micro: another process trains {target}; waiting for it")
                held.enter_context(WeakFileLock(place))
        except OSError as error:
            if failure := refused(error, target):
                raise failure from error
            raise
        yield
