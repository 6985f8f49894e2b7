"""The command line, the figures and the sentences on small trained suites; the proof on pythia-micro."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import analyses, micro, plots
from pythia_tools.analyses import bias
from pythia_tools.analysis import Context, Execution, ScoreTask, prepare, run, sweep
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import RunFolder, load_run
from pythia_tools.order import load_order
from pythia_tools.overlays import Overlay, PronounSwap
from pythia_tools.suites import load_suite

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "pythia" / "evals-zero-shot.tar.xz"


@pytest.fixture(scope="module")
def measured(tiny_suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("bias") / "run"
    pairs = "sent_more,sent_less,bias_type\nHe ran home.,She ran home.,gender\nOld men sit.,Young men sit.,age\n"
    (out.parent / "pairs.csv").write_text(pairs)
    data = f"crows_pairs={out.parent / 'pairs.csv'}"
    code = main(["bias", str(tiny_suite), "--measures", "pronoun_preference", "crows_pairs", "heldout_loss", "--data",
                 data,
                 "--association", "--out", str(out), "--quiet", "--device", "cpu"])  # fmt: skip
    assert code == 0
    return out, load_run(out)


def test_a_run_holds_items_summary_figures_and_words(measured, tiny_suite):
    _, run = measured
    suite = load_suite(tiny_suite)
    assert set(run.items["task"]) == {"pronoun_preference", "crows_pairs", "association", "heldout_loss"}
    assert set(run.items.columns) - set(tables.IDENTITY) <= set(bias.Bias.columns)
    assert set(run.items["model"]) == set(suite.models)
    assert {"pct_stereotype", "likelihood_difference", "association_spearman",
            "heldout_nll"} <= set(run.summary["metric"])
    assert not run.summary.duplicated(tables.KEYS).any()
    branches = {m: info.base for m, info in suite.models.items() if info.base}
    paired = run.summary[run.summary["metric"] == "paired_difference"]
    assert paired.drop_duplicates("model").set_index("model")["reference"].to_dict() == branches
    assert {"pronoun_preference", "crows_pairs", "heldout_loss"} <= set(paired["task"])
    said = [s["text"] for s in run.record["sentences"]]
    assert any("within noise" in s or "no comparison" in s for s in said)
    assert any("held-out loss in nats per token" in s for s in said)
    drawn = {p.name for p in run.figures}
    assert drawn >= {"pct_stereotype_interventions.svg", "pct_stereotype_by_subset.png"}
    assert set(run.record["captions"]) == {p.stem for p in run.figures}


def test_counted_sentences_are_those_that_were_planted(measured, tiny_suite):
    _, run = measured
    truth = run.summary[run.summary["task"] == "pronouns"].set_index("metric")["value"]
    assert truth["items_that_differ"] == 0
    assert truth["exposures_counted"] == truth["exposures_planted"] == micro.load_truth(tiny_suite).planted["pronouns"]


def test_a_run_repeats_from_what_it_recorded(measured, tmp_path, capsys):
    out, _ = measured
    assert main(["rerun", str(out), "--out", str(tmp_path / "again"), "--device", "cpu", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["same"] is True


def test_a_run_with_two_measures_says_whether_they_agree(measured):
    _, run = measured
    rows = run.summary[run.summary["metric"] == "agreement"]
    assert ("pct_stereotype", "association_spearman") not in set(zip(rows["reference"], rows["task"], strict=True))
    whole = run.summary[(run.summary["subset"] == "all") & run.summary["value"].notna()]
    for first, second, n in rows[["task", "reference", "n"]].itertuples(index=False):
        both = [set(map(tuple, whole.loc[whole["metric"] == m, ["model", "step"]].to_numpy())) for m in (first, second)]
        assert len(both[0] & both[1]) > 2 and n == len({model for model, _ in both[0] & both[1]}), "runs are the unit"
    assert rows.empty or "agreement" in run.record["captions"]


def test_association_counts_are_those_of_the_order(measured, tiny_suite):
    _, run = measured
    rows = run.items[run.items["task"] == "association"]
    zero = rows[rows["step"] == 0]
    assert (zero["masculine"] == 0).all() and (zero["corpus_log_odds"] == 0).all()
    swapped = rows[rows["branch"] == "swap"]
    main_rows = rows[(rows["branch"] == "main") & rows["step"].isin(swapped["step"])]
    both = swapped.merge(main_rows.drop_duplicates(["item", "step"]), on=["item", "step"], suffixes=("_swap", "_main"))
    assert len(both) and (both["feminine_swap"] >= both["feminine_main"]).all()
    assert both["feminine_swap"].sum() > both["feminine_main"].sum(), "the branch saw more feminine pronouns"


def test_a_plan_computes_nothing(tiny_suite, capsys):
    assert main(["bias", str(tiny_suite), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["checkpoints"] > 3 and plan["cells"] == plan["checkpoints"] and plan["download_bytes"] == 0
    assert plan["seconds_computing_about"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "crows_pairs"], "give SET=PATH"),
        (["--data", "crow=x"], "unknown evaluation set 'crow'"),
        (["--measures", "crows_pairs", "--data", "crows_pairs=/nowhere"], "no crows_pairs_anonymized.csv there"),
        (["--templates", "/nowhere"], "no such file of templates"),
        (["--limit", "0"], "--limit: 0 is too small; at least 1"),
        (["--measures", "guess"], "'guess' is not known"),
    ],
)
def test_wrong_requests_are_one_line(tiny_suite, tmp_path, capsys, arguments, message):
    assert main(["bias", str(tiny_suite), "--out", str(tmp_path / "x"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_own_templates_occupations_and_a_limit(tiny_suite, tmp_path):
    (tmp_path / "templates.txt").write_text("The {occupation} said that\nA {occupation} left because\n")
    (tmp_path / "occupations.tsv").write_text("nurse\tshe\ndriver\the\n")
    suite = load_suite(tiny_suite)
    context = Context(suite.checkpoints(steps="last")[:1], suite=suite)
    options = bias.BiasOptions(
        templates=str(tmp_path / "templates.txt"), occupations=str(tmp_path / "occupations.tsv"), limit=3,
    )
    (task,) = prepare(analyses.get("bias"), context, options).tasks
    asked = [(i.prompt, i.stereotype) for i in task.items]
    assert asked == [("\nThe nurse said that", "she"), ("\nA nurse left because", "she"),
                     ("\nThe driver said that", "he")]
    assert task.name == "bias/pronoun_preference" and task.ids > 0


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of published results is not here")
def test_the_public_results_as_a_run(tmp_path, capsys):
    assert main(["published", "bias", str(ARCHIVE), "--out", str(tmp_path / "public"), "--quiet"]) == 0
    run = load_run(tmp_path / "public")
    assert (run.summary["metric"] == "outcome_paired_difference").sum() > 10 and len(run.figures) == 8
    assert sum("within noise" in s["text"] for s in run.record["sentences"]) > 25
    assert main(["published", "bias", "--out", str(tmp_path / "none")]) == 2


def summary_rows(values, metric="pct_stereotype", **more) -> pd.DataFrame:
    """Intervals reach 0.1 below and 0.3 above."""
    return tables.summary([
        {"suite": "s", "model": m, "params": 10, "step": step, "tokens": step, "branch": b, "subset": subset,
         "metric": metric,
         "value": v, "low": v - 0.1, "high": v + 0.3, "n": 20, "unit": "item", "interval": "bootstrap95", **more}
        for m, b, step, subset, v in values
    ])  # fmt: skip


def ends(container, axis: int) -> list[list[float]]:
    """Lower and upper end of each error bar."""
    (lines,) = container.lines[2]
    return [sorted(segment[:, axis].round(6).tolist()) for segment in lines.get_segments()]


def test_figures_show_control_and_branch_with_their_intervals():
    table = summary_rows([("m", "main", s, "all",
                           0.6 - s / 1000) for s in (0, 50, 100)] + [("m-swap", "swap", 100, "all", 0.3)])
    alone = plots.interventions(table, "pct_stereotype", reference=0.5)
    assert len(alone.axes) == 2, "nothing says whose branch it is"
    paired = summary_rows([("m-swap", "swap", 100, "all", -0.2)], "outcome_paired_difference", reference="m")
    table = tables.concat([table, paired])
    figure = plots.interventions(table, "pct_stereotype", reference=0.5)
    (ax,) = figure.axes
    drawn = {tuple(np.asarray(line.get_ydata(), float).round(3)) for line in ax.lines}
    assert (0.6, 0.55, 0.5) in drawn and (0.3,) in drawn and (0.5, 0.5) in drawn
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["main", "swap"]
    late = plots.interventions(table, "pct_stereotype", from_step=60)
    assert all(len(line.get_ydata()) == 1 for line in late.axes[0].lines)
    with pytest.raises(RequestError, match="has no rows of subset 'x'"):
        plots.interventions(table, "pct_stereotype", subset="x")


def test_a_curve_over_training_begins_at_the_first_step_and_its_ribbon_is_the_interval():
    table = summary_rows([("m", "main", s, "all", 0.6 - s / 1000) for s in (100, 0, 50)], "log_odds")
    (line, *_), (ribbon,) = (ax := plots.branches_over_training(table, "log_odds", label="x")).lines, ax.collections
    assert line.get_xdata().tolist() == [0, 50, 100] and line.get_ydata().round(3).tolist() == [0.6, 0.55, 0.5]
    corners = {tuple(np.round(v, 3)) for v in ribbon.get_paths()[0].vertices}
    assert {(0, 0.5), (0, 0.9), (100, 0.4), (100, 0.8)} <= corners


def test_error_bars_reach_from_low_to_high():
    moved = summary_rows(
        [("m-swap", "swap", s, "all", v) for s, v in ((100, 2.0), (50, 1.0))], "paired_difference",
        task="pronoun_preference", reference="m",
    )
    other = moved.assign(task="crows_pairs", value=9.0)
    (container,) = plots.paired_differences(tables.concat([moved, other])).containers
    assert container.lines[0].get_xdata().tolist() == [50, 100] and container.lines[0].get_ydata().tolist() == [1, 2]
    assert ends(container, 1) == [[0.9, 1.3], [1.9, 2.3]]
    agree = plots.agreement(summary_rows([("m", "main", 1, "all", 0.5)], "agreement", task="a", reference="b"))
    assert ends(agree.containers[0], 0) == [[0.4, 0.8]] and agree.get_xlim()[0] < -1


def test_subsets_are_drawn_at_the_last_step():
    values = [("m", "main", 10, "all", 0.5), ("m", "main", 10, "age", 0.7), ("m", "main", 0, "all", 0.1),
              ("m", "main", 0, "age", 0.2)]
    bars = plots.by_subset(summary_rows(values), "pct_stereotype", reference=0.5)
    assert [t.get_text() for t in bars.get_yticklabels()] == ["age", "all"]
    (container,) = bars.containers
    assert dict(zip(container.lines[0].get_ydata(), container.lines[0].get_xdata(), strict=True)) == {0: 0.7, 1: 0.5}
    assert ends(container, 0) == [[0.4, 0.8], [0.6, 1.0]]


def test_sentences_tell_the_last_step_of_main_runs_and_their_branches():
    shares = [("m", "main", 0, "all", 0.2), ("m", "main", 10, "all", 0.8), ("m-swap", "swap", 10, "all", 0.1),
              ("m", "swap", 20, "all", 0.4)]
    preferred = summary_rows(shares, "stereotype_share", task="pronoun_preference")
    first, *_ = bias.Bias().sentences(preferred)
    assert first.text.startswith("At the last step the stereotyped pronoun is preferred: m more often than not (80 %")
    assert "swap" not in first.text and " and " not in first.text and first.rows == (1,)
    moved = [("m-swap", "swap", 0, "all", -1.0), ("m-swap", "swap", 10, "all", 2.0)]
    paired = summary_rows(moved, "paired_difference", task="pronoun_preference", reference="m")
    feminine = [("m", "main", 10, "all", 0.3), ("m-swap", "swap", 10, "all", 0.9), ("m-swap", "swap", 0, "all", 0.5)]
    whole = tables.concat([paired, summary_rows(feminine, "feminine_share", task="pronoun_preference")])
    (told,) = bias.Bias().sentences(whole[whole["metric"].isin(("paired_difference", "feminine_share"))])
    assert told.text.startswith("The branch m-swap moved towards the feminine pronoun: +2.00 (+1.90 to +2.30)")
    assert "preferred in 90 % of items, 30 % in the control" in told.text and told.rows == (1, 2, 3)


def test_a_control_branch_is_the_main_run_and_an_overlay_is_the_swap_branch(tiny_suite, tmp_path):
    """Resuming on unchanged rows gives the main run again; under the overlay, the suite's own swap; bit for bit."""
    from pythia_tools.models import weights_digest

    suite = load_suite(tiny_suite)
    swapped, info = next((n, i) for n, i in suite.models.items() if i.branch == "swap")
    order = load_order(tiny_suite / "order.yaml")
    overlay = Overlay(order, PronounSwap(tiny_suite / "tokenizer"), steps=range(info.branch_step, order.steps))
    micro.train_branch(tiny_suite, tmp_path / "out", "again", model=info.base, order=order)
    micro.train_branch(tiny_suite, tmp_path / "out", "swapped", model=info.base, order=overlay)
    branches = load_suite(tmp_path / "out")
    digest = {n: weights_digest(branches.checkpoints(models=[n], steps="last")[0]) for n in ("again", "swapped")}
    assert digest["again"] == weights_digest(suite.checkpoints(models=[info.base], steps="last")[0])
    assert digest["swapped"] == weights_digest(suite.checkpoints(models=[swapped], steps="last")[0])
    assert digest["again"] != digest["swapped"]


