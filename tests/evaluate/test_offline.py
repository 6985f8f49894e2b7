"""The documented command on a shipped suite's own name: with a network once, then without one, on a stand-in hub."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import local_tasks
import pandas as pd
import pytest
import torch
from hub_server import Hub
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_tools.analyses import evaluate
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.core.files import sha256_file
from pythia_tools.core.results import load_run
from pythia_tools.tokens import open_tokenizer

COMMAND = ["evaluate", "pythia-deduped", "--models", "70m", "--steps", "last", "--device", "cpu", "--quiet", "--tasks",
           "lambada_openai", "piqa", "pythia_sciq"]
SETS = {"EleutherAI/lambada_openai": ("lambada_openai", ("test",)), "baber/piqa": ("piqa", ("train", "validation")),
        "allenai/sciq": ("sciq", ("train", "validation", "test"))}


def card(splits: tuple[str, ...]) -> bytes:
    lines = "".join(f"  - split: {s}\n    path: data/{s}.jsonl\n" for s in splits)
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}---\n".encode()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    return {**kept, "HF_HOME": str(home / "hf"), "PYTHIA_TOOLS_HOME": str(home / "tools"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def online(tiny_suite: Path, home: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The run with a network; the hub is gone afterwards, and so is what its own clients kept of the data sets."""
    torch.manual_seed(0)
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape))
    model.save_pretrained(home / "model")
    documents = local_tasks.documents(random.Random(1))
    with Hub() as hub:
        hub.add_model("EleutherAI/pythia-70m-deduped", {"step143000": home / "model", "main": tiny_suite / "tokenizer"})
        for repo, (task, splits) in SETS.items():
            lines = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents[task]).encode()
            hub.add_dataset(repo, {"main": {"README.md": card(splits), **{f"data/{s}.jsonl": lines for s in splits}}})
        command = [sys.executable, "-m", "pythia_tools", *COMMAND, "--out", str(home / "online"), "--lm-eval-json"]
        done = subprocess.run(
            command, env={**environment, "HF_ENDPOINT": hub.url}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert hub.files_asked("baber/piqa*.jsonl")
    shutil.rmtree(home / "hf" / "datasets")
    for folder in (home / "hf" / "hub").glob("datasets--*"):
        shutil.rmtree(folder)
    yield home / "online"


def test_its_results_are_of_the_checkpoint_by_its_name_on_the_hub(online: Path) -> None:
    run = load_run(online)
    assert run.items.groupby("task").size().to_dict() == {"lambada_openai": 12, "piqa": 24, "pythia_sciq": 48}
    told = json.loads((online / "lm-eval" / "70m" / "step143000" / "results.json").read_text())
    arguments = told["config"]["model_args"]
    assert arguments["pretrained"] == "EleutherAI/pythia-70m-deduped" and arguments["revision"] == "step143000"
    rows = run.summary[(run.summary["task"] == "piqa") & (run.summary["metric"] == "acc")]
    assert told["results"]["piqa"]["acc,none"] == rows["value"].item()


def test_what_was_read_is_kept_under_its_sha256_and_recorded(online: Path, home: Path) -> None:
    told = json.loads((online / "tasks.json").read_text())
    assert set(told["piqa"]["data"]) == {"train", "validation"}
    for task in told.values():
        for split in task["data"].values():
            assert sha256_file(home / "tools" / "evaluate" / "files" / f"{split['sha256']}.parquet") == split["sha256"]
            assert split["documents"] == 12


def test_without_a_network_the_same_command_gives_the_same(
    online: Path, home: Path, environment: dict[str, str]
) -> None:
    offline = {**environment, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-m", "pythia_tools", *COMMAND, "--out", str(home / "offline")]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pd.testing.assert_frame_equal(load_run(home / "offline").items, load_run(online).items)
    assert json.loads((home / "offline" / "tasks.json").read_text()) == json.loads((online / "tasks.json").read_text())


@pytest.fixture
def copied(online: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kept data sets in another place, as on another machine, without a network."""
    shutil.copytree(home / "tools" / "evaluate", tmp_path / "evaluate")
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "evaluate"


def test_the_folder_may_be_copied(copied: Path, online: Path) -> None:
    task = evaluate.ask(evaluate.Wanted(("piqa",))).tasks["piqa"]
    assert task.receipt == json.loads((online / "tasks.json").read_text())["piqa"] and len(task.instances) == 24


def test_a_damaged_file_is_not_used(copied: Path) -> None:
    for file in (copied / "files").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged; delete it and evaluate once with a network"):
        evaluate.ask(evaluate.Wanted(("piqa",)))


def test_what_was_never_read_is_missed_in_a_line(copied: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="reach its hub once from here"):
        evaluate.ask(evaluate.Wanted(("arc_easy",)))
