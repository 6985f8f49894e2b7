"""The losses table against others' arithmetic: bytes by decoding, transformers' loss, lm-eval's bits per byte."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pythia_tools as pt
from pythia_tools.analyses.losses import bytes_of_ids, from_training, rows, summary
from pythia_tools.analyses.losses.table import COLUMNS
from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import load_run
from pythia_tools.core.tables import IDENTITY
from pythia_tools.models import load, weights_digest
from pythia_tools.order import ArrayRows
from pythia_tools.tokens import open_tokenizer

TEXTS = ["The cat sat on the mat, and 12 + 7 is 19.", "Größe, café, 東京 and emoji 🙂!", "\tindented\n\n  twice  "]


@pytest.fixture(scope="module")
def ckpts(tiny_suite: Path) -> list:
    return pt.load_suite(tiny_suite).checkpoints(models=["xs"], steps=[8, 40])


@pytest.mark.parametrize("module", [rows, summary])
def test_the_examples_hold(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_bytes_of_ids_are_those_of_the_decoded_text(tiny_suite: Path) -> None:
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    spelled = bytes_of_ids(tokenizer)
    assert len(spelled) == len(tokenizer)
    for text in TEXTS:
        assert spelled[tokenizer.encode(text)].sum() == len(text.encode())
    special = [i for i, token in tokenizer.engine.get_added_tokens_decoder().items() if token.special]
    assert special and not spelled[special].any() and (np.delete(spelled, special) > 0).all()


def direct(checkpoint, rows: np.ndarray, tokenizer) -> tuple[float, float]:
    """Nats per token by transformers' own loss, bits per byte by decoding each row's targets."""
    model, nats, spelled = load(checkpoint, device="cpu"), [], 0
    for row in torch.from_numpy(rows.astype(np.int64)):
        nats.append(float(model(row[None], labels=row[None]).loss.detach()))
        spelled += len(tokenizer.decode(row[1:].tolist()).encode())
    return float(np.mean(nats)), sum(nats) * (rows.shape[1] - 1) / (np.log(2) * spelled)


def text_rows(tokenizer, n: int = 9, length: int = 33) -> np.ndarray:
    """Rows of plain ASCII text, so that no character is cut and decoding a row loses nothing."""
    words = ["when the order of reading is known", "one can ask what was learned, and from which page"]
    ids = tokenizer.encode(" ".join(f"{w} {i}." for i in range(200) for w in words))
    return np.array(ids[: n * length]).reshape(n, length)


def test_the_table_of_ones_own_rows_is_a_direct_computation(ckpts, tiny_suite: Path) -> None:
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    rows = text_rows(tokenizer)
    found = pt.losses(ckpts, {"all": rows, "some": rows[:7]}, tokenizer=tokenizer, device="cpu")
    assert list(found.columns) == list(COLUMNS) and found["rows"].tolist() == ["all", "some"] * 2
    assert found["n_consumed"].isna().all() and found["n_rows"].tolist() == [9, 7, 9, 7]
    for checkpoint, lines in zip(ckpts, (found[:2], found[2:]), strict=True):
        for line, some in zip(lines.itertuples(), (rows, rows[:7]), strict=True):
            assert (line.nats_per_token, line.bits_per_byte) == pytest.approx(direct(checkpoint, some, tokenizer))
            assert line.nats_per_token_low < line.nats_per_token < line.nats_per_token_high
            assert line.bits_per_byte_low < line.bits_per_byte < line.bits_per_byte_high
            assert line.step == checkpoint.step and line.weights == weights_digest(checkpoint)
            assert line.n_tokens == some[:, 1:].size and line.dtype == "float32"
    assert found["data"].nunique() == 2
    alone = pt.losses(ckpts, rows, tokenizer=tokenizer, device="cpu")
    assert alone["rows"].tolist() == ["rows"] * 2
    assert alone["nats_per_token"].tolist() == found.loc[found["rows"] == "all", "nats_per_token"].tolist()


def test_bits_per_byte_are_lm_evals(ckpts, tiny_suite: Path) -> None:
    metrics = pytest.importorskip("lm_eval.api.metrics")
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    tokenizer, checkpoint = open_tokenizer(tiny_suite / "tokenizer"), ckpts[-1]
    mark = tokenizer.beginning
    assert mark is not None
    rows = np.column_stack([np.full(6, mark), text_rows(tokenizer, 6, 24)])  # lm-eval's prefix of a document
    texts = [tokenizer.decode(row[1:]) for row in rows]
    assert [tokenizer.encode(t) for t in texts] == rows[:, 1:].tolist()
    model = huggingface.HFLM(
        load(checkpoint, device="cpu"), tokenizer=tokenizer.for_transformers(), device="cpu", max_length=64
    )
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    told = zip(model.loglikelihood_rolling(asked, disable_tqdm=True), texts, strict=True)
    theirs = metrics.bits_per_byte([(float(nats), len(text.encode())) for nats, text in told])
    (ours,) = pt.losses([checkpoint], rows, tokenizer=tokenizer, device="cpu")["bits_per_byte"]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_loss_of_an_end_of_text_marker_counts_per_token_and_not_per_byte(ckpts, tiny_suite: Path) -> None:
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    rows = text_rows(tokenizer, 6, 20)
    marked = rows.copy()
    marked[:, -1] = tokenizer.beginning
    whole, cut = (pt.losses(ckpts[-1:], r, tokenizer=tokenizer, device="cpu").iloc[0] for r in (marked, rows[:, :-1]))
    assert whole["bits_per_byte"] == pytest.approx(cut["bits_per_byte"]) and whole["n_bytes"] == cut["n_bytes"]
    assert whole["n_tokens"] == cut["n_tokens"] + 6 and whole["nats_per_token"] != pytest.approx(cut["nats_per_token"])


def test_rows_of_all_training_are_drawn_evenly_and_are_the_same_for_every_checkpoint() -> None:
    order = ArrayRows(np.arange(8000).reshape(4000, 2), 40)
    drawn = [from_training(order, 3000, rows=60, seed=seed, leave_out=range(0, 3000, 3)).fixed for seed in range(50)]
    assert all(len(set(d.numbers)) == 60 and d.numbers.max() < 3000 and (d.numbers % 3).all() for d in drawn)
    share = np.bincount(np.concatenate([d.numbers for d in drawn]) // 300, minlength=10)
    assert ((share - 300) ** 2 / 300).sum() < 27.9  # chi-square of 9 degrees of freedom, p = .001
    again = from_training(order, 3000, rows=60, seed=3, leave_out=range(0, 3000, 3)).fixed
    assert again.numbers.tolist() == drawn[3].numbers.tolist() and again.digest == drawn[3].digest
    assert len({d.digest for d in drawn}) == 50


def test_rows_of_one_document_are_drawn_once() -> None:
    class Pairs(ArrayRows):
        def documents(self, numbers):
            return np.asarray(numbers) // 2

    order = Pairs(np.zeros((200, 3), int), 10)
    chosen = from_training(order, 200, rows=100).fixed.numbers
    assert len(chosen) == 100 and len(set(chosen // 2)) == 100


def test_names_of_row_sets_and_what_cannot_be_measured(ckpts, tiny_suite: Path) -> None:
    suite = pt.load_suite(tiny_suite)
    found = pt.losses(ckpts, ["training", "heldout"], suite=suite, device="cpu")
    assert {"training", "heldout"} <= set(found["rows"]) <= {*found["rows"], "training_consumed", "training_ahead"}
    early = found[found["step"] == 8].set_index("rows")
    parts = early.loc[["training_consumed", "training_ahead"]]
    assert parts["n_consumed"].tolist() == [parts["n_rows"].iloc[0], 0]
    assert parts["n_rows"].sum() == early.loc["training", "n_rows"]
    assert parts["n_rows"].iloc[0] == early.loc["training", "n_consumed"] > 0
    assert early.loc["heldout", "n_consumed"] == 0
    with pytest.raises(RequestError, match="unknown row set 'heldut'; did you mean 'heldout'"):
        pt.losses(ckpts, ["heldut"], suite=suite)
    with pytest.raises(RequestError, match="rows must be integers of shape"):
        pt.losses(ckpts, np.zeros((2, 3)))
    with pytest.raises(RequestError, match="no row sets"):
        pt.losses(ckpts, {})


def test_without_a_byte_level_tokenizer_there_are_no_bits(ckpts, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    line = pt.losses(ckpts[:1], np.ones((8, 5), int), tokenizer=words, device="cpu").iloc[0]
    assert np.isnan(line["bits_per_byte"]) and pd.isna(line["n_bytes"]) and line["nats_per_token"] > 0
    assert "bits per byte are left out" in capsys.readouterr().err


def test_the_command_writes_the_csv(tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["losses", str(tiny_suite), "--rows", "16", "--device", "cpu", "--quiet", "--out", str(out)]
    assert main([*command, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["data_bytes"] == plan["data_requests"] == 0 and plan["hours_about"] is not None
    assert main(command) == 0
    run, table = load_run(out), pd.read_csv(out / "losses.csv").astype({n: c.dtype for n, c in COLUMNS.items()})
    assert list(table.columns) == list(COLUMNS) and not table.duplicated([*IDENTITY, "rows"]).any()
    told = run.summary[run.summary["metric"] == "bits_per_byte"].set_index(["model", "step", "subset"])
    for line in table.itertuples():
        assert (line.bits_per_byte, line.bits_per_byte_high) == pytest.approx(
            tuple(told.loc[(line.model, line.step, line.rows), ["value", "high"]]), nan_ok=True
        )
    drawn = table[table["rows"] != "heldout"]  # which are a store of the suite's own
    assert (drawn["data"] == run.record["data"]).all() and len(drawn) < len(table)
    assert set(table["weights"]) <= set(run.record["weights"].values())
    held = tmp_path / "held"
    extra = [*command[:-1], str(held), "--heldout", str(tiny_suite / "order.yaml"), "--steps", "last"]
    assert main(extra) == 0
    rows = load_run(held).items.query("subset == 'heldout'")
    assert rows.groupby("model")["row"].nunique().eq(32).all() and not rows["consumed"].any()
