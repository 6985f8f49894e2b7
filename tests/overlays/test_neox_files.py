"""What is written out, read back by the rules of GPT-NeoX's loader, and by our own orders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from test_overlay import ORDER, TOKENIZER, WIDTH

from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError
from pythia_tools.order import load_order
from pythia_tools.overlays import Overlay, PronounSwap, write_out
from pythia_tools.tokens import open_store


def served(prefix, name: str, k: int, width: int) -> np.ndarray:
    """Sample k as GPT-NeoX's packed dataset reads it: shuffle map, two neighbouring sample entries, documents in
    between.
    """
    doc, sample, shuffle = (
        np.load(prefix.with_name(f"{prefix.name}_{name}_{part}_idx.npy")) for part in ("doc", "sample", "shuffle")
    )
    sizes = open_store(prefix).sizes
    tokens = np.fromfile(prefix.with_name(prefix.name + ".bin"), dtype=np.uint16)
    starts = np.concatenate([[0], np.cumsum(sizes)])

    def document(d, offset=0, length=None):
        stop = sizes[d] if length is None else offset + length
        return tokens[starts[d] + offset : starts[d] + stop]

    s = shuffle[k]
    (first, begin), (last, end) = sample[s], sample[s + 1]
    if first == last:
        row = document(doc[first], begin, end - begin + 1)
    else:
        middle = [document(doc[d]) for d in range(first + 1, last)]
        row = np.concatenate([document(doc[first], begin), *middle, document(doc[last], 0, end + 1)])
    assert len(row) == width
    return row


@pytest.mark.parametrize(("version", "infix"), [("v1", ""), ("current", "_packedpi_ac")])
def test_the_loader_reads_exactly_these_rows_in_this_order(tmp_path, version, infix):
    overlay = Overlay(ORDER, PronounSwap(TOKENIZER), steps=range(3, 8))
    done = write_out(overlay, tmp_path / "swap", seed=7, version=version)
    assert all(f.exists() for f in done)
    name = f"train_0_indexmap_41ns_{WIDTH - 1}sl_7s{infix}"
    expected = overlay.rows(0, 40)
    for k in range(12, 32):
        assert (served(tmp_path / "swap", name, k, WIDTH) == expected[k]).all()
    for k in (0, 11, 32):
        assert (served(tmp_path / "swap", name, k, WIDTH) == 1).all(), "places outside hold the guard"
    shuffle = np.load(tmp_path / f"swap_{name}_shuffle_idx.npy")
    sample = np.load(tmp_path / f"swap_{name}_sample_idx.npy")
    assert min(len(shuffle) - 1, len(sample) - 1) == 32, "the loader's length ends after the last row"
    assert sample.dtype == np.int32 and shuffle.dtype == np.uint32 and sample.shape == (42, 2)


def test_our_own_orders_read_them_too(tmp_path):
    overlay = Overlay(ORDER, PronounSwap(TOKENIZER), steps=range(3, 8))
    write_out(overlay, tmp_path / "swap")
    order = load_order(tmp_path / "swap.order.yaml")
    assert order.steps == 5 and (order.batch(1) == overlay.batch(4)).all()
    config = yaml.safe_load((tmp_path / "swap.neox.yml").read_text())
    assert config["train_iters"] == 10 and config["finetune"] is False
    recipe = (tmp_path / "swap.recipe.md").read_text()
    assert "Batches 3 to 7 (20 rows of 33 tokens)" in recipe and "global_step3" in recipe


def test_steps_must_be_one_run(tmp_path):
    with pytest.raises(RequestError, match="one run of consecutive batches"):
        write_out(Overlay(ORDER, PronounSwap(TOKENIZER), steps=[1, 3]), tmp_path / "x")


@pytest.fixture
def stored(tmp_path):
    """The order of these tests on disk with its manifest and tokenizer."""
    write_out(ORDER, tmp_path / "base", steps=range(10))
    (tmp_path / "tokenizer").mkdir()
    TOKENIZER.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return tmp_path / "base.order.yaml"


def test_command_line(stored, tmp_path, capsys):
    assert main(["data", "overlay", str(stored), "--steps", "3:7", "--swap", "feminine", "--diff", "1"]) == 0
    out = capsys.readouterr().out
    assert "row 12 (step 3, row 0 of its batch): 2 changes" in out and '"changed": 20' in out
    folder = tmp_path / "out"
    assert main([
        "data", "overlay", str(stored), "--steps", "3:7", "--swap", "feminine", "--out", str(folder), "--write",
        "--json"
    ]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] == 20 and len(told["written"]) == 8
    assert (folder / "receipt.json").exists() and (folder / "occurrences.parquet").exists()
    written = load_order(folder / "rows.order.yaml")
    assert (written.rows(0, 20) == Overlay(ORDER, PronounSwap(TOKENIZER), steps=range(3, 8)).rows(12, 32)).all()
    assert main([
        "data", "overlay", str(stored), "--steps", "3:7", "--control", "--out", str(tmp_path / "control"), "--write"
    ]) == 0
    assert (load_order(tmp_path / "control" / "rows.order.yaml").rows(0, 20) == ORDER.data[12:32]).all()


def test_every_rule_on_the_command_line(stored, tmp_path, capsys):
    (tmp_path / "rows.txt").write_text("4\n5\n")
    (tmp_path / "terms.tsv").write_text("hat\tcap\n")
    rules = [
        ["--remove", str(tmp_path / "rows.txt"), "--reserve", "36:40"], ["--deduplicate", "--reserve", "36:40"],
        ["--repeat", str(tmp_path / "rows.txt"), "--copies", "2"], ["--insert", " and so", "--copies", "3"],
        ["--replace", str(tmp_path / "terms.tsv")],
    ]  # fmt: skip
    for rule, changed in zip(rules, (2, 0, 4, 3, 8), strict=True):
        assert main(["data", "overlay", str(stored), "--steps", "0:3", *rule, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["changed"] == changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--swap", "feminine", "--steps", "3:89"], "are not within the order's batches 0…9"),
        (["--swap", "feminine", "--steps", "5:4"], "name no batch"),
        (["--insert", " x", "--at", "-3", "--steps", "3:7"], "a token offset is 0 or more"),
        (["--steps", "3:7"], "no rule was given"),
        (["--steps", "3:7", "--swap", "feminine", "--write"], "--write needs --out DIR"),
        (["--steps", "3:7", "--deduplicate"], "give rows as a:b"),
        (["--steps", "3:7", "--control"], "--control goes with --write"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(stored, capsys, arguments, message):
    assert main(["data", "overlay", str(stored), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
