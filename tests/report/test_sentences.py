"""Sentences are computed: a table reversed gives the reversed sentence, and a wide interval gives no claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest

from pythia_tools import analyses
from pythia_tools.analyses.memorization.summary import burst_gains
from pythia_tools.core import tables


def sentences_for(analysis: str, summary: pd.DataFrame) -> list[str]:
    return [s.text for s in analyses.get(analysis).sentences(summary)]


def _rows(lines: Iterable[dict[str, Any]]) -> pd.DataFrame:
    base = dict(suite="s", params=1000, tokens=0, branch="main", n=50, interval="x")
    return tables.summary({**base, **line} for line in lines)


def _around(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _memorization(sign: int, half: float = 0.02) -> pd.DataFrame:
    lines = []
    for model, params, lift in (("xs", 100, 0.0), ("m", 900, 0.2)):
        for level, share in ((1, 0.3), (64, 0.7)):
            exposed = dict(exposures_low=level, exposures_high=level)
            lines.append(dict(model=model, params=params, step=10, metric="memorized_share", **exposed,
                              **_around(0.5 + sign * (share - 0.5), half)))
        lines.append(
            dict(model=model, params=params, step=10, metric="memorized_share", **_around(0.5 + sign * lift, half))
        )
        lines.append(
            dict(model=model, params=params, step=10, metric="spearman_exposures", **_around(sign * 0.6, half))
        )
    difference = _around(sign * 0.2, half)
    at = dict(model="m", params=900, step=10)
    lines.append(dict(at, reference="xs", metric="memorized_share_difference", **difference))
    lines.append(dict(at, task="order", metric="dispersion", **_around(1 + sign * 0.5, half)))
    lines.append(dict(at, task="order", metric="dispersion_permuted", value=1, low=0.9, high=1.1))
    lines.append(dict(at, exposures_low=16, exposures_high=16, metric="mean_burst_gain", **_around(sign * 8.0, half)))
    return _rows(lines)


def _term_frequency(sign: int, half: float = 0.02) -> pd.DataFrame:
    lines = [
        dict(model="m", step=step, metric="accuracy", **_around(0.5 + sign * lift, half))
        for step, lift in ((0, -0.3), (10, 0.3))
    ]
    lines.append(dict(model="m", step=10, metric="spearman", **_around(sign * 0.5, half)))
    return _rows(lines)


def _bias(sign: int, half: float = 0.02) -> pd.DataFrame:
    share = _around(0.5 + sign * 0.3, half)
    base, swap = (
        dict(model=m, branch=b, step=10, task="pronoun_preference") for m, b in (("m", "main"), ("m-swap", "swap"))
    )
    return _rows([
        dict(metric="stereotype_share", **base, **share),
        dict(metric="feminine_share", **base, **_around(0.3, half)),
        dict(metric="feminine_share", **swap, **_around(0.9, half)),
        dict(metric="paired_difference", reference="m", **swap, **_around(sign * 2.0, half)),
    ])


def _losses(sign: int, half: float = 0.02) -> pd.DataFrame:
    ends = ((0, -1), (10, 1))
    lines = [
        dict(model="m", step=step, subset="heldout", metric="nll", **_around(4 - sign * shift, half))
        for step, shift in ends
    ]
    lines.append(
        dict(model="m", step=10, subset="after", reference="before", metric="nll_gap", **_around(sign * 0.4, half))
    )
    return _rows(lines)


PAIRS: list[tuple[str, Callable[..., pd.DataFrame], list[tuple[str, str]]]] = [
    (
        "memorization", _memorization,
        [
            ("memorized rises with exposures: 30 %", "memorized falls with exposures: 70 %"),
            ("memorized more of", "memorized fewer of"), ("m +0.60", "m -0.60"), ("16 times +8.0", "16 times -8.0"),
            ("vary more than", "vary less than")
        ]
    ),
    (
        "term-frequency", _term_frequency,
        [
            ("accuracy rises with exposures in every size", "accuracy falls with exposures in every size"),
            ("rises from 20 % at step 0 to 80 %", "falls from 80 % at step 0 to 20 %")
        ]
    ),
    (
        "bias", _bias,
        [
            ("preferred: m more often than not (80 %", "preferred: m less often than not (20 %"),
            ("moved towards the feminine pronoun: +2.00", "moved towards the masculine pronoun: -2.00")
        ]
    ),
    (
        "losses", _losses,
        [("m falls from 5.00", "m rises from 3.00"), ("just consumed is lower", "just consumed is higher")]
    )
]


CLAIMS = (
    "rises", "falls", "moved towards", "memorized more", "memorized fewer", "more often", "less often", "is lower",
    "is higher"
)


@pytest.mark.parametrize(("analysis", "make", "pairs"), PAIRS, ids=[p[0] for p in PAIRS])
def test_a_reversed_table_reverses_the_sentences(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]]
) -> None:
    one, other = "\n".join(sentences_for(analysis, make(+1))), "\n".join(sentences_for(analysis, make(-1)))
    for forward, backward in pairs:
        assert forward in one
        assert backward in other
        assert forward not in other
        assert backward not in one


@pytest.mark.parametrize(("analysis", "make", "pairs"), PAIRS, ids=[p[0] for p in PAIRS])
def test_wide_intervals_give_no_claim(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]]
) -> None:
    text = "\n".join(sentences_for(analysis, make(+1, half=9.0)))
    assert not [c for c in CLAIMS if c in text.replace("detectably more or fewer", "")]


@pytest.mark.parametrize("gone", [["low", "high"], ["value", "low", "high"]], ids=["no interval", "no value"])
@pytest.mark.parametrize(("analysis", "make", "pairs"), PAIRS, ids=[p[0] for p in PAIRS])
def test_what_is_undefined_is_neither_a_claim_nor_undetected(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]], gone: list[str]
) -> None:
    text = "\n".join(sentences_for(analysis, make(+1).assign(**dict.fromkeys(gone, float("nan")))))
    assert not re.search(r"detect|no more and no less|about as often|\bnan\b", text)
    told = re.sub(r"\w+ or [\w ]+ \(no interval says which\)", "", text)
    assert not [c for c in CLAIMS if c in told]


@pytest.mark.parametrize(("analysis", "make", "pairs"), PAIRS, ids=[p[0] for p in PAIRS])
@pytest.mark.parametrize("params", [pd.NA, 900], ids=["unknown", "equal"])
def test_no_size_is_claimed_of_models_whose_sizes_do_not_differ_or_are_not_known(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]], params: object
) -> None:
    table = pd.concat([make(+1), make(-1).assign(model="aa")], ignore_index=True)
    told = sentences_for(analysis, tables.check_summary(table.assign(params=params)))
    assert told and not re.search("largest|smallest|size", "\n".join(told))


@pytest.mark.parametrize("analysis", ["losses", "term-frequency"])
def test_one_checkpoint_has_no_trend(analysis: str) -> None:
    make = {"losses": _losses, "term-frequency": _term_frequency}[analysis]
    text = "\n".join(sentences_for(analysis, make(+1).query("step == 10 and metric in ['nll', 'accuracy']")))
    assert "at step 10" in text and "step 0" not in text and not re.search("detect|rises|falls|undefined", text)


def test_swapping_two_models_swaps_the_size_sentence() -> None:
    table = _memorization(+1)
    table["params"] = table["params"].map({100: 900, 900: 100})
    table = table[table["metric"] != "memorized_share_difference"]
    assert "fewer of the same sequences" in "\n".join(sentences_for("memorization", table))


def test_no_items_is_said_not_hidden() -> None:
    table = _bias(+1)
    table.loc[
        table["metric"] == "paired_difference", ["value", "low", "high", "n"]
    ] = [float("nan"), float("nan"), float("nan"), 0]
    assert "cannot be compared" in "\n".join(sentences_for("bias", table))


@pytest.mark.parametrize(
    ("analysis", "make", "pairs"), [p for p in PAIRS if p[0] != "bias"],
    ids=["memorization", "term-frequency", "losses"]
)
def test_a_branch_does_not_speak_for_the_main_runs(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]]
) -> None:
    table = make(+1)
    branch = make(-1).assign(model=table["model"] + "-swap", branch="swap", params=5_000)
    assert sentences_for(analysis, pd.concat([table, branch], ignore_index=True)) == sentences_for(analysis, table)


@pytest.mark.parametrize(("analysis", "make", "pairs"), PAIRS, ids=[p[0] for p in PAIRS])
def test_every_sentence_names_rows_that_it_read(
    analysis: str, make: Callable[..., pd.DataFrame], pairs: list[tuple[str, str]]
) -> None:
    table = make(+1)
    found = analyses.get(analysis).sentences(table)
    assert found and all(s.rows and set(s.rows) <= set(table.index) for s in found)


def _bursts(values: list[tuple[float, float, float]], metric: str = "burst_gain") -> str:
    shown = dict(model="m", step=0, metric="memorized_share", **_around(0.5))
    lines = [dict(model="m", step=step, exposures_low=4, exposures_high=4, metric=metric, value=v, low=low, high=high)
             for step, (v, low, high) in enumerate(values)]
    (told,) = [s for s in sentences_for("memorization", _rows([shown, *lines])) if "burst" in s]
    return told


def test_an_average_over_bursts_is_detected_by_its_own_interval() -> None:
    """One burst of many whose interval excludes 0 says nothing of their average."""
    chance = [(1.0, 0.2, 1.8), *[(0.0, -0.8, 0.8)] * 9]
    assert "4 times +0.1 (not detected)" in _bursts(chance)
    assert _bursts([(0.5, -0.2, 1.2)] * 9).endswith("4 times +0.5."), "many small gains are one that is there"
    assert "(no interval)" in _bursts([(0.5, -0.2, 1.2), (0.6, float("nan"), float("nan"))])


def test_the_mean_over_bursts_is_over_bursts_not_canaries() -> None:
    canaries = pd.DataFrame({"canary": range(12), "copies": 4, "burst": [10] * 6 + [20] * 6}).astype({"burst": "Int64"})
    base = dict(suite="s", model="m", params=1, branch="main", seed=None, tokens=0, task="canaries")
    matched = {0: [0.0] * 12, 10: [5.0] * 6 + [0.0] * 6, 20: [5.0] * 6 + [-1.0] * 6}
    main = pd.DataFrame([dict(base, step=step, row=row, matched=value)
                         for step, values in matched.items() for row, value in enumerate(values)])
    found = burst_gains(main, canaries).set_index("metric")
    whole = found.loc["mean_burst_gain"]
    assert (whole["value"], whole["n"], whole["unit"], whole["step"]) == (2.0, 2, "burst", 20)
    assert whole["low"] < 0 < whole["high"], "twelve canaries of two bursts are two"
