"""Splits and layouts: the published examples and slow versions of the samplers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import RequestError
from pythia_tools.order import Layout, num_samples, split_documents


@pytest.mark.parametrize(
    ("split", "count", "ends"),
    [
        ("969, 30, 1", 1000, [0, 969, 999, 1000]), ("969, 30, 1", 1234, [0, 1196, 1233, 1234]),
        ("995,4,1", 777, [0, 773, 776, 777]), ("90/5/5", 11, [0, 9, 10, 11]), ("1", 7, [0, 7, 7, 7]),
    ],
)
def test_split_strings(split: str, count: int, ends: list[int]) -> None:
    assert split_documents(split, count) == ends


@pytest.mark.parametrize("split", ["", "a,b", "0,0,0", "-1,2", "nan,1"])
def test_bad_splits(split: str) -> None:
    with pytest.raises(RequestError, match="split"):
        split_documents(split, 10)


def test_num_samples_of_pythia() -> None:
    assert num_samples(143_000, 1024) == 147_164_160
    assert num_samples(128_000, 1024) == 131_727_360


@settings(max_examples=40, deadline=None)
@given(micro=st.integers(1, 5), world=st.integers(1, 5), accumulation=st.integers(1, 4), steps=st.integers(1, 3))
def test_layouts_equal_the_samplers(micro: int, world: int, accumulation: int, steps: int) -> None:
    """The sequential sampler's blocks of micro × world indices, each rank its own part, `accumulation` per step."""
    layout = Layout(micro * world * accumulation, world, accumulation)
    sampler = iter(range(steps * layout.batch_rows))
    for step in range(steps):
        for micro_step in range(accumulation):
            block = [next(sampler) for _ in range(micro * world)]
            for rank in range(world):
                mine = block[rank * micro : (rank + 1) * micro]
                assert list(range(*layout.span(step, rank, micro_step))) == mine


def test_the_global_step_is_the_same_for_every_public_layout() -> None:
    for world, accumulation in ((32, 1), (64, 1), (64, 2)):
        layout = Layout(1024, world, accumulation)
        spans = [layout.span(3, rank, micro) for rank in range(world) for micro in range(accumulation)]
        assert {row for a, b in spans for row in range(a, b)} == set(range(3 * 1024, 4 * 1024))
    assert Layout(1024, 64, 2).micro_rows == 8


def test_bad_layouts() -> None:
    with pytest.raises(RequestError, match="cannot be divided"):
        Layout(10, 3)
    with pytest.raises(RequestError, match="out of range"):
        Layout(12, 3).span(0, 3)
    with pytest.raises(RequestError, match="at least 1"):
        Layout(12, 0)
