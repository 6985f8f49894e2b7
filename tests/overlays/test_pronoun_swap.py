"""The swap and its receipt, listed case by case: every form, every case, every boundary."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pythia_tools.core.errors import RequestError
from pythia_tools.overlays import PronounSwap, ReplaceTerms, Spelling
from pythia_tools.overlays.pronouns import stands_alone

NEOX = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "20B_tokenizer.json"
CHANGED, MISSED = "changed", "missed"


def small_tokenizer() -> Tokenizer:
    """A byte-level BPE whose feminine pronouns take more ids than the masculine ones, so that rows grow."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = "he him his himself the then this Himself He His the theme cache Then there " * 40
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([words], trainer)
    return tokenizer


@pytest.fixture(params=["small", "neox"], scope="module")
def tokenizer(request):
    if request.param == "small":
        return small_tokenizer()
    if not NEOX.exists():
        pytest.skip("the GPT-NeoX tokenizer is not here")
    return neox()


@cache
def neox() -> Tokenizer:
    return Tokenizer.from_file(str(NEOX))


@cache
def swap(tokenizer, direction="feminine") -> PronounSwap:
    """One rule per tokenizer and direction: spelling out fifty thousand ids takes half a second."""
    return PronounSwap(spelled(tokenizer), direction)


@cache
def spelled(tokenizer) -> Spelling:
    return Spelling(tokenizer)


def run(rule, tokenizer, text: str):
    """The text after the rule and its account, in a row with room at its end."""
    ids = tokenizer.encode("\n" + text + "\n" * 40).ids
    row = np.array([ids], dtype=np.uint16)
    done = rule.edit(row, [7])
    assert done.rows.shape == row.shape and done.rows.dtype == row.dtype
    after = rule.spelling.text(done.rows[0]).replace("␞", "").strip("\n")
    return after, [(o.found, o.put, o.status, o.reason) for o in done.occurrences]


