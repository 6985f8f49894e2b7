"""The house style: an axis that shows 0, one colour per size, tables without the metric refused by name."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest

from pythia_tools import plots
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.plots import style

mpl.use("Agg")


def _table() -> tables.pd.DataFrame:
    return tables.summary(
        dict(
            suite="s", model=m, params=p, step=s, tokens=s * 10, branch="main", subset=g, metric="nll",
            value=5 - s / 100, low=4.9 - s / 100, high=5.1 - s / 100, n=8, unit="row", interval="bootstrap95"
        )
        for m, p in (("s", 280_000), ("xs", 90_000)) for s in (0, 1, 10, 100) for g in ("heldout", "before")
    )


def test_models_go_from_small_to_large_and_colours_follow_size() -> None:
    table = _table()
    assert style.by_size(table) == ["xs", "s"]
    colours = style.size_colours(table)
    assert colours["xs"] != colours["s"]


def test_the_step_axis_shows_zero_and_the_last_step() -> None:
    ax = plots.losses(_table())
    assert ax.get_xlim()[0] < 0 < 100 < ax.get_xlim()[1]
    assert {0, 100} <= set(ax.xaxis.get_ticklocs())
    low, high = ax.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == (pytest.approx(3.9), pytest.approx(5.1))
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["xs (90k)", "s (280k)", "held out", "just consumed"]


def test_a_missing_metric_is_named_with_those_there() -> None:
    with pytest.raises(RequestError, match="no metric 'accuracy'; it has: nll"):
        style.require(_table(), "accuracy")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (90_000, "90k"), (1_060_000, "1.1M"), (12e9, "12B"), (1000, "1k")]
)
def test_counts_read_as_the_field_writes_them(count: float, text: str) -> None:
    assert style.human_count(count) == text


def test_saving_writes_both_formats(tmp_path: Path) -> None:
    paths = plots.save(plots.losses(_table()), tmp_path, "loss")
    assert [p.name for p in paths] == ["loss.svg", "loss.png"]
    assert all(p.stat().st_size > 1000 for p in paths)


@pytest.mark.parametrize("kind", ["losses", "panels", "subset"])
def test_a_figure_names_the_unit_of_its_intervals(kind: str) -> None:
    table = _table().assign(unit="occupation", n=[24, 20] * 8)
    if kind == "losses":
        assert plots.losses(table).get_title(loc="right") == "independent unit: occupation (n = 20 to 24)"
    elif kind == "panels":
        figure = plots.correlation_over_training(table.assign(metric="spearman", subset="all", task="t"))
        assert figure.get_suptitle() == "independent unit: occupation (n = 20 to 24)"
    else:
        assert plots.by_subset(table, "nll").get_title(loc="right") == "independent unit: occupation (n = 20 to 24)"
        assert plots.by_subset(table.assign(low=None), "nll").get_title(loc="right") == "", "no interval, no unit"


def test_unknown_sizes_are_said_and_not_ranked() -> None:
    table = _table()
    table = tables.concat([table, table[table["model"] == "s"].assign(model="zz", params=None)])
    labels = [t.get_text() for t in plots.losses(table).get_legend().get_texts()]
    assert labels[:3] == ["xs (90k)", "s (280k)", "zz (size unknown)"]
    assert style.one_model(table)[1] == "s (280k)", "the largest of those whose size is known"
    assert style.one_model(table[table["model"] == "zz"])[1] == "zz (size unknown)"
    shares = table.assign(metric="memorized_share", subset="all")
    with pytest.raises(RequestError, match="no main model's size is known"):
        plots.memorization_scaling(shares[shares["model"] == "zz"])


def test_what_is_undefined_is_said_to_be() -> None:
    table = _table()
    table.loc[table["model"] == "xs", ["value", "low", "high"]] = None
    labels = [t.get_text() for t in plots.losses(table).get_legend().get_texts()]
    assert labels[:2] == ["xs (90k): undefined", "s (280k)"]
    table.loc[table["subset"] == "before", "value"] = None
    assert [t.get_text() for t in plots.by_subset(table, "nll").get_yticklabels()] == ["heldout", "before (undefined)"]
    kinds = tables.concat([_table().assign(metric="kind_share", subset=kind, value=None if kind else 0)
                           for kind in ("recitation", "reconstruction", "recollection")])
    ticks = [t.get_text() for t in plots.memorization_kinds(kinds).get_xticklabels()]
    assert ticks == ["xs\n(undefined)", "s\n(undefined)"]
