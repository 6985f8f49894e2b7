"""Whatever plays `Rows` means the same by a batch, a step and a checkpoint, and so does what is counted from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from order_stores import packed_folder, preshuffled_store

from pythia_tools.analyses.memorization import select_rows
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import Ngram, count_terms, document_exposures, seen
from pythia_tools.order import ArrayRows, OrderLoader, Rows, load_order
from pythia_tools.overlays import Overlay, RemoveRows, Reserve

LENGTH, BATCH, ROWS = 7, 3, 20


@pytest.fixture(params=["array", "preshuffled", "packed", "overlay"])
def order(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    """20 rows of 8 distinct ids, 3 a step: 6 steps, and two rows that no step consumes."""
    rows = np.arange(1, ROWS * (LENGTH + 1) + 1, dtype=np.uint16).reshape(ROWS, LENGTH + 1)
    if request.param == "array":
        return ArrayRows(rows, BATCH)
    if request.param == "packed":
        packed_folder(tmp_path, [list(range(1, ROWS * LENGTH + 2))], LENGTH, ROWS, batch_rows=BATCH)
        return load_order(tmp_path)
    stored = load_order(preshuffled_store(tmp_path / "rows", rows), batch_rows=BATCH)
    if request.param == "preshuffled":
        return stored
    return Overlay(stored, RemoveRows([0], Reserve([0], ArrayRows(rows[:1] + np.uint16(500)))))


def test_batch_n_is_rows_bn_to_bn_plus_b_and_a_checkpoint_has_consumed_the_batches_before_it(order: Rows) -> None:
    assert (order.n_rows, order.steps, order.batch_rows, order.row_tokens) == (ROWS, ROWS // BATCH, BATCH, LENGTH + 1)
    every = order.rows(0, ROWS)
    assert len(np.unique(every[:, 1])) == ROWS and every.dtype == order.dtype
    for step in range(order.steps):
        assert (order.batch(step) == every[BATCH * step : BATCH * (step + 1)]).all()
    assert order.step_of(range(ROWS)).tolist() == [row // BATCH for row in range(ROWS)]
    assert [(a, len(rows)) for a, rows in order.chunks(rows=8)] == [(0, 8), (8, 8), (16, 4)]
    assert (np.concatenate([rows for _, rows in order.chunks(2, 19, rows=5)]) == every[2:19]).all()
    room = np.empty((5, LENGTH + 1), dtype=order.dtype)
    order.rows_into(room, 4)
    assert (room == every[4:9]).all() and (order.take([9, 0, 9]) == every[[9, 0, 9]]).all()
    served = [tokens.numpy() for tokens in OrderLoader(order)]
    assert (np.concatenate(served) == every[: BATCH * order.steps]).all()


def test_what_is_counted_up_to_a_checkpoint_is_what_its_batches_hold(order: Rows) -> None:
    """The id in column 1 of each row occurs once: row r is met by checkpoint r // B + 1, and by none before."""
    marks = order.rows(0, ROWS)[:, 1]
    steps = list(range(order.steps + 1))
    terms = [Ngram((int(m),)) for m in marks]
    table = count_terms(order, terms, steps).pivot(index="term", columns="step", values="exposures")
    found = table.loc[[term.name for term in terms]].to_numpy()
    expected = [[int(row // BATCH < step) for step in steps] for row in range(ROWS)]
    assert found.tolist() == expected, "a checkpoint at step N has consumed batches 0 to N-1, all of their rows"
    for row in range(BATCH * order.steps):
        assert seen(order, [int(marks[row])])[["step", "row"]].values.tolist() == [[row // BATCH, row]]
    assert len(seen(order, [int(marks[-1])])) == 0, "rows beyond the last step were not consumed"
    assert select_rows(order, steps=(2, 4)).rows.tolist() == list(range(2 * BATCH, 4 * BATCH))
    assert select_rows(order).rows.tolist() == list(range(BATCH * order.steps))


def test_documents_are_met_with_the_rows_that_hold_them(tmp_path: Path) -> None:
    packed_folder(tmp_path, [list(range(1, ROWS * LENGTH + 2))], LENGTH, ROWS, batch_rows=BATCH)
    order = load_order(tmp_path)
    for step in range(order.steps + 1):
        (table,) = document_exposures(order, step).to_dict("records")
        trained = step * BATCH * LENGTH
        assert (table["seen_0"], table["seen_1"]) == (ROWS * LENGTH + 1 - trained, trained)


def test_requests_beyond_the_rows(order: Rows) -> None:
    room = np.empty((2, LENGTH + 1), dtype=order.dtype)
    for bad, says in (
        (lambda: order.batch(order.steps), "it has batches 0 to 5, of 3 rows each"),
        (lambda: order.batch(-1), "batch -1"),
        (lambda: order.rows(0, ROWS + 1), "it has rows 0:20"), (lambda: order.rows(3, 2), "rows 3:2"),
        (lambda: order.take([ROWS]), "row 20 of order"), (lambda: order.take([0.5]), "must be whole"),
        (lambda: order.rows_into(room, ROWS - 1), "it has rows 0:20"),
        (lambda: order.rows_into(room[:, 1:], 0), "need a contiguous"),
    ):
        with pytest.raises(RequestError, match=says):
            bad()


def test_a_fingerprint_follows_rows_and_steps() -> None:
    rows = np.arange(24).reshape(6, 4)
    prints = {ArrayRows(rows, 2).fingerprint, ArrayRows(rows + 1, 2).fingerprint, ArrayRows(rows, 3).fingerprint}
    assert len(prints) == 3 and ArrayRows(rows.copy(), 2).fingerprint in prints


def test_rows_that_cannot_be_taken_are_not_rows() -> None:
    class Nothing(Rows):
        name = "nothing"

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


def test_a_packed_order_knows_the_document_in_which_a_row_begins(tmp_path: Path) -> None:
    """Every token of a document is its number; a row that begins with a document's last token begins in it."""
    sizes = np.random.default_rng(2).integers(1, 60, 40)
    documents = [[number] * size for number, size in enumerate(sizes.tolist())]
    packed_folder(tmp_path, documents, LENGTH, 200, batch_rows=BATCH)
    order = load_order(tmp_path)
    numbers = np.random.default_rng(3).permutation(order.n_rows)[:90]
    assert order.documents(numbers).tolist() == order.take(numbers)[:, 0].tolist()
    edited = Overlay(order, RemoveRows([0], Reserve([0], ArrayRows(order.rows(0, 1)))))
    assert edited.documents([5]).tolist() == order.take([5])[:, 0].tolist()
    assert ArrayRows(order.rows(0, 4)).documents([3, 1]).tolist() == [-1, -1]
    seen, expected = set(), []
    for place in order.documents(numbers).tolist():
        expected.append(place not in seen)
        seen.add(place)
    assert order.apart(numbers).tolist() == expected and not all(expected)
    assert ArrayRows(order.rows(0, 4)).apart([3, 1, 2]).all() and order.apart([]).shape == (0,)
