"""The loader: in order, from anywhere, resumed exactly, over workers and ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from order_stores import make_documents, packed_folder, preshuffled_store

from pythia_tools.core.errors import RequestError
from pythia_tools.order import OrderDataset, OrderLoader, load_order


@pytest.fixture
def order(tmp_path: Path):  # type: ignore[no-untyped-def]
    packed_folder(tmp_path, make_documents([300, 40, 500]), 8, 60, batch_rows=12)
    return load_order(tmp_path / "order.yaml")


def stacked(loader: OrderLoader) -> np.ndarray:
    return np.concatenate([tokens.numpy() for tokens in loader])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_order_from_any_step(order, workers: int) -> None:  # type: ignore[no-untyped-def]
    loader = OrderLoader(order, start=2, workers=workers)
    batches = list(loader)
    assert len(batches) == order.steps - 2 and batches[0].dtype == torch.int64 and batches[0].shape == (12, 9)
    for step, tokens in enumerate(batches, 2):
        assert (tokens.numpy() == order.batch(step)).all()
    assert len(loader) == 0 and loader.step == order.steps


@pytest.mark.parametrize("workers", [0, 2])
def test_a_saved_position_resumes_exactly(order, workers: int) -> None:  # type: ignore[no-untyped-def]
    whole = stacked(OrderLoader(order, accumulation=3))
    loader = OrderLoader(order, accumulation=3, workers=workers)
    first = []
    for count, tokens in enumerate(loader, 1):
        first.append(tokens.numpy())
        if count == 5:
            break
    state = json.loads(json.dumps(loader.state_dict()))
    assert (state["step"], state["micro_step"]) == (1, 2)
    again = OrderLoader(order, accumulation=3, workers=workers)
    again.load_state_dict(state)
    assert (np.concatenate([*first, stacked(again)]) == whole).all()


def test_ranks_and_micro_steps_cover_every_step_once(order) -> None:  # type: ignore[no-untyped-def]
    world, accumulation = 3, 2
    parts = [list(OrderLoader(order, rank=r, world_size=world, accumulation=accumulation)) for r in range(world)]
    for step in range(order.steps):
        places = range(step * accumulation, (step + 1) * accumulation)
        rows = [parts[rank][place].numpy() for place in places for rank in range(world)]
        assert (np.concatenate(rows) == order.batch(step)).all()


def test_another_order_or_another_layout_is_refused(order, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    loader = OrderLoader(order, accumulation=2)
    next(iter(loader))
    state = loader.state_dict()
    other = load_order(preshuffled_store(tmp_path / "o", np.zeros((60, 9), dtype=np.uint16)), batch_rows=12)
    with pytest.raises(RequestError, match="resuming on another order"):
        OrderLoader(other).load_state_dict(state)
    with pytest.raises(RequestError, match="lies within step 0"):
        OrderLoader(order, accumulation=3).load_state_dict(state)
    next(iter(loader))
    between = OrderLoader(order, accumulation=3)
    between.load_state_dict(loader.state_dict())
    assert between.step == 1
    with pytest.raises(RequestError, match="the loader ends at 0"):
        OrderLoader(order, stop=0).load_state_dict(loader.state_dict())


def test_wrong_layouts_and_steps(order) -> None:  # type: ignore[no-untyped-def]
    for options, says in (
        ({"start": 99}, "has batches 0 to 7"), ({"start": 3, "stop": 2}, "steps 3 to 2"),
        ({"world_size": 5}, "cannot be divided"), ({"rank": 3, "world_size": 3}, "out of range"),
    ):
        with pytest.raises(RequestError, match=says):
            OrderLoader(order, **options)
    with pytest.raises(IndexError):
        OrderDataset(order)[len(OrderDataset(order))]


def test_a_process_group_says_who_reads_what(order, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        assert (next(iter(OrderLoader(order))).numpy() == order.batch(0)).all()
    finally:
        torch.distributed.destroy_process_group()


def test_workers_may_follow_a_large_gather(tmp_path: Path) -> None:
    """A process that has used every core forks workers that use them too."""
    packed_folder(tmp_path, make_documents([300_000]), 256, 1000, batch_rows=512)
    order = load_order(tmp_path / "order.yaml")
    expected = order.batch(1)
    assert (next(iter(OrderLoader(order, start=1, workers=1))).numpy() == expected).all()
