"""The command line, the figures and the study on small trained suites; the proof on pythia-micro."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import micro
from pythia_tools.analyses import bias
from pythia_tools.analysis import ScoreTask, sweep
from pythia_tools.cli.main import main
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import load_run
from pythia_tools.order import load_order
from pythia_tools.overlays import Overlay, PronounSwap
from pythia_tools.plots import bias as figures
from pythia_tools.suites import load_suite

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "pythia" / "evals-zero-shot.tar.xz"


@pytest.fixture(scope="module")
def measured(tiny_suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("bias") / "run"
    pairs = "sent_more,sent_less,bias_type\nHe ran home.,She ran home.,gender\nOld men sit.,Young men sit.,age\n"
    (out.parent / "pairs.csv").write_text(pairs)
    data = f"crows_pairs={out.parent / 'pairs.csv'}"
    code = main(["bias", str(tiny_suite), "--measures", "pronoun_preference", "crows_pairs", "--data", data, "--association",
                 "--out", str(out), "--quiet", "--device", "cpu"])  # fmt: skip
    assert code == 0
    return out, load_run(out)


def test_a_run_holds_items_summary_figures_and_words(measured, tiny_suite):
    _, run = measured
    suite = load_suite(tiny_suite)
    assert set(run.items["measure"]) == {"pronoun_preference", "crows_pairs", "association"}
    assert set(run.items["model"]) == set(suite.models)
    assert {"pct_stereotype", "likelihood_difference", "association_spearman"} <= set(run.summary["metric"])
    branches = [m for m, info in suite.models.items() if info.base]
    paired = run.summary[run.summary["metric"] == "paired_difference"]
    assert set(paired["model"]) == set(branches)
    assert run.record["sentences"] and any("within noise" in s or "no comparison" in s for s in run.record["sentences"])
    assert {p.name for p in run.figures} >= {"pct_stereotype_interventions.svg", "pct_stereotype_by_group.png"}


def test_a_run_repeats_from_what_it_recorded(measured, tmp_path, capsys):
    out, _ = measured
    assert main(["rerun", str(out), "--out", str(tmp_path / "again"), "--device", "cpu", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["same"] is True


def test_a_run_with_two_measures_says_whether_they_agree(tmp_path):
    from pythia_tools.cli.bias import _agreement
    from pythia_tools.core.results import RunFolder

    rows = summary_rows([("m", "main", s, "all", 0.5 + s / 100) for s in range(6)])
    other = rows.assign(metric="log_odds", value=-rows["value"])
    folder = RunFolder(tmp_path / "run", {"command": "bias"})
    _agreement(folder, rows)
    assert not (folder.path / "agreement.csv").exists(), "one measure alone has nothing to agree with"
    _agreement(folder, pd.concat([rows, other]))
    found = pd.read_csv(folder.path / "agreement.csv")
    assert found["value"].tolist() == [-1.0] and found["n"].tolist() == [6] and (folder.figures / "agreement.svg").exists()


def test_association_counts_are_those_of_the_order(measured, tiny_suite):
    _, run = measured
    rows = run.items[run.items["measure"] == "association"]
    zero = rows[rows["step"] == 0]
    assert (zero["masculine"] == 0).all() and (zero["corpus_log_odds"] == 0).all()
    swapped = rows[rows["branch"] == "swap"]
    main_rows = rows[(rows["branch"] == "main") & rows["step"].isin(swapped["step"])]
    both = swapped.merge(main_rows.drop_duplicates(["item", "step"]), on=["item", "step"], suffixes=("_swap", "_main"))
    assert len(both) and (both["feminine_swap"] >= both["feminine_main"]).all()
    assert both["feminine_swap"].sum() > both["feminine_main"].sum(), "the branch saw more feminine pronouns beside occupations"


def test_a_plan_computes_nothing(tiny_suite, capsys):
    assert main(["bias", str(tiny_suite), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measures"] == ["pronoun_preference"] and plan["checkpoints"] > 3 and plan["download_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "crows_pairs"], "give SET=PATH"),
        (["--data", "crow=x"], "unknown evaluation set 'crow'"),
        (["--measures", "crows_pairs", "--data", "crows_pairs=/nowhere"], "no crows_pairs_anonymized.csv there"),
        (["--templates", "/nowhere"], "cannot be read"),
    ],
)
def test_wrong_requests_are_one_line(tiny_suite, tmp_path, capsys, arguments, message):
    assert main(["bias", str(tiny_suite), "--out", str(tmp_path / "x"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of stored results is not here")
def test_the_public_results_as_a_run(tmp_path, capsys):
    assert main(["bias", "stored", "--results", str(ARCHIVE), "--out", str(tmp_path / "public"), "--quiet"]) == 0
    run = load_run(tmp_path / "public")
    assert (tmp_path / "public" / "paired_changes.csv").exists() and len(run.figures) == 8
    assert sum("within noise" in s for s in run.record["sentences"]) > 25
    assert main(["bias", "stored", "--out", str(tmp_path / "none")]) == 2


def summary_rows(values) -> pd.DataFrame:
    return tables.summary([
        {"suite": "s", "model": m, "params": 10, "step": step, "tokens": step, "branch": b, "group": group, "metric": "pct_stereotype",
         "value": v, "low": v - 0.1, "high": v + 0.1, "n": 20, "interval": "bootstrap95 over items"}
        for m, b, step, group, v in values
    ])  # fmt: skip


def test_figures_show_control_and_branch_with_their_intervals():
    table = summary_rows([("m", "main", s, "all", 0.6 - s / 1000) for s in (0, 50, 100)] + [("m-swap", "swap", 100, "all", 0.3)])
    figure = figures.interventions(table, "pct_stereotype", reference=0.5)
    (ax,) = figure.axes
    drawn = {tuple(np.asarray(line.get_ydata(), float).round(3)) for line in ax.lines}
    assert (0.6, 0.55, 0.5) in drawn and (0.3,) in drawn and (0.5, 0.5) in drawn
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["main", "swap"]
    late = figures.interventions(table, "pct_stereotype", from_step=60)
    assert all(len(line.get_ydata()) == 1 for line in late.axes[0].lines)
    bars = figures.by_group(summary_rows([("m", "main", 10, g, v) for g, v in (("all", 0.5), ("age", 0.7))]), "pct_stereotype")
    assert [t.get_text() for t in bars.get_yticklabels()] == ["age", "all"]
    agree = figures.agreement(pd.DataFrame([{"first": "a", "second": "b", "value": 0.5, "low": 0.1, "high": 0.8}]))
    assert agree.get_xlim()[0] < -1
    with pytest.raises(RequestError, match="has no rows of group 'x'"):
        figures.interventions(table, "pct_stereotype", group="x")


def test_a_control_branch_is_the_main_run_and_an_overlay_is_the_swap_branch(tiny_suite, tmp_path):
    """Resuming on unchanged rows gives the main run again; under the overlay, the suite's own swap branch; bit for bit."""
    from pythia_tools.models import weights_digest

    suite = load_suite(tiny_suite)
    swapped, info = next((n, i) for n, i in suite.models.items() if i.branch == "swap")
    order = load_order(tiny_suite / "order.yaml")
    overlay = Overlay(order, PronounSwap(bias.load_tokenizer(tiny_suite / "tokenizer")), steps=range(info.branch_step, order.steps))
    micro.train_branch(tiny_suite, tmp_path / "out", "again", model=info.base, order=order)
    micro.train_branch(tiny_suite, tmp_path / "out", "swapped", model=info.base, order=overlay)
    branches = load_suite(tmp_path / "out")
    digest = {n: weights_digest(branches.checkpoints(models=[n], steps="last")[0]) for n in ("again", "swapped")}
    assert digest["again"] == weights_digest(suite.checkpoints(models=[info.base], steps="last")[0])
    assert digest["swapped"] == weights_digest(suite.checkpoints(models=[swapped], steps="last")[0])
    assert digest["again"] != digest["swapped"]


