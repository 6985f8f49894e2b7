"""Training states: weights, both Adam moments, losses so far, the random generator's state; safetensors, whole or absent.

A state is everything that the next update depends on, so a run that is killed and resumed ends with the same bits.
Kept: the newest state of a run, and those at steps that a branch may leave from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_tools.core import files
from pythia_tools.core.errors import DataError

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class States:
    """The states of one run, in `folder`, all of the run that `key` digests."""

    folder: Path
    key: str
    keep: frozenset[int] = frozenset()

    def path(self, step: int) -> Path:
        return self.folder / f"step{step}.safetensors"

    def steps(self) -> list[int]:
        """Steps that have a state, ascending."""
        return sorted(int(p.stem.removeprefix("step")) for p in self.folder.glob("step*.safetensors"))

    def save(self, step: int, model: Any, optimizer: Any, losses: list[float]) -> None:
        """Write the state at `step`, then drop older ones that nothing needs."""
        import torch
        from safetensors.torch import save

        tensors = {f"weight/{n}": p.detach() for n, p in model.named_parameters()}
        for n, p in model.named_parameters():
            moments = optimizer.state.get(p) or {}
            tensors |= {f"{m}/{n}": moments[m] for m in MOMENTS if m in moments}
        tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
        tensors["random"] = torch.random.get_rng_state()
        with files.atomic_write(self.path(step)) as out:
            # metadata has one entry: the order of several is not fixed, and equal states should be equal files
            out.write(save({k: v.contiguous() for k, v in tensors.items()}, metadata={"key": self.key}))
        for old in self.steps():
            if old < step and old not in self.keep:
                self.path(old).unlink(missing_ok=True)

    def load(self, step: int, model: Any, optimizer: Any, *, expect_key: bool = True) -> list[float]:
        """Restore the state at `step` into model, optimizer and the random generator; returns the losses so far.

        Raises: DataError when the file is damaged or belongs to another run.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(step), framework="pt") as handle:
                key = (handle.metadata() or {}).get("key")
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.path(step)}: not a readable training state ({error}); delete it and train again") from error
        if expect_key and key != self.key:
            raise DataError(f"{self.path(step)}: belongs to another run; delete it and train again")
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(tensors[f"weight/{n}"])
                if f"exp_avg/{n}" in tensors:
                    optimizer.state[p] = {"step": torch.tensor(float(step)), **{m: tensors[f"{m}/{n}"] for m in MOMENTS}}
        torch.random.set_rng_state(tensors["random"])
        return [float(x) for x in tensors["losses"]]

    def newest(self, limit: int) -> int | None:
        """The newest readable step not beyond `limit`; damaged states (a torn disk) are passed over."""
        for step in reversed([s for s in self.steps() if s <= limit]):
            if self._readable(step):
                return step
        return None

    def _readable(self, step: int) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(step), framework="pt") as handle:
                return bool((handle.metadata() or {}).get("key") == self.key)
        except (SafetensorError, OSError):
            return False
