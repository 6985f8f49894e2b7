"""One pass in pieces: parts that survive a kill, ranges that merge, threads, and an index that agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythia_tools import counts
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.counts import Ngram, Pair, build_ngram_index, counting, open_ngram_index, reading
from pythia_tools.order import ArrayRows

RNG = np.random.default_rng(11)
ROWS = RNG.integers(0, 40, (300, 33)).astype(np.uint16)
TERMS = [Ngram((3,)), Ngram((3, 4)), Ngram((5, 6, 7)), Ngram((1, 1)), Pair((3,), (4,), 2, "tokens")]
STEPS = [0, 1, 7, 30]


def order() -> ArrayRows:
    return ArrayRows(ROWS, 10)


def test_ranges_add_up_to_the_whole_and_give_no_exposures_alone() -> None:
    whole = counts.count(order(), TERMS, STEPS)
    pieces = [counts.count(order(), TERMS, STEPS, batches=b) for b in ((20, 30), (0, 5), (5, 20))]
    assert whole.complete and not any(piece.complete for piece in pieces)
    with pytest.raises(RequestError, match=r"exposures up to step 30 need batches 0-29; only 20-29 were read"):
        pieces[0].matrix()
    np.testing.assert_array_equal(sum(piece.new for piece in pieces), whole.new)


def test_sums_over_steps_equal_totals_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = counts.count(order(), TERMS, [30]).matrix()[:, 0]
    monkeypatch.setattr(reading, "BLOCK_TOKENS", 33 * 7)  # blocks that end within batches
    for workers in (1, 4):
        every = counts.count(order(), TERMS, range(31), workers=workers)
        np.testing.assert_array_equal(every.new.sum(axis=0), whole)
        assert (np.diff(every.matrix(), axis=1) >= 0).all()


class Breaks(ArrayRows):
    """Fails at row 200 once."""

    broken = True

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.broken and stop > 200:
            raise ConnectionError("lost")
        return super().rows(start, stop)


def test_a_killed_pass_goes_on_at_the_part_it_had_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "PART_TOKENS", 33 * 50)  # six parts of five batches
    cells = CellStore(tmp_path)
    breaks = Breaks(ROWS, 10)
    with pytest.raises(ConnectionError):
        counts.count(breaks, TERMS, STEPS, cells=cells, workers=1)
    kept = sorted(tmp_path.glob("*.parquet"))
    assert len(kept) == 4
    before = [p.stat().st_mtime_ns for p in kept]
    breaks.broken = False
    resumed = counts.count(breaks, TERMS, STEPS, cells=cells, workers=1)
    np.testing.assert_array_equal(resumed.matrix(), counts.count(order(), TERMS, STEPS).matrix())
    assert [p.stat().st_mtime_ns for p in kept] == before


def test_the_index_gives_the_same_counts_places_and_steps(tmp_path: Path) -> None:
    pytest.importorskip("tokengrams")
    index = build_ngram_index(order(), tmp_path / "index")
    terms = [(3,), (3, 4), (1, 1), (5, 6, 7), (39,), (7, 7, 7, 7)]
    scanned = counts.count(order(), terms, STEPS).matrix()
    for term, expected in zip(terms, scanned, strict=True):
        steps = index.places(term)["step"].to_numpy()
        np.testing.assert_array_equal([(steps < step).sum() for step in STEPS], expected)
        for place in index.places(term).itertuples():
            assert tuple(ROWS[place.row, place.offset:place.offset + len(term)]) == term
            assert place.step == place.row // 10
    stream = ROWS.reshape(-1)
    a, b = int(ROWS[4, -1]), int(ROWS[5, 0])
    across = int(((stream[:-1] == a) & (stream[1:] == b)).sum())
    assert across == index.engine.count([a, b]) > len(index.places((a, b))), "pairs over two rows count"


def test_an_index_of_a_range_and_what_it_refuses(tmp_path: Path) -> None:
    pytest.importorskip("tokengrams")
    index = build_ngram_index(order(), tmp_path / "part", steps=(10, 20))
    assert set(index.places((3,))["step"]) <= set(range(10, 20))
    assert len(index.places((3,))) == int((ROWS[100:200] == 3).sum())
    with pytest.raises(RequestError, match="an n-gram of ids 0 to 65535 is needed"):
        index.places((70_000,))
    with pytest.raises(RequestError, match="holds an index of another order or range"):
        build_ngram_index(order(), tmp_path / "part")
    with pytest.raises(RequestError, match="holds no finished index"):
        open_ngram_index(tmp_path / "none")
    (tmp_path / "part" / "suffixes.idx").write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes, the index says"):
        open_ngram_index(tmp_path / "part")


def test_ids_beyond_16_bits_are_indexed(tmp_path: Path) -> None:
    pytest.importorskip("tokengrams")
    rows = np.array([[70_000, 2, 70_000, 2], [2, 70_000, 3, 4]], dtype=np.int32)
    index = build_ngram_index(ArrayRows(rows, 1), tmp_path)
    assert index.places((70_000, 2)).to_dict("list") == {"step": [0, 0], "row": [0, 0], "offset": [0, 2]}
    assert index.places((70_000,))["step"].tolist() == [0, 0, 1]
