"""`data batch`, `seen`, `build-order` and `verify` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from order_stores import make_documents, packed_folder, preshuffled_store, slow_rows
from tokenizers import ByteLevelBPETokenizer

from pythia_tools.cli.main import main
from pythia_tools.core.errors import DataError
from pythia_tools.counts import seen
from pythia_tools.order import MapName, build_index_maps, load_maps, load_order
from pythia_tools.tokens import StoreWriter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An order with a tokenizer of four words beside it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    packed_folder(tmp_path, make_documents([30, 40], top=6), 4, 5)
    words = ["nil", "one", "two", "three", "four", "five"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="nil"))
    tokenizer.pre_tokenizer = Whitespace()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return tmp_path


def test_batch_as_ids_text_json_and_npy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = load_order(folder / "order.yaml")
    rows = order.batch(2)
    name = str(folder / "order.yaml")
    assert main(["data", "batch", name, "--step", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [list(map(int, line.split("\t")[1].split())) for line in lines] == rows.tolist()
    assert main(["data", "batch", name, "--step", "2", "--rows", "1:2", "--json", "--text"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["first_row"] == 9 and shown["rows"][0]["tokens"] == rows[1].tolist()
    assert shown["fingerprint"] == order.fingerprint
    words = ["nil", "one", "two", "three", "four", "five"]
    text = " ".join(d["text"] for d in shown["rows"][0]["documents"])
    assert text.split() == [words[t] for t in rows[1]]
    assert main(["data", "batch", name, "--step", "2", "--rows", "1:2", "--text"]) == 0
    assert "--- document" in capsys.readouterr().out
    assert main(["data", "batch", name, "--step", "2", "--out", str(folder / "b.npy"), "--quiet"]) == 0
    assert (np.load(folder / "b.npy", allow_pickle=False) == rows).all() and capsys.readouterr().out == ""


def test_seen_with_and_without_an_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(folder / "order.yaml")
    order = load_order(name)
    expected = seen(order, [2, 3]).to_dict("records")
    assert expected
    assert main(["data", "seen", name, "two three", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    for _ in range(2):
        assert main(["data", "seen", name, "--ids", "2", "3", "--json", "--index", str(folder / "index")]) == 0
        assert json.loads(capsys.readouterr().out) == expected
    assert main(["data", "seen", name, "--ids", "9"]) == 0
    out = capsys.readouterr()
    assert out.out == "" and "0 occurrence(s)" in out.err
    step = expected[0]["step"]
    assert main(["data", "seen", name, "two three", "--steps", f"{step}:{step}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [row for row in expected if row["step"] == step]
    assert main(["data", "seen", name, "two three", "--steps", f"0:{order.steps}"]) == 2
    assert f"has batches 0 to {order.steps - 1}" in capsys.readouterr().err
    assert main(["data", "seen", name]) == 2
    assert "one of the two" in capsys.readouterr().err


def test_build_order_makes_an_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = make_documents([30, 40, 9, 50])
    with StoreWriter(tmp_path / "corpus") as out:
        for document in documents:
            out.add_document(document)
    prefix = str(tmp_path / "corpus")
    given = ["data", "build-order", prefix, "--seq-length", "4"]
    assert main([*given, "--batch-rows", "2", "--steps", "20", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["num_samples"] == 41 and made["epochs"] == 2 and made["steps"] == 20
    order = load_order(made["manifest"])
    expected = slow_rows(documents, build_index_maps([30, 40, 9, 50], 4, 1234, 41), 4)
    assert order.rows(0, order.n_rows).tolist() == expected and order.steps == 20
    assert main(["data", "verify", prefix, "--json"]) == 0
    assert {r["status"] for r in json.loads(capsys.readouterr().out)} == {"ok"}  # by what build-order wrote down
    assert main([*given, "--num-samples", "5", "--split", "50,50", "--part", "valid"]) == 0
    assert list(tmp_path.glob("corpus_valid_indexmap_5ns_4sl_1234s_*_idx.npy"))
    for name in (prefix, f"{prefix}.bin"):
        assert load_order(name).batch_rows == 2 and load_order(name).rows(0, order.n_rows).tolist() == expected
    assert load_order(prefix, batch_rows=7).batch_rows == 7


def test_parts_of_a_split_are_orders_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = make_documents([30, 40, 9, 50])
    with StoreWriter(tmp_path / "corpus") as out:
        for document in documents:
            out.add_document(document)
    for part in ("train", "valid"):
        given = ["--num-samples", "5", "--seq-length", "4", "--batch-rows", "2", "--split", "50,50", "--part", part]
        assert main(["data", "build-order", str(tmp_path / "corpus"), *given]) == 0
    capsys.readouterr()
    train, valid = load_order(tmp_path / "corpus"), load_order(tmp_path / "corpus.valid.order.yaml")
    assert set(train.rows(0, 5).ravel()) <= set(np.concatenate(documents[:2]))
    assert set(valid.rows(0, 5).ravel()) <= set(np.concatenate(documents[2:]))
    assert (train.name, valid.name) == ("corpus", "corpus.valid")
    text = (tmp_path / "corpus.order.yaml").read_text()
    (tmp_path / "corpus.order.yaml").write_text(text.replace("  name: train\n", ""))
    with pytest.raises(DataError, match="name: train"):
        load_order(tmp_path / "corpus").rows(0, 1)


def test_build_order_wants_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreWriter(tmp_path / "corpus") as out:
        out.add_document(np.arange(30))
    prefix = str(tmp_path / "corpus")
    assert main(["data", "build-order", prefix, "--steps", "1", "--num-samples", "5"]) == 2


def test_verify_finds_a_flipped_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    prefix = str(tmp_path / "data" / "train")
    main(["data", "verify", prefix, "--json"])
    sums = {r["file"]: r["sha256"] for r in json.loads(capsys.readouterr().out) if r["sha256"]}
    (tmp_path / "SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    (tmp_path / "NEOX").write_text("\n".join(f"{name} {digest}" for name, digest in sums.items()))
    for file in ("SUMS", "NEOX"):
        assert main(["data", "verify", prefix, "--sums", str(tmp_path / file), "--json"]) == 0
        assert {r["status"] for r in json.loads(capsys.readouterr().out)} == {"ok"}
    body = bytearray((tmp_path / "data" / "train.bin").read_bytes())
    body[7] ^= 1
    (tmp_path / "data" / "train.bin").write_bytes(body)
    assert main(["data", "verify", prefix, "--sums", str(tmp_path / "SUMS")]) == 1
    assert "wrong" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path / "order.yaml"), "--sums", str(tmp_path / "SUMS")]) == 1
    (tmp_path / "BAD").write_text("not a digest\n")
    assert main(["data", "verify", prefix, "--sums", str(tmp_path / "BAD")]) == 3
    assert main(["data", "verify", prefix, "--sums", str(tmp_path / "NONE")]) == 2
    (tmp_path / "data" / "train.bin").write_bytes(bytes(body[:-1]))
    assert main(["data", "verify", prefix]) == 1


def test_one_data_path_that_is_split_has_no_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GPT-NeoX asks for steps × batch rows there, names the maps train, valid, test, and takes contiguous documents."""
    documents = make_documents([30, 40, 9, 50, 8, 60])
    with StoreWriter(tmp_path / "corpus") as out:
        for document in documents:
            out.add_document(document)
    prefix = str(tmp_path / "corpus")
    given = ["data", "build-order", prefix, "--seq-length", "4", "--batch-rows", "2", "--steps", "500"]
    for part, a, b in (("train", 0, 3), ("valid", 3, 5), ("test", 5, 6)):
        assert main([*given, "--split", "3/2/1", "--part", part, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["num_samples"] == 1000
        maps = build_index_maps([len(d) for d in documents], 4, 1234, 1000, np.arange(a, b))
        name = MapName(tmp_path / "corpus", 1000, 4, 1234, part)
        assert all((x == y).all() for x, y in zip(load_maps(name), maps, strict=True))
    assert main(["data", "verify", prefix]) == 0
    expected = load_order(prefix).rows(0, 1000)
    for path in tmp_path.glob("*.yaml"):
        path.unlink()  # as GPT-NeoX itself leaves a folder
    assert main(["data", "verify", prefix]) == 0
    assert (load_order(prefix).rows(0, 1000) == expected).all()


def test_a_flipped_byte_of_ones_own_store_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreWriter(tmp_path / "corpus") as out:
        out.add_document(np.arange(100))
    prefix = str(tmp_path / "corpus")
    assert main(["data", "build-order", prefix, "--seq-length", "4", "--batch-rows", "2", "--steps", "3"]) == 0
    body = bytearray((tmp_path / "corpus.bin").read_bytes())
    body[7] ^= 1
    (tmp_path / "corpus.bin").write_bytes(body)
    for name in (prefix, f"{prefix}.order.yaml"):
        assert main(["data", "verify", name]) == 1
    capsys.readouterr()
    assert main(["data", "batch", prefix, "--step", "0"]) == 3
    err = capsys.readouterr().err
    assert "made for another store" in err and err.count("\n") == 1


def test_from_text_to_rows_no_flag_is_given_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = ByteLevelBPETokenizer()
    engine.train_from_iterator(["one two three four five"], 300, special_tokens=["<|endoftext|>"])
    engine.save(str(tmp_path / "words.json"))
    lines = [json.dumps({"text": f"one two {n} three four five"}) for n in "abc"]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    prefix = str(tmp_path / "corpus")
    assert main(["data", "tokenize", str(tmp_path / "c.jsonl"), "--tokenizer", str(tmp_path / "words.json"),
                 "--out", prefix]) == 0
    for name in (prefix, f"{prefix}.order.yaml"):
        if name == prefix:
            assert main(["data", "build-order", name, "--seq-length", "4", "--batch-rows", "1", "--steps", "20"]) == 0
        capsys.readouterr()
        assert main(["data", "batch", name, "--step", "0", "--text"]) == 0 and "o" in capsys.readouterr().out
        assert main(["data", "seen", name, " three", "--json"]) == 0 and json.loads(capsys.readouterr().out)
        assert main(["data", "verify", name, "--json"]) == 0
        assert {r["status"] for r in json.loads(capsys.readouterr().out)} == {"ok"}
    (tmp_path / "corpus.order.yaml").unlink()
    assert main(["data", "batch", prefix, "--step", "0", "--batch-rows", "1", "--text"]) == 0
    assert main(["data", "batch", prefix, "--step", "0"]) == 2
    assert "make no batch of 1024" in capsys.readouterr().err


def test_maps_that_cannot_be_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StoreWriter(tmp_path / "corpus") as out:
        out.add_document(np.zeros(1_000_000, np.uint16))
    given = ["data", "build-order", str(tmp_path / "corpus"), "--seq-length", "1", "--num-samples"]
    for more, code, says in (
        ([str(3 * 10**12)], 3, "of memory, "), ([str(10**16)], 2, "epochs of 1 documents pass int32"),
        (["9", "--split", "1,0", "--part", "valid"], 2, "leaves none of 1 documents to --part valid"),
    ):
        assert main([*given, *more]) == code
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    assert not list(tmp_path.glob("*.npy"))


def test_what_is_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preshuffled_store(tmp_path / "rows", np.arange(20, dtype=np.uint16).reshape(4, 5))
    (tmp_path / "rows.bin").rename(tmp_path / "away")
    (tmp_path / "rows.bin").mkdir()
    (tmp_path / "none.idx").mkdir()
    for name, says in (("rows", "a folder, not a file"), ("none", "the index cannot be read")):
        for command in (["batch", "--step", "0"], ["verify"], ["build-order", "--steps", "1"]):
            code = main(["data", command[0], str(tmp_path / name), *command[1:]])
            out = capsys.readouterr()
            assert code == (1 if command[0] == "verify" else 3) and says in out.out + out.err, (name, command)
            assert out.err.count("\n") <= 1


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preshuffled_store(tmp_path / "rows", np.arange(20, dtype=np.uint16).reshape(4, 5))
    rows = str(tmp_path / "rows")
    for arguments, code, says in (
        (["data", "batch", "pile-nothing", "--step", "0"], 2, "unknown order"),
        (["data", "batch", rows, "--step", "9", "--batch-rows", "2"], 2, "has batches 0 to 1"),
        (["data", "batch", rows, "--step", "0", "--batch-rows", "2", "--rows", "0:3"], 2, "has rows 0:2"),
        (["data", "batch", rows, "--step", "0", "--rows", "3:1"], 2, "must rise"),
        (["data", "batch", rows, "--step", "0", "--batch-rows", "2", "--text"], 2, "names no tokenizer"),
        (["data", "batch", str(tmp_path / "none"), "--step", "0"], 2, "no such order"),
        (["data", "frob"], 2, "invalid choice"),
        (["data", "batch", rows], 2, "--step"),
    ):
        assert main(arguments) == code, arguments
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1, err


def test_help_of_each_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("batch", "seen", "build-order", "verify", "tokenize", "overlay"):
        with pytest.raises(SystemExit) as stop:
            main(["data", command, "--help"])
        assert stop.value.code == 0
        assert f"pythia-tools data {command}" in capsys.readouterr().out.split("example")[1]
