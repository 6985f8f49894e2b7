"""Token stores: the format byte for byte, shards cut anywhere, and a clear error for every kind of damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.tokens import (
    DTYPE_CODES,
    LocalBytes,
    StoreWriter,
    dtype_for_vocab,
    find_shards,
    open_store,
    read_index,
    shard_names,
    write_index,
)
from tests.shards import split_store

TWO_DOCUMENTS = (
    "4d4d4944494458000001000000000000000802000000000000000300000000000000030000000200000000000000000000000600000000000000"
    "000000000000000001000000000000000200000000000000"
)


def builder_bytes(documents: list[list[list[int]]], code: int, form: str) -> tuple[bytes, bytes]:
    """(.bin, .idx) the obvious way: documents of sequences, one struct.pack per number."""
    body, sizes, pointers, doc_idx = b"", [], [], [0]
    for document in documents:
        for sequence in document:
            pointers.append(len(body))
            sizes.append(len(sequence))
            body += b"".join(struct.pack(form, t) for t in sequence)
        doc_idx.append(len(sizes))
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(doc_idx))
    index += b"".join(struct.pack("<i", s) for s in sizes) + b"".join(struct.pack("<q", p) for p in pointers)
    return body, index + b"".join(struct.pack("<q", d) for d in doc_idx)


def write(prefix: Path, documents: list[list[int]], dtype: object = np.uint16) -> Path:
    with StoreWriter(prefix, dtype) as out:
        for document in documents:
            out.add_document(document)
    return prefix


def test_the_published_vector(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2, 3], [4, 5]])
    assert (tmp_path / "a.idx").read_bytes().hex() == TWO_DOCUMENTS
    assert (tmp_path / "a.bin").read_bytes() == np.array([1, 2, 3, 4, 5], "<u2").tobytes()


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 127), max_size=6), max_size=12),
    code=st.sampled_from([1, 2, 3, 4, 5, 8]),
)
def test_writer_equals_the_obvious_builder(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], code: int
) -> None:
    folder = tmp_path_factory.mktemp("w")
    with StoreWriter(folder / "a", DTYPE_CODES[code]) as out:
        for document in documents:
            out.add_document(np.array(document, dtype=np.int64))
    form = {1: "<B", 2: "<b", 3: "<h", 4: "<i", 5: "<q", 8: "<H"}[code]
    body, index = builder_bytes([[d] for d in documents], code, form)
    assert ((folder / "a.bin").read_bytes(), (folder / "a.idx").read_bytes()) == (body, index)
    if body:
        store = open_store(folder / "a")
        assert [s.tolist() for s in store] == documents
        assert store.doc_idx[-1] == len(store) and store.dtype == DTYPE_CODES[code]


def test_many_documents_at_once_are_the_same_file(tmp_path: Path) -> None:
    documents = [[1, 2, 3], [], [4], [5, 6]]
    write(tmp_path / "one", documents)
    with StoreWriter(tmp_path / "many") as out:
        out.add_documents(np.array([1, 2, 3, 4], np.uint16), [3, 0, 1])
        out.add_documents([5, 6], [2])
    for end in (".bin", ".idx"):
        assert (tmp_path / f"one{end}").read_bytes() == (tmp_path / f"many{end}").read_bytes()


def test_reading_parts(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a", [[1, 2, 3], [], [4, 5]]))
    assert len(store) == 3 and store.n_tokens == 5
    assert store.get(0, 1).tolist() == [2, 3] and store.get(0, 1, 1).tolist() == [2] and store[1].tolist() == []
    assert store[-1].tolist() == [4, 5] and store.tokens(2, 4).tolist() == [3, 4]
    assert not store[0].flags.writeable
    for bad in (
        lambda: store[3], lambda: store[-4], lambda: store.get(0, 2, 2), lambda: store.get(0, -1),
        lambda: store.tokens(0, 6),
    ):
        with pytest.raises(RequestError):
            bad()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12), stride=st.integers(1, 40))
def test_shards_cut_anywhere_even_within_a_token(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], stride: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    documents = [[100 * k + j for j in range(n)] for k, n in enumerate(sizes)]
    if not sum(sizes):
        return
    write(folder / "a", documents)
    shards = split_store(folder / "a.bin", folder, stride)
    whole = (folder / "a.bin").read_bytes()
    (folder / "a.bin").unlink()
    assert find_shards(folder / "a") == shards and b"".join(p.read_bytes() for p in shards) == whole
    store = open_store(folder / "a")
    assert [d.tolist() for d in store] == documents
    source, length, target = np.array([1, 0]), np.array([len(whole) - 1, 1]), np.array([1, 0])
    out = np.zeros(len(whole), dtype=np.uint8)
    store.data.gather(source, length, target, out)
    assert out.tobytes() == whole


def test_both_shard_numberings_are_read(tmp_path: Path) -> None:
    assert shard_names("document", 21)[-1] == "document-00020-of-00020.bin"
    write(tmp_path / "a", [list(range(10))])
    for path in split_store(tmp_path / "a.bin", tmp_path, 8):
        path.rename(path.with_name(path.name.replace("of-00002", "of-00003")))
    (tmp_path / "a.bin").unlink()
    assert open_store(tmp_path / "a")[0].tolist() == list(range(10))


def test_the_published_preshuffled_index_opens(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.uint16)
    rows.tofile(tmp_path / "document.bin")
    write_index(tmp_path / "document.idx", np.uint16, np.full(4, 3), np.array([0]))
    store = open_store(tmp_path / "document")
    assert len(store) == 4 and store.doc_idx.tolist() == [0] and store[3].tolist() == [9, 10, 11]


def test_code_six_is_float32_as_in_gpt_neox(tmp_path: Path) -> None:
    write_index(tmp_path / "f.idx", "float32", np.array([2]), np.array([0, 1]))
    assert (tmp_path / "f.idx").read_bytes()[17] == 6
    assert read_index(tmp_path / "f.idx").dtype.name == "float32"


def test_mode_bytes_of_the_multimodal_variant_are_allowed(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2], [3]])
    (tmp_path / "a.idx").write_bytes((tmp_path / "a.idx").read_bytes() + b"\x00\x00")
    assert open_store(tmp_path / "a")[1].tolist() == [3]


def test_dtype_for_vocab() -> None:
    assert [dtype_for_vocab(v).name for v in (50_277, 65_499, 65_500, None)] == ["uint16", "uint16", "int32", "int32"]


def edit(path: Path, at: int, data: bytes) -> None:
    body = bytearray(path.read_bytes())
    body[at : at + len(data)] = data
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda i, b: edit(i, 0, b"X"), "begins with"),
        (lambda i, b: edit(i, 0, b"TNTIDX\x00\x00"), "legacy"),
        (lambda i, b: edit(i, 9, struct.pack("<Q", 2)), "version 2"),
        (lambda i, b: edit(i, 17, b"\x09"), "dtype code 9"),
        (lambda i, b: edit(i, 17, b"\x00"), "dtype code 0"),
        (lambda i, b: edit(i, 17, b"\x04"), "pointers must be monotone"),
        (lambda i, b: edit(i, 18, struct.pack("<Q", 3)), "truncated"),
        (lambda i, b: edit(i, 18, struct.pack("<Q", 1 << 62)), "truncated"),
        (lambda i, b: edit(i, 26, struct.pack("<Q", 2)), "longer than it says"),
        (lambda i, b: i.write_bytes(i.read_bytes()[:-1]), "truncated"),
        (lambda i, b: i.write_bytes(i.read_bytes()[:20]), "truncated"),
        (lambda i, b: i.write_bytes(b""), "truncated"),
        (lambda i, b: edit(i, 34, struct.pack("<i", -3)), "length -3"),
        (lambda i, b: edit(i, 34, struct.pack("<i", 4)), "monotone"),
        (lambda i, b: edit(i, 42, struct.pack("<q", 8)), "monotone"),
        (lambda i, b: edit(i, 58, struct.pack("<q", 1)), "document index"),
        (lambda i, b: edit(i, 66, struct.pack("<q", 9)), "document index"),
        (lambda i, b: b.write_bytes(b.read_bytes()[:-2]), "the .bin has 8; it is truncated"),
        (lambda i, b: b.write_bytes(b.read_bytes() + b"\0\0"), "longer than its index"),
        (lambda i, b: b.unlink(), "no such file"),
        (lambda i, b: i.unlink(), "no such index"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, says: str) -> None:
    write(tmp_path / "a", [[1, 2, 3], [4, 5]])
    damage(tmp_path / "a.idx", tmp_path / "a.bin")  # type: ignore[operator]
    with pytest.raises(DataError, match=says):
        open_store(tmp_path / "a")


def test_shards_missing_or_of_the_wrong_size(tmp_path: Path) -> None:
    write(tmp_path / "a", [list(range(50))])
    shards = split_store(tmp_path / "a.bin", tmp_path, 30)
    (tmp_path / "a.bin").unlink()
    kept = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(DataError, match="shard 00001 of 00003 is missing"):
        open_store(tmp_path / "a")
    shards[1].write_bytes(kept[:-1])
    with pytest.raises(DataError, match=r"00001-of-00003\.bin: 29 bytes, but shard 0 has 30"):
        open_store(tmp_path / "a")
    shards[1].write_bytes(kept)
    shards[3].write_bytes(shards[3].read_bytes()[:-2])
    with pytest.raises(DataError, match="truncated"):
        open_store(tmp_path / "a")
    shards[3].unlink()
    with pytest.raises(DataError, match=r"truncated|missing"):
        open_store(tmp_path / "a")


def test_the_writer_refuses_what_would_wrap_around(tmp_path: Path) -> None:
    wrong = (
        ([70_000], "do not fit uint16"), ([-1], "do not fit uint16"), ([1.5], "whole numbers"),
        ([[1]], "one-dimensional")
    )
    for tokens, says in wrong:
        with pytest.raises(RequestError, match=says), StoreWriter(tmp_path / "a") as out:
            out.add_document(tokens)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(RequestError, match="sum to 3"), StoreWriter(tmp_path / "a") as out:
        out.add_documents([1, 2], [1, 2])
    with pytest.raises(DataError, match="sequence lengths must be 0 to 2147483647"):
        write_index(tmp_path / "b.idx", np.uint16, np.array([1 << 31]), np.array([0, 1]))
    with pytest.raises(RequestError, match="cannot be stored"):
        StoreWriter(tmp_path / "a", "complex64")
    with pytest.raises(RequestError, match="not open"):
        StoreWriter(tmp_path / "a").add_document([1])


def test_an_error_while_writing_leaves_the_old_store(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2, 3]])
    with pytest.raises(RuntimeError), StoreWriter(tmp_path / "a") as out:
        out.add_document([9])
        raise RuntimeError("stop")
    assert open_store(tmp_path / "a")[0].tolist() == [1, 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.idx"]


def test_reading_past_the_end_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"abc")
    data = LocalBytes([tmp_path / "x.bin"])
    assert data.read(1, 3).tobytes() == b"bc" and data.read(3, 3).size == 0
    with pytest.raises(DataError, match="there are 3"):
        data.read(1, 4)
