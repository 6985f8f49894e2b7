"""Continuations, n-gram surprisals and divergences against dictionaries and dense distributions in plain Python."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from pythia_tools.analyses.curves import ngram_surprisals, ngrams
from pythia_tools.analyses.curves.divergence import Predictions
from pythia_tools.analyses.curves.ngrams import Contexts, continuations, surprisals
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.order import ArrayRows

VOCAB, STOP, LONGEST = 12, 60, 5
RNG = np.random.default_rng(0)
ROWS = RNG.choice(VOCAB, (80, 17), p=RNG.dirichlet(np.full(VOCAB, 0.4))).astype(np.uint16)
ORDER = ArrayRows(ROWS, 4)
ASKED = np.concatenate([ROWS[50:54], RNG.integers(0, VOCAB + 3, (4, 17)).astype(np.uint16)])
LINE, POSITION = (a.reshape(-1) for a in np.indices((8, 16)))
OWN = (LINE < 4).astype(np.int64)


def by_hand() -> list[dict[tuple[int, ...], Counter[int]]]:
    """n − 1 → context → what followed it, within rows."""
    found = [defaultdict(Counter) for _ in range(LONGEST)]
    for row in ROWS[:STOP].tolist():
        for at in range(1, len(row)):
            for n in range(1, LONGEST + 1):
                if at - n + 1 >= 0:
                    found[n - 1][tuple(row[at - n + 1 : at])][row[at]] += 1
    return found


def context(n: int, line: int, position: int) -> tuple[int, ...] | None:
    first = position - n + 2
    return tuple(ASKED[line, first : position + 1].tolist()) if first >= 0 else None


@pytest.fixture(scope="module")
def tables():
    return continuations(ORDER, Contexts.of(ASKED, LINE, POSITION, LONGEST), STOP)


def test_continuations_are_those_of_a_dictionary(tables) -> None:
    for n, (table, known) in enumerate(zip(tables, by_hand(), strict=True), start=1):
        assert table.n == n
        for k, (line, position) in enumerate(zip(LINE, POSITION, strict=True)):
            asked = context(n, line, position)
            assert (table.place[k] < 0) == (asked is None)
            if asked is not None:
                here = slice(*table.begins[table.place[k] : table.place[k] + 2])
                told = dict(zip(table.token[here].tolist(), table.count[here].tolist(), strict=True))
                assert told == dict(known.get(asked, {}))
                assert table.seen[k] == bool(told)


def test_surprisal_backs_off_and_leaves_the_own_row_out(tables) -> None:
    known, true = by_hand(), ASKED[LINE, POSITION + 1].astype(np.int64)
    rarest = sum(known[0][()].values()) / min(known[0][()].values())
    found = surprisals(tables, true, OWN)
    for k, (line, position) in enumerate(zip(LINE, POSITION, strict=True)):
        expected = math.log2(rarest)
        for n in range(1, LONGEST + 1):
            asked = context(n, line, position)
            followed = known[n - 1].get(asked, Counter()) if asked is not None else Counter()
            count = followed[int(true[k])] - OWN[k]
            if count > 0:
                expected = math.log2((sum(followed.values()) - OWN[k]) / count)
            assert found[k, n - 1] == pytest.approx(expected)


def test_divergence_is_that_of_dense_distributions(tables) -> None:
    logp = torch.log_softmax(torch.from_numpy(RNG.normal(0, 2, (len(LINE), VOCAB + 3)).astype(np.float32)), 1)
    chosen = np.sort(RNG.choice(len(LINE), 50, replace=False))
    dense = logp.double().numpy()[chosen]
    for n, (table, known) in enumerate(zip(tables, by_hand(), strict=True), start=1):
        found = Predictions(table).from_model(logp[torch.from_numpy(chosen)], chosen)
        for value, k, own in zip(found, chosen, dense, strict=True):
            followed = known.get(context(n, LINE[k], POSITION[k]), {})
            if not followed:
                assert math.isnan(value)
                continue
            total = sum(followed.values())
            expected = sum(c / total * (math.log(c / total) - own[w]) for w, c in followed.items()) / math.log(2)
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_model_that_predicts_as_the_ngram_does_is_not_away_from_it(tables) -> None:
    share = np.full(VOCAB + 3, 1e-9)
    share[tables[0].token] = tables[0].count / tables[0].count.sum()
    logp = torch.log(torch.from_numpy(np.tile(share, (3, 1)))).float()
    np.testing.assert_allclose(Predictions(tables[0]).from_model(logp, np.arange(3)), 0, atol=1e-5)


def test_blocks_and_kept_work_change_nothing(tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ngrams, "BLOCK", 100)
    contexts, cells = Contexts.of(ASKED, LINE, POSITION, LONGEST), CellStore(tmp_path)
    first = continuations(ORDER, contexts, STOP, cells)
    monkeypatch.setattr(ngrams, "_scan", None)
    for again in (first, continuations(ORDER, contexts, STOP, cells)):
        for one, other in zip(again, tables, strict=True):
            for name in ("begins", "token", "count", "place"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_one_call_gives_them_beside_the_places(tables) -> None:
    found = ngram_surprisals(ORDER, ROWS[50:54], step=15, row_ids=range(50, 54))
    expected = surprisals(tables, ASKED[LINE, POSITION + 1].astype(np.int64), OWN)[LINE < 4]
    np.testing.assert_allclose(found[[f"ngram_{n}" for n in range(1, 6)]], expected)
    assert found["row"].tolist() == np.repeat(np.arange(50, 54), 16).tolist()
    elsewhere = ngram_surprisals(ORDER, ROWS[50:54], [3], step=15, longest=2)
    assert len(elsewhere) == 4
    assert (elsewhere["ngram_1"] <= found.loc[found["position"] == 3, "ngram_1"].to_numpy()).all()
    with pytest.raises(RequestError, match="step 21 of order rows: it has batches 0 to 19"):
        ngram_surprisals(ORDER, ROWS[50:54], step=21)


def test_large_vocabularies_are_counted_up_to_four() -> None:
    wide = ROWS.astype(np.int32) * 70_000
    with pytest.raises(RequestError, match="n is 1 to 4"):
        Contexts.of(wide, LINE[:64], POSITION[:64], 5)
    asked = Contexts.of(wide, LINE[:64], POSITION[:64], 4)
    small = continuations(ORDER, Contexts.of(ROWS, LINE[:64], POSITION[:64], 4), STOP)
    for one, other in zip(continuations(ArrayRows(wide, 4), asked, STOP), small, strict=True):
        np.testing.assert_array_equal(one.token, other.token * 70_000)
        np.testing.assert_array_equal(one.count, other.count)