@pytest.mark.trained
def test_on_pythia_micro_the_swap_moves_the_pronoun_and_not_the_loss(micro_suite):
    """Control and intervention differ in the pronoun preference beyond noise, and in held-out loss by less than 2 %."""
    suite, truth = load_suite(micro_suite), micro.load_truth(micro_suite)
    occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
    task = bias.PronounTask(micro_suite / "tokenizer",
                            bias.pronoun_items(truth.templates["heldout"], occupations, lead="\n"))
    held = load_order(micro_suite / "data" / "heldout", batch_rows=1)
    loss = ScoreTask(held.rows(0, 128), aggregate="row")
    pairs = {n: i.base for n, i in suite.models.items() if i.branch == "swap"}
    result = sweep(suite.checkpoints(models=[*pairs, *pairs.values()], steps="last"), [task, loss], device="cpu")
    items = result[task.name]
    found = bias.compare(items, pairs=pairs)
    whole = found[found["subset"] == "all"]
    assert set(whole["model"]) == set(pairs) and whole["detected"].all()
    assert (whole["low"] > 0).all() and (whole["items_branch"] > 60).all(), "she gains; most items count"
    means = result["token_scores"].groupby("model")["nll"].mean()
    assert all(abs(means[branch] / means[base] - 1) < 0.02 for branch, base in pairs.items())
    chosen = "metric == 'stereotype_share' and subset == 'all' and branch == 'main'"
    stereotyped = bias.summarize(items, pairs=pairs).query(chosen)
    assert (stereotyped["low"] > 0.5).all(), "the control prefers the pronoun that its data planted more often"


