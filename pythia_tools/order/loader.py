"""Batches for training and analysis, in order, from any step, with a position that can be saved and resumed exactly.

    loader = OrderLoader(order, start=1000, rank=0, world_size=4)
    for tokens in loader:                    # (micro_rows, L+1) int64: inputs are [:, :-1], labels [:, 1:]
        ...
        state = loader.state_dict()          # says where the *next* batch begins

The position counts what the loop has received, not what workers have fetched ahead, so a resumed run repeats nothing
and skips nothing. A state taken from another order, or in the middle of a step of another layout, is refused.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pythia_tools.core.errors import RequestError
from pythia_tools.order.layout import Layout
from pythia_tools.order.rows import Rows


class OrderDataset(Dataset[torch.Tensor]):
    """Micro batches of one rank, (micro_rows, L+1) int64; item t is micro-step t % accumulation of a step."""

    def __init__(self, order: Rows, *, rank: int = 0, world_size: int = 1, accumulation: int = 1):
        self.order = order
        self.rank = rank
        self.layout = Layout(order.batch_rows, world_size, accumulation)
        self.layout.span(0, rank)

    def __len__(self) -> int:
        return self.order.steps * self.layout.accumulation

    def __getitem__(self, t: int) -> torch.Tensor:
        if not 0 <= t < len(self):
            raise IndexError(f"micro batch {t} of {len(self)}")
        step, micro_step = divmod(t, self.layout.accumulation)
        return torch.from_numpy(self.order.rows(*self.layout.span(step, self.rank, micro_step)).astype(np.int64))


class OrderLoader:
    """Iterates an order's batches; see the module's docstring.

    `start`, `stop` are steps; `rank` and `world_size` default to torch.distributed's when it runs, else 0 and 1;
    `workers` processes fetch ahead (0: none). Raises: RequestError for steps the order does not have.
    """

    def __init__(
        self, order: Rows, *, start: int = 0, stop: int | None = None, rank: int | None = None,
        world_size: int | None = None, accumulation: int = 1, workers: int = 0, pin_memory: bool = False,
    ):
        rank, world_size = _where(rank, world_size)
        self.dataset = OrderDataset(order, rank=rank, world_size=world_size, accumulation=accumulation)
        self.order = order
        self.stop = order.steps if stop is None else stop
        if not 0 <= start <= self.stop <= order.steps:
            raise RequestError(f"steps {start} to {self.stop}: order {order.name} has batches 0 to {order.steps - 1}")
        self._next = start * accumulation
        self._options = {"num_workers": workers, "pin_memory": pin_memory}

    @property
    def step(self) -> int:
        """The step whose batch (or next micro batch) comes next."""
        return self._next // self.dataset.layout.accumulation

    def __len__(self) -> int:
        """Micro batches still to come."""
        return self.stop * self.dataset.layout.accumulation - self._next

    def __iter__(self) -> Iterator[torch.Tensor]:
        todo = range(self._next, self._next + len(self))
        batches = DataLoader(self.dataset, batch_size=None, sampler=todo, **self._options)  # type: ignore[arg-type]
        for tokens in batches:
            self._next += 1
            yield tokens

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, and of which order: plain JSON-able values, the same on every rank."""
        layout = self.dataset.layout
        step, micro_step = divmod(self._next, layout.accumulation)
        return {
            "order": self.order.name, "fingerprint": self.order.fingerprint, "step": step, "micro_step": micro_step,
            "batch_rows": layout.batch_rows, "world_size": layout.world_size, "accumulation": layout.accumulation,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises: RequestError when it belongs to another order, or lies within a step of another layout.
        """
        layout = self.dataset.layout
        if state["fingerprint"] != self.order.fingerprint:
            theirs = f"{state['order']} (fingerprint {state['fingerprint'][:12]}…)"
            ours = f"{self.order.name} ({self.order.fingerprint[:12]}…)"
            why = "resuming on another order would repeat and skip rows"
            raise RequestError(f"this state is of order {theirs}, the loader reads {ours}; {why}")
        known = state["world_size"], state["accumulation"]
        if state["micro_step"] and known != (layout.world_size, layout.accumulation):
            raise RequestError(
                f"this state lies within step {state['step']} of a layout of {known[0]} ranks × {known[1]} "
                f"micro-steps; only a state between steps can continue with {layout.world_size} × {layout.accumulation}"
            )
        if not 0 <= state["step"] <= self.stop:
            raise RequestError(f"this state is at step {state['step']}, the loader ends at {self.stop}")
        self._next = state["step"] * layout.accumulation + state["micro_step"]


def _where(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return rank or 0, world_size or 1
