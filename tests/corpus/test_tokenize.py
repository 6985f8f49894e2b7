"""Documents to .bin/.idx: ids as the tokenizer gives them, order kept, provenance row by row."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pythia_tools.cli.main import main
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.tokens import open_store, open_tokenizer
from pythia_tools.tokens import tokenize as module
from pythia_tools.tokens.store import read_record
from pythia_tools.tokens.tokenize import read_provenance, tokenize

SHARED = next((p / "shared" for p in Path(__file__).parents[2:4] if (p / "shared").exists()), Path("shared"))
NEOX = SHARED / "data" / "pythia" / "20B_tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    engine.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 20, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    engine.save(str(path))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "c.jsonl"
    texts = [f"document {i} über \U0001f600" * (i % 7) for i in range(50)] + ["lone \ud800 surrogate"]
    path.write_text("".join(json.dumps({"text": t, "id": f"d{i}", "lang": "x"}) + "\n" for i, t in enumerate(texts)))
    return path


@pytest.mark.parametrize("eod", [False, True])
def test_the_store_holds_what_the_tokenizer_says(
    tmp_path: Path, tokenizer: Path, corpus: Path, eod: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_CHARS", 200)  # many batches, so that order is put to the test
    monkeypatch.setattr(module, "ROWS_PER_GROUP", 7)
    written = tokenize([corpus], tmp_path / "out", tokenizer, append_eod=eod, workers=3)
    engine = Tokenizer.from_file(str(tokenizer))
    records = [json.loads(line) for line in corpus.read_text().splitlines()]
    kept = [(i, r) for i, r in enumerate(records) if r["text"]]
    store = open_store(tmp_path / "out")
    assert (written.documents, written.empty, written.repaired) == (len(kept), 8, 1)
    assert (written.inputs, written.read) == (1, len(records))
    assert len(store) == len(kept)
    provenance = read_provenance(tmp_path / "out")
    assert provenance.document.tolist() == list(range(len(kept)))
    assert provenance.id.tolist() == [r["id"] for _, r in kept]
    assert provenance.position.tolist() == [i for i, _ in kept]
    assert set(provenance.source) == {str(corpus)}
    assert provenance.metadata[0] == '{"lang": "x"}'
    for row, (_, record) in enumerate(kept):
        expected = engine.encode(record["text"].replace("\ud800", "\ufffd")).ids + [0] * eod
        assert store[row].tolist() == expected
        assert provenance.tokens[row] == len(expected)
    assert store.n_tokens == written.tokens
    assert store.doc_idx.tolist() == list(range(len(kept) + 1))


def test_gpt_neox_tokenizer(tmp_path: Path) -> None:
    if not NEOX.exists():
        pytest.skip("needs the GPT-NeoX-20B tokenizer")
    (tmp_path / "a.txt").write_text("Hello world")
    tokenize([tmp_path / "a.txt"], tmp_path / "out", NEOX, append_eod=True)
    assert open_store(tmp_path / "out")[0].tolist() == [12092, 1533, 0]
    assert open_store(tmp_path / "out")[0].dtype == np.uint16


def test_the_command(tmp_path: Path, tokenizer: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "tokenize", str(corpus), "--tokenizer", str(tokenizer), "--out", str(tmp_path / "o")]
    assert main([*command, "--json", "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["documents"] == 43
    assert json.loads((tmp_path / "o.json").read_text())["tokens"] == said["tokens"]
    assert main([*command, "--text-key", "body", "--quiet"]) == 3
    assert not (tmp_path / "o.json").exists()  # no longer said to be complete
    assert capsys.readouterr().err.count("\n") == 1


def test_the_record_holds_the_digests_and_the_tokenizer(tmp_path: Path, tokenizer: Path, corpus: Path) -> None:
    tokenize([corpus], tmp_path / "o", tokenizer)
    record = read_record(tmp_path / "o")
    for ending in (".bin", ".idx"):
        assert record[f"{ending[1:]}_sha256"] == hashlib.sha256((tmp_path / f"o{ending}").read_bytes()).hexdigest()
    beside = open_tokenizer(tmp_path / "o.tokenizer.json")
    assert record["tokenizer"] == str(tokenizer) and record["tokenizer_sha256"] == beside.digest


@pytest.mark.parametrize("how", ["damaged", "empty", "blank"])
def test_a_failed_run_leaves_no_store_that_passes_for_the_new_one(
    tmp_path: Path, tokenizer: Path, corpus: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "tokenize", str(corpus), "--tokenizer", str(tokenizer), "--out", str(tmp_path / "o"), "--quiet"]
    assert main(command) == 0
    corpus.write_text({"damaged": '{"text": "a"}\nno json\n', "empty": "", "blank": '{"text": ""}\n'}[how])
    assert main(command) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("none of which holds any text" in said) == (how != "damaged")
    build = ["data", "build-order", str(tmp_path / "o"), "--steps", "2", "--batch-rows", "2", "--seq-length", "8"]
    assert main(build) == 3
    assert "its last tokenization did not end (o.json is missing); run `data tokenize` again" in capsys.readouterr().err
    corpus.write_text('{"text": "the quick brown fox"}\n' * 9)
    assert main(command) == 0 and main(build) == 0


def test_wrong_requests(tmp_path: Path, tokenizer: Path, corpus: Path) -> None:
    with pytest.raises(RequestError, match="not in the vocabulary"):
        tokenize([corpus], tmp_path / "o", tokenizer, append_eod=True, eod=10**6)
    with pytest.raises(RequestError, match="say --append-eod as well"):
        tokenize([corpus], tmp_path / "o", tokenizer, eod=1)
    with pytest.raises(RequestError, match=r"no such tokenizer; give a tokenizer.json"):
        tokenize([corpus], tmp_path / "o", str(tmp_path / "nothing"))


def test_a_wrong_input_leaves_what_was_encoded_and_nothing_else(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 2)
    source = tmp_path / "bad.jsonl"
    source.write_text("no json\n")
    with pytest.raises(DataError, match="line 1"):
        tokenize([source], tmp_path / "out", tokenizer, workers=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl"]
    source.write_text('{"text": "the fox"}\n' * 20 + "no json\n")
    with pytest.raises(DataError, match="line 21"):
        tokenize([source], tmp_path / "out", tokenizer, workers=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "out.encoded"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tokenizers import Tokenizer
from pythia_tools.tokens import tokenize as module

class Dying:
    def __init__(self, path):
        self.engine, self.batches = Tokenizer.from_file(path), 0
    def __getattr__(self, name):
        return getattr(self.engine, name)
    def encode_batch_fast(self, *given, **options):
        self.batches += 1
        if self.batches == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.engine.encode_batch_fast(*given, **options)

module.BATCH_DOCUMENTS = 2
module.tokenize([sys.argv[1]], sys.argv[2], Dying(sys.argv[3]), workers=1)
"""


