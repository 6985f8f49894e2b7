"""Index maps: the published vectors, and properties against slow, obvious implementations."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.order import (
    IndexMaps,
    MapName,
    build_index_maps,
    find_maps,
    load_maps,
    map_files,
    plan_epochs,
    rebuild_shuffles,
    save_maps,
    verify_maps,
)
from pythia_tools.order.map_files import verify_shuffle, verify_starts, zero_runs
from pythia_tools.order.shuffle_kernels import LegacyShuffler

SIZES = [5, 3, 7, 1, 9, 4]
ROWS_A = [
    [41, 42, 43, 44, 45], [20, 21, 22, 23, 24], [52, 53, 0, 1, 2], [2, 3, 4, 40, 41], [11, 12, 50, 51, 52],
    [45, 46, 47, 48, 30], [24, 25, 26, 10, 11],
]


def slow_maps(
    sizes: list[int], length: int, seed: int, num_samples: int, documents: list[int], *, megatron: bool = False,
) -> IndexMaps:
    """The algorithm as one would write it down: token by token, with numpy's own shuffle."""
    rng = np.random.RandomState(seed)
    tokens = sum(sizes[d] for d in documents)
    epochs = 1
    while (epochs * tokens - 1) // length < num_samples:
        epochs += 1
    rows = (epochs * tokens - 1) // length
    before = ((epochs - 1) * tokens - 1) // length
    apart = megatron and epochs > 1 and num_samples - before < int(0.80 * ((tokens - 1) // length))

    def shuffled(values: np.ndarray) -> np.ndarray:
        rng.shuffle(values)
        return values

    copies = np.array(documents * epochs, dtype=np.int32)
    n = len(documents)
    cut = (epochs - 1) * n
    doc_idx = np.concatenate([shuffled(copies[:cut]), shuffled(copies[cut:])]) if apart else shuffled(copies)
    owner = [(slot, offset) for slot, d in enumerate(doc_idx) for offset in range(sizes[d])]
    sample_idx = np.array([(0, 0)] + [owner[k * length] for k in range(1, rows + 1)], dtype=np.int32)
    order = np.arange(rows, dtype=np.uint32)
    shuffle_idx = np.concatenate([shuffled(order[:before]), shuffled(order[before:])]) if apart else shuffled(order)
    return IndexMaps(doc_idx, sample_idx, shuffle_idx)


def assert_same(came: IndexMaps, expected: IndexMaps) -> None:
    for a, b in zip(came, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all()


def test_vector_a_one_epoch() -> None:
    maps = build_index_maps(SIZES, 4, 1234, 5)
    assert maps.doc_idx.tolist() == [2, 1, 5, 0, 4, 3]
    assert maps.sample_idx.tolist() == [[0, 0], [0, 4], [1, 1], [2, 2], [3, 2], [4, 1], [4, 5], [5, 0]]
    assert maps.shuffle_idx.tolist() == [5, 0, 3, 4, 2, 6, 1]
    assert [m.dtype.str for m in maps] == ["<i4", "<i4", "<u4"]


def test_vector_b_two_epochs_are_mixed() -> None:
    maps = build_index_maps(SIZES, 4, 1234, 8)
    assert maps.doc_idx.tolist() == [1, 2, 5, 2, 3, 4, 1, 0, 4, 5, 0, 3]
    assert maps.sample_idx.tolist() == [
        [0, 0], [1, 1], [1, 5], [2, 2], [3, 2], [3, 6], [5, 2], [5, 6], [6, 1], [7, 2], [8, 1], [8, 5], [9, 0], [10, 0],
        [10, 4],
    ]
    assert maps.shuffle_idx.tolist() == [7, 11, 2, 3, 1, 9, 5, 4, 0, 8, 6, 10, 13, 12]


def test_vector_c_by_digest() -> None:
    maps = build_index_maps(np.random.RandomState(7).randint(1, 50, 1000), 64, 1234, 600)
    assert plan_epochs(25_346, 64, 600) == (2, 792)
    assert maps.sample_idx.shape == (793, 2) and maps.sample_idx[-1].tolist() == [1999, 16]
    assert maps.doc_idx[:8].tolist() == [748, 934, 33, 243, 928, 598, 837, 709]
    assert maps.shuffle_idx[:8].tolist() == [718, 381, 749, 361, 654, 60, 630, 666]
    assert [hashlib.sha256(m.tobytes()).hexdigest() for m in maps] == [
        "98546a5fad6df2a14e551447dce52fba6d4e1b94cd9085b88cad93d545251611",
        "503e22ea63a18951102a0c866f6eae153685577008cba9b360598f55a5415bf5",
        "110559cb0dd2b57a82678e85d7b75c882dc71892962f3cdfa514358701166430",
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=14).filter(any), length=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1), num_samples=st.integers(1, 40), megatron=st.booleans(), data=st.data(),
)
def test_maps_equal_the_obvious_ones(
    sizes: list[int], length: int, seed: int, num_samples: int, megatron: bool, data: st.DataObject,
) -> None:
    documents = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=10, unique=True) | st.none())
    chosen = list(range(len(sizes))) if documents is None else documents
    if not sum(sizes[d] for d in chosen):
        with pytest.raises(RequestError, match="no tokens"):
            build_index_maps(sizes, length, seed, num_samples, documents)
        return
    came = build_index_maps(sizes, length, seed, num_samples, documents, separate_last_epoch=megatron)
    assert_same(came, slow_maps(sizes, length, seed, num_samples, chosen, megatron=megatron))
    if documents is None:
        verify_maps(came, np.array(sizes), length)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    kind=st.sampled_from(["i4", "u4", "i8"]),
)
def test_shuffles_in_turn_equal_numpys(seed: int, sizes: list[int], kind: str) -> None:
    ours, theirs = LegacyShuffler(seed), np.random.RandomState(seed)
    for n in sizes:
        a = np.arange(n, dtype=kind)
        b = a.copy()
        ours.shuffle(a)
        theirs.shuffle(b)
        assert (a == b).all()


