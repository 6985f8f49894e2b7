"""The case study end to end, its figures, and the command line, on random models whose rows are known to be memorized or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from greedy_models import generated, neox
from matplotlib import pyplot as plt

from pythia_tools import plots
from pythia_tools.analyses.memorization import (
    Window,
    auc,
    block_counts,
    exposure_bins,
    qq_points,
    scaling,
    summarize_order,
    summarize_profiles,
)
from pythia_tools.analyses.memorization.case_study import CaseStudy, Design, case_study
from pythia_tools.analyses.memorization.exchange import read_memorized
from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore, load_run
from pythia_tools.core.statistics import paired_shares
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo
from pythia_tools.tokens import StoreWriter

STEPS = (0, 10, 20, 30)


class Order:
    """Rows in memory."""

    name, batch_rows, seq_length = "in memory", 8, 23

    def __init__(self, data: np.ndarray):
        self.data, self.n_rows = data, len(data)

    def take(self, index: np.ndarray) -> np.ndarray:
        return self.data[index]

    def chunks(self, start: int, stop: int, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        for a in range(start, stop, rows):
            yield a, self.data[a : min(stop, a + rows)]

    def step_of(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows) // self.batch_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Checkpoint], Order]:
    """Two sizes at four steps (the same weights from step 10 on); every fourth row is what the larger one decodes, one is repeated."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    data = rng.integers(0, 211, (300, 24))
    large = neox(48, 2, seed=1)
    data[::4, 8:] = generated(large, data[::4, :8], 16)
    data[40:47] = data[0]
    checkpoints = []
    for name, width, params in (("small", 32, 30_000), ("large", 48, 90_000)):
        for step in STEPS:
            model = large if (name == "large" and step) else neox(width, 2, seed=9 + (step > 0))
            folder = root / name / f"step{step}"
            model.save_pretrained(folder)
            info = ModelInfo(name, params=params, non_embedding=params // 2)
            checkpoints.append(Checkpoint("world", info, step, step * 100, f"step{step}", Folder(folder)))
    branch = ModelInfo("large-cut", params=90_000, non_embedding=45_000, branch="cut", base="large", branch_step=20)
    checkpoints.append(Checkpoint("world", branch, 30, 3000, "step30", Folder(root / "small" / "step30")))
    foreign = ModelInfo("large-other", params=90_000, non_embedding=45_000, branch="other", base="large", order="another")
    checkpoints.append(Checkpoint("world", foreign, 30, 3000, "step30", Folder(root / "small" / "step30")))
    return checkpoints, Order(data)


@pytest.fixture(scope="module")
def study(world, tmp_path_factory: pytest.TempPathFactory) -> CaseStudy:  # type: ignore[no-untyped-def]
    checkpoints, order = world
    design = Design(rows=240, block=24, per_cohort=20, controls=40, window=Window(8, 16))
    cells = CellStore(tmp_path_factory.mktemp("cells"))
    return case_study(checkpoints, order, design, decode=lambda ids: " ".join(map(str, ids)), cells=cells, device="cpu")


def test_the_study_finds_what_was_put_into_the_rows(study: CaseStudy) -> None:
    last = study.items[(study.items["model"] == "large") & (study.items["step"] == 30)].set_index("row")["memorized"]
    expected = {*range(0, 240, 4), *range(40, 47)}
    assert set(last.index[last.to_numpy(dtype=bool)]) == expected
    kinds = study.kinds.set_index("row")
    assert kinds.loc[0, "duplicates"] == 8 and kinds.loc[0, "kind"] == "recitation"
    assert kinds.loc[8, "duplicates"] == 1 and kinds.loc[8, "kind"] in ("reconstruction", "recollection")
    at = study.summary.set_index(["model", "step", "group", "metric"])["value"]
    assert at["large", 30, "all", "memorized_share"] == len(expected) / 240
    assert at["large", 10, "predicts large step 30", "recall"] == 1
    assert at["small", 30, "predicts large step 30", "recall"] == 0
    assert at["large", 10, "exposures=0", "memorized_share"] == pytest.approx(np.mean([r in expected for r in range(80, 240)]))
    assert not study.summary.duplicated(["suite", "model", "step", "branch", "group", "metric"]).any()
    wanted = {"dispersion", "scaling_exponent", "effect", "auc", "advantage_after_exposure", "kind_share", "before_effect"}
    assert wanted <= set(study.summary["metric"])


def test_a_branch_is_compared_with_the_run_it_left_row_by_row(study: CaseStudy) -> None:
    line = study.summary.query("metric == 'memorized_difference'").iloc[0]
    expected = len({*range(0, 240, 4), *range(40, 47)}) / 240
    assert (line["model"], line["step"], line["group"], line["n"]) == ("large-cut", 30, "minus large", 240)
    assert line["value"] == pytest.approx(-expected) and line["low"] < -expected < line["high"] < 0
    same = paired_shares(0, 0, 240, unit="row")
    assert same.value == 0 and same.low == -same.high and 0.005 < same.high < 0.012, "no row differs: an interval all the same"
    table = np.array([[40, 20], [5, 35]])
    cells = table + 0.5
    n, b, c = cells.sum(), cells[0, 1], cells[1, 0]
    half = 1.959964 * np.sqrt(b + c - (b - c) ** 2 / n) / n
    found = paired_shares(20, 5, 100, unit="row")
    assert (found.low, found.high) == pytest.approx(((b - c) / n - half, (b - c) / n + half), abs=1e-6)
    assert any("large-other is left out" in n for n in study.notes) and "large-other" not in set(study.items["model"])
    assert not study.summary["metric"].isin(["precision", "scaling_exponent", "auc"])[study.summary["branch"] != "main"].any()


def test_membership_against_the_smallest_model(study: CaseStudy) -> None:
    found = study.summary.query("metric == 'auc' and group == 'reference'").set_index(["model", "step"])["value"]
    assert found.loc["large"].notna().all() and found.loc["small"].isna().all()
    table = study.scores.set_index(["model", "step", "row"])["nll"].sort_index()
    rows = study.scores.query("model == 'large' and step == 20")["row"].to_numpy()
    signal = table["small", 30].loc[rows].to_numpy() - table["large", 20].loc[rows].to_numpy()
    members = rows < 20 * 8
    assert found["large", 20] == pytest.approx(auc(signal[members], signal[rows >= 240], resamples=2).value)


def test_memorized_rows_come_with_what_may_explain_them(study: CaseStudy, world) -> None:  # type: ignore[no-untyped-def]
    _, order = world
    kinds = study.kinds.set_index("row")
    window = order.data[8]
    times = np.bincount(order.data[:240].ravel(), minlength=211)[window]
    assert kinds.loc[8, "token_count_max"] == times.max() and kinds.loc[8, "token_count_median"] == np.median(times)
    assert 1 < kinds.loc[8, "continuation_perplexity"] < kinds.loc[8, "prompt_perplexity"]


def test_rows_repeated_elsewhere_are_neither_followed_nor_controls(study: CaseStudy) -> None:
    followed = set(study.scores["row"])
    assert not followed & {0, *range(40, 47)}
    assert {r for r in followed if r >= 240} and len(study.scores["row"].unique()) <= 3 * 20 + 40


def test_equal_weights_show_no_effect(study: CaseStudy) -> None:
    """Nothing was learned between steps 10 and 30, so profiles from there on are exactly zero."""
    rows = study.summary.query("metric == 'effect' and model == 'large' and group != 'cohort=10'")
    late = rows[rows["step"] >= 10]
    assert len(late) and late["value"].abs().max() < 1e-9


@pytest.mark.parametrize("name", [
    "memorization", "memorization_by_exposures", "memorization_scaling", "order_effect", "foresight", "memorization_profile",
    "memorization_persistence", "forgetting", "membership", "memorization_kinds",
])
def test_every_figure_draws_with_labels(study: CaseStudy, name: str) -> None:
    ax = getattr(plots, name)(study.summary)
    ax.figure.canvas.draw()
    assert ax.get_ylabel() and (ax.get_xlabel() or name == "memorization_kinds")
    plt.close(ax.figure)
    with pytest.raises(RequestError):
        getattr(plots, name)(study.summary.iloc[:0])


def test_the_curve_shows_the_numbers_of_the_table(study: CaseStudy) -> None:
    rows = study.summary[(study.summary["metric"] == "memorized_share") & (study.summary["group"] == "all")]
    ax = plots.memorization(rows)
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in ax.lines if len(line.get_xdata()) == 4}
    assert drawn == {tuple(np.round(rows.loc[rows["model"] == m, "value"], 9)) for m in ("small", "large")}
    plt.close(ax.figure)
    items = study.items[(study.items["model"] == "large") & (study.items["step"] == 30)]
    points = qq_points(block_counts(items["memorized"], 24)[0])
    ax = plots.poisson_qq(points)
    assert ax.collections[0].get_offsets().data.tolist() == points[["theoretical", "observed"]].to_numpy().tolist()
    plt.close(ax.figure)


