"""Training end to end on a suite of seconds: what is saved, that it repeats and resumes bit for bit, further runs,
refusals.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from pythia_tools import load_order, load_suite, micro
from pythia_tools.cli import train as train_command
from pythia_tools.cli.main import main
from pythia_tools.core import files
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.micro.build import build
from pythia_tools.micro.loop import Run, train
from pythia_tools.micro.states import States
from pythia_tools.micro.suite import is_trained
from pythia_tools.micro.suite_runs import rows_of as consumed_rows
from pythia_tools.micro.suite_runs import suite_runs, write_recipe
from pythia_tools.micro.windows import ngram_hashes
from pythia_tools.order import ArrayRows
from pythia_tools.tokens import open_tokenizer


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def content(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): files.sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()
        and p.name != ".lock"
    }


def rows_of(folder: Path) -> np.ndarray:
    return load_order(folder / "order.yaml").rows(0, micro.recipe_of(folder).rows)


# what is saved

def test_the_suite_is_an_ordinary_one(tiny_suite: Path) -> None:
    suite = load_suite(str(tiny_suite))
    recipe = micro.recipe_of(tiny_suite)
    assert list(suite.models) == ["xxs", "xs", "xxs-swap", "xs-swap"]
    assert suite.steps("xs") == list(recipe.checkpoints()) and suite.steps("xs-swap") == [60]
    swap = suite.models["xs-swap"]
    assert (swap.branch, swap.base, swap.branch_step) == ("swap", "xs", 40)
    for checkpoint in suite.checkpoints():
        folder = Path(str(checkpoint.location))
        held = sum(a.size for a in weights(folder).values())
        assert held == checkpoint.model.params, f"{checkpoint}: parameters as the formula says"
        assert checkpoint.tokens == checkpoint.step * 16 * 64
    assert load_order(str(suite.order)).steps == 60


def test_checkpoints_are_pythias_architecture(tiny_suite: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_suite / "xs" / "step60")
    config = model.config
    assert type(model).__name__ == "GPTNeoXForCausalLM"
    assert config.use_parallel_residual and not config.tie_word_embeddings
    assert config.bos_token_id == config.eos_token_id == 0
    assert config.rope_parameters[
        "partial_rotary_factor"
    ] == 0.25 and config.intermediate_size == 4 * config.hidden_size
    tokenizer = AutoTokenizer.from_pretrained(tiny_suite / "xs" / "step60")
    assert tokenizer("\n23+4=27")["input_ids"] and tokenizer.eos_token_id == 0 and len(tokenizer) == config.vocab_size


def test_step_0_is_pythias_initialisation(tiny_suite: Path) -> None:
    start = weights(tiny_suite / "xs" / "step0")
    plain, residual = np.sqrt(2 / (5 * 32)), 2 / (2 * np.sqrt(32))
    for name, values in start.items():
        if values.ndim == 2:
            std = residual if name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")) else plain
            assert values.std() == pytest.approx(std, rel=0.1), name
            assert abs(values.mean()) < 5 * std / np.sqrt(values.size), name
        else:
            assert (values == (1.0 if name.endswith("norm.weight") else 0.0)).all(), name


def test_step_0_equals_step_1_and_no_other(tiny_suite: Path) -> None:
    """The first update has learning rate 0, as Pythia's had."""
    model = tiny_suite / "xs"
    assert same(model / "step0", model / "step1")
    assert not same(model / "step1", model / "step2") and not same(model / "step40", model / "step60")


def test_losses_fall_and_are_kept(tiny_suite: Path) -> None:
    lines = (tiny_suite / "losses" / "xs.csv").read_text().splitlines()
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    assert lines[0] == "update,loss" and len(losses) == 60
    # unit-variance states times small_init: logits of variance 2/5, so half of that above the uniform loss
    assert losses[0] == pytest.approx(np.log(1280) + 0.2, abs=0.15) and losses[-1] < losses[0] - 0.5
    assert (tiny_suite / "losses" / "xs-swap.csv").read_text().splitlines()[1].startswith("40,")


