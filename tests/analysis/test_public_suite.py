"""The documented commands on a public suite by its own name, on a stand-in hub that serves the real names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import local_tasks
import numpy as np
import pandas as pd
import pytest
import torch
from hub_server import Entry, Hub
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


def test_benchmark_tasks_of_a_shipped_suite_are_planned_and_evaluated(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    tasks = str(local_tasks.write(tmp_path / "tasks"))
    start = ["evaluate", "pythia-deduped", "--models", "70m", "--steps", "last", "--device", "cpu"]
    asked = ["--tasks", "lambada_openai", "piqa", "--num-fewshot", "1", "--include-path", tasks]
    assert main([*start, *asked, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cells"] == 2 and plan["download_bytes"] > 0 and not hub.files_asked("*.safetensors")
    assert main([*start, *asked, "--quiet", "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    assert len(run.items) == 12 + 2 * 12 and set(run.items["shots"]) == {1}
    assert {"acc", "acc_norm", "perplexity"} <= set(run.summary["metric"])


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


class Shard(Entry):
    """A shard of the preshuffled Pile, 30 GB that are made as they are asked for: ids of the whole stream by place."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__(b"")
        self.first, self.size = number * 15_000_000_000, size

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        stop = self.size if stop is None else stop
        assert stop - start <= 1 << 24, "nobody reads 30 GB"
        ids = stream(self.first + np.arange(start // 2, -(-stop // 2)))
        return ids.astype("<u2").tobytes()[start % 2 : start % 2 + stop - start]

    @property
    def digests(self) -> tuple[str, str]:
        return f"{self.first:064x}", f"{self.first:040x}"


def stream(places: np.ndarray) -> np.ndarray:
    return (places * 7919 + places // 13) % 500


@pytest.fixture
def pile(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """All checkpoints of the model, alike, and the 600 GB of its order, under their public names."""
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    steps = load_suite("pythia-deduped").steps("70m")
    repo = hub.repos["models", "EleutherAI/pythia-70m-deduped"]
    repo.branches |= {f"step{step}": repo.branches["step143000"] for step in steps}
    sizes = [30_000_000_000] * 20 + [78_336_000]
    shards = {f"document-{i:05}-of-00020.bin": size for i, size in enumerate(sizes)}
    data = hub.add_dataset("EleutherAI/pile-deduped-pythia-preshuffled", {"main": {"README.md": b"rows"}})
    data.branches["main"] |= {name: Shard(i, size) for i, (name, size) in enumerate(shards.items())}
    return hub


def test_no_row_is_called_consumed_by_a_model_whose_order_is_not_known(pile: Hub, tmp_path: Path) -> None:
    """Which Pile the 14m was trained on is not established: it is measured on the same rows, and that is said."""
    pile.add_model("EleutherAI/pythia-14m-deduped", {"step143000": tmp_path / "model"})
    start = ["losses", "pythia-deduped", "--models", "14m", "70m", "--rows", "4", "--steps", "last", "--device", "cpu"]
    assert main([*start, "--quiet", "--out", str(tmp_path / "run")]) == 0
    table = pd.read_csv(tmp_path / "run" / "losses.csv").set_index(["model", "rows"])
    assert set(table.index) == {("14m", "training"), ("70m", "training"), ("70m", "before")}
    small, other = (table.loc[(model, "training")] for model in ("14m", "70m"))
    assert np.isnan(small["n_consumed"]) and other["n_consumed"] == 4
    assert small["nats_per_token"] == other["nats_per_token"], "the same rows, and here the same weights"


def test_losses_of_a_shipped_suite_are_planned_without_a_row_and_read_only_theirs(
    pile: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["losses", "pythia-deduped", "--models", "70m", "--rows", "4", "--device", "cpu", "--quiet", "--out"]
    assert main([*start, str(tmp_path / "plan"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not pile.files_asked("*.bin") and not (tmp_path / "plan").exists()
    assert plan["checkpoints"] == 154 and plan["data_bytes"] == (153 + 153 + 1) * 4 * 2049 * 2
    assert plan["data_requests"] == 153 + 153 + 4 and plan["download_bytes"] > 0 and plan["hours_about"] >= 0

    pile.forget()
    assert main([*start, str(tmp_path / "run"), "--steps", "0,1000,143000"]) == 0
    asked, row = pile.files_asked("*.bin"), 2049 * 2
    assert len(asked) == 2 + 2 + 4 and sum(r.sent for r in asked) == (2 + 2 + 1) * 4 * row
    run, table = load_run(tmp_path / "run"), pd.read_csv(tmp_path / "run" / "losses.csv")
    sets = table.groupby("step")["rows"].apply(list).to_dict()
    assert sets[0] == ["after", "training"] and sets[143_000] == ["before", "training"]
    assert sets[1000][:2] == ["before", "after"] and table["bits_per_byte"].gt(0).all()
    assert len(pile.files_asked("*.safetensors")) == 1, "equal weights are fetched once"

    live = GPTNeoXForCausalLM.from_pretrained(tmp_path / "model")
    for line in run.items.groupby(["step", "subset"], sort=False).first().reset_index().itertuples():
        ids = torch.from_numpy(stream(line.row * 2049 + np.arange(2049)))[None]
        with torch.no_grad():
            assert line.nll == pytest.approx(float(live(ids, labels=ids).loss), rel=1e-4)
        first, last = {"before": (-1024, -1), "after": (0, 1023)}.get(line.subset, (-line.step * 1024, 146_431_999))
        assert first <= line.row - line.step * 1024 <= last
        assert line.consumed == (line.row < line.step * 1024)
