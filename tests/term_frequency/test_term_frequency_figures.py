"""The figures draw exactly the numbers of their tables, and refuse what they cannot draw."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from pythia_tools import plots
from pythia_tools.analyses import term_frequency as tf
from pythia_tools.core.errors import RequestError


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        ("toy", model, params, "main", None, step, 1, "add", str(term), (term + step / 100) / 20 * (params / 1000), 50)
        for model, params in (("small", 500), ("large", 1000)) for step in (100, 400) for term in range(12)
    ]
    columns = ["suite", "model", "params", "branch", "seed", "step", "tokens", "task", "term", "accuracy", "items"]
    exposures = pd.DataFrame(
        [(str(t), s, s * 2**t) for t in range(12) for s in (100, 400)], columns=["term", "step", "exposures"]
    )
    yield pd.DataFrame(rows, columns=columns), exposures  # type: ignore[misc]
    plt.close("all")


def test_accuracy_by_frequency_draws_the_bins(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    bins = tf.binned_accuracy(*tables, edges=[1, 1_000, 10_000, 10_000_000])
    figure = plots.accuracy_by_frequency(bins)
    assert [ax.get_title() for ax in figure.axes] == ["small (500)", "large (1k)"]
    line = figure.axes[1].get_lines()[0]
    expected = bins[(bins["model"] == "large") & (bins["step"] == 100)]
    assert line.get_ydata().tolist() == expected[
        "accuracy"
    ].tolist() and line.get_xdata().tolist() == expected["left"].tolist()
    with pytest.raises(RequestError, match="one task is drawn at a time; this table has a, b"):
        plots.accuracy_by_frequency(pd.concat([bins.assign(task="a"), bins.assign(task="b")]))
    with pytest.raises(RequestError, match="no term lies in any bin"):
        plots.accuracy_by_frequency(bins.iloc[:0])


def test_operands_training_gap_and_trajectory(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, exposures = tables
    by_operand = plots.accuracy_by_operand(table, width=4)
    assert by_operand.axes[0].get_lines()[0].get_xdata().tolist() == [1.5, 5.5, 9.5]
    over = plots.accuracy_over_training(table)
    mean = table[table["model"] == "large"].groupby("step")["accuracy"].mean()
    assert over.axes[0].get_lines()[1].get_ydata().tolist() == mean.tolist()
    summary = tf.summarize(table, exposures)
    gaps = summary[(summary["metric"] == "gap") & (summary["model"] == "large")]
    assert plots.gap_over_training(summary).get_lines()[1].get_ydata().tolist() == gaps["value"].tolist()
    path = tf.trajectory(table, exposures, "7")
    figure = plots.term_trajectory(path)
    right = [ax for ax in figure.axes if ax.get_ylabel() == "exposures so far"]
    assert right[0].get_lines()[0].get_ydata().tolist() == [100 * 2**7, 400 * 2**7]
    with pytest.raises(RequestError, match="term 'x' is not a number"):
        plots.accuracy_by_operand(table.assign(term="x"))
    with pytest.raises(RequestError, match="one task is drawn at a time"):
        plots.gap_over_training(pd.concat([summary, summary.assign(task="other")]))
