"""pythia-micro: losses.csv is a direct computation with transformers, and a pass over a batch lowers the loss on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

import pythia_tools as pt
from pythia_tools.cli.main import main
from pythia_tools.core.results import Run, load_run

pytestmark = pytest.mark.trained
RUNS, STEPS = ("xs", "s", "m"), (256, 512)


@pytest.fixture(scope="module")
def run(micro_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("losses") / "run"
    chosen = ["--models", *RUNS, "--steps", ",".join(map(str, STEPS))]
    assert main(["losses", str(micro_suite), *chosen, "--device", "cpu", "--quiet", "--out", str(out)]) == 0
    return load_run(out)


@pytest.mark.parametrize(("model", "step"), [("xs", 256), ("m", 512)])
def test_the_table_is_what_transformers_computes(run: Run, micro_suite: Path, model: str, step: int) -> None:
    here = run.items[(run.items["model"] == model) & (run.items["step"] == step)]
    table = pd.read_csv(run.path / "losses.csv").query("model == @model and step == @step").set_index("rows")
    live = AutoModelForCausalLM.from_pretrained(micro_suite / model / f"step{step}")
    tokenizer = AutoTokenizer.from_pretrained(micro_suite / "tokenizer")
    order, letters = pt.load_order(micro_suite / "order.yaml"), {c: b for b, c in bytes_to_unicode().items()}
    for subset in ("before", "after", "training"):
        numbers = here.loc[here["subset"] == subset, "row"].to_numpy()
        nats, spelled = [], 0
        for row in order.take(numbers).astype(np.int64):
            ids = torch.from_numpy(row)[None]
            with torch.no_grad():
                nats.append(float(live(ids, labels=ids).loss))
            pieces = tokenizer.convert_ids_to_tokens(row[1:].tolist())
            assert not set(pieces) & set(tokenizer.all_special_tokens), "else their loss is no text's"
            spelled += sum(len(bytes(letters[c] for c in piece)) for piece in pieces)
        line = table.loc[subset]
        assert line["n_rows"] == len(numbers) and line["n_bytes"] == spelled
        assert line["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
        assert line["bits_per_byte"] == pytest.approx(sum(nats) * order.seq_length / np.log(2) / spelled, rel=1e-5)
        consumed = int((numbers < step * order.batch_rows).sum())
        assert line["n_consumed"] == consumed == {"before": len(numbers), "after": 0}.get(subset, consumed)


@pytest.mark.parametrize("model", RUNS)
def test_a_pass_over_a_batch_lowers_the_loss_on_it_in_every_main_run(run: Run, model: str) -> None:
    own = run.summary[(run.summary["model"] == model) & (run.summary["metric"] == "nll_gap")]
    gap = own[own["subset"] == "after"].set_index("step")
    assert gap.index.tolist() == list(STEPS) and (gap["low"] > 0).all(), gap[["value", "low", "high"]]