FEMININE = [
    # every form, lower case
    ("so he left.", "so she left.", [("he", "she", CHANGED, "")]),
    ("I saw him there", "I saw her there", [("him", "her", CHANGED, "")]),
    ("by himself again", "by herself again", [("himself", "herself", CHANGED, "")]),
    ("his hat", "her hat", [("his", "her", CHANGED, "")]),
    # every case
    ("so He left", "so She left", [("He", "She", CHANGED, "")]),
    ("so HE left", "so SHE left", [("HE", "SHE", CHANGED, "")]),
    ("for Him", "for Her", [("Him", "Her", CHANGED, "")]),
    ("for HIM", "for HER", [("HIM", "HER", CHANGED, "")]),
    ("in His name", "in Her name", [("His", "Her", CHANGED, "")]),
    ("in HIS name", "in HER name", [("HIS", "HER", CHANGED, "")]),
    ("It was HIS.", "It was HERS.", [("HIS", "HERS", CHANGED, "")]),
    ("Himself and HIMSELF", "Herself and HERSELF", [("Himself", "Herself", CHANGED, ""), ("HIMSELF", "HERSELF", CHANGED, "")]),
    ("so hE left and hIS", "so hE left and hIS", []),
    # his: determiner or pronoun
    ("the hat is his.", "the hat is hers.", [("his", "hers", CHANGED, "")]),
    ("his and mine", "hers and mine", [("his", "hers", CHANGED, "")]),
    ("his was red", "hers was red", [("his", "hers", CHANGED, "")]),
    ("“his” it said", "“hers” it said", [("his", "hers", CHANGED, "")]),
    ("his “great” idea", "her “great” idea", [("his", "her", CHANGED, "")]),
    ("his own", "her own", [("his", "her", CHANGED, "")]),
    ("his -- not mine", "hers -- not mine", [("his", "hers", CHANGED, "")]),
    ("his in-laws, his on-off joke", "her in-laws, her on-off joke", [("his", "her", CHANGED, "")] * 2),
    ("his past, his will, his being late", "her past, her will, her being late", [("his", "her", CHANGED, "")] * 3),
    ("*his* hat is *his*.", "*her* hat is *hers*.", [("his", "her", CHANGED, ""), ("his", "hers", CHANGED, "")]),
    # every boundary
    ("(he)", "(she)", [("he", "she", CHANGED, "")]),
    ('"he"', '"she"', [("he", "she", CHANGED, "")]),
    ("'he said", "'she said", [("he", "she", CHANGED, "")]),
    (
        "he, him; his: he!",
        "she, her; hers: she!",
        [("he", "she", CHANGED, ""), ("him", "her", CHANGED, ""), ("his", "hers", CHANGED, ""), ("he", "she", CHANGED, "")],
    ),
    ("he's, he'd, he'll, he’s", "she's, she'd, she'll, she’s", [("he", "she", CHANGED, "")] * 4),
    ("HE'S, HE'LL, heʼs", "SHE'S, SHE'LL, sheʼs", [("HE", "SHE", CHANGED, "")] * 2 + [("he", "she", CHANGED, "")]),
    ("x\u200bhe\u200b and \ufeffHe", "x\u200bshe\u200b and \ufeffShe", [("he", "she", CHANGED, ""), ("He", "She", CHANGED, "")]),
    ("then\nhe\tand\n\nHe", "then\nshe\tand\n\nShe", [("he", "she", CHANGED, ""), ("He", "She", CHANGED, "")]),
    ("home.He said", "home.She said", [("He", "She", CHANGED, "")]),
    ("he—he…he", "she—she…she", [("he", "she", CHANGED, "")] * 3),
    ("<b>he</b>", "<b>she</b>", [("he", "she", CHANGED, "")]),
    ("he he he", "she she she", [("he", "she", CHANGED, "")] * 3),
    # never inside other words
    ("the theme, she, cache hero ache hex heh eh", "the theme, she, cache hero ache hex heh eh", []),
    ("history this Hispanic whim shim himalaya", "history this Hispanic whim shim himalaya", []),
    ("he_is is_he he2 2he HeLa", "he_is is_he he2 2he HeLa", []),
    ("hé éhe heé cliché he", "hé éhe heé cliché she", [("he", "she", CHANGED, "")]),
    ("he\u0301 he\u200dx he\u00adre", "he\u0301 he\u200dx he\u00adre", []),
    # left with a reason
    ("he or she", "he or she", [("he", "he", MISSED, "paired")]),
    ("he (or she), he and/or she", "he (or she), he and/or she", [("he", "he", MISSED, "paired")] * 2),
    ("she or he came", "she or he came", [("he", "he", MISSED, "paired")]),
    (
        "his/her and s/he and (s)he",
        "his/her and s/he and (s)he",
        [("his", "his", MISSED, "paired"), ("he", "he", MISSED, "paired"), ("he", "he", MISSED, "paired")],
    ),
    ("he-man, a-he", "he-man, a-he", [("he", "he", MISSED, "attached"), ("he", "he", MISSED, "attached")]),
    ("he@x.org @he #he $he he(x)", "he@x.org @he #he $he he(x)", [("he", "he", MISSED, "attached")] * 5),
    ("node.he he.node o'he", "node.he he.node o'he", [("he", "he", MISSED, "attached")] * 3),
    # already feminine: nothing to do
    ("she saw her by herself; it is hers", "she saw her by herself; it is hers", []),
]

MASCULINE = [
    ("so she left", "so he left", [("she", "he", CHANGED, "")]),
    ("her hat", "his hat", [("her", "his", CHANGED, "")]),
    ("I saw her.", "I saw him.", [("her", "him", CHANGED, "")]),
    ("I told her that", "I told him that", [("her", "him", CHANGED, "")]),
    ("her in-laws and her past", "his in-laws and his past", [("her", "his", CHANGED, "")] * 2),
    ("it is hers", "it is his", [("hers", "his", CHANGED, "")]),
    ("Herself alone", "Himself alone", [("Herself", "Himself", CHANGED, "")]),
    ("sheer hershey shed other", "sheer hershey shed other", []),
]

BOTH = [
    (
        "he saw her and she saw him", "she saw him and he saw her",
        [
            ("he", "she", CHANGED, ""), ("her", "him", CHANGED, ""), ("she", "he", CHANGED, ""),
            ("him", "her", CHANGED, "")
        ]
    ),
    ("his hat and hers.", "her hat and his.", [("his", "her", CHANGED, ""), ("hers", "his", CHANGED, "")])
]


@pytest.mark.parametrize(("text", "after", "account"), FEMININE, ids=[t for t, _, _ in FEMININE])
def test_feminine(tokenizer, text, after, account):
    seen, told = run(swap(tokenizer), tokenizer, text)
    assert (unicodedata.normalize("NFC", seen), told) == (unicodedata.normalize("NFC", after), account)


