"""Laws give back what made the data, refuse what cannot carry them, and agree with other people's optimizers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from pythia_tools import fit
from pythia_tools.cli.main import main
from pythia_tools.core.errors import RequestError

LN_A, LN_B, LN_E, ALPHA, BETA = 6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083
"""Hoffmann et al.'s constants, from the source of their paper (Besiroglu et al. 2024, section 3)."""


def grid(sizes: int = 6, tokens: int = 6) -> pd.DataFrame:
    pairs = [(n, d) for n in np.geomspace(7e7, 7e9, sizes) for d in np.geomspace(1.4e9, 1.4e11, tokens)]
    return pd.DataFrame(pairs, columns=["params", "tokens"])


def hoffmann(table: pd.DataFrame, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    loss = np.exp(LN_E) + np.exp(LN_A) / table["params"] ** ALPHA + np.exp(LN_B) / table["tokens"] ** BETA
    return table.assign(loss=loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(table))),
                        run=[f"r{k}" for k in range(len(table))])


def test_the_published_constants_come_back_without_noise() -> None:
    found = fit(hoffmann(grid()), form="hoffmann", resamples=0)
    wanted = {"A": np.exp(LN_A), "B": np.exp(LN_B), "E": np.exp(LN_E), "alpha": ALPHA, "beta": BETA}
    for name, value in wanted.items():
        assert found.value(name) == pytest.approx(value, rel=1e-6), name
    assert found.value("allocation_exponent") == pytest.approx(BETA / (ALPHA + BETA), rel=1e-6)


def test_kaplans_and_gadres_and_the_flops_law_come_back_without_noise() -> None:
    table = grid()
    n, d = table["params"], table["tokens"]
    kaplan = table.assign(loss=((8.8e13 / n) ** (0.076 / 0.095) + 5.4e13 / d) ** 0.095)
    found = fit(kaplan, form="kaplan", resamples=0)
    constants = [found.value(m) for m in ("A", "B", "alpha", "beta")]
    assert constants == pytest.approx([8.8e13, 5.4e13, 0.076, 0.095], rel=1e-5)
    gadre = table.assign(loss=1.8 + 240 * n**-0.26 + 190 * 6**-0.13 * d**-0.26)
    found = fit(gadre, form="gadre", resamples=0)
    assert [found.value(m) for m in ("A", "B", "E", "alpha")] == pytest.approx([240, 190, 1.8, 0.26], rel=1e-6)
    assert found.value("allocation_exponent") == pytest.approx(0.5)
    compute = table.assign(loss=1.5 + 2e3 * (6 * n * d) ** -0.16)
    found = fit(compute, form="flops", resamples=0)
    assert [found.value(m) for m in ("A", "E", "alpha")] == pytest.approx([2e3, 1.5, 0.16], rel=1e-6)


def test_gadres_errors_follow_from_the_loss() -> None:
    table = grid()
    table["loss"] = 1.8 + 240 * table["params"]**-0.26 + 190 * 6**-0.13 * table["tokens"]**-0.26
    table["top-1 error"] = 0.9 - 2.5 * np.exp(-0.8 * table["loss"])
    found = fit(table, form="gadre", at=["70B:1.4T"], resamples=40)
    assert [found.value(f"error_{m}") for m in ("ceiling", "k", "gamma")] == pytest.approx([0.9, 2.5, 0.8], rel=1e-4)
    assert found.value("predicted_error") == pytest.approx(0.9 - 2.5 * np.exp(-0.8 * found.value("predicted_loss")))


