"""The paper's figures from public results, through the command line: what is drawn is what was published."""

from __future__ import annotations

import json
import re
import shlex
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import load_run, plots
from pythia_tools.cli.main import main
from pythia_tools.core.tables import KEYS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "published.md"
ITEMS = {"lambada_openai": 5153, "hendrycksTest-anatomy": 135, "hendrycksTest-virology": 166}


def value(task: str, size: str, step: int, shots: int, deduped: bool) -> float:
    """A share of the task's items that all its cells differ in."""
    n = ITEMS[task]
    return (n // 4 + step // 10_000 + {"70m": 0, "12b": 9}[size] + shots + deduped) / n


@pytest.fixture(scope="module")
def evals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the public tree: two sizes of both corpora, three steps, zero- and five-shot; an intervention."""
    root = tmp_path_factory.mktemp("evals")
    for size, deduped, shots, step in product(("70m", "12b"), (False, True), (0, 5), (3000, 73000, 143000)):
        name = size + "-deduped" * deduped
        folder = root / f"pythia-v1/pythia-{name}/{'five' if shots else 'zero'}-shot"
        results = {}
        for task, n in ITEMS.items():
            p = value(task, size, step, shots, deduped)
            results[task] = {"acc": p, "acc_stderr": (p * (1 - p) / (n - 1)) ** 0.5}
        write(folder / f"{name}{'-5shot' * bool(shots)}_step{step}.json", f"pythia-v1.1-{name}", step, results, shots)
    for kind, step in product(("baseline", "intervention"), (134000, 143000)):
        folder = root / f"pythia-v1/pythia-70m-deduped/{kind}"
        model = ("intervention-" if kind == "intervention" else "") + "pythia-v1.1-70m-deduped"
        write(folder / f"{kind}-70m-deduped_step{step}.json", model, step, {"crows_pairs_english_gender": {
            "pct_stereotype": 0.55, "pct_stereotype_stderr": (0.55 * 0.45 / 319) ** 0.5}}, 0)
    return root


def write(path: Path, model: str, step: int, results: dict[str, dict[str, float]], shots: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": results, "versions": {}, "config": {
        "model_args": f"pretrained=EleutherAI/{model},revision=step{step}", "num_fewshot": shots}}))


@pytest.mark.parametrize("shots", [0, 5])
def test_accuracy_is_drawn_as_published(evals: Path, tmp_path: Path, monkeypatch, capsys, shots: int) -> None:
    drawn = {}
    monkeypatch.setattr(plots, "save", lambda figure, folder, name: drawn.update({name: figure}))
    arguments = ["published", "accuracy", str(evals), "--task", "lambada_openai", "--num-fewshot", str(shots)]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--json", "--quiet"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 12
    run = load_run(tmp_path / "run")
    assert not run.summary.duplicated(KEYS).any() and set(run.summary["n"]) == {5153}
    half = (run.summary["high"] - run.summary["low"]) / 2
    p = run.summary["value"]
    assert np.allclose(half, 1.959964 * np.sqrt(p * (1 - p) / 5152), rtol=1e-5)
    assert set(drawn) == {f"lambada_openai_over_training_{shots}shot", f"lambada_openai_by_size_{shots}shot",
                          f"deduplicated_against_standard_{shots}shot"}
    training = drawn[f"lambada_openai_over_training_{shots}shot"]
    assert [ax.get_title() for ax in training.axes] == ["pythia", "pythia-deduped"]
    for deduped, ax in enumerate(training.axes):
        for size, line in zip(("70m", "12b"), ax.get_lines(), strict=False):
            expected = [value("lambada_openai", size, s, shots, bool(deduped)) for s in (3000, 73000, 143000)]
            assert line.get_ydata().tolist() == expected and line.get_xdata().tolist() == [3000, 73000, 143000]
    both = drawn[f"deduplicated_against_standard_{shots}shot"].axes[0]
    for deduped, line in enumerate(both.get_lines()[:6:3]):
        assert line.get_ydata().tolist() == [
            value("lambada_openai", size, 143000, shots, bool(deduped)) for size in ("70m", "12b")]


def test_the_57_tasks_together_weigh_by_items(evals: Path, tmp_path: Path) -> None:
    arguments = ["published", "accuracy", str(evals), "--task", "hendrycksTest"]
    assert main([*arguments, "--out", str(tmp_path), "--quiet"]) == 0
    run = load_run(tmp_path)
    last = run.summary[(run.summary["suite"] == "pythia") & (run.summary["step"] == 143000)].set_index("model")
    for size in ("70m", "12b"):
        parts = {t: value(t, size, 143000, 0, False) for t in ITEMS if t.startswith("hendrycksTest")}
        right = sum(p * ITEMS[t] for t, p in parts.items())
        assert last.loc[size, "value"] == pytest.approx(right / 301) and last.loc[size, "n"] == 301


def test_requests_that_cannot_be_met(evals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--task", "lambda_openai"], "did you mean 'lambada_openai'?"),
        (["--num-fewshot", "3"], "no 3-shot numbers"), (["--task", "lambada_openai", "--metric", "em"], ""),
    ):
        code = main(["published", "accuracy", str(evals), *arguments, "--out", str(tmp_path / "x"), "--quiet"])
        error = capsys.readouterr().err
        assert (code in (2, 3) and message in error and error.count("\n") == 1) if message else code == 0


def test_the_page_shows_what_its_commands_make(evals: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Every command of the page runs as typed, on files in the public layout, and makes the pictures it names."""
    text = PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^pythia-tools (.+)$", text, flags=re.MULTILINE)
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evals").symlink_to(evals)
    for command in commands:
        words = shlex.split(command)
        assert main([*words, "--quiet"]) == 0, command
    made = {path.stem for path in tmp_path.glob("runs/*/figures/*.svg")}
    shown = re.findall(r"!\[[^\]]+\]\((figures/[^)]+)\)", text)
    assert len(shown) == 4
    for picture in shown:
        file = PAGE.parent / picture
        assert file.is_file() and file.stem in made and file.stat().st_size < 150_000
    python = re.search(r"```python\n(.+?)```", text, flags=re.DOTALL)
    exec(python[1], scope := {})  # the page's own lines
    assert isinstance(scope["frame"], pd.DataFrame) and len(scope["wrong"]) == 0
