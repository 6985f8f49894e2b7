"""Overlays as orders: what is touched, what is not, what comes back, and how rows keep their places."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pronoun_swap import small_tokenizer

from pythia_tools.core.errors import RequestError
from pythia_tools.order import ArrayRows
from pythia_tools.overlays import (
    Deduplicate,
    InsertText,
    Overlay,
    PronounSwap,
    RemoveRows,
    RepeatRows,
    ReplaceTerms,
    Reserve,
    roundtrip,
)

TOKENIZER = small_tokenizer()
SENTENCES = [
    "\nThen he left his hat.", "\nShe saw him and her cat.", "\nNothing of this kind here.",
    "\nThe hat is his, not hers."
]
WIDTH = 33


class Rows(ArrayRows):
    """An order held in memory: 4 rows a batch."""

    def __init__(self, texts: list[str], fill: int = 0, dtype: type = np.uint16):
        self.data = np.array([(TOKENIZER.encode(t).ids + [fill] * WIDTH)[:WIDTH] for t in texts], dtype=dtype)
        super().__init__(self.data, 4)

    def text(self, row) -> str:
        return TOKENIZER.decode(list(map(int, row)))


ORDER = Rows([f"{SENTENCES[i % 4]} {i}" for i in range(40)])


def test_rows_outside_the_chosen_steps_are_untouched_bit_for_bit():
    overlay = Overlay(ORDER, PronounSwap(TOKENIZER), steps=range(3, 6))
    served = overlay.rows(0, 40)
    assert served.dtype == ORDER.data.dtype
    assert (served[:12] == ORDER.data[:12]).all() and (served[24:] == ORDER.data[24:]).all()
    assert (served[12:24] != ORDER.data[12:24]).any()
    assert (overlay.batch(3) == served[12:16]).all()
    assert (overlay.take([20, 1, 13]) == served[[20, 1, 13]]).all()
    assert (overlay.n_rows, overlay.batch_rows, overlay.seq_length, overlay.steps) == (40, 4, 32, 10)


def test_everything_that_reads_rows_reads_the_changed_ones(tmp_path):
    """Searching, scanning and counting see the overlay, not the store beneath, nothing of which slips through."""
    from pythia_tools.counts import Text, count_terms, seen
    from pythia_tools.order import load_order
    from pythia_tools.overlays import write_out

    write_out(ORDER, tmp_path / "base", steps=range(10))
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    base = load_order(tmp_path / "base.order.yaml")
    overlay = Overlay(base, PronounSwap(TOKENIZER), steps=range(3, 8))
    expected = overlay.take(np.arange(40))
    assert (np.concatenate([rows for _, rows in overlay.chunks(0, 40, 7)]) == expected).all()
    her = TOKENIZER.encode(" her").ids
    found = seen(overlay, her)
    places = [(r, o) for r in range(40) for o in range(WIDTH) if expected[r, o : o + len(her)].tolist() == her]
    assert list(zip(found["row"], found["offset"], strict=True)) == places and len(places) > len(seen(base, her))
    counted = count_terms(overlay, [Text("her", whole_word=True)], [3, 10], tokenizer=TOKENIZER)["exposures"].tolist()
    told = ["".join(TOKENIZER.decode(r.tolist())) for r in expected]
    words = [sum(t.replace(".", " ").split().count("her") for t in told[:stop]) for stop in (12, 40)]
    assert counted == words and words[1] > sum(ORDER.text(r).split().count("her") for r in ORDER.data)
    assert (overlay.dtype, overlay.row_tokens, overlay.remote) == (base.dtype, WIDTH, False)
    room = np.empty((40, WIDTH), overlay.dtype)
    overlay.rows_into(room, 0)
    assert (room == expected).all()
    for name in ("source", "manifest"):
        assert not hasattr(overlay, name), f"{name} would speak of the store's own rows"


def test_rows_and_batches_that_do_not_exist():
    overlay = Overlay(ORDER, PronounSwap(TOKENIZER))
    with pytest.raises(RequestError, match="it has batches 0 to 9"):
        overlay.batch(10)
    for bad in ([40], [-1]):
        with pytest.raises(RequestError, match="it has rows 0 to 39"):
            overlay.take(bad)
    with pytest.raises(RequestError, match="must be whole"):
        overlay.take([0.5])
    assert overlay.take([]).shape == (0, WIDTH)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 39), max_size=12), st.sets(st.integers(0, 9), max_size=5))
def test_a_row_is_the_same_however_it_is_read(numbers, steps):
    overlay = Overlay(ORDER, [PronounSwap(TOKENIZER), ReplaceTerms(TOKENIZER, {"hat": "cap"})], steps=sorted(steps))
    whole = overlay.rows(0, 40)
    assert (overlay.take(numbers) == whole[numbers]).all()
    outside = ~np.isin(np.arange(40) // 4, sorted(steps))
    assert (whole[outside] == ORDER.data[outside]).all()


def test_the_receipt_counts_everything():
    overlay = Overlay(ORDER, PronounSwap(TOKENIZER), steps=range(0, 2))
    receipt = overlay.receipt()
    # rows 0, 4: he, his; rows 1, 5: him; rows 3, 7: his (alone)
    assert (receipt.matched, receipt.changed, receipt.missed, receipt.rows_read) == (8, 8, {}, 8)
    assert receipt.forms == Counter(
        {
            ("pronoun_swap", "he", "she"): 2,
            ("pronoun_swap", "his", "her"): 2,
            ("pronoun_swap", "him", "her"): 2,
            ("pronoun_swap", "his", "hers"): 2,
        }
    )
    assert receipt.changed_rows == {0, 1, 3, 4, 5, 7}
    assert receipt.summary()["all_listed"] and receipt.tokens_cut > 0
    assert list(receipt.table().columns) == ["rule", "row", "position", "landed", "found", "put", "status", "reason"]
    short = overlay.receipt(keep=1)
    assert short.matched == 8 and len(short.occurrences) == 1 and not short.summary()["all_listed"]


def test_the_diff_can_be_read():
    text = Overlay(ORDER, PronounSwap(TOKENIZER), steps=[1]).diff(TOKENIZER, limit=1, context=3)
    assert text.startswith("row 4 (step 1, row 0 of its batch): 2 changes")
    removed, added = [line for line in text.splitlines() if line.startswith("  ")][:2]
    assert " he left" in removed.replace("…", "") or " he l" in removed
    assert " she" in added


def test_the_inverse_rule_restores_what_is_restorable_and_says_what_is_not():
    rows = Rows(
        [
            "\nhe saw the hat", "\nshe saw the hat", "\nto her or not", "\nhis hat and him!", "\nhis; he, x" + "y" * 40,
            "\na", "\nb", "\nc"
        ],
        fill=TOKENIZER.token_to_id("<|padding|>")
    )
    swap = PronounSwap(TOKENIZER)
    result = roundtrip(rows, swap, swap.inverse())
    cut = len(TOKENIZER.encode(" she").ids) - len(TOKENIZER.encode(" he").ids)
    grown = len(TOKENIZER.encode("\nhers;").ids) - len(TOKENIZER.encode("\nhis;").ids) + cut
    assert (result["rows"], result["restored_rows"]) == (8, 5)
    assert result["not_restored"] == [
        (1, 1, "she", "he", "it was of the other gender before"),
        (2, len(TOKENIZER.encode("\nto").ids), "her", "him", "it was of the other gender before"),
        (4, -grown, "y" * grown, "", "it was cut off the row's end"),
    ]
    always = PronounSwap(TOKENIZER, his="her")
    assert (
        0, 1, "his", "him", "her stands for more than one form"
    ) in roundtrip(Rows(["\nhis."] * 4), always, always.inverse())["not_restored"]


def test_overlays_compose_in_the_order_given():
    first = ReplaceTerms(TOKENIZER, {"hat": "him"})
    one = Overlay(ORDER, [first, PronounSwap(TOKENIZER)], steps=[0])
    two = Overlay(Overlay(ORDER, first, steps=[0]), PronounSwap(TOKENIZER), steps=[0])
    assert (one.rows(0, 40) == two.rows(0, 40)).all()
    assert "her" in ORDER.text(one.rows(0, 1)[0]) and "hat" not in ORDER.text(one.rows(0, 1)[0])
    other = Overlay(ORDER, [PronounSwap(TOKENIZER), first], steps=[0])
    assert " him" in ORDER.text(other.rows(0, 1)[0])
    assert {o.rule for o in one.apply([0]).occurrences} == {"replace_terms", "pronoun_swap"}


def test_fingerprints_name_the_rows():
    swap = PronounSwap(TOKENIZER)
    base = Overlay(ORDER, swap, steps=range(2, 5)).fingerprint
    assert base == Overlay(
        ORDER, PronounSwap(TOKENIZER), steps=[4, 2, 3]
    ).fingerprint == Overlay(ORDER, swap, steps="2:4").fingerprint
    others = [
        Overlay(ORDER, swap, steps=[2, 3]),
        Overlay(ORDER, swap.inverse(), steps=range(2, 5)),
        Overlay(ORDER, PronounSwap(TOKENIZER, paired="change"), steps=range(2, 5)),
    ]
    assert len({base, *(o.fingerprint for o in others)}) == 4


def test_a_removed_row_is_replaced_from_the_reserve_and_nothing_shifts():
    overlay = Overlay(ORDER, RemoveRows([5, 9, 30], Reserve(range(36, 40))), steps=range(0, 5))
    expected = ORDER.data.copy()
    expected[5], expected[9] = ORDER.data[36], ORDER.data[37]  # row 30 lies outside the chosen steps
    assert (overlay.rows(0, 40) == expected).all()
    assert [(o.row, o.put) for o in overlay.receipt().occurrences] == [(5, "row 36"), (9, "row 37")]
    spare = Rows([f"\nspare {i}" for i in range(4)])
    assert (Overlay(ORDER, RemoveRows([5], Reserve([2], spare))).rows(5, 6)[0] == spare.data[2]).all()


def test_a_reserve_must_suffice_and_lie_beyond_the_chosen_steps():
    with pytest.raises(RequestError, match="2 rows are to be replaced, the reserve has 1"):
        Overlay(ORDER, RemoveRows([1, 2], Reserve([39])), steps=[0])
    with pytest.raises(RequestError, match="would be seen twice"):
        Overlay(ORDER, RemoveRows([1], Reserve([3])), steps=[0])


def test_a_deduplicated_order_has_no_duplicates_from_the_reserve_either():
    rows = Rows(["\na", "\na", "\nb", "\na", "\nb", "\nc", "\nc", "\nd"])
    overlay = Overlay(rows, Deduplicate(Reserve([4, 5, 6, 7])), steps=[0])
    assert [
        rows.text(r)[:2] for r in overlay.rows(0, 4)
    ] == ["\na", "\nc", "\nb", "\nd"], "b is there already, c comes twice"
    assert [(o.row, o.put) for o in overlay.receipt().occurrences] == [(1, "row 5"), (3, "row 7")]
    with pytest.raises(RequestError, match="2 rows are to be replaced, the reserve has 1"):
        Overlay(rows, Deduplicate(Reserve([4, 5, 6])), steps=[0])


SPARE = Reserve(range(36, 40))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InsertText(TOKENIZER, " x", at=-1), "a token offset is 0 or more"),
        (lambda: InsertText(TOKENIZER, " x", copies=0), "at least 1 is needed"),
        (lambda: InsertText(TOKENIZER, " x", rows=[100]), "insert into row 100: the order has rows 0 to 39"),
        (lambda: InsertText(TOKENIZER, " x", rows=[30]), "none of the 1 rows to insert into is in the chosen steps"),
        (lambda: RemoveRows([-1], SPARE), "remove row -1"),
        (lambda: RemoveRows([30], SPARE), "none of the 1 rows to remove"),
        (lambda: RemoveRows([1, 2], Reserve([36, 36])), "the reserve names a row twice"),
        (lambda: RemoveRows([1, 2], Reserve([36, 360])), "it can have rows 0 to 39"),
        (lambda: RepeatRows([100]), "repeated row 100"),
        (lambda: RepeatRows([1], copies=-1), "at least 1 is needed"),
        (lambda: ReplaceTerms(TOKENIZER, {"hat": "cap", "Hat": "cat"}), "differ in case alone"),
    ],
)
def test_rules_that_would_do_nothing_or_the_wrong_thing_are_refused(make, message):
    with pytest.raises(RequestError, match=message):
        Overlay(ORDER, make(), steps=range(5))


def test_ids_beyond_uint16_and_beyond_the_vocabulary():
    wide = Rows(["\nhe saw\n"] * 4, dtype=np.uint32)
    wide.data[0, 9] = 200_000
    served = Overlay(wide, PronounSwap(TOKENIZER)).rows(0, 4)
    assert served.dtype == np.uint32 and 200_000 in served[0] and wide.text(served[1]).startswith("\nshe saw")


def test_repeated_rows_take_the_places_of_others():
    overlay = Overlay(ORDER, RepeatRows([8, 9], copies=2), steps=range(2, 10))
    served, data = overlay.rows(0, 40), ORDER.data
    changed = np.flatnonzero((served != data).any(axis=1))
    assert changed.size == 4 and changed.min() > 9
    assert sorted(map(tuple, served[changed])) == sorted(map(tuple, data[[8, 9, 8, 9]]))
    drawn = Overlay(ORDER, RepeatRows([0], copies=5, seed=3), steps=range(2, 10))
    same = (drawn.rows(8, 40) == ORDER.data[0]).all(axis=1)
    assert same.sum() == 5 and drawn.fingerprint == Overlay(
        ORDER, RepeatRows([0], copies=5, seed=3), steps=range(2, 10)
    ).fingerprint


def test_inserted_text_pushes_or_overwrites():
    ids = TOKENIZER.encode(" a word").ids
    pushed = Overlay(ORDER, InsertText(TOKENIZER, " a word", rows=[6], at=2), steps=range(0, 5)).rows(6, 7)[0]
    old = ORDER.data[6]
    assert pushed.tolist() == [*old[:2], *ids, *old[2 : WIDTH - len(ids)]]
    over = Overlay(ORDER, InsertText(TOKENIZER, " a word", rows=[6], at=2, how="over")).rows(6, 7)[0]
    assert over.tolist() == [*old[:2], *ids, *old[2 + len(ids) :]]
    receipt = Overlay(ORDER, InsertText(TOKENIZER, " a word", copies=3, seed=1), steps=range(0, 5)).receipt()
    assert receipt.changed == 3 and receipt.tokens_cut == 3 * len(ids)
    with pytest.raises(RequestError, match="do not fit"):
        Overlay(ORDER, InsertText(TOKENIZER, "long " * 40, rows=[1])).rows(0, 4)


def test_duplicates_are_replaced_and_the_first_stays():
    rows = Rows([
        "\na", "\nb", "\na", "\nc", "\nb", "\na", "\nd", "\ne", "\nspare", "\nspare two", "\nspare three", "\nlast"
    ])
    overlay = Overlay(rows, Deduplicate(Reserve(range(8, 12))), steps=[0, 1])
    texts = [rows.text(r).strip("\x00\n").replace("<|endoftext|>", "") for r in overlay.rows(0, 8)]
    assert texts == ["a", "b", "spare", "c", "spare two", "spare three", "d", "e"]
    assert [o.row for o in overlay.receipt().occurrences] == [2, 4, 5]


@pytest.mark.parametrize(("steps", "message"), [
        ([10], "not within the order's batches 0…9"), ("x", "give a:b"), ([-1], "not within"), ("8:10", "not within"),
        ("4:2", "name no batch"), ("1:2:0", "both ends included"),
    ])
def test_wrong_steps(steps, message):
    with pytest.raises(RequestError, match=message):
        Overlay(ORDER, PronounSwap(TOKENIZER), steps=steps)
