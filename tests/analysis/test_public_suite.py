"""The documented commands on a public suite by its own name, on a stand-in hub that serves the real names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run
from pythia_tools.suites import load_suite
from pythia_tools.tokens import open_tokenizer


@pytest.fixture
def hub(tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """EleutherAI/pythia-70m-deduped at its last step, small and random, and the tokenizer that its manifest names."""
    torch.manual_seed(0)
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape))
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    info = load_suite("pythia-deduped").model("70m")
    assert info.tokenizer
    name, _, revision = info.tokenizer.partition("@")
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        branches = {"step143000": tmp_path / "model", revision or "main": tiny_suite / "tokenizer"}
        assert name == "EleutherAI/pythia-70m-deduped", "its repository holds the tokenizer too"
        server.add_model(name, branches)
        yield server


def test_bias_and_term_frequency_find_the_tokenizer_of_a_shipped_suite(hub: Hub, tmp_path: Path) -> None:
    start = ["pythia-deduped", "--models", "70m", "--steps", "last", "--device", "cpu", "--quiet"]
    assert main(["bias", *start, "--limit", "4", "--out", str(tmp_path / "bias")]) == 0
    assert len(load_run(tmp_path / "bias").items) == 4
    (tmp_path / "seen.csv").write_text("term,step,exposures\n" + "\n".join(f"{x},143000,{100 * x}" for x in range(4)))
    task = ["--task", "multiplication", "--shots", "0", "--operands", "4", "--second", "2"]
    out = str(tmp_path / "terms")
    assert main(["term-frequency", *start, *task, "--exposures", str(tmp_path / "seen.csv"), "--out", out]) == 0
    assert load_run(out).items["term"].nunique() == 4
    assert len(hub.files_asked("*.safetensors")) == 1, "the second command found the weights on this machine"


def test_token_curves_of_a_shipped_suite_are_measured_on_rows_of_an_order_that_is_given(
    hub: Hub, tiny_suite: Path, tmp_path: Path
) -> None:
    """An order shorter than the run names no rows consumed at its last step, so nothing is counted in it unasked."""
    order = load_suite(tiny_suite).order
    assert order
    start = ["pythia-deduped", "--models", "70m", "--steps", "last", "--device", "cpu", "--order", order]
    drawn = ["--rows", "5", "--positions", "3", "--rows-from", "order"]
    assert main(["curves", *start, *drawn, "--quiet", "--out", str(tmp_path / "curves")]) == 0
    items = load_run(tmp_path / "curves").items
    tokens = items[items["task"] == "token"]
    assert len(tokens) == 15 and tokens["last"].between(5, 15).all() and "ngram_1" not in items
    assert main(["curves", *start, *drawn, "--ngrams", "2", "--quiet", "--out", str(tmp_path / "counted")]) == 2
