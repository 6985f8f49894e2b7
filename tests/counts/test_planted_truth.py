"""A suite that knows where its planted text lies: the order finds exactly those rows, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pythia_tools.counts import seen
from pythia_tools.order import DataOrder, OrderLoader, load_order, verify_order


@pytest.fixture(scope="module")
def order(tiny_suite: Path) -> DataOrder:
    return load_order(tiny_suite / "order.yaml")


def test_every_canary_is_found_where_it_was_planted(order: DataOrder, tiny_suite: Path) -> None:
    canaries = pd.read_parquet(tiny_suite / "truth" / "canaries.parquet")
    assert len(canaries)
    for canary in canaries.itertuples():
        found = seen(order, canary.tokens)
        planted = [r for r in canary.rows if r < order.steps * order.batch_rows]
        assert sorted(found["row"]) == sorted(planted), canary.canary
        assert sorted(found["step"]) == sorted(r // order.batch_rows for r in planted) and set(found["offset"]) <= {0}


def test_every_fact_is_found_where_it_was_planted(order: DataOrder, tiny_suite: Path) -> None:
    facts = pd.read_parquet(tiny_suite / "truth" / "facts.parquet")
    last = order.steps * order.batch_rows
    for fact in facts.head(40).itertuples():
        found = seen(order, fact.prompt + fact.answer)
        assert sorted(found["row"]) == sorted(r for r in fact.rows if r < last), fact.prompt



def test_its_files_verify_and_load(order: DataOrder) -> None:
    table = verify_order(order)
    assert not table["status"].isin(["wrong", "missing"]).any() and (table["note"] == "maps fit these documents").any()
    assert (next(iter(OrderLoader(order, start=5))).numpy() == order.batch(5)).all()
