"""The public results, to the digit."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd
import pytest

from pythia_tools.analyses import term_frequency as tf
from pythia_tools.analyses.term_frequency.published import FILE
from pythia_tools.core.errors import DataError

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "evals-zero-shot.tar.xz"
NAMES = {"13b": "12b", "6.7b": "6.9b", "2.7b": "2.8b", "1.3b": "1.4b", "800m": "1b", "350m": "410m", "125m": "160m"}
MULTIPLICATION = {
    "13b": ".4476", "6.7b": ".2412", "2.7b": ".1640", "1.3b": ".0576", "800m": ".0418", "350m": ".0180", "125m": ".0040"
}
ADDITION = {
    "13b": ".8738", "6.7b": ".4774", "2.7b": ".6852", "1.3b": ".0510", "800m": ".0324", "350m": ".0352", "125m": ".0176"
}


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    if not ARCHIVE.exists():
        pytest.skip("needs shared/data/pythia/evals-zero-shot.tar.xz")
    return tf.read_published(ARCHIVE)


def mean(stored: pd.DataFrame, model: str, task: str, step: int) -> str:
    part = stored[(stored["model"] == NAMES[model]) & (stored["task"] == task) & (stored["step"] == step)]
    assert len(part) == 100
    return f"{part['accuracy'].mean():.4f}".removeprefix("0")


def test_mean_accuracies_of_the_final_step(stored: pd.DataFrame) -> None:
    assert len(stored) == 42_000
    assert {m: mean(stored, m, "multiplication-16shot", 143_000) for m in NAMES} == MULTIPLICATION
    assert {m: mean(stored, m, "addition-16shot", 143_000) for m in NAMES} == ADDITION


def test_mean_accuracies_over_training_and_without_examples(stored: pd.DataFrame) -> None:
    assert mean(stored, "13b", "multiplication-16shot", 13_000) == ".0204"
    assert mean(stored, "13b", "multiplication-16shot", 65_000) == ".2168"
    assert mean(stored, "13b", "multiplication-0shot", 143_000) == ".0980"
    assert sorted(stored["step"].unique()) == [13_000, 39_000, 65_000, 91_000, 117_000, 143_000]
    assert sorted(stored["shots"].unique()) == [0, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("step", "task", "term", "accuracy", "stderr"),
    [
        (143_000, "multiplication-16shot", "2", 0.92, 0.03875617133214441),
        (143_000, "multiplication-16shot", "10", 0.94, None), (143_000, "multiplication-16shot", "99", 0.26, None),
        (143_000, "addition-16shot", "2", 0.96, None), (143_000, "addition-16shot", "50", 0.94, None),
        (13_000, "multiplication-16shot", "1", 0.34, 0.06767268161329719)
    ]
)
def test_single_cells(
    stored: pd.DataFrame, step: int, task: str, term: str, accuracy: float, stderr: float | None
) -> None:
    row = stored[
        (stored["model"] == "12b") & (stored["step"] == step) & (stored["task"] == task) & (stored["term"] == term)
    ]
    assert row["accuracy"].tolist() == [accuracy]
    if stderr is not None:
        assert row["stderr"].tolist() == [stderr]
        assert stderr == pytest.approx((accuracy * (1 - accuracy) / 49) ** 0.5)


def test_results_meet_exposures_in_the_same_frame(stored: pd.DataFrame) -> None:
    """Exposures by a known formula, so that the gap is that of operands 0–9 and 90–99, computed apart."""
    final = stored[(stored["step"] == 143_000) & (stored["task"] == "multiplication-16shot")]
    exposures = pd.DataFrame(
        [(str(x), 143_000, 10_000_000 - 90_000 * x) for x in range(100)], columns=["term", "step", "exposures"]
    )
    summary = tf.summarize(final, exposures)
    gaps = summary[summary["metric"] == "gap"].set_index("model")
    for model in NAMES.values():
        accuracy = final[final["model"] == model].set_index("term")["accuracy"]
        expected = 100 * (
            accuracy[[str(x) for x in range(10)]].mean() - accuracy[[str(x) for x in range(90, 100)]].mean()
        )
        assert gaps.loc[model, "value"] == pytest.approx(expected)
        assert gaps.loc[model, "low"] <= expected <= gaps.loc[model, "high"]
    shown = summary[
        (summary["metric"] == "accuracy") & summary["exposures_low"].isna()
    ].set_index("model")["value"].round(4)
    assert {m: f"{shown[NAMES[m]]:.4f}"[1:] for m in NAMES} == MULTIPLICATION


def test_folder_archive_and_file_read_alike(tmp_path: Path) -> None:
    folder = tmp_path / "csv" / "pythia-125m-deduped"
    folder.mkdir(parents=True)
    line = "EleutherAI/pythia-125m-deduped,13000,num_reasoning_op_infer_addition_7,4,0.5,0.07\n"
    (folder / FILE).write_text("model,checkpoint,task,fewshot,acc,acc_stderr\n" + line)
    with tarfile.open(tmp_path / "e.tar.xz", "w:xz") as archive:
        archive.add(folder / FILE, "csv/pythia-125m-deduped/" + FILE)
    frames = [tf.read_published(p) for p in (tmp_path / "csv", tmp_path / "e.tar.xz", folder / FILE)]
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    assert frames[0].iloc[0][["model", "task", "term", "shots"]].tolist() == ["160m", "hidden-addition-4shot", "7", 4]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no published results in it"):
        tf.read_published(tmp_path)
    (tmp_path / FILE).write_text("model,step\na,1\n")
    with pytest.raises(DataError, match="columns are \\['model', 'step'\\]"):
        tf.read_published(tmp_path)
    line = "EleutherAI/pythia-125m-deduped,13000,num_reasoning_arithmetic_addition_7,4,0.5,0.07\n"
    (tmp_path / FILE).write_text("model,checkpoint,task,fewshot,acc,acc_stderr\n" + line + line)
    with pytest.raises(DataError, match=r"step 13000 num_\w+_addition_7 4-shot is there twice"):
        tf.read_published(tmp_path)


def small_results(folder: Path) -> Path:
    """Two checkpoints of 160m, 100 operands, accuracy that falls with the operand, in the published form."""
    lines = [
        f"EleutherAI/pythia-125m-deduped,{step},num_reasoning_arithmetic_multiplication_{x},16,{(99 - x) / 100},0.01"
        for step in (13_000, 143_000) for x in range(100)
    ]
    folder.mkdir()
    (folder / FILE).write_text("model,checkpoint,task,fewshot,acc,acc_stderr\n" + "\n".join(lines) + "\n")
    return folder


def test_figure_5_and_table_4_of_stored_results_with_exposures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exposures as `count paper:0 … paper:99` writes them: the bins that are drawn and the gap are those worked out by
    hand.
    """
    from pythia_tools import load_run, plots
    from pythia_tools.cli.main import main

    drawn = []
    draw = plots.accuracy_by_frequency
    monkeypatch.setattr(plots, "accuracy_by_frequency", lambda bins, **kw: drawn.append(bins) or draw(bins, **kw))
    rows = [(f"paper:{x}", s, (100 - x) * s * 12) for x in range(100) for s in (13_000, 143_000)]
    pd.DataFrame(rows, columns=["term", "step", "exposures"]).to_csv(tmp_path / "seen.csv", index=False)
    arguments = ["published", "term-frequency", str(small_results(tmp_path / "evals")), "--quiet"]
    assert main([*arguments, "--exposures", str(tmp_path / "seen.csv"), "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    gap = run.summary[(run.summary["metric"] == "gap") & (run.summary["step"] == 143_000)]["value"]
    assert gap.tolist() == pytest.approx([90.0]), "operands 0-9 have .99 to .90, operands 90-99 .09 to .00"
    assert {
        "accuracy_by_frequency_multiplication-16shot", "gap_over_training_multiplication-16shot"
    } <= {p.stem for p in run.figures}
    (bins,) = drawn
    edges = [10 ** (5 + k * (8 + 0.30102999566398120 - 5) / 19) for k in range(20)]
    for step, share in bins.groupby("step"):
        by_hand = {}
        for x in range(100):
            at = next((k for k in range(19) if edges[k] < (100 - x) * step * 12 <= edges[k + 1]), None)
            if at is not None:
                by_hand.setdefault(at, []).append((99 - x) / 100)
        assert share["accuracy"].tolist() == pytest.approx([sum(v) / len(v) for _, v in sorted(by_hand.items())])
        assert share["left"].tolist() == pytest.approx([edges[k] for k in sorted(by_hand)])


@pytest.mark.parametrize(("table", "message"), [
    ("term,step\n7,13000\n", "no column 'exposures'; needed are term, step, exposures"),
    ("term,step,exposures\n7,13000,many\n", "steps and exposures must be whole numbers"),
    ("term,step,exposures\n7,13000,1\npaper:7,13000,2\n", "term '7' has two counts at step 13000"),
])
def test_exposures_that_cannot_be_used_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, message: str,
) -> None:
    from pythia_tools.cli.main import main

    (tmp_path / "seen.csv").write_text(table)
    arguments = [
        "published", "term-frequency", str(small_results(tmp_path / "evals")), "--exposures", str(tmp_path / "seen.csv")
    ]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--quiet"]) == 3
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_without_exposures_the_command_says_what_it_cannot_draw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pythia_tools.cli.main import main

    assert main([
        "published", "term-frequency", str(small_results(tmp_path / "evals")), "--out", str(tmp_path / "run")
    ]) == 0
    assert "figure 5 and table 4) need --exposures" in capsys.readouterr().err
    assert not list((tmp_path / "run" / "figures").glob("accuracy_by_frequency*"))