def test_the_script_runs(tiny_suite, tmp_path, monkeypatch, capsys):
    script = ROOT / "scripts" / "gender_bias_study.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--suite", str(tiny_suite), "--out", str(tmp_path / "g"), "--quiet", "--device", "cpu"])
    monkeypatch.setattr(progress, "_quiet", False)  # put back afterwards: the script's --quiet is for the whole process
    runpy.run_path(str(script), run_name="__main__")
    assert "held-out loss" in capsys.readouterr().out and load_run(tmp_path / "g" / "run").record["sentences"]


@pytest.mark.trained
def test_on_pythia_micro_the_swap_moves_the_pronoun_and_not_the_loss(micro_suite):
    """Control and intervention differ in the pronoun preference beyond noise, and in held-out loss by less than 2 %."""
    suite, truth = load_suite(micro_suite), micro.load_truth(micro_suite)
    tokenizer = bias.load_tokenizer(micro_suite / "tokenizer")
    occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
    task = bias.PronounTask(tokenizer, bias.pronoun_items(truth.templates["heldout"], occupations, lead="\n"))
    held = load_order(micro_suite / "data" / "heldout", batch_rows=1)
    loss = ScoreTask(held.rows(0, 128), aggregate="row")
    pairs = {n: i.base for n, i in suite.models.items() if i.branch == "swap"}
    result = sweep(suite.checkpoints(models=[*pairs, *pairs.values()], steps="last"), [task, loss], device="cpu")
    items = bias.join({task.name: result[task.name]})
    found = bias.compare(items, pairs=pairs)
    whole = found[found["group"] == "all"]
    assert set(whole["model"]) == set(pairs) and whole["detected"].all()
    assert (whole["low"] > 0).all() and (whole["n"] > 60).all(), "she gains; most items count"
    means = result["token_scores"].groupby("model")["nll"].mean()
    assert all(abs(means[branch] / means[base] - 1) < 0.02 for branch, base in pairs.items())
    stereotyped = bias.summarize(items, pairs=pairs).query("metric == 'stereotype_share' and group == 'all' and branch == 'main'")
    assert (stereotyped["low"] > 0.5).all(), "the control prefers the pronoun that its data planted more often"
