"""The declared analyses end to end, their figures, and the command line, on models whose rows are known to be
memorized.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tokenizers
from greedy_models import generated, neox
from matplotlib import pyplot as plt

from pythia_tools import plots
from pythia_tools.analyses.memorization import (
    EffectOptions,
    Memorization,
    MemorizationEffects,
    MemorizationOptions,
    auc,
    block_counts,
    exposure_bins,
    predictability,
    qq_points,
    scaling,
    summarize_order,
    summarize_profiles,
)
from pythia_tools.analysis import Context, Execution, plan, prepare, sweep
from pythia_tools.analysis.perform import checked
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore, load_run
from pythia_tools.core.statistics import paired_shares
from pythia_tools.order import ArrayRows
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo
from pythia_tools.tokens import StoreWriter

STEPS = (0, 10, 20, 30)
WORDS = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(211)}, unk_token="0"))
"""Token i is the word `i`."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Checkpoint], ArrayRows]:
    """Two sizes at four steps (equal weights from step 10 on); every fourth row is what the larger decodes, one is
    repeated.
    """
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
    foreign = ModelInfo(
        "large-other", params=90_000, non_embedding=45_000, branch="other", base="large", order="another"
    )
    checkpoints.append(Checkpoint("world", foreign, 30, 3000, "step30", Folder(root / "small" / "step30")))
    return checkpoints, ArrayRows(data, 8, name="in memory")


@dataclass
class Study:
    items: pd.DataFrame
    summary: pd.DataFrame
    scores: pd.DataFrame
    effects: pd.DataFrame
    kinds: pd.DataFrame
    said: str

    @property
    def both(self) -> pd.DataFrame:
        return tables.concat([self.summary, self.effects])


@pytest.fixture(scope="module")
def study(world, tmp_path_factory: pytest.TempPathFactory) -> Study:  # type: ignore[no-untyped-def]
    checkpoints, order = world
    where = Execution(device="cpu", cells=CellStore(tmp_path_factory.mktemp("cells")))
    context = Context(checkpoints, where, order=order, tokenizer=WORDS)
    options = MemorizationOptions(rows="0:240", block=24, context=8, continuation=16, kinds=True)
    own, effects = Memorization(), MemorizationEffects()
    parts = [prepare(own, context, options), prepare(effects, context, EffectOptions(per_cohort=20, controls=40))]
    result = sweep(context, [task for part in parts for task in part.tasks])
    items, scores = (p.analysis.items(result, context, p.options) for p in parts)
    summaries = [
        checked(p.analysis, p.analysis.summarize(t, context, p.options))
        for p, t in zip(parts, (items, scores), strict=True)
    ]
    exports = list(own.exports(items, context, options))
    assert [str(e.path) for e in exports] == ["kinds.parquet"]
    return Study(items, summaries[0], scores, summaries[1], exports[0].content, "")


def test_the_study_finds_what_was_put_into_the_rows(study: Study) -> None:
    last = study.items[(study.items["model"] == "large") & (study.items["step"] == 30)].set_index("row")["memorized"]
    expected = {*range(0, 240, 4), *range(40, 47)}
    assert set(last.index[last.to_numpy(dtype=bool)]) == expected
    kinds = study.kinds.set_index("row")
    assert kinds.loc[0, "duplicates"] == 8 and kinds.loc[0, "kind"] == "recitation"
    assert kinds.loc[8, "duplicates"] == 1 and kinds.loc[8, "kind"] in ("reconstruction", "recollection")
    whole = study.summary[study.summary["exposures_low"].isna() & study.summary["cohort"].isna()]
    at = whole.set_index(["model", "step", "metric"])["value"]
    assert at["large", 30, "memorized_share"] == len(expected) / 240
    assert at["large", 10, "recall"] == 1 and at["small", 30, "recall"] == 0
    assert set(whole.loc[whole["metric"] == "recall", "reference"]) == {"large/step30"}
    assert {"dispersion", "parameters_exponent", "tokens_exponent", "kind_share"} <= set(study.summary["metric"])
    assert {"effect", "auc", "advantage_after_exposure", "before_effect"} <= set(study.effects["metric"])