def test_the_objective_is_as_low_as_that_of_scipys_bfgs_from_the_truth() -> None:
    table = hoffmann(grid(), noise=0.01)
    n, d, loss = (np.log(table[c].to_numpy()) for c in ("params", "tokens", "loss"))

    def objective(theta: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        rest = np.abs(np.log(np.exp(a - alpha * n) + np.exp(b - beta * d) + np.exp(e)) - loss)
        return float(1e3 * np.where(rest < 1e-3, rest**2 / 2, 1e-3 * (rest - 5e-4)).sum())

    start = [LN_A, LN_B, LN_E, ALPHA, BETA]
    best = min(minimize(objective, start, method=m, options={"maxiter": 20000, "maxfev": 20000}).fun
               for m in ("Nelder-Mead", "Powell"))
    found = fit(table, resamples=0)
    assert found.value("objective") <= best / 1e3 * (1 + 1e-6)


def test_the_optimum_is_where_no_other_split_of_the_compute_is_better() -> None:
    for form in ("hoffmann", "kaplan", "gadre"):
        found = fit(hoffmann(grid()), form=form, budgets=["1e23"], resamples=0)
        size = found.value("optimal_params")
        assert 6 * size * found.value("optimal_tokens") == pytest.approx(1e23)
        around = [f"{size * factor!r}:{1e23 / 6 / (size * factor)!r}" for factor in (0.98, 1, 1.02)]
        rows = fit(hoffmann(grid()), form=form, at=around, resamples=0).summary
        below, best, above = rows.loc[rows["metric"] == "predicted_loss", "value"]
        assert best < below and best < above, form


def test_columns_are_known_by_common_names_and_sizes_may_be_text() -> None:
    table = hoffmann(grid(), noise=0.005)
    names = ["A", "B", "E", "alpha", "beta", "objective"]
    wanted = fit(table, resamples=0).summary.set_index("metric").loc[names, "value"].to_numpy()
    other = pd.DataFrame({"Model Size": table["params"], "Training FLOP": 6 * table["params"] * table["tokens"],
                          "val_loss": table["loss"]})
    found = fit(other, resamples=0).summary.set_index("metric").loc[names, "value"].to_numpy()
    assert found == pytest.approx(wanted, rel=1e-4)
    text = pd.DataFrame({"N": [f"{n / 1e9!r}B" for n in table["params"]], "D": table["tokens"].astype(str),
                         "my loss": table["loss"]})
    named = fit(text, loss_column="my loss", resamples=0).summary.set_index("metric").loc[names, "value"].to_numpy()
    assert named == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("change, said", [
    (lambda t: t[t["params"] == t["params"].min()], "one size carries no law"),
    (lambda t: t[t["params"].isin(sorted(t["params"].unique())[:3])], "three sizes carry no law"),
    (lambda t: t.iloc[[0, 7, 14, 21, 28]], "5 budgets carry no law"),
    (lambda t: t.assign(loss=t["loss"].where(t.index != 4)), "1 of 36 rows have no positive loss (the first is row 5:"),
    (lambda t: t.assign(loss=-t["loss"]), "36 of 36 rows have no positive loss"),
    (lambda t: t.drop(columns="tokens"), "hoffmann needs params and tokens"),
    (lambda t: t.drop(columns="loss"), "no column for loss"),
    (lambda t: t.iloc[:0], "the table is empty"),
])
def test_what_cannot_carry_a_law_is_refused(change, said: str) -> None:
    with pytest.raises(RequestError) as error:
        fit(change(hoffmann(grid())), resamples=0)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_checkpoints_before_the_end_of_a_schedule_are_not_mixed_with_finished_runs() -> None:
    table = hoffmann(grid())
    table["run"] = [f"{n:.3g}" for n in table["params"]]
    plain = fit(table, resamples=0)  # nothing tells that these are not separate budgets
    assert plain.value("E") == pytest.approx(np.exp(LN_E), rel=1e-6)
    decaying = table.assign(lr=np.where(table["tokens"] == table["tokens"].max(), 1e-5, 1e-3))
    with pytest.raises(RequestError, match=r"30 of 36 rows are checkpoints within a run.*--checkpoints last"):
        fit(decaying, resamples=0)
    assert fit(decaying, checkpoints="all", resamples=0).value("E") == pytest.approx(np.exp(LN_E), rel=1e-6)
    with pytest.raises(RequestError, match=r"6 budgets carry no law|at least 3 different counts of tokens"):
        fit(decaying, checkpoints="last", resamples=0)
    assert fit(table.assign(lr=1e-3), resamples=0).value("E") == pytest.approx(np.exp(LN_E), rel=1e-6)
    with pytest.raises(RequestError, match="checkpoints within a run"):
        fit(table.assign(step=table["tokens"] / 1e6), resamples=0)


def test_the_largest_size_and_the_most_tokens_are_held_out() -> None:
    table = hoffmann(grid(), noise=0.005)
    found = fit(table, resamples=200)
    rows = found.summary[found.summary["metric"] == "heldout_error"].set_index("reference")["value"]
    rest = fit(table[table["params"] < 6e9], resamples=0, at=[f"{n!r}:{d!r}" for n, d in
               table.loc[table["params"] > 6e9, ["params", "tokens"]].to_numpy().tolist()])
    predicted = rest.summary.loc[rest.summary["metric"] == "predicted_loss", "value"].to_numpy()
    errors = predicted / table.loc[table["params"] > 6e9, "loss"].to_numpy() - 1
    assert rows["largest size"] == pytest.approx(errors.mean(), abs=1e-5)
    inside = found.summary[found.summary["metric"] == "heldout_inside"]["value"]
    assert (inside > 0.8).all()
    bent = table.assign(loss=table["loss"].where(table["params"] < 6e9, table["loss"] * 1.1))
    off = fit(bent, resamples=200).summary
    assert off.loc[(off["metric"] == "heldout_inside") & (off["reference"] == "largest size"), "value"].item() == 0


def test_sizes_read_off_a_figure_are_one_size_where_they_hardly_differ() -> None:
    table = hoffmann(grid(), noise=0.005)
    blurred = table.assign(params=table["params"] * (1 + 1e-6 * np.arange(len(table))))
    found = fit(blurred, resamples=100).summary
    assert found.loc[found["metric"] == "heldout_inside", "n"].tolist() == [6, 6]
    with pytest.raises(RequestError, match="three sizes carry no law"):
        fit(blurred[blurred["params"] < 6e8])


def test_whole_runs_are_resampled_never_checkpoints() -> None:
    """Ten copies of a table, as checkpoints of the same runs, tell no more than one."""
    table = hoffmann(grid(), noise=0.01)
    one = fit(table, resamples=300).summary.set_index("metric")
    many = fit(pd.concat([table] * 10), resamples=300).summary.set_index("metric")
    width = [(t.loc["allocation_exponent", "high"] - t.loc["allocation_exponent", "low"]) for t in (one, many)]
    assert width[1] == pytest.approx(width[0], rel=0.02)
    assert many.loc["allocation_exponent", "n"] == 36


def test_three_sizes_of_the_embedded_suite_carry_no_law(
    micro_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "losses"
    models = [name for name in ("xs", "s", "m") if (micro_suite / name).is_dir()]
    asked = ["--models", *models, "--steps", "last", "--out", str(out), "--device", "cpu", "--quiet"]
    assert len(models) == 3 and main(["losses", str(micro_suite), *asked]) == 0
    capsys.readouterr()
    assert main(["fit", str(out), "--metric", "nll", "--subset", "heldout"]) == 2
    said = capsys.readouterr().err
    assert "three sizes carry no law: hoffmann needs 4 sizes and 6 budgets" in said and said.count("\n") == 1


def test_a_user_brings_a_csv_to_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.csv"
    hoffmann(grid(), noise=0.005).rename(columns={"params": "size"}).to_csv(path, index=False)
    out = tmp_path / "law"
    assert main(["fit", str(path), "--at", "70B:1.4T", "--budgets", "1e23", "--resamples", "100", "--out", str(out),
                 "--json"]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out)).set_index("metric")
    assert rows.loc["predicted_loss", "low"] < 1.9366 < rows.loc["predicted_loss", "high"]
    assert {p.name for p in (out / "figures").iterdir()} >= {"law_by_compute.png", "law_held_out.svg"}
    record = json.loads((out / "run.json").read_text())
    assert any("predicted to reach" in s["text"] for s in record["sentences"])
    assert main(["rerun", str(out)]) == 0
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert "Hoffmann" in (tmp_path / "page.html").read_text()


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.csv"
    table = hoffmann(grid())
    table[table["params"] < 3e8].to_csv(path, index=False)
    assert main(["fit", str(path), "--out", str(tmp_path / "law")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "carry no law" in said
    assert not (tmp_path / "law").exists()
    assert main(["fit", str(path), "--form", "hofmann"]) == 2 and "did you mean 'hoffmann'" in capsys.readouterr().err
    assert main(["fit", str(tmp_path / "none.csv")]) == 2 and "no such file" in capsys.readouterr().err