def test_the_shuffles_depend_on_counts_alone() -> None:
    maps = build_index_maps(SIZES, 4, 1234, 8)
    doc_idx, shuffle_idx = rebuild_shuffles(6, 2, 14, 1234)
    assert (doc_idx == maps.doc_idx).all() and (shuffle_idx == maps.shuffle_idx).all()


def test_one_document_and_empty_documents() -> None:
    assert_same(build_index_maps([9], 4, 3, 2), slow_maps([9], 4, 3, 2, [0]))
    assert_same(build_index_maps([0, 0, 9, 0], 4, 3, 5), slow_maps([0, 0, 9, 0], 4, 3, 5, [0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], 4, 1, 1), "non-empty"),
        (([0, 0], 4, 1, 1), "no tokens"),
        (([1.5], 4, 1, 1), "whole numbers"),
        (([-1, 5], 4, 1, 1), "go from -1"),
        (([1 << 31], 4, 1, 1), r"int32\), these go"),
        ((SIZES, 0, 1, 1), "seq_length must be at least 1"),
        ((SIZES, 4, 1, 0), "num_samples must be at least 1"),
        ((SIZES, 4, -1, 1), "seed must be"),
        ((SIZES, 4, 1 << 32, 1), "seed must be"),
        ((SIZES, 4, 1, 5, [6]), "document numbers must be 0 to 5"),
        ((SIZES, 4, 1, 5, []), "document numbers must be a non-empty list"),
        (([1, 1], 1, 1, 1 << 32), "pass int32"),
    ],
)
def test_wrong_requests(arguments: tuple, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RequestError, match=says):
        build_index_maps(*arguments)


def test_token_counts_beyond_int32_do_not_wrap() -> None:
    size = (1 << 31) - 1
    maps = build_index_maps([size] * 3, 1 << 28, 1, 20)
    for (slot, offset), k in zip(maps.sample_idx.tolist(), range(len(maps.sample_idx)), strict=True):
        assert slot * size + offset == k << 28
    assert len(maps.shuffle_idx) == (3 * size - 1) >> 28


@pytest.mark.parametrize("infix", ["", "_packedpi", "_packedpi_ac"])
def test_files_carry_the_published_names(tmp_path: Path, infix: str) -> None:
    name = MapName(tmp_path / "pile_20B_tokenizer_text_document", 8, 4, 1234, infix=infix)
    maps = build_index_maps(SIZES, 4, 1234, 8)
    paths = save_maps(maps, name)
    assert paths["doc"].name == f"pile_20B_tokenizer_text_document_train_0_indexmap_8ns_4sl_1234s{infix}_doc_idx.npy"
    assert find_maps(tmp_path) == [name] == find_maps(tmp_path, "pile_20B_tokenizer_text_document")
    assert find_maps(tmp_path, "other") == []
    assert_same(load_maps(name), maps)
    assert np.load(paths["sample"], allow_pickle=False).dtype == np.int32


def test_damaged_maps_are_refused(tmp_path: Path) -> None:
    maps = build_index_maps([3] * 100, 4, 1234, 60)
    name = MapName(tmp_path / "p", 60, 4, 1234)
    paths = save_maps(maps, name)
    half = maps.shuffle_idx.copy()
    half[20:] = 0
    assert zero_runs(half)[-1] == (20, len(half))
    np.save(paths["shuffle"], half)
    with pytest.raises(DataError, match=f"entries 20 to {len(half) - 1} are zero"):
        load_maps(name)
    np.save(paths["shuffle"], maps.shuffle_idx[:-1])
    with pytest.raises(DataError, match="different orders"):
        load_maps(name)
    np.save(paths["shuffle"], maps.shuffle_idx.astype(np.float32))
    with pytest.raises(DataError, match="not a shuffle map"):
        load_maps(name)
    paths["shuffle"].write_bytes(paths["doc"].read_bytes()[:150])
    with pytest.raises(DataError, match="truncated or damaged"):
        load_maps(name)
    paths["shuffle"].unlink()
    with pytest.raises(DataError, match="no such index map"):
        load_maps(name)
    repeat = maps.shuffle_idx.copy()
    repeat[3] = repeat[4]
    with pytest.raises(DataError, match=r"entry 4 .* is out of range or a repeat"):
        verify_shuffle(repeat)