def test_exposures_of_rows_are_occurrences_of_their_windows(study: Study, world) -> None:  # type: ignore[no-untyped-def]
    """A suite without a truth manifest: batch b is in checkpoint b + 1, and not yet in checkpoint b."""
    data = world[1].array
    windows = np.lib.stride_tricks.sliding_window_view(data, 24, axis=1)
    times = {
        (row, step): int((windows[: step * 8] == data[row]).all(axis=2).sum()) for row in range(240) for step in STEPS
    }
    expected = [times[row, step] for row, step in zip(study.items["row"], study.items["step"], strict=True)]
    assert study.items["exposures"].tolist() == expected and max(expected) > 1
    assert (study.items["consumed"] == (study.items["row"] // 8 < study.items["step"])).all()
    told = study.summary[(study.summary["metric"] == "memorized_share") & study.summary["exposures_low"].notna()]
    n = told.set_index(["model", "step", "exposures_low"])["n"]
    assert n["large", 10, 1] == 72 and n["large", 10, 8] == 1, "one text was consumed eight times"
    assert set(told["unit"]) == {"text"}
    assert n["large", 10, 0] == 160 and ("large", 30, 0) not in n.index
    share = told.set_index(["model", "step", "exposures_low"])["value"]
    memorized = {*range(0, 240, 4), *range(40, 47)}
    assert share["large", 10, 0] == pytest.approx(np.mean([r in memorized for r in range(80, 240)]))


def test_a_plan_reads_no_row(world) -> None:  # type: ignore[no-untyped-def]
    checkpoints, order = world

    class Unread(ArrayRows):
        def take(self, numbers: object) -> np.ndarray:
            raise AssertionError("a row was read")

    context = Context(checkpoints, Execution(device="cpu"), order=Unread(order.array, 8), tokenizer=WORDS)
    options = MemorizationOptions(rows="sample=40", context=8, continuation=16, order_rows=64)
    planned = plan(context, prepare(Memorization(), context, options).tasks)
    assert planned["cells"] == 10 + 2 and planned["problems"] == []


def test_evenly_spaced_rows_reach_to_the_last_row_consumed(world) -> None:  # type: ignore[no-untyped-def]
    checkpoints, order = world
    context = Context(checkpoints, Execution(device="cpu"), order=order, tokenizer=WORDS)
    options = MemorizationOptions(rows="sample=20", context=8, continuation=16, order_rows=60, block=12)
    own = Memorization()
    items = own.items(sweep(context, prepare(own, context, options).tasks), context, options)
    spaced = items[items["task"] == "order"]
    assert spaced["row"].min() == 0 and spaced["row"].max() == 30 * 8 - 1 and spaced["row"].nunique() == 60
    assert set(
        zip(spaced["model"], spaced["step"], strict=True)
    ) == {("small", 30), ("large", 30)}, "main runs, last step"
    summary = checked(own, own.summarize(items, context, options))
    tested = summary[summary["metric"] == "dispersion"]
    assert set(tested["task"]) == {"order"} and (tested["n"] == 5).all()
    assert "memorization_order" in {f.name for f in own.figures(items, summary)}
    plt.close("all")


def test_a_branch_is_compared_with_the_run_it_left_row_by_row(study: Study) -> None:
    lines = study.summary.query("metric == 'memorized_difference'")
    line = lines.iloc[0]
    expected = len({*range(0, 240, 4), *range(40, 47)}) / 240
    assert len(lines) == 1, "large-other consumed another order, so its rows are other texts"
    assert (line["model"], line["step"], line["reference"], line["n"]) == ("large-cut", 30, "large", 233)
    assert line["value"] == pytest.approx(-expected) and line["low"] < -expected < line["high"] < 0
    same = paired_shares(0, 0, 240, unit="row")
    assert same.value == 0 and same.low == -same.high and 0.005 < same.high < 0.012, "an interval all the same"
    table = np.array([[40, 20], [5, 35]])
    cells = table + 0.5
    n, b, c = cells.sum(), cells[0, 1], cells[1, 0]
    half = 1.959964 * np.sqrt(b + c - (b - c) ** 2 / n) / n
    found = paired_shares(20, 5, 100, unit="row")
    assert (found.low, found.high) == pytest.approx(((b - c) / n - half, (b - c) / n + half), abs=1e-6)


def test_branches_are_not_among_the_main_rows(study: Study) -> None:
    """The branch has the weights of another size: among the main rows it would move slopes and predictions."""
    main = study.items[study.items["branch"] == "main"]
    of_main = {"precision", "recall", "parameters_exponent", "tokens_exponent", "memorized_share_difference"}
    told = study.summary[study.summary["metric"].isin(of_main)]
    assert len(told) and (told["branch"] == "main").all() and not told["model"].isin(["large-cut", "large-other"]).any()
    for function, names in ((scaling, ["parameters_exponent", "tokens_exponent"]), (predictability, ["recall"])):
        expected, found = function(main), study.summary
        a, b = (t[t["metric"].isin(names)].set_index(["model", "step", "metric"])["value"] for t in (expected, found))
        pd.testing.assert_series_equal(a, b)
    assert set(study.scores["branch"]) == {"main"} and (study.effects["branch"] == "main").all()


def test_membership_against_the_smallest_model(study: Study) -> None:
    found = study.effects.query("metric == 'auc' and task == 'reference'")
    assert set(found["reference"]) == {"small"}
    found = found.set_index(["model", "step"])["value"]
    assert found.loc["large"].notna().all() and found.loc["small"].isna().all()
    table = study.scores.set_index(["model", "step", "row"])["nll"].sort_index()
    rows = study.scores.query("model == 'large' and step == 20")["row"].to_numpy()
    signal = table["small", 30].loc[rows].to_numpy() - table["large", 20].loc[rows].to_numpy()
    members = rows < 20 * 8
    assert found["large", 20] == pytest.approx(auc(signal[members], signal[rows >= 240]).value)


def test_memorized_rows_come_with_what_may_explain_them(study: Study, world) -> None:  # type: ignore[no-untyped-def]
    _, order = world
    kinds = study.kinds.set_index("row")
    window = order.array[8]
    times = np.bincount(order.array[:240].ravel(), minlength=211)[window]
    assert kinds.loc[8, "token_count_max"] == times.max() and kinds.loc[8, "token_count_median"] == np.median(times)
    assert 1 < kinds.loc[8, "continuation_perplexity"] < kinds.loc[8, "prompt_perplexity"]


def test_rows_repeated_elsewhere_are_neither_followed_nor_controls(study: Study) -> None:
    followed = set(study.scores["row"])
    assert not followed & {0, *range(40, 47)}
    assert {r for r in followed if r >= 240} and len(study.scores["row"].unique()) <= 3 * 20 + 40
    first = study.scores.drop_duplicates("row").set_index("row")["cohort"]
    assert first[first.index >= 240].isna().all()
    assert (first[first.index < 240] == (first.index[first.index < 240] // 80 + 1) * 10).all()


def test_equal_weights_show_no_effect(study: Study) -> None:
    """Nothing was learned between steps 10 and 30, so profiles from there on are exactly zero."""
    rows = study.effects.query("metric == 'effect' and model == 'large' and cohort != 10")
    late = rows[rows["step"] >= 10]
    assert len(late) and late["value"].abs().max() < 1e-9


@pytest.mark.parametrize("name", [
    "memorization", "by_exposures", "memorization_scaling", "order_effect", "predictability", "memorization_profile",
    "memorization_persistence", "forgetting", "membership", "memorization_kinds",
])
def test_every_figure_draws_with_labels(study: Study, name: str) -> None:
    ax = getattr(plots, name)(study.both)
    ax.figure.canvas.draw()
    assert ax.get_ylabel() and (ax.get_xlabel() or name == "memorization_kinds")
    plt.close(ax.figure)
    with pytest.raises(RequestError):
        getattr(plots, name)(study.both.iloc[:0])


def test_figures_and_sentences_are_declared_from_the_tables_alone(study: Study) -> None:
    own, effects = Memorization(), MemorizationEffects()
    drawn = {
        f.name: f.caption for a, t, s in ((own, study.items, study.summary), (effects, study.scores, study.effects))
        for f in a.figures(t, s)
    }
    plt.close("all")
    assert {
        "memorization", "memorization_by_exposures", "memorization_over_training", "memorization_order", "order_effect",
        "predictability", "memorization_scaling", "kinds", "profile", "persistence", "forgetting", "membership"
    } == set(drawn)
    for analysis, summary in ((own, study.summary), (effects, study.effects)):
        told = analysis.sentences(summary)
        assert told and all(s.rows and max(s.rows) < len(summary) for s in told)


def _line(model: str, step: int, low: int, value: float, down: float, up: float) -> dict[str, object]:
    return {
        "suite": "s", "model": model, "params": {"xs": 100, "m": 900}[model], "branch": "main", "step": step,
        "metric": "memorized_share", "exposures_low": low, "exposures_high": low, "value": value, "low": value - down,
        "high": value + up
    }


def test_the_last_step_is_drawn_with_its_bars_the_right_way_up() -> None:
    """Unequal bars, and a first step that looks different."""
    table = tables.summary([
        _line(m, step, k, 0.5 + lift + 0.1 * k, 0.01, 0.04)
        for m, lift in (("xs", 0.0), ("m", 0.1)) for step, lift in ((0, lift - 0.3), (8, lift)) for k in (0, 1, 2)
    ])
    ax = plots.by_exposures(table)
    for number, base in ((0, 0.5), (1, 0.6)):
        points, _, (bars,) = ax.containers[number].lines
        assert points.get_ydata().tolist() == pytest.approx([base, base + 0.1, base + 0.2])
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert pytest.approx(np.array([[base - 0.01 + 0.1 * k, base + 0.04 + 0.1 * k] for k in (0, 1, 2)]).T) == ends.T
    plt.close(ax.figure)


def test_the_curve_shows_the_numbers_of_the_table(study: Study) -> None:
    shares = study.summary[study.summary["metric"] == "memorized_share"]
    rows = shares[shares["exposures_low"].isna()]
    ax = plots.memorization(shares)
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in ax.lines if len(line.get_xdata()) == 4}
    assert drawn == {tuple(np.round(rows.loc[rows["model"] == m, "value"], 9)) for m in ("small", "large")}
    plt.close(ax.figure)
    items = study.items[(study.items["model"] == "large") & (study.items["step"] == 30)]
    points = qq_points(block_counts(items["memorized"], 24)[0])
    ax = plots.poisson_qq(points)
    assert ax.collections[0].get_offsets().data.tolist() == points[["theoretical", "observed"]].to_numpy().tolist()
    plt.close(ax.figure)


def test_one_broken_checkpoint_does_not_take_the_others_numbers(study: Study) -> None:
    broken = (study.items["model"] == "large") & (study.items["step"] == 20)
    items = study.items[study.items["branch"] == "main"].assign(memorized=study.items["memorized"].mask(broken))
    whole = study.items[study.items["branch"] == "main"]
    for function in (scaling, lambda t: summarize_order(t, block=24, permutations=50)):
        before, after = (function(t).set_index(["model", "step", "metric"])["value"] for t in (whole, items))
        assert len(after) and ("large", 20) not in {i[:2] for i in after.index}
        same = [i for i in after.index if isinstance(i[0], str) and "tokens_exponent" not in i]
        pd.testing.assert_series_equal(after[same], before[same])
    assert scaling(whole.assign(memorized=pd.NA)).empty
    scores = study.scores[study.scores["model"] == "large"]
    lost = scores.assign(nll=scores["nll"].mask(scores["step"] == 20))
    rows = scores["row"].unique()
    options = {"controls": rows >= 240, "row_ids": rows, "resamples": 20}
    effects = summarize_profiles(lost, rows // 8, **options)
    assert set(effects["step"]) == {0, 10, 30} and (effects["value"].notna()).all()


def test_effects_need_steps_and_the_suites_own_order(world) -> None:  # type: ignore[no-untyped-def]
    checkpoints, order = world

    def ask(chosen: list[Checkpoint], rows: ArrayRows, options: EffectOptions | None = None) -> None:
        prepare(MemorizationEffects(), Context(chosen, order=rows, tokenizer=WORDS), options)

    with pytest.raises(RequestError, match="at least two"):
        ask(checkpoints[:1], order)
    with pytest.raises(RequestError, match="'huge' is not one of the main models compared: small, large"):
        ask(checkpoints, order, EffectOptions(reference="huge"))
    with pytest.raises(RequestError, match="is it the suite's order"):
        ask(checkpoints, ArrayRows(order.array[:100], 8))
    with pytest.raises(RequestError, match="is it the suite's order"):
        prepare(Memorization(), Context(checkpoints, order=ArrayRows(order.array[:100], 8), tokenizer=WORDS),
                MemorizationOptions(rows="0:80", context=8, continuation=8, kinds=True))


def test_exposures_are_binned_by_doubling() -> None:
    assert exposure_bins([0, 1, 2, 3, 4, 7, 8, 256]).tolist() == [0, 1, 2, 2, 4, 4, 8, 256]


def test_the_command_writes_a_run_and_repeats_it(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, order = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "rows.npy", order.array[:60])
    common = [
        "memorization", root, "--steps", "0,30", "--rows", str(tmp_path / "rows.npy"), "--context", "8",
        "--continuation", "16"
    ]
    common += ["--device", "cpu", "--quiet"]
    assert main([*common, "--out", str(tmp_path / "run"), "--exchange", "duped", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    run = load_run(tmp_path / "run")
    assert {r["subset"] for r in shown} == {"all"} and len(run.items) == 4 * 60
    assert len(run.record["weights"]) == 4 and any(p.name == "memorization.svg" for p in run.figures)
    listed = pd.read_parquet(tmp_path / "run" / "exchange" / "data" / "duped.large.30-00000-of-00001.parquet")
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
        for row in order.array[:40]:
            out.add_document(row)
    (tmp_path / "short.yaml").write_text(
        f"{{name: short, kind: preshuffled, seq_length: {order.array.shape[1] - 1}, batch_rows: 1, steps: 28, "
        "store: {prefix: rows}}"
    )
    common = [
        "memorization", root, "--steps", "10,30", "--order", str(tmp_path / "short.yaml"), "--context", "8",
        "--continuation", "8"
    ]
    common += ["--device", "cpu", "--quiet"]
    assert main([*common, "--out", str(tmp_path / "run")]) == 0
    items = load_run(tmp_path / "run").items
    items = items[items["task"] == "rows"]
    assert items.groupby("model")["row"].nunique().eq(28).all()
    assert (
        items["exposures"] == (items["row"] < items["step"])
    ).all(), "one row a step: row r is met by checkpoint r + 1"
    assert main([*common, "--out", str(tmp_path / "more"), "--rows", "sample=29"]) == 2
    assert "rows 0:28 are 28" in capsys.readouterr().err


def test_rows_of_another_tokenizer_are_flagged_and_the_run_is_written(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints, _ = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "foreign.npy", np.random.default_rng(0).integers(300, 50000, (9, 24)))
    options = [
        "--rows", str(tmp_path / "foreign.npy"), "--context", "8", "--continuation", "16", "--models", "small",
        "--steps", "0,30"
    ]
    assert main(["memorization", root, *options, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "9 of 9 rows hold ids the model does not have; are rows and model of one tokenizer?" in said
    assert "no row was decided" in said
    run = load_run(tmp_path / "run")
    assert run.items["memorized"].isna().all() and set(run.items["status"]) == {"id beyond vocabulary"}
    assert (run.summary.set_index("metric").loc["undecided", "value"] == 9).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "sample=10"], "names no data order"), (["--rows", "nothing.npy"], "no such file"),
        (["--rows", "canaries"], "no truth manifest"), (["--rows", "{rows}", "--context", "20"], "rows have 24 ids"),
        (["--rows", "{rows}", "--context", "0"], "0 is too small; at least 1")
    ]
)
def test_wrong_requests_are_one_line(  # type: ignore[no-untyped-def]
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    checkpoints, order = world
    root = str(Path(str(checkpoints[0].location)).parents[1])
    np.save(tmp_path / "rows.npy", order.array[:9])
    filled = [o.format(rows=tmp_path / "rows.npy") for o in options]
    code = main([
        "memorization", root, "--steps", "30", "--device", "cpu", "--quiet", "--out", str(tmp_path / "run"), *filled
    ])
    error = capsys.readouterr().err
    assert code in (2, 3) and said in error and len(error.strip().splitlines()) == 1