@pytest.mark.parametrize(("text", "after", "account"), MASCULINE, ids=lambda v: v if isinstance(v, str) else "")
def test_masculine(tokenizer, text, after, account):
    assert run(swap(tokenizer, "masculine"), tokenizer, text) == (after, account)


@pytest.mark.parametrize(("text", "after", "account"), BOTH)
def test_both(tokenizer, text, after, account):
    assert run(swap(tokenizer, "both"), tokenizer, text) == (after, account)


def test_words_at_the_rows_edges_are_left_because_the_rest_may_be_out_of_sight(tokenizer):
    row = np.array([tokenizer.encode("he said to him").ids], dtype=np.uint16)
    done = swap(tokenizer).edit(row)
    assert (done.rows == row).all()
    assert [
        (o.found, o.status, o.reason) for o in done.occurrences
    ] == [("he", MISSED, "row_start"), ("him", MISSED, "row_end")]


def test_edges_can_be_taken_for_whole_words():
    tokenizer = small_tokenizer()
    row = np.array([tokenizer.encode("her hat is hers").ids], dtype=np.uint16)
    done = PronounSwap(tokenizer, "masculine", edges="change").edit(row)
    assert Spelling(tokenizer).text(done.rows[0]).replace("␞", "") == "his hat is his"


def test_a_special_token_is_a_boundary(tokenizer):
    row = np.array([[*tokenizer.encode("x").ids, 0, *tokenizer.encode("he").ids, 0]], dtype=np.uint16)
    done = swap(tokenizer).edit(row)
    assert [(o.found, o.put) for o in done.occurrences] == [("he", "she")]


def test_a_longer_word_cuts_the_rows_end_and_a_shorter_one_pads_it():
    tokenizer = small_tokenizer()
    spelling = Spelling(tokenizer)
    assert len(spelling.encode(" she")) > len(spelling.encode(" he")) == 1
    row = np.array([tokenizer.encode("x he said abcdef").ids], dtype=np.uint16)
    grown = PronounSwap(tokenizer).edit(row)
    extra = len(spelling.encode(" she")) - 1
    assert spelling.text(grown.rows[0]) == "x she said abcdef"[:-extra]
    assert [(n.cut, n.padded, n.tail) for n in grown.lengths] == [(extra, 0, tuple(row[0, -extra:].tolist()))]
    shrunk = PronounSwap(tokenizer, "masculine").edit(grown.rows)
    assert spelling.text(shrunk.rows[0]) == "x he said abcdef"[:-extra] + "␞" * extra
    assert shrunk.rows[0, -extra:].tolist() == [spelling.pad_id] * extra == [1] * extra
    assert [(n.cut, n.padded) for n in shrunk.lengths] == [(0, extra)]


def test_a_change_that_falls_off_the_end_is_said_to_be_cut():
    tokenizer = small_tokenizer()
    row = np.array([tokenizer.encode("x he he he he he.").ids], dtype=np.uint16)
    done = swap(tokenizer).edit(row)
    assert [o.status for o in done.occurrences].count("cut") >= 1
    assert all(o.landed == -1 and o.reason == "cut off the row's end" for o in done.occurrences if o.status == "cut")
    for item in done.occurrences:
        if item.status == CHANGED:
            assert tuple(done.rows[0, item.landed : item.landed + len(item.placed)].tolist()) == item.placed


def metaspace_tokenizers() -> dict[str, Tokenizer]:
    """The same vocabulary with the space as Llama writes it (a normalizer) and as a pre-tokenizer, before whole texts
    or not.
    """
    made = {}
    for name in ("always", "first", "never"):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=name)
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
        tokenizer.train_from_iterator(
            ["\n so he said that his hat ( he ) She she her hers He . the theme" * 40], trainer
        )
        made[name] = tokenizer
    llama = Tokenizer.from_str(made["never"].to_str())
    llama.pre_tokenizer = None  # type: ignore[assignment]
    llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return {**made, "llama": llama}


@pytest.mark.parametrize("name", ["always", "first", "never", "llama"])
def test_tokenizers_that_write_the_space_as_a_character(name):
    tokenizer = metaspace_tokenizers()[name]
    rule = PronounSwap(tokenizer)
    row = np.array([tokenizer.encode("the theme so he said that his hat (he) .He . ").ids], dtype=np.uint16)
    done = rule.edit(row)
    assert [(o.found, o.put) for o in done.occurrences] == [("he", "she"), ("his", "her"), ("he", "she"), ("He", "She")]
    kept = rule.spelling.text(done.rows[0]).strip()
    assert "the theme so she said that her hat (she) .She .".startswith(kept.rstrip("␞")) and len(kept) > 40


