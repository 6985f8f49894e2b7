"""Documents and steps: against a slow count of every token, and the two-epoch claim at reduced scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import RequestError
from pythia_tools.counts import document_exposures, documents_of_rows
from pythia_tools.order import DataOrder, build_index_maps, load_order, packed_order
from pythia_tools.tokens import StoreWriter, open_store
from tests.order.order_stores import make_documents, packed_folder, preshuffled_store, slow_rows


def slow_counts(sizes: list[int], maps: object, length: int, rows: int) -> list[list[int]]:
    """How often each token of each document was a label in the first `rows` rows of the order."""
    owner = [(int(d), t) for d in maps.doc_idx for t in range(sizes[d])]  # type: ignore[attr-defined]
    counts = [[0] * n for n in sizes]
    for s in maps.shuffle_idx[:rows].tolist():  # type: ignore[attr-defined]
        for p in range(s * length + 1, s * length + length + 1):
            document, token = owner[p]
            counts[document][token] += 1
    return counts


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=12).filter(lambda s: sum(s) > 1), length=st.integers(1, 9),
    num_samples=st.integers(1, 60), share=st.floats(0, 1),
)
def test_exposures_equal_the_slow_count(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], length: int, num_samples: int, share: float,
) -> None:
    folder = tmp_path_factory.mktemp("e")
    maps = packed_folder(folder, make_documents(sizes), length, num_samples, batch_rows=2)
    order = load_order(folder / "order.yaml")
    step = round(share * order.steps)
    table = document_exposures(order, step)
    counts = slow_counts(sizes, maps, length, 2 * step)
    epochs = len(maps.doc_idx) // len(sizes)
    assert table["document"].tolist() == list(range(len(sizes))) and table["tokens"].tolist() == sizes
    for times in range(epochs + 1):
        assert table[f"seen_{times}"].tolist() == [c.count(times) for c in counts]
    for mean, c in zip(table["mean"], counts, strict=True):
        assert (np.isnan(mean) and not c) or abs(mean - np.mean(c)) < 1e-12


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=10).filter(lambda s: sum(s) > 1), length=st.integers(1, 9),
    num_samples=st.integers(1, 50),
)
def test_rows_are_made_of_their_documents(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], length: int, num_samples: int,
) -> None:
    folder = tmp_path_factory.mktemp("d")
    documents = make_documents(sizes)
    maps = packed_folder(folder, documents, length, num_samples)
    order = load_order(folder / "order.yaml")
    rows = slow_rows(documents, maps, length)
    table = documents_of_rows(order, 0, order.n_rows)
    for piece in table.itertuples():
        text = documents[piece.document][piece.doc_start : piece.doc_start + piece.row_stop - piece.row_start]
        assert rows[piece.row][piece.row_start : piece.row_stop] == text
    assert (table["row_stop"] - table["row_start"]).sum() == order.n_rows * (length + 1)


def test_two_epochs_are_mixed_through_the_whole_run(tmp_path: Path) -> None:
    """The deduplicated Pile at about 1:100,000: the same ratio of tokens to rows, hence the same shares within 1 %."""
    length, rows, batch_rows = 64, 20_480, 64
    tokens = round(rows * length * 207_170_414_058 / (146_432_000 * 2048))
    rng = np.random.default_rng(3)
    sizes = rng.geometric(1 / 50, 40_000)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), tokens)]
    with StoreWriter(tmp_path / "s") as out:
        out.add_documents(np.zeros(sizes.sum(), np.uint16), sizes)
    samples = int(rows * 1.005)
    maps = build_index_maps(sizes, length, 1234, samples)
    order = packed_order(open_store(tmp_path / "s"), maps, length, batch_rows, steps=rows // batch_rows)
    one_epoch = round(order.steps * 98_786 / 143_000)
    assert np.allclose(shares(order, one_epoch), [0.25, 0.50, 0.25], atol=0.01)
    assert np.allclose(shares(order, order.steps), [0.076, 0.400, 0.524], atol=0.01)
    # Megatron-LM's variant, which GPT-NeoX does not have, would have kept the first epoch apart.
    apart = build_index_maps(sizes, length, 1234, samples, separate_last_epoch=True)
    megatron = packed_order(open_store(tmp_path / "s"), apart, length, batch_rows, steps=rows // batch_rows)
    assert shares(megatron, one_epoch)[1] > 0.95


def shares(order: DataOrder, step: int) -> np.ndarray:
    """Share of all tokens seen 0, 1, 2 times by a checkpoint."""
    totals = document_exposures(order, step)[["seen_0", "seen_1", "seen_2"]].sum().to_numpy()
    return totals / totals.sum()


def test_preshuffled_orders_have_no_documents(tmp_path: Path) -> None:
    order = load_order(preshuffled_store(tmp_path / "rows", np.arange(20, dtype=np.uint16).reshape(4, 5)), batch_rows=2)
    for question in (lambda: document_exposures(order, 1), lambda: documents_of_rows(order, 0, 1)):
        with pytest.raises(RequestError, match="use an order with index maps"):
            question()
    packed_folder(tmp_path / "p", make_documents([30, 40]), 4, 5)
    order = load_order(tmp_path / "p" / "order.yaml")
    with pytest.raises(RequestError, match="it has checkpoints 0 to 4"):
        document_exposures(order, 5)
    with pytest.raises(RequestError, match="it has rows 0:17"):
        documents_of_rows(order, 0, 18)