def test_one_broken_checkpoint_does_not_take_the_others_numbers(study: CaseStudy) -> None:
    broken = (study.items["model"] == "large") & (study.items["step"] == 20)
    items = study.items[study.items["branch"] == "main"].assign(memorized=study.items["memorized"].mask(broken))
    whole = study.items[study.items["branch"] == "main"]
    for function in (scaling, lambda t: summarize_order(t, block=24, permutations=50)):
        before, after = (function(t).set_index(["model", "step", "group", "metric"])["value"] for t in (whole, items))
        assert len(after) and ("large", 20) not in {i[:2] for i in after.index}
        same = [i for i in after.index if i[0] != "all" and "tokens" not in i]
        pd.testing.assert_series_equal(after[same], before[same])
    assert scaling(whole.assign(memorized=pd.NA)).empty
    scores = study.scores[study.scores["model"] == "large"]
    lost = scores.assign(nll=scores["nll"].mask(scores["step"] == 20))
    rows = scores["row"].unique()
    options = {"controls": rows >= 240, "row_ids": rows, "resamples": 20}
    effects = summarize_profiles(lost, rows // 8, **options)
    assert set(effects["step"]) == {0, 10, 30} and (effects["value"].notna()).all()


def test_a_study_needs_steps_and_the_suites_own_order(world) -> None:  # type: ignore[no-untyped-def]
    checkpoints, order = world
    with pytest.raises(RequestError, match="at least two"):
        case_study(checkpoints[:1], order)
    with pytest.raises(RequestError, match="'huge' is not one of the main models compared: small, large"):
        case_study(checkpoints, order, Design(reference="huge"))
    with pytest.raises(RequestError, match="is it the suite's order"):
        case_study(checkpoints, Order(order.data[:100]))


def test_exposures_are_binned_by_doubling() -> None:
    assert exposure_bins(pd.Series([0, 1, 2, 3, 4, 7, 8, 256])).tolist() == ["0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "256-511"]


def test_the_command_writes_a_run_and_repeats_it(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, order = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "rows.npy", order.data[:60])
    common = ["memorization", root, "--steps", "0,30", "--rows", str(tmp_path / "rows.npy"), "--context", "8", "--continuation", "16"]
    common += ["--device", "cpu", "--quiet"]
    assert main([*common, "--out", str(tmp_path / "run"), "--exchange", "duped", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    run = load_run(tmp_path / "run")
    assert {r["group"] for r in shown} == {"all"} and len(run.items) == 4 * 60
    assert len(run.record["weights"]) == 4 and any(p.name == "memorization.svg" for p in run.figures)
    listed = read_memorized(tmp_path / "run" / "exchange", "duped.large.30")
    assert listed["index"].tolist() == sorted({*range(0, 60, 4), *range(40, 47)})
    monkeypatch.setattr(plots, "save", lambda ax, *_: plt.close(ax.figure))  # drawn once above
    assert main(["rerun", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--device", "cpu", "--quiet"]) == 0
    shards = [str(tmp_path / f"shard{i}") for i in range(2)]
    for i, folder in enumerate(shards):
        assert main([*common, "--out", folder, "--shard", f"{i}/2"]) == 0
    assert main(["merge", *shards, "--out", str(tmp_path / "joined"), "--quiet"]) == 0
    pd.testing.assert_frame_equal(load_run(tmp_path / "joined").summary, run.summary)
    capsys.readouterr()
    assert main([*common, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 4


def test_a_short_run_is_asked_about_whole_unless_more_was_asked_for(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, order = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    with StoreWriter(tmp_path / "rows", np.uint16) as out:
        for row in order.data[:40]:
            out.add_document(row)
    (tmp_path / "short.yaml").write_text(
        f"{{name: short, kind: preshuffled, seq_length: {order.data.shape[1] - 1}, batch_rows: 1, steps: 28, store: {{prefix: rows}}}}"
    )
    common = ["memorization", root, "--steps", "10,30", "--order", str(tmp_path / "short.yaml"), "--context", "8", "--continuation", "8"]
    common += ["--device", "cpu", "--quiet"]
    assert main([*common, "--out", str(tmp_path / "run")]) == 0
    items = load_run(tmp_path / "run").items
    assert items.groupby("model")["row"].nunique().eq(28).all()
    assert (items["exposures"] == (items["row"] < items["step"])).all(), "one row a step: row r is met by checkpoint r + 1"
    assert main([*common, "--out", str(tmp_path / "more"), "--rows", "sample=29"]) == 2
    assert "rows 0:28 are 28" in capsys.readouterr().err


def test_rows_of_another_tokenizer_are_flagged_and_the_run_is_written(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, _ = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "foreign.npy", np.random.default_rng(0).integers(300, 50000, (9, 24)))
    options = ["--rows", str(tmp_path / "foreign.npy"), "--context", "8", "--continuation", "16", "--models", "small", "--steps", "0,30"]
    assert main(["memorization", root, *options, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "9 of 9 rows hold ids the model does not have; are rows and model of one tokenizer?" in said and "no row was decided" in said
    run = load_run(tmp_path / "run")
    assert run.items["memorized"].isna().all() and set(run.items["status"]) == {"id beyond vocabulary"}
    assert (run.summary.set_index("metric").loc["undecided", "value"] == 9).all()


@pytest.mark.parametrize(("options", "said"), [
    (["--rows", "sample=10"], "names no data order"), (["--rows", "nothing.npy"], "no such file"),
    (["--rows", "canaries"], "no truth manifest"),
    (["--rows", "{rows}", "--context", "20"], "rows have 24 ids"), (["--rows", "{rows}", "--context", "0"], "not a positive whole number"),
])
def test_wrong_requests_are_one_line(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    checkpoints, order = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "rows.npy", order.data[:9])
    filled = [o.format(rows=tmp_path / "rows.npy") for o in options]
    code = main(["memorization", root, "--steps", "30", "--device", "cpu", "--quiet", "--out", str(tmp_path / "run"), *filled])
    error = capsys.readouterr().err
    assert code in (2, 3) and said in error and len(error.strip().splitlines()) == 1
