"""Exposures before and after deduplication, under an order counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from pythia_tools import dedup
from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import document_exposures
from pythia_tools.dedup.effect import effect_summary
from pythia_tools.order import build_index_maps, load_order, packed_order
from pythia_tools.tokens import open_store
from pythia_tools.tokens.tokenize import read_provenance, tokenize

WORDS = 24


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Ten different documents of 24 words, the first of them five times, and an empty one."""
    texts = [" ".join(f"w{(i * 31 + j) % 400}" for j in range(WORDS)) for i in range(10)]
    path = tmp_path / "c.jsonl"
    every = enumerate([*texts, "", *[texts[0]] * 4])
    path.write_text("".join(json.dumps({"text": t, "id": f"d{i}"}) + "\n" for i, t in every))
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    engine = Tokenizer(models.WordLevel({"[unk]": 0, **{f"w{i}": i + 1 for i in range(400)}}, unk_token="[unk]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    return engine


def test_exposures_before_and_after(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    dedup.run_stages([corpus], tmp_path / "out")
    tokenize([corpus], tmp_path / "store", tokenizer)
    store = open_store(tmp_path / "store")
    assert len(store) == 14
    rows = 14 * WORDS // 8 - 1  # nearly one epoch of everything
    order = packed_order(store, build_index_maps(store.sizes, 8, 1234, rows), 8, 1, steps=rows)
    effect = dedup.exposure_effect(tmp_path / "out", order, read_provenance(tmp_path / "store"))
    assert effect.id.tolist() == [f"d{i}" for i in range(10)]
    assert effect.members.tolist() == [5] + [1] * 9
    exposures = document_exposures(order, rows)["mean"].to_numpy()
    assert effect.before[0] == pytest.approx(exposures[0] + exposures[10:].sum())
    assert effect.before[1:].tolist() == exposures[1:10].tolist()
    # As many rows are drawn from ten documents instead of fourteen, so each is seen 1.4 times, the repeated one not
    # five.
    assert np.average(effect.after, weights=effect.tokens) == pytest.approx(rows * 8 / (10 * WORDS))
    assert effect.after[0] < 2.1 < 4 < effect.before[0]
    table = effect_summary(effect, store.n_tokens)
    assert table.attrs["tokens_removed"] == 4 * WORDS
    assert table.set_index("members").loc["3 to 5", "documents"] == 1


def test_another_corpus_is_refused(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    dedup.run_stages([corpus], tmp_path / "out")
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "w1 w2", "id": "elsewhere"}\n')
    tokenize([other], tmp_path / "store", tokenizer)
    store = open_store(tmp_path / "store")
    order = packed_order(store, build_index_maps(store.sizes, 1, 1, 1), 1, 1, steps=1)
    with pytest.raises(RequestError, match="the store has 1 documents, 0 of them in this deduplication"):
        dedup.exposure_effect(tmp_path / "out", order, read_provenance(tmp_path / "store"))


def test_the_whole_way_from_the_command_line(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str],
) -> None:
    """Deduplicate, tokenize, order, and ask what it did to exposures: the numbers are those of the functions."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    out, store = str(tmp_path / "out"), str(tmp_path / "store")
    assert main(["dedup", str(corpus), "--out", out, "--quiet"]) == 0
    opened = ["--tokenizer", str(tmp_path / "tokenizer.json")]
    assert main(["data", "tokenize", str(corpus), *opened, "--out", store, "--quiet"]) == 0
    build = ["--seq-length", "8", "--batch-rows", "1", "--num-samples", str(14 * WORDS // 8 - 1), "--quiet"]
    assert main(["data", "build-order", store, *build]) == 0
    capsys.readouterr()
    assert main(["dedup", "--report", out, "--store", store, "--order", store, "--step", "20", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    effect = dedup.exposure_effect(out, load_order(store), read_provenance(store), step=20)
    expected = effect_summary(effect, 14 * WORDS)
    assert shown["tokens"] == {"before": 14 * WORDS, "removed": 4 * WORDS}
    assert [r["documents"] for r in shown["exposures"]] == expected["documents"].tolist()
    assert main(["dedup", "--report", out, "--store", store, "--order", store]) == 0
    assert "exposures" in capsys.readouterr().out
    assert main(["dedup", "--report", out, "--order", store]) == 2
    assert "--order and --store come together" in capsys.readouterr().err