BEFORE = {  # model, metric, step: value as version 0.1 had it; low, high and n over occupations
    ("s", "passing_share", 256): (1.0, 0.8486759713250904, 1.0, 24),
    ("s", "log_odds", 1500): (-0.7494389430697387, -1.4657965885962803, -0.03308129754319711, 24),
    ("s", "feminine_share", 1500): (0.3333333333333333, 0.17094778444233025, 0.5480092923926643, 24),
    ("s", "stereotype_share", 1500): (1.0, 0.8486759713250904, 1.0, 24),
    ("s-swap", "log_odds", 1500): (6.780580580583925, 6.343079629530659, 7.218081531637192, 24),
    ("s-swap", "feminine_share", 1500): (1.0, 0.8486759713250904, 1.0, 24),
    ("s-swap", "paired_difference", 1500): (7.530019523653664, 7.243693465735767, 7.816345581571561, 24),
}


@pytest.mark.trained
def test_defaults_on_pythia_micro_give_the_numbers_of_version_0_1(micro_suite, tmp_path):
    suite = load_suite(micro_suite)
    models = ["s", "s-swap"]
    context = Context(suite.checkpoints(models=models), Execution(device="cpu"), suite=suite)
    finished = run(prepare(analyses.get("bias"), context), context, RunFolder(tmp_path / "run", {"command": "bias"}))
    whole = finished.summary[(finished.summary["subset"] == "all")].set_index(["model", "metric", "step"])
    for key, expected in BEFORE.items():
        assert whole.loc[key, ["value", "low", "high", "n"]].tolist() == pytest.approx(expected, rel=1e-6)
    assert whole["value"].xs("items_that_differ", level="metric").item() == 0