def test_maps_of_other_documents_are_noticed() -> None:
    maps = build_index_maps(SIZES, 4, 1234, 8)
    verify_maps(maps, np.array(SIZES), 4)
    with pytest.raises(DataError, match="belong to other documents"):
        verify_maps(maps, np.array([5, 3, 7, 1, 4, 9]), 4)
    with pytest.raises(DataError, match="belong to other documents"):
        verify_maps(maps._replace(doc_idx=np.array([1] * 12, dtype=np.int32)), np.array(SIZES), 4)
    with pytest.raises(DataError, match="the doc map has documents 0 to 5, the store 0 to 4"):
        verify_maps(maps, np.array(SIZES[:5]), 4)
    alike = build_index_maps([7] * 6, 4, 1234, 12)
    alike.doc_idx[0] = (alike.doc_idx[0] + 1) % 6  # of the same length, so that every row starts where it should
    with pytest.raises(DataError, match=r"is met 3 times, document \d 1 times"):
        verify_maps(alike, np.array([7] * 6), 4)


def test_maps_of_any_part_of_a_corpus_are_right() -> None:
    """Whole corpora and parts, one epoch and several, both ways of shuffling the last: none is condemned."""
    rng = np.random.default_rng(81)
    for _ in range(81):
        sizes = rng.integers(0, 40, rng.integers(2, 60))
        a, b = sorted(rng.choice(len(sizes) + 1, 2, replace=False).tolist())
        if sizes[a:b].sum() < 2:
            continue
        length, samples = int(rng.integers(1, 9)), int(rng.integers(1, 400))
        apart = bool(rng.integers(2))
        maps = build_index_maps(sizes, length, 1234, samples, np.arange(a, b), separate_last_epoch=apart)
        verify_maps(maps, sizes, length)


def test_names_of_both_routes_are_known(tmp_path: Path) -> None:
    """GPT-NeoX names maps train_0 … for train-data-paths, and train, valid, test for one data-path that is split."""
    maps = build_index_maps(SIZES, 4, 1234, 8)
    for stem in ("corpus_text_document", "my_train"):
        for part in ("train", "valid", "test", "train_0", "valid_12"):
            for infix in ("", "_packedpi", "_packedpi_ac"):
                path = tmp_path / f"{stem}_{part}_indexmap_8ns_4sl_1234s{infix}_doc_idx.npy"
                path.touch()
                assert find_maps(tmp_path) == [MapName(tmp_path / stem, 8, 4, 1234, part, infix)]
                path.unlink()
    save_maps(maps, MapName(tmp_path / "P", 8, 4, 1234, "train"))
    assert [m.path("doc").name for m in find_maps(tmp_path, "P")] == ["P_train_indexmap_8ns_4sl_1234s_doc_idx.npy"]


def test_maps_of_foreign_byte_order_are_read(tmp_path: Path) -> None:
    maps = build_index_maps(SIZES, 4, 1234, 8)
    name = MapName(tmp_path / "P", 8, 4, 1234)
    for path, values in zip(name.paths.values(), maps, strict=True):
        np.save(path, values.astype(values.dtype.newbyteorder(">")))
    for ours, theirs in zip(load_maps(name), maps, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_map_is_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    maps = build_index_maps(SIZES, 4, 1234, 8)
    name = MapName(tmp_path / "P", 8, 4, 1234)
    path = save_maps(maps, name)[data.draw(st.sampled_from(["doc", "sample", "shuffle"]))]
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(data.draw(st.sampled_from([bytes(body), bytes(body[: data.draw(st.integers(0, len(body)))])])))
    with contextlib.suppress(DataError):
        verify_maps(load_maps(name), np.array(SIZES), 4)


def test_maps_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(EnvironmentFailure, match=r"of memory, .* are free; ask for less"):
        build_index_maps([2_000_000_000], 1, 1234, 3 * 10**15)


def test_row_starts_compared_in_pieces_name_the_first_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_files, "PARALLEL_ROWS", 1)
    monkeypatch.setenv("PYTHIA_TOOLS_THREADS", "5")
    rng = np.random.default_rng(3)
    sizes = rng.integers(0, 9, 400, dtype=np.int32)
    maps = build_index_maps(sizes, 4, 1234, 380)
    verify_starts(maps, sizes, 4, "maps")
    for row in (0, 1, *rng.integers(0, len(maps.sample_idx), 40).tolist()):
        for column, wrong in ((0, 1), (1, 1), (0, -1), (0, 1 << 20), (1, -9)):
            damaged = maps.sample_idx.copy()
            damaged[row:, column] += wrong
            with pytest.raises(DataError, match=f"row {row} of the sample map"):
                verify_starts(maps._replace(sample_idx=damaged), sizes, 4, "maps")
