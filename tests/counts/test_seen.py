"""The inverse of an order: the scan, the index and a slow search agree; nothing straddles rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import write_json
from pythia_tools.counts import build_ngram_index, seen
from pythia_tools.counts.places import forms
from pythia_tools.order import load_order
from tests.order.order_stores import make_documents, packed_folder, preshuffled_store, slow_rows

Hits = list[tuple[int, int]]


def slow_hits(rows: list[list[int]], needle: list[int]) -> Hits:
    m = len(needle)
    return [(r, j) for r, row in enumerate(rows) for j in range(len(row) - m + 1) if row[j : j + m] == needle]


def hits(table: object) -> Hits:
    return list(zip(table["row"].tolist(), table["offset"].tolist(), strict=True))  # type: ignore[index]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(2, 4), min_size=6, max_size=6), min_size=1, max_size=9),
    needle=st.lists(st.integers(2, 5), min_size=1, max_size=6),
)
def test_scan_and_index_equal_the_slow_search(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], needle: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("seen")
    order = load_order(preshuffled_store(folder / "rows", np.array(rows, dtype=np.uint16)), batch_rows=1)
    expected = slow_hits(rows, needle)
    table = seen(order, needle)
    assert hits(table) == expected and table["step"].tolist() == [r for r, _ in expected]
    assert hits(seen(order, needle, index=build_ngram_index(order, folder / "index"))) == expected


def test_what_straddles_two_rows_was_never_seen(tmp_path: Path) -> None:
    rows = np.array([[1, 2, 3, 7, 8], [9, 2, 3, 7, 8], [9, 1, 1, 1, 1]], dtype=np.uint16)
    order = load_order(preshuffled_store(tmp_path / "rows", rows), batch_rows=1)
    index = build_ngram_index(order, tmp_path / "index")
    for options in ({}, {"index": index}, {"index": tmp_path / "index"}):
        assert hits(seen(order, [7, 8, 9], **options)) == []
        assert hits(seen(order, [7, 8], **options)) == [(0, 3), (1, 3)]
        assert hits(seen(order, [1, 1], **options)) == [(2, 1), (2, 2), (2, 3)]
        assert hits(seen(order, [7, 8], steps=(1, 3), **options)) == [(1, 3)]
        assert hits(seen(order, [60_000], **options)) == []


def test_a_packed_order_is_searched_in_training_order(tmp_path: Path) -> None:
    documents = make_documents([40, 7, 90, 31], top=6)
    maps = packed_folder(tmp_path, documents, 8, 20)
    order = load_order(tmp_path / "order.yaml")
    consumed = slow_rows(documents, maps, 8)[: order.steps * order.batch_rows]
    for needle in ([3, 4], documents[2][10:16]):
        table = seen(order, needle)
        assert hits(table) == slow_hits(consumed, needle) and len(table)
        assert table["step"].tolist() == [r // 4 for r, _ in hits(table)]
        assert hits(seen(order, needle, limit=1)) == slow_hits(consumed, needle)[:1]


def test_text_is_looked_up_in_both_forms(tmp_path: Path) -> None:
    tokenizer_file = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "20B_tokenizer.json"
    if not tokenizer_file.is_file():
        pytest.skip("the GPT-NeoX tokenizer is not here")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    ids = tokenizer.encode("I am here. Hello, I am").ids + tokenizer.encode("Hello, I am not a Hello").ids
    row = np.array([(ids * 9)[:40]], dtype=np.uint16)
    order = load_order(preshuffled_store(tmp_path / "rows", row), batch_rows=1)
    needles = [ids.tolist() for ids in forms(order, "Hello, I am", tokenizer)]
    assert needles == [[12092, 13, 309, 717], tokenizer.encode(" Hello, I am").ids]
    table = seen(order, "Hello, I am", tokenizer=str(tokenizer_file))
    found = [(form, slow_hits(row.tolist(), needle)) for form, needle in enumerate(needles)]
    expected = sorted((*hit, form) for form, hits in found for hit in hits)
    assert list(table[["row", "offset", "form"]].itertuples(index=False, name=None)) == expected
    assert set(table["form"]) == {0, 1}
    assert len(forms(order, " Hello", tokenizer)) == 1


def test_wrong_questions(tmp_path: Path) -> None:
    order = load_order(preshuffled_store(tmp_path / "rows", np.arange(20, dtype=np.uint16).reshape(4, 5)), batch_rows=2)
    for query, says in (
        ([], "nothing to look for"), ([70_000], "0 to 65535"), ([-1], "go from -1"),
        (list(range(6)), "longer than a row"),
        ("text", "names no tokenizer"), ([1.5], "nothing to look for"),
    ):
        with pytest.raises(RequestError, match=says):
            seen(order, query)
    with pytest.raises(RequestError, match="it has batches 0 to 1"):
        seen(order, [1], steps=(0, 3))
    index = build_ngram_index(order, tmp_path / "index", steps=(0, 1))
    with pytest.raises(RequestError, match="holds rows 0:2"):
        seen(order, [1], index=index)
    other = load_order(preshuffled_store(tmp_path / "other", np.zeros((4, 5), dtype=np.uint16)), batch_rows=2)
    with pytest.raises(DataError, match="of another order"):
        seen(other, [1], index=index)
    wide = load_order(preshuffled_store(tmp_path / "wide", np.zeros((4, 5), dtype=np.int32)), batch_rows=2)
    for options in ({}, {"index": build_ngram_index(wide, tmp_path / "w")}):
        assert len(seen(wide, [0], **options)) == 20 and not len(seen(wide, [1_000_000], **options))


def test_an_index_of_an_older_kind_is_refused_in_one_line(tmp_path: Path) -> None:
    """`data seen --index` once kept its own format: rows.idx, and an index.json without a format."""
    order = load_order(preshuffled_store(tmp_path / "rows", np.arange(20, dtype=np.uint16).reshape(4, 5)), batch_rows=2)
    facts = {"fingerprint": order.fingerprint, "rows": 4, "row_tokens": 5, "vocabulary": 20}
    write_json(tmp_path / "old" / "index.json", facts)
    with pytest.raises(DataError, match="index format None, this version reads 1; delete the folder and build"):
        seen(order, [1], index=tmp_path / "old")