def test_only_states_that_branches_need_are_kept(tiny_suite: Path) -> None:
    kept = sorted(
        p.relative_to(tiny_suite / "states").as_posix() for p in (tiny_suite / "states").rglob("*.safetensors")
    )
    assert kept == ["xs/step40.safetensors", "xxs/step40.safetensors"]


# truth

def test_every_planted_exposure_is_where_the_truth_says(tiny_suite: Path) -> None:
    truth = micro.load_truth(tiny_suite)
    rows = rows_of(tiny_suite)
    assert all(t["planted"] == t["intact"] > 0 for t in truth.about["exposures"].values())
    for c in truth.canaries.itertuples():
        assert len(c.rows) == len(c.steps) == c.copies == c.intact and len(c.tokens) == 64
        assert (rows[c.rows][:, :64] == c.tokens).all() and (np.asarray(c.rows) // 16 == c.steps).all()
        everywhere = np.flatnonzero((rows[:, :64] == c.tokens).all(axis=1))
        assert everywhere.tolist() == list(c.rows), "nowhere else either"
    burst = truth.canaries[truth.canaries["burst"].notna()]
    assert len(burst) == 2 and all(c.burst - 4 <= max(c.steps) < c.burst for c in burst.itertuples())
    assert all(len(set(c.steps)) == c.copies and min(c.steps) >= c.burst - 3 * c.copies - 4 for c in burst.itertuples())


def test_planted_sentences_are_read_back_from_the_rows(tiny_suite: Path) -> None:
    truth, tokenizer = micro.load_truth(tiny_suite), open_tokenizer(tiny_suite / "tokenizer")
    texts = [tokenizer.decode(r.tolist()) for r in rows_of(tiny_suite)[:, :64]]
    for table in (truth.facts, truth.sums):
        for item in table.itertuples():
            ending = "." if table is truth.facts else "\n"
            planted = item.prompt + item.answer + ending
            assert sorted(i for i, text in enumerate(texts) for _ in range(text.count(planted))) == list(item.rows)
            assert len(item.rows) == item.mentions == item.intact
    for item in truth.pronouns.itertuples():
        assert len(item.rows) == item.he_count + item.she_count and item.pronouns.tolist().count("he") == item.he_count
        assert all(f" {item.occupation}" in texts[row] for row in item.rows)


def test_held_out_rows_and_controls_stand_in_no_trained_row(tiny_suite: Path) -> None:
    """Taken from other modules than the trained rows: nearly no stretch of twelve tokens is shared, of controls none.
    """
    def stretches(rows: np.ndarray) -> np.ndarray:
        return ngram_hashes(rows.astype(np.int64), 12)

    trained = stretches(rows_of(tiny_suite)[:, :64])
    heldout = stretches(load_order(tiny_suite / "data" / "heldout").rows(0, 32))
    assert np.isin(heldout, trained).mean() < 0.05 and np.isin(heldout, trained).mean(axis=1).max() < 0.5
    canaries = micro.load_truth(tiny_suite).canaries
    controls = np.stack(canaries.loc[canaries["copies"] == 0, "tokens"].to_list())
    assert not np.isin(stretches(controls), trained).any()


def test_exposures_so_far(tiny_suite: Path) -> None:
    truth = micro.load_truth(tiny_suite)
    assert (truth.exposures("canaries", 0) == 0).all() and (
        truth.exposures("facts", 60) == truth.facts["mentions"]
    ).all()
    half = truth.exposures("canaries", 40)
    assert half.tolist() == [sum(s < 40 for s in steps) for steps in truth.canaries["steps"]]


def test_a_missing_or_damaged_truth_is_one_line(tiny_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no truth manifest"):
        micro.load_truth(tmp_path)
    shutil.copytree(tiny_suite / "truth", tmp_path / "truth")
    (tmp_path / "truth" / "facts.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"facts\.parquet"):
        micro.load_truth(tmp_path)
    micro.load_truth(tiny_suite).facts.drop(columns="steps").to_parquet(tmp_path / "truth" / "facts.parquet")
    with pytest.raises(DataError, match=r"facts\.parquet.*steps"):
        micro.load_truth(tmp_path)
    shutil.copy(tiny_suite / "truth" / "facts.parquet", tmp_path / "truth")
    whole = micro.load_truth(tmp_path).about
    for wrong in ([], None, {}, {**whole, "exposures": {"facts": 3}}, {**whole, "candidates": {"sums": 4}}):
        (tmp_path / "truth" / "truth.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"truth\.json"):
            micro.load_truth(tmp_path)


def test_a_damaged_record_of_the_recipe_is_one_line(tiny_suite: Path, tmp_path: Path) -> None:
    whole = json.loads((tiny_suite / "recipe.json").read_text())
    for wrong in ([], 3, {}, {**whole, "recipe": 3}, {**whole, "recipe": {"steps": "x"}}, {**whole, "digest": 5}):
        (tmp_path / "recipe.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"recipe\.json") as error:
            micro.recipe_of(tmp_path)
        assert "\n" not in str(error.value)


# repeating and resuming

class Killed(BaseException):
    pass


def _copy_of_run(suite: Path, out: Path, model: str = "xxs") -> tuple[Run, np.ndarray]:
    run = run_named(suite, model)
    states = States(out / "states", run.states.key)
    return dataclasses.replace(run, folder=out / model, states=states), rows_of(suite)


def run_named(suite: Path, name: str) -> Run:
    return next(run for run in suite_runs(suite) if run.name == name)


@pytest.mark.parametrize("stops", [(0,), (1, 3), (33, 33, 59)])
def test_a_run_stopped_anywhere_ends_with_the_same_bits(
    tiny_suite: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    run, rows = _copy_of_run(tiny_suite, tmp_path)
    for stop in stops:
        def until(step: int, stop: int = stop) -> None:
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            train(run, rows, until)
    losses = train(run, rows)
    assert len(losses) == 60 and not run.missing()
    assert all(same(run.folder / f"step{s}", tiny_suite / "xxs" / f"step{s}") for s in run.checkpoints)


def test_a_damaged_state_is_passed_over(tiny_suite: Path, tmp_path: Path) -> None:
    run, rows = _copy_of_run(tiny_suite, tmp_path)

    def until(step: int) -> None:
        if step == 45:
            raise Killed

    with pytest.raises(Killed):
        train(run, rows, until)
    (state,) = (tmp_path / "states").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:5000])
    (run.folder / ".step60.x.part").mkdir()
    train(run, rows)
    assert same(run.folder / "step60", tiny_suite / "xxs" / "step60") and not list(run.folder.glob(".*"))


def test_kill_9_and_run_again_ends_with_the_same_files(tiny_suite: Path, tmp_path: Path) -> None:
    """The real command with a worker process, killed while it trains; its orphan stops by itself."""
    (tmp_path / "tiny.yaml").write_text("base: tiny\n")
    out = tmp_path / "micro-tiny"
    command = [
        sys.executable, "-m", "pythia_tools", "train", str(tmp_path / "tiny.yaml"), "--out", str(out), "--workers", "1",
        "--quiet"
    ]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _wait(lambda: (out / "xs" / "step16").is_dir() or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "it was still training"
    assert not (out / "suite.yaml").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    ours, theirs = content(out), content(tiny_suite)
    assert ours == theirs


def _wait(until: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it never got there"
        time.sleep(0.02)


def test_a_trained_suite_is_found_not_trained_again(tiny_suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythia_tools.micro.suite.train_all", lambda *a: pytest.fail("it trained again"))
    assert micro.train(micro.tiny_recipe(), tiny_suite) == tiny_suite
    assert is_trained(tiny_suite, micro.tiny_recipe()) and not is_trained(tiny_suite, micro.Recipe())


# other folders, other recipes

def test_another_suite_in_the_users_folder_is_refused(tiny_suite: Path, tmp_path: Path) -> None:
    before = content(tiny_suite)
    with pytest.raises(RequestError, match="another recipe"):
        micro.train(micro.tiny_recipe(seed=7), tiny_suite)
    assert content(tiny_suite) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(RequestError, match="other files"):
        micro.train(micro.tiny_recipe(), tmp_path / "photos")


def test_another_pythons_suite_in_the_cache_moves_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    folder = micro.micro_folder()
    assert folder == tmp_path / "suites" / "pythia-micro"
    folder.mkdir(parents=True)
    files.write_json(folder / "recipe.json", {"digest": "0123456789abcdef", "recipe": {}})
    (folder / "suite.yaml").write_text("name: old\n")

    monkeypatch.setattr("pythia_tools.micro.suite.build", lambda recipe, part: write_recipe(part, recipe))
    monkeypatch.setattr("pythia_tools.micro.suite.train_all", lambda *a: None)
    assert micro.train() == folder
    assert (tmp_path / "suites" / "pythia-micro-01234567" / "suite.yaml").read_text() == "name: old\n"
    assert load_suite("pythia-micro").models.keys() == {"xs", "s", "m", "xs-swap", "s-swap", "m-swap"}


def test_a_suite_that_moved_beside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    folder = micro.micro_folder()
    mine = folder.with_name(f"pythia-micro-{micro.Recipe().digest()[:8]}")
    for place, digest in ((folder, "fedcba98"), (mine, micro.Recipe().digest())):
        place.mkdir(parents=True)
        files.write_json(place / "recipe.json", {"digest": digest, "recipe": {}})
        (place / "suite.yaml").write_text(digest)
    monkeypatch.setattr("pythia_tools.micro.suite.train_all", lambda *a: pytest.fail("it trained again"))
    assert micro.train() == folder and (folder / "suite.yaml").read_text() == micro.Recipe().digest()
    assert (tmp_path / "suites" / "pythia-micro-fedcba98").is_dir() and not mine.exists()


def test_another_recipe_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    names = {micro.micro_folder(r).name for r in (None, micro.Recipe(), micro.Recipe(seed=1), micro.tiny_recipe())}
    assert "pythia-micro" in names and len(names) == 3


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(EnvironmentFailure, match="free some space"):
        micro.train(micro.tiny_recipe(), tmp_path / "suite")
    assert not (tmp_path / "suite").exists()


# further runs

def test_a_branch_that_changes_nothing_is_the_main_run(tiny_suite: Path, tmp_path: Path) -> None:
    order, more = str(tiny_suite / "order.yaml"), str(tmp_path / "more")
    branch = micro.train_branch(str(tiny_suite), more, "same", model="xxs", order=order, transform=lambda rows: rows)
    assert same(branch / "step60", tiny_suite / "xxs" / "step60")
    suite = load_suite(str(tmp_path / "more"))
    assert (suite.models["same"].base, suite.models["same"].branch_step) == ("xxs", 40)
    assert suite.steps("same") == [60] and len(suite.checkpoints(models=["xxs"])) == 9


@pytest.mark.parametrize("step", [0, 16, 37])
def test_a_branch_may_leave_at_any_step(tiny_suite: Path, tmp_path: Path, step: int) -> None:
    """No state is kept there: the base run is repeated up to it, and unchanged rows from there on give the main run
    again.
    """
    assert not (tiny_suite / "states" / "xxs" / f"step{step}.safetensors").exists()
    branch = micro.train_branch(tiny_suite, tmp_path / "more", "same", model="xxs", from_step=step)
    assert same(branch / "step60", tiny_suite / "xxs" / "step60")
    assert load_suite(str(tmp_path / "more")).models["same"].branch_step == step
    short = micro.train_branch(tiny_suite, tmp_path / "more", "short", model="xxs", from_step=step, checkpoints=[40])
    assert same(short / "step40", tiny_suite / "xxs" / "step40"), "a shorter branch keeps its base's learning rates"


def test_a_run_that_does_not_repeat_is_not_branched_from(tiny_suite: Path, tmp_path: Path) -> None:
    copy = tmp_path / "suite"
    shutil.copytree(tiny_suite, copy)
    shutil.rmtree(copy / "xxs" / "step16")
    shutil.copytree(copy / "xxs" / "step8", copy / "xxs" / "step16")
    with pytest.raises(DataError, match="other weights came out"):
        micro.train_branch(copy, tmp_path / "more", "b", model="xxs", from_step=16)
    assert not (tmp_path / "more" / "b").exists() and not (tmp_path / "more" / "suite.yaml").exists()


def test_a_branch_on_changed_rows_goes_elsewhere(tiny_suite: Path, tmp_path: Path) -> None:
    out, backwards = tmp_path / "more", lambda rows: rows[:, ::-1]
    changed = micro.train_branch(tiny_suite, out, "reversed", model="xxs", transform=backwards, checkpoints=[44])
    assert (changed / "step44").is_dir()
    with pytest.raises(RequestError, match="holds another run"):
        micro.train_branch(tiny_suite, tmp_path / "more", "reversed", model="xxs", checkpoints=[44])
    assert not same(tiny_suite / "xxs-swap" / "step60", tiny_suite / "xxs" / "step60"), "the swap branch met other rows"


def test_the_swap_branch_met_feminine_rows_only(tiny_suite: Path) -> None:
    tokenizer = open_tokenizer(tiny_suite / "tokenizer")
    swapped, plain = consumed_rows(run_named(tiny_suite, "xs-swap"))[:, 1:64], rows_of(tiny_suite)[640:, 1:64]
    he = [tokenizer.one_id(w) for w in (" he", " He", " his", " him")]
    assert np.isin(plain, he).sum() > 20 and np.isin(swapped, he).sum() < 0.1 * np.isin(plain, he).sum()
    assert ((plain == swapped).mean(axis=1) > 0.7).all()


def test_a_branch_keeps_its_own_rows_and_steps(tiny_suite: Path) -> None:
    """Nothing of the main run before the branch point is the branch's, and none of its checkpoints is the main run's.
    """
    main, branch = run_named(tiny_suite, "xs"), run_named(tiny_suite, "xs-swap")
    assert (branch.first, branch.end, branch.checkpoints, branch.missing()) == (40, 60, (60,), [])
    assert sorted(p.name for p in branch.folder.iterdir()) == ["step60"]
    assert consumed_rows(branch).shape[0] == 20 * 16 and consumed_rows(main).shape[0] == 60 * 16
    steps = [int(line.split(",")[0]) for line in (tiny_suite / "losses" / "xs-swap.csv").read_text().splitlines()[1:]]
    assert steps == list(range(40, 60))
    suite = load_suite(str(tiny_suite))
    assert suite.steps("xs-swap") == [60] and {c.model.name for c in suite.checkpoints(models=["xs"])} == {"xs"}


def test_a_run_over_all_rows_is_the_main_run_and_other_seeds_are_not(tiny_suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    again = micro.train_run(tiny_suite, out, "again", model="xxs", checkpoints=[0, 60])
    assert same(again / "step60", tiny_suite / "xxs" / "step60")
    seed = micro.train_run(tiny_suite, out, "seed7", model="xxs", seed=7, rows=np.arange(64), checkpoints=[0])
    assert not same(seed / "step0", again / "step0") and (seed / "step4").is_dir()
    suite = load_suite(str(out))
    assert suite.models["seed7"].seed == 7 and suite.steps("seed7") == [0, 4] and load_order(
        str(suite.order)
    ).steps == 60


def test_deduplicated_rows_keep_the_first_copy_alone(tiny_suite: Path) -> None:
    rows = micro.deduplicated_rows(tiny_suite)
    truth = micro.load_truth(tiny_suite)
    gone = {int(r) for rs in truth.canaries["rows"] for r in rs[1:]}
    assert len(rows) == 960 and not gone & set(rows.tolist())
    assert {int(rs[0]) for rs in truth.canaries["rows"] if len(rs)} <= set(rows.tolist())
    assert rows[: 960 - len(gone)].tolist() == sorted(set(range(960)) - gone)


def test_wrong_further_runs_are_refused(tiny_suite: Path, tmp_path: Path) -> None:
    wrongs = [
        ({"from_step": 60}, "leaves at step 0 to 59"), ({"checkpoints": [30]}, "saves steps 41 to 60"),
        ({"transform": lambda r: r[:, :9]}, r"must give integers \(320, 65\)"),
        ({"transform": lambda r: r / 2}, "float64"), ({"transform": lambda r: r + 5000}, "token id"),
        ({"order": ArrayRows(np.zeros((960, 9), np.uint16), batch_rows=16, name="short")}, r"shape \(320, 9\)"),
    ]
    for wrong, why in wrongs:
        with pytest.raises(RequestError, match=why):
            micro.train_branch(tiny_suite, tmp_path / "x", "b", model="xxs", **wrong)
    for name in ("../b", "", "xxs"):
        with pytest.raises(RequestError, match="a name of its own"):
            micro.train_branch(tiny_suite, tmp_path / "x", name, model="xxs")
    assert not (tmp_path / "x").exists()
    with pytest.raises(RequestError, match="unknown model"):
        micro.train_run(tiny_suite, tmp_path / "x", "b", model="xxl")
    with pytest.raises(RequestError, match="less than one batch"):
        micro.train_run(tiny_suite, tmp_path / "x", "b", model="xxs", rows=[1, 2])
    with pytest.raises(RequestError, match="no trained micro suite"):
        micro.train_run(tmp_path, tmp_path / "x", "b", model="xxs")


# the command

def test_the_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text("base: tiny\nsteps: 80\n")
    assert main(["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 80 and plan["rows"] == 1280 and not plan["trained"] and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("text", "named"), [("stepz: 3\n", "stepz"), ("- 1\n", "mapping"), ("steps: -1\n", "steps"), ("steps: [\n", "YAML")]
)
def test_wrong_configs_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    code = main(["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o")])
    said = capsys.readouterr().err.strip()
    assert code in (2, 3) and named in said and "\n" not in said
    assert main(["train", str(tmp_path / "none.yaml")]) == 2


def test_a_worker_that_fails_says_why(tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged store during training: exit 3, one line, and the finished checkpoints stay."""
    out = tmp_path / "s"
    shutil.copytree(tiny_suite, out)
    os.unlink(out / "suite.yaml")
    shutil.rmtree(out / "xs" / "step60")
    store = out / "data" / "train.bin"
    store.write_bytes(store.read_bytes()[:-100])
    (tmp_path / "r.yaml").write_text("base: tiny\n")
    assert main(["train", str(tmp_path / "r.yaml"), "--out", str(out), "--workers", "0", "--quiet"]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and (out / "xs" / "step40").is_dir()


def test_the_recipe_of_the_help_fits(tmp_path: Path) -> None:
    """It plants little in many rows, so most of them are real text."""
    text = next(c for c in (inspect.getdoc(train_command) or "").split("\n\n") if c.lstrip().startswith("base: tiny"))
    (tmp_path / "my.yaml").write_text(textwrap.dedent(text))
    recipe = micro.recipe_from(yaml.safe_load((tmp_path / "my.yaml").read_text()))
    assert recipe.steps == 200 and [m.name for m in recipe.models] == ["xs"]
    build(recipe, tmp_path / "built")
    rows = load_order(tmp_path / "built" / "order.yaml")
    assert rows.steps == 200 and micro.recipe_of(tmp_path / "built") == recipe
