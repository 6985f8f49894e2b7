"""Every reader of a file, on any bytes: what can be read is read, and only the package's own errors come out."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import DataError, PythiaToolsError
from pythia_tools.tokens import StoreWriter, open_store, open_tokenizer
from pythia_tools.tokens.documents import expand_inputs, read_documents
from pythia_tools.tokens.tokenize import read_provenance

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINES = b'{"text": "one", "id": 1}\n{"text": "two"}\n"three"\n'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=10,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A readable file of every kind."""
    import zstandard

    folder = tmp_path_factory.mktemp("good")
    pq.write_table(pa.Table.from_pylist([{"text": "one", "n": 1}, {"text": "two", "n": None}]), folder / "a.parquet")
    return {
        "a.jsonl": LINES, "a.jsonl.gz": gzip.compress(LINES), "a.jsonl.zst": zstandard.compress(LINES),
        "a.parquet": (folder / "a.parquet").read_bytes(), "a.txt.gz": gzip.compress(b"text"),
    }


def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes cut off, changed or replaced."""
    how = draw(st.sampled_from(["cut", "flip", "other"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if how == "cut":
        return data[:at]
    return draw(st.binary(max_size=60)) if how == "other" else data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


@QUICK
@given(data=st.data(), name=st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt.gz"]))
def test_documents(tmp_path: Path, good: dict[str, bytes], data: st.DataObject, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(st.composite(spoilt)(good[name])))
    try:
        for document in read_documents(path):
            assert isinstance(document.text, str) and isinstance(document.id, str)
    except PythiaToolsError as error:
        assert str(path) in str(error)


@QUICK
@given(value=JSON, key=st.sampled_from(["text", "id", ""]))
def test_records(tmp_path: Path, value: Any, key: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(value) + "\n")
    try:
        for document in read_documents(tmp_path / "a.jsonl", text_key=key, id_key=key or None):
            assert isinstance(document.text, str)
    except PythiaToolsError as error:
        assert "record 1" in str(error)


ODD_LINES = ["[" * 100_000, "9" * 5000, '{"text": ' + "9" * 5000 + "}", '{"text": "\\ud800"}', "\ufeff1"]


@pytest.mark.parametrize("line", ODD_LINES)
def test_odd_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line, errors="surrogatepass")
    try:
        assert [d.text for d in read_documents(tmp_path / "a.jsonl")] == ["\ud800"]
    except DataError as error:
        assert "a.jsonl" in str(error)


@pytest.mark.parametrize("odd", ["folder", "denied"])
def test_odd_inputs(tmp_path: Path, odd: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").mkdir()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "in" / "dataset_dict.json").write_text('{"splits": 3}' if odd == "denied" else "{")
    with pytest.raises(PythiaToolsError):
        expand_inputs([tmp_path / "in"])


@QUICK
@given(data=st.data(), end=st.sampled_from([".idx", ".bin", ".json", ".documents.parquet"]))
def test_stores(tmp_path: Path, data: st.DataObject, end: str) -> None:
    with StoreWriter(tmp_path / "a") as out:
        out.add_documents(np.arange(9), [4, 0, 5])
    for other, text in ((".json", b"{}"), (".documents.parquet", b"")):
        (tmp_path / f"a{other}").write_bytes(text)
    path = tmp_path / f"a{end}"
    path.write_bytes(data.draw(st.composite(spoilt)(path.read_bytes() or b"\0")))
    try:
        store = open_store(tmp_path / "a")
        assert sum(len(d) for d in store) == store.n_tokens
    except PythiaToolsError:
        pass
    if end == ".documents.parquet":
        with pytest.raises(DataError, match=r"a\.documents\.parquet"):
            read_provenance(tmp_path / "a")


@QUICK
@given(
    count=st.integers(0, 3), code=st.integers(0, 9), sizes=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    pointers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), docs=st.lists(st.integers(-5, 5), max_size=3),
)
def test_indexes(
    tmp_path: Path, count: int, code: int, sizes: list[int], pointers: list[int], docs: list[int]
) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(40))
    n = min(len(sizes), len(pointers))
    body = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, n if count else count, len(docs))
    body += np.array(sizes[:n], "<i4").tobytes() + np.array(pointers[:n], "<i8").tobytes()
    (tmp_path / "a.idx").write_bytes(body + np.array(docs, "<i8").tobytes())
    try:
        for sequence in open_store(tmp_path / "a"):
            assert sequence.nbytes <= 40
    except PythiaToolsError:
        pass


@pytest.mark.parametrize("end", [".bin", ".idx", ".json", ".documents.parquet"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, end: str) -> None:
    with StoreWriter(tmp_path / "a") as out:
        out.add_document([1, 2])
    for other in (".json", ".documents.parquet"):
        (tmp_path / f"a{other}").write_text("{}")
    (tmp_path / f"a{end}").unlink()
    (tmp_path / f"a{end}").mkdir()
    if end == ".documents.parquet":
        with pytest.raises(DataError):
            read_provenance(tmp_path / "a")
    else:
        with pytest.raises(DataError):
            open_store(tmp_path / "a")


@QUICK
@given(value=st.one_of(JSON, st.fixed_dictionaries({"model": JSON, "added_tokens": JSON, "version": st.just("1.0")})),
       config=JSON)
def test_tokenizers(tmp_path: Path, value: Any, config: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        open_tokenizer(tmp_path)
