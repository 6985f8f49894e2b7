"""A shipped suite by its name, on a stand-in hub, against results in lm-eval's own layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_server import Hub
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from verified import TASKS, by_lm_eval

from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run
from pythia_tools.suites import load_suite
from pythia_tools.tokens import open_tokenizer

REPO = "EleutherAI/pythia-70m-deduped"


def test_a_shipped_suite_is_held_against_published_numbers(
    tiny_suite: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size = len(open_tokenizer(tiny_suite / "tokenizer"))
    GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=size, max_position_embeddings=512, **shape)
    ).save_pretrained(tmp_path / "model")
    by_lm_eval(tmp_path / "model", tiny_suite / "tokenizer", local, tmp_path / "published")
    (file,) = (tmp_path / "published").rglob("results_*.json")
    value = json.loads(file.read_text())
    value["config"]["model_args"] = {"pretrained": REPO, "revision": "step143000", "dtype": "float32"}
    file.write_text(json.dumps(value))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    revision = str(load_suite("pythia-deduped").model("70m").tokenizer).partition("@")[2] or "main"
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add_model(REPO, {"step143000": tmp_path / "model", revision: tiny_suite / "tokenizer"})
        command = ["verify", "pythia-deduped", "--models", "70m", "--steps", "last", "--device", "cpu", "--quiet",
                   "--tasks", *TASKS, "--include-path", str(local), "--against", str(tmp_path / "published")]
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
    run = load_run(tmp_path / "out")
    assert run.record["verdict"] == "equal"
    assert set(run.items["suite"]) == {"pythia-deduped"} and set(run.items["step"]) == {143000}
