"""Training states: weights, both Adam moments, losses so far, the random generator's state; whole files or none.

A state is everything that the next update depends on, so a run that is killed and resumed ends with the same bits.
Kept: the newest state of a run, and those at steps that a branch may leave from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_tools.core import files
from pythia_tools.core.errors import DataError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class States:
    """The states of one run, in `folder`, all of the run that `key` digests; those at `keep` stay."""

    folder: Path
    key: str
    keep: frozenset[int] = frozenset()

    def path(self, step: int) -> Path:
        return self.folder / f"step{step}.safetensors"

    def steps(self) -> list[int]:
        """Steps that have a state, ascending."""
        return sorted(int(p.stem.removeprefix("step")) for p in self.folder.glob("step*.safetensors"))

    def drop(self, before: int | None = None) -> None:
        """Delete the states that nothing needs: all but those to keep, or of these the ones before a step."""
        for step in self.steps():
            if step not in self.keep and (before is None or step < before):
                self.path(step).unlink(missing_ok=True)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, losses: list[float]) -> None:
        """Write the state at `step`, then drop older ones that nothing needs."""
        import torch
        from safetensors.torch import save

        tensors = {"losses": torch.tensor(losses, dtype=torch.float64), "random": torch.random.get_rng_state()}
        for n, p in model.named_parameters():
            tensors[f"weight/{n}"] = p.detach()
            tensors |= {f"{m}/{n}": v for m, v in optimizer.state.get(p, {}).items() if m in MOMENTS}
        with files.atomic_write(self.path(step)) as out:
            # metadata has one entry: the order of several is not fixed, and equal states should be equal files
            out.write(save({k: v.contiguous() for k, v in tensors.items()}, metadata={"key": self.key}))
        self.drop(before=step)

    def load(self, step: int, model: nn.Module, optimizer: Optimizer) -> list[float]:
        """Restore the state at `step` into model, optimizer and the random generator; returns the losses so far.

        Raises: DataError when the file is damaged.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.path(step))
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{self.path(step)}: not a readable training state ({error}); delete it and train again"
            ) from error
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(tensors[f"weight/{n}"])
                if f"exp_avg/{n}" in tensors:
                    moments = {m: tensors[f"{m}/{n}"] for m in MOMENTS}
                    optimizer.state[p] = {"step": torch.tensor(float(step)), **moments}
        torch.random.set_rng_state(tensors["random"])
        return [float(x) for x in tensors["losses"]]

    def newest(self, limit: int) -> int | None:
        """The newest state of this run not beyond `limit`; damaged ones and other runs' are passed over."""
        return next((s for s in reversed(self.steps()) if s <= limit and self._is_ours(s)), None)

    def _is_ours(self, step: int) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(step), framework="numpy") as handle:
                return bool((handle.metadata() or {}).get("key") == self.key)
        except (SafetensorError, OSError):
            return False
