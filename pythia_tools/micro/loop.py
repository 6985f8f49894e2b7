"""The training loop: one model, rows in their order, a checkpoint and a state at the steps asked for.

One thread per model: at these sizes a second thread gains nothing, and torch's spinning threads starve a neighbour
(a run with default threads next to another process was measured 17 times slower).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import EnvironmentFailure
from pythia_tools.micro.network import make_model
from pythia_tools.micro.recipe import ModelSpec, Recipe
from pythia_tools.micro.states import States
from pythia_tools.suites.shapes import learning_rate

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer
    from transformers import GPTNeoXForCausalLM

OnStep = Callable[[int], None]
"""Called with the number of steps taken."""


@dataclass(frozen=True)
class Run:
    """One run: where its checkpoints and states go, what it starts from, and which steps it saves.

    `start` is (states, step) of the run that a branch leaves; None starts at step 0 from `seed`.
    `decay_steps`: length of the learning-rate schedule. `suite`: whose order and tokenizer it uses.
    """

    suite: Path
    recipe: Recipe
    spec: ModelSpec
    folder: Path
    states: States
    seed: int
    checkpoints: tuple[int, ...]
    end: int
    decay_steps: int
    start: tuple[States, int] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def first(self) -> int:
        return self.start[1] if self.start else 0

    def missing(self) -> list[int]:
        """Steps whose checkpoint is not there yet (each is renamed into place whole)."""
        return [s for s in self.checkpoints if not (self.folder / f"step{s}" / "model.safetensors").is_file()]


def schedule_of(recipe: Recipe, steps: int) -> dict[str, Any]:
    """The learning-rate schedule over `steps` in the manifests' words."""
    return {"kind": "neox-cosine", "warmup": recipe.warmup, "decay_steps": steps, "floor": recipe.min_lr}


def train(run: Run, rows: np.ndarray, on_step: OnStep = lambda step: None) -> list[float]:
    """Train `run` from its newest state to its end; returns the loss of every update since step 0.

    `rows` ((end - first) × batch_rows, seq_length + 1): the rows from the run's first step on. Repeats bit for bit on
    one machine, from any state. Raises: EnvironmentFailure, DataError.
    """
    import torch

    recipe, peak = run.recipe, run.spec.peak_lr
    with _deterministic(run.seed):
        model = make_model(run.spec, recipe, run.seed)
        # weight decay on matrices only, as GPT-NeoX does: biases and norms are spared
        groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": recipe.weight_decay},
                  {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=recipe.betas, eps=1e-8, fused=True)
        step, losses = _resume(run, model, optimizer)
        on_step(step)
        schedule = schedule_of(recipe, run.decay_steps)
        batches = torch.from_numpy(rows.astype(np.int64)).split(recipe.batch_rows)
        while step < run.end:
            lr = learning_rate(schedule, peak, step)
            losses.append(_update(model, optimizer, batches[step - run.first], lr, recipe.clip))
            step += 1
            if step in run.checkpoints:
                _save_weights(run, step, model)
                run.states.save(step, model, optimizer, losses)
            on_step(step)
    return losses


def _update(model: GPTNeoXForCausalLM, optimizer: Optimizer, batch: torch.Tensor, lr: float, clip: float) -> float:
    """One optimizer step on `batch` (B, L + 1) int64; returns the mean loss in nats per token before it."""
    import torch
    import torch.nn.functional as functional

    model.train()
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _resume(run: Run, model: GPTNeoXForCausalLM, optimizer: Optimizer) -> tuple[int, list[float]]:
    """Restore the newest state whose earlier checkpoints are all there; else begin."""
    for folder in (run.folder, run.states.folder):
        files.sweep_parts(folder)
    missing = run.missing()
    own = run.states.newest(min(missing, default=run.end))
    if own is not None:
        losses = run.states.load(own, model, optimizer)
        if own in missing:
            _save_weights(run, own, model)
        return own, losses
    if run.start is not None:
        states, step = run.start
        return step, states.load(step, model, optimizer)
    if 0 in run.checkpoints:
        _save_weights(run, 0, model)
        run.states.save(0, model, optimizer, [])
    return 0, []


def _save_weights(run: Run, step: int, model: GPTNeoXForCausalLM) -> None:
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        shutil.copytree(run.suite / "tokenizer", folder, dirs_exist_ok=True)  # as on the hub

    target = run.folder / f"step{step}"
    try:
        files.atomic_folder(target, fill)
    except SafetensorError as error:  # it wraps the system's errors, a full disk among them
        raise EnvironmentFailure(
            f"{target}: could not be written ({error}); free some space and run the same command again"
        ) from error


@contextlib.contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """One thread, and a random generator that starts at `seed` and is given back as it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
