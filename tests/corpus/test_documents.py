"""Every kind of input gives the same documents, in order, with ids and metadata; damage is named by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.tokens.documents import create_jsonl, expand_inputs, read_documents

RECORDS = [
    {"text": "one two", "id": "a", "set": "x"},
    {"text": "", "id": "b", "set": "y"},
    {"text": "drei\u2028vier \U0001f600", "id": "c", "set": "x"},
]


def write(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    return str(path)


def lines() -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in RECORDS)


def as_tuples(documents) -> list[tuple]:  # type: ignore[no-untyped-def]
    return [(d.text, d.id, d.position, d.metadata) for d in documents]


EXPECTED = [(r["text"], r["id"], i, {"set": r["set"]}) for i, r in enumerate(RECORDS)]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    import datasets
    import zstandard

    table = pa.Table.from_pylist(RECORDS)
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=2)
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    return {
        "plain": write(tmp_path / "d.jsonl", lines()),
        "gz": write(tmp_path / "d.jsonl.gz", gzip.compress(lines())),
        "zst": write(tmp_path / "d.jsonl.zst", zstandard.compress(lines()) + zstandard.compress(b"")),
        "parquet": str(tmp_path / "d.parquet"),
        "dataset": f"dataset:{tmp_path / 'saved'}",
    }


def test_every_kind_gives_the_same_documents(sources: dict[str, str]) -> None:
    for source in sources.values():
        assert as_tuples(read_documents(source)) == EXPECTED, source
        assert as_tuples(read_documents(source, skip=2)) == EXPECTED[2:], source


def test_text_files_and_folders_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "2.txt", b"second")
    write(tmp_path / "b" / "1.md", b"first \xff byte")
    write(tmp_path / "b" / "skip.bin", b"no")
    write(tmp_path / "z.jsonl", lines())
    found = [d for source in expand_inputs([tmp_path]) for d in read_documents(source)]
    assert [d.text for d in found] == ["first \udcff byte", "second", *(r["text"] for r in RECORDS)]
    assert found[0].id == str(tmp_path / "b" / "1.md")


def test_other_fields(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", b'{"content": "x", "url": 7}\n\n{"content": "\\ud800", "url": 8}\n"bare"\n')
    without = write(tmp_path / "e.jsonl", Path(source).read_bytes()[:-7])
    found = list(read_documents(without, text_key="content", id_key="url"))
    assert [(d.text, d.id, d.position) for d in found] == [("x", "7", 0), ("\ud800", "8", 1)]
    assert next(read_documents(source, text_key="content")).id == f"{source}:0"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"text": "a"}\n{"text": "b', r"d\.jsonl, line 2: not valid JSON"),
        (b'{"body": "a"}\n', r"record 1: no text in field 'text' \(it has: body\); name the field with --text-key"),
        (b'{"text": 3}\n', "record 1: no text in field 'text'"),
        (b"[1]\n", "record 1: no text in field 'text' \\(it has: list\\)"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read_documents(write(tmp_path / "d.jsonl", raw)))


def test_cut_off_archives_are_named(tmp_path: Path) -> None:
    import zstandard

    big = lines() * 3000
    for name, packed in (("d.jsonl.gz", gzip.compress(big)), ("d.jsonl.zst", zstandard.compress(big))):
        with pytest.raises(DataError, match=r"damaged or cut off|not valid JSON"):
            list(read_documents(write(tmp_path / name, packed[: len(packed) - 7])))
    with pytest.raises(DataError, match="not a readable parquet file"):
        list(read_documents(write(tmp_path / "d.parquet", b"PAR1 no")))


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file or folder; for a data set say dataset:NAME"):
        expand_inputs([tmp_path / "absent.jsonl"])
    with pytest.raises(RequestError, match="unknown kind of file"):
        expand_inputs([write(tmp_path / "x.bin", b"")])
    with pytest.raises(RequestError, match="no readable file in this folder"):
        expand_inputs([tmp_path])
    with pytest.raises(RequestError, match="no input"):
        expand_inputs([])


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_packed_output_reads_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.jsonl{suffix}"
    for _ in range(2):
        with open(path, "wb") as target, create_jsonl(target, path.name) as stream:
            stream.write(lines())
    assert as_tuples(read_documents(str(path))) == EXPECTED


def test_a_folder_that_save_to_disk_wrote_is_read_as_one(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list(RECORDS)
    table.save_to_disk(str(tmp_path / "all" / "one"))
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(tmp_path / "all" / "two@home"))
    (tmp_path / "all" / "three.jsonl").write_bytes(lines())
    three, two = str(tmp_path / "all" / "three.jsonl"), f"dataset:{tmp_path}/all/two@home"
    sources = expand_inputs([tmp_path / "all"])
    assert sources == [f"dataset:{tmp_path}/all/one", three, f"{two}@train", f"{two}@test"]
    assert [as_tuples(read_documents(s)) for s in sources] == [EXPECTED, EXPECTED, EXPECTED, EXPECTED[:1]]
    assert as_tuples(read_documents(two)) == EXPECTED, "its train split"
    assert expand_inputs([tmp_path / "all" / "one"]) == sources[:1]


@pytest.mark.parametrize("data", ["data.jsonl", "data/a.parquet", "data/x.txt"])
def test_the_card_of_a_clone_is_no_document(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / data
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lines())
    for name in ("README.md", "LICENSE.txt", "dataset_infos.json"):
        (tmp_path / name).write_text("---\npretty_name: mine\n---\nabout it\n")
    (tmp_path / ".gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    assert expand_inputs([tmp_path]) == [str(path)]
    said = capsys.readouterr().err
    assert "left out, since they describe the data: " in said and "README.md" in said
    assert f"reading {path}" in said
    assert expand_inputs([tmp_path / "README.md"]) == [str(tmp_path / "README.md")], "named, it is read"


def test_a_folder_of_texts_keeps_its_readme(tmp_path: Path) -> None:
    for name in ("README.md", "a.py", "b/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [Path(s).relative_to(tmp_path).as_posix() for s in expand_inputs([tmp_path])] == [
        "README.md", "a.py", "b/README.md"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet", "a.jsonl.gz", "a.txt.zst"])
def test_a_pointer_to_a_large_file_is_no_document(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(DataError, match="a Git LFS pointer, not the data; run `git lfs pull`"):
        list(read_documents(path))