class Counting:
    """A tokenizer that says how many batches it was given."""

    def __init__(self, path: Path):
        self.engine, self.batches = Tokenizer.from_file(str(path)), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def encode_batch_fast(self, *given: Any, **options: Any) -> Any:
        self.batches += 1
        return self.engine.encode_batch_fast(*given, **options)


def stored(prefix: Path) -> list[bytes]:
    return [prefix.with_name(prefix.name + ending).read_bytes() for ending in (".bin", ".idx", ".documents.parquet")]


@pytest.mark.parametrize("damage", ["none", "torn", "flipped", "text", "tokenizer"])
def test_a_killed_run_goes_on_and_gives_the_same_store(
    tmp_path: Path, tokenizer: Path, corpus: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 2)
    prefix, kept = tmp_path / "out", tmp_path / "out.encoded"
    command = [sys.executable, "-c", KILLED, str(corpus), str(prefix), str(tokenizer)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "out.json").exists()
    assert list(tmp_path.glob(".out.bin.*.part"))
    assert len(list(kept.iterdir())) == 19
    first = min(kept.iterdir())
    raw = first.read_bytes()
    if damage == "torn":
        first.write_bytes(raw[:-3])
    if damage == "flipped":
        at = len(raw) // 8
        first.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
    if damage == "text":
        corpus.write_text(corpus.read_text().replace("document 9", "document nine"))
    engine = Counting(tokenizer)
    if damage == "tokenizer":
        engine.engine.add_tokens(["document"])
    tokenize([corpus], prefix, engine, workers=2)
    whole = Counting(tokenizer)
    if damage == "tokenizer":
        whole.engine.add_tokens(["document"])
    tokenize([corpus], tmp_path / "whole", whole, workers=2)
    assert stored(prefix) == stored(tmp_path / "whole")
    assert whole.batches == 26
    assert engine.batches == {"none": 7, "torn": 8, "flipped": 8, "text": 8, "tokenizer": 26}[damage]
    assert not kept.exists() and not list(tmp_path.glob(".out*"))