def test_bytes_that_are_no_text_stay_bit_for_bit(tokenizer):
    """Fragments of characters, on their own and beside pronouns: nothing is decoded and encoded again."""
    rule = swap(tokenizer)
    byte = {b: i for i, b in enumerate(rule.spelling.bytes) if len(b) == 1}
    broken = [byte[bytes([b])] for b in (0xE2, 0x80, 0xC3, 0x28, 0xED, 0xA0, 0xBF)]
    he, she, end = (list(rule.spelling.encode(t)) for t in (" he", " she", " x"))
    row = np.array([[*broken, *he, *end, *broken[::-1], *he, *end, *broken, *end * 9]], dtype=np.uint16)
    expected = [*broken, *she, *end, *broken[::-1], *she, *end, *broken, *end * 9][: row.shape[1]]
    done = rule.edit(row)
    assert done.rows[0].tolist() == expected
    untouched = np.array([broken * 3], dtype=np.uint16)
    assert (rule.edit(untouched).rows == untouched).all() and not rule.edit(untouched).occurrences


def test_the_result_does_not_depend_on_the_rows_beside_it(tokenizer):
    texts = [t for t, _, _ in FEMININE]
    width = 40
    rows = np.array([(tokenizer.encode("\n" + t).ids + [0] * width)[:width] for t in texts], dtype=np.uint16)
    rule = swap(tokenizer)
    together = rule.edit(rows).rows
    for i, row in enumerate(rows):
        assert (rule.edit(row[None]).rows[0] == together[i]).all()


@pytest.mark.skipif(not NEOX.exists(), reason="the GPT-NeoX tokenizer is not here")
def test_a_pronouns_id_inside_another_word_is_left():
    """The published first implementation mapped single ids (248, "he", among them), which damages other words."""
    tokenizer = neox()
    ids = tokenizer.encode(" a spheroid, so he left").ids
    assert 248 in ids, "the word piece he inside another word"
    row = np.array([ids], dtype=np.uint16)
    ours = swap(tokenizer).edit(row)
    assert tokenizer.decode(ours.rows[0].tolist()) == " a spheroid, so she left"


@pytest.mark.skipif(not NEOX.exists(), reason="the GPT-NeoX tokenizer is not here")
def test_swapped_rows_are_what_the_tokenizer_makes_of_the_swapped_text():
    tokenizer = neox()
    text = "\n".join(t for t, _, _ in FEMININE) + "\n"
    row = np.array([tokenizer.encode(text).ids], dtype=np.uint16)
    done = swap(tokenizer).edit(row)
    assert done.rows[0].tolist() == tokenizer.encode(tokenizer.decode(done.rows[0].tolist())).ids


def test_terms_are_replaced_whole_and_in_their_case(tokenizer):
    rule = ReplaceTerms(spelled(tokenizer), {"doctor": "nurse", "construction worker": "clerk"})
    after, account = run(rule, tokenizer, "The doctor, Doctor DOCTOR doctors and a construction worker.")
    assert after == "The nurse, Nurse NURSE doctors and a clerk."
    assert [a[:2] for a in account] == [
        ("doctor", "nurse"), ("Doctor", "Nurse"), ("DOCTOR", "NURSE"), ("construction worker", "clerk")
    ]
    assert run(rule.inverse(), tokenizer, "a Nurse")[0] == "a Doctor"


@pytest.mark.parametrize(
    ("right", "alone"),
    [
        (" hat", False),
        (".", True),
        (" .", True),
        (" and", True),
        (" And", True),
        (" android", False),
        ("", True),
        ("\n\nThen", True),
        (" 3 hats", False),
        (' "hat"', False),
        ('"', True),
        (") x", True),
    ],
)
def test_a_possessive_stands_alone(right, alone):
    assert stands_alone(right) is alone


def test_wrong_options_name_what_is_allowed():
    tokenizer = small_tokenizer()
    with pytest.raises(RequestError, match="direction='female': allowed are feminine, masculine, both"):
        PronounSwap(tokenizer, "female")
    with pytest.raises(RequestError, match="is not a fast tokenizer"):
        PronounSwap(object())
