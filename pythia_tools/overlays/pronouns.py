"""The pronoun swap: masculine to feminine, feminine to masculine, or both at once; whole words only, case kept.

| from | to | |
|---|---|---|
| he, himself | she, herself | and back |
| him | her | |
| his | her or hers | `hers` where the word stands alone: before punctuation, a function word, or the end |
| her | his or him | `him` where it stands alone, by the same test |
| hers | his | |

What is left as it was, each with its reason in the receipt:
`row_start`, `row_end`  the word touches the row's edge, where the rest of a longer word may be out of sight
`paired`                "he or she", "his/her", "(s)he": both genders are named already
`attached`              part of a compound, name or address: he-man, he@x.org, node.he, o'he

His and her are decided by the next word alone (a closed list of function words), never by a model: the rule is
deterministic and costs a look-up. Known limits: "a friend of his came" is read as a determiner, "I drove her home" too;
quoted words ("the word 'he'") are swapped like any others; words between underscores (_he_) are taken for parts of a
name.
Source of the intervention: Biderman et al. 2023 (arXiv:2304.01373), section 4.1.
"""

from __future__ import annotations

import re
from typing import Any

from pythia_tools.core.errors import RequestError
from pythia_tools.overlays.rules import WordRule
from pythia_tools.overlays.words import Spelling, same_case
from pythia_tools.tokens import Openable

FEMININE = {"he": "she", "him": "her", "his": "her|hers", "himself": "herself"}
MASCULINE = {"she": "he", "her": "his|him", "hers": "his", "herself": "himself"}
DIRECTIONS = {"feminine": FEMININE, "masculine": MASCULINE, "both": FEMININE | MASCULINE}
CHOICES = {
    "direction": tuple(DIRECTIONS), "his": ("context", "her"), "her": ("context", "his", "him"),
    "paired": ("leave", "change"), "edges": ("leave", "change"),
}
"""What each option of the swap may be, its default first."""

_ALONE_BEFORE = (
    # conjunctions and clause openers
    "and or but nor so yet if when while because although though since until unless where whereas whether than then "
    "as that who whom which what whose how why "
    # verbs of the closed classes
    "is was are were am be been has have had do does did would could shall should may must ought "
    # prepositions and particles
    "to of in on at by for from with without within into onto upon over under after before about above against among "
    "around behind below beneath beside besides between beyond despite during except near off out through throughout "
    "toward towards up down via "
    # determiners, pronouns, adverbs that end a phrase
    "the a an this these those some any each every both all another i you he she it we they me him us them my your his "
    "her its our their not too either also alone again away here there now anymore anyway instead today tonight "
    "tomorrow yesterday once ago please"
)
ALONE_BEFORE = frozenset(_ALONE_BEFORE.split())
"""Words that rarely follow a possessive determiner: before them "his" is "hers" and "her" is "him".

Words that are mostly nouns or verbal nouns there are not listed: his past, his will, his might, his being late.
"""

_NEXT = re.compile(r"\s*(?P<word>[A-Za-z]+)(?!['’]?[^\W_]|-[^\W_])")  # not the first part of in-laws or after-effects
_DASHED = re.compile(r"\s*-(?![^\W_])")
_CLOSED = re.compile(r"""[.,;:!?)\]}…—–/\\|>`"”’␞]|[ \t]*[.,;:!?)␞—–]|\s*\n\s*\n""")
_OTHERS = r"(?:she|her|hers|herself|he|him|his|himself|they|them|their|theirs|it|its)"
_OR = r"(?:\s*/\s*|\s*\(\s*(?:or|nor)\s+|\s+(?:and/)?(?:or|nor)\s+)"
_PAIRED_RIGHT = re.compile(rf"{_OR}{_OTHERS}(?![A-Za-z])", re.IGNORECASE)
_PAIRED_LEFT = re.compile(rf"(?:(?<![A-Za-z]){_OTHERS}{_OR}|(?<![A-Za-z])\(?s\)?/?)$", re.IGNORECASE)
_ATTACHED_LEFT = re.compile(r"(?:[^\W_]['’ʼ-]|[@#/\\&$])$")
_DOTTED_LEFT = re.compile(r"[^\W_]\.$")
_ATTACHED_RIGHT = re.compile(r"(?:['’ʼ](?!(?:s|d|ll|S|D|LL)(?![^\W_]))[^\W_]|-[^\W_]|\.[a-z]|[@/\\=(]|\[[^\W\d_])")


class PronounSwap(WordRule):
    """Swap third-person pronouns in token rows.

    Args:
        tokenizer: tokenizers.Tokenizer or PreTrainedTokenizerFast of the order.
        direction: `feminine` (he → she, the paper's), `masculine`, or `both` (every pronoun changes sides).
        his: `context` decides between her and hers; `her` always puts her, as the published code did.
        her: `context` decides between his and him; or always `his` or `him`.
        paired: `leave` keeps "he or she"; `change` swaps it too.
        edges: `leave` keeps a word that touches the row's edge; `change` takes it for whole.
    """

    name = "pronoun_swap"
    version = 2
    """Counts changes of what these rules do to a text; part of the fingerprint of the rows they make."""

    def __init__(
        self, tokenizer: Openable | Spelling, direction: str = "feminine", *,
        his: str = "context", her: str = "context", paired: str = "leave", edges: str = "leave",
    ):
        self.direction, self.his, self.her, self.paired, self.edges = direction, his, her, paired, edges
        self._choices = {"his": his, "her": her, "paired": paired, "edges": edges}
        for option, allowed in CHOICES.items():
            if getattr(self, option) not in allowed:
                raise RequestError(f"{option}={getattr(self, option)!r}: allowed are {', '.join(allowed)}")
        self._forms = DIRECTIONS[direction]
        super().__init__(tokenizer, self._forms)

    def options(self) -> dict[str, Any]:
        return {"version": self.version, "direction": self.direction, **self._choices}

    def inverse(self) -> PronounSwap:
        """The opposite direction with the same options. What it cannot bring back, `roundtrip` lists."""
        back = {"feminine": "masculine", "masculine": "feminine", "both": "both"}[self.direction]
        return PronounSwap(self.spelling, back, **self._choices)

    def decide(self, form: str, left: str, right: str) -> tuple[str | None, str]:
        reason = self._reason_to_leave(form, left, right)
        return (None, reason) if reason else (same_case(form, self._replacement(form.lower(), right)), "")

    def _reason_to_leave(self, form: str, left: str, right: str) -> str:
        if self.edges == "leave" and not left:
            return "row_start"
        if self.edges == "leave" and not right:
            return "row_end"
        paired = _PAIRED_RIGHT.match(right) or _PAIRED_LEFT.search(left)
        if paired:
            return "paired" if self.paired == "leave" else ""
        dotted = form.islower() and _DOTTED_LEFT.search(left)  # node.he, but "… home.He said" is a missing space
        return "attached" if dotted or _ATTACHED_LEFT.search(left) or _ATTACHED_RIGHT.match(right) else ""

    def _replacement(self, form: str, right: str) -> str:
        if form == "his":
            return "hers" if self.his == "context" and stands_alone(right) else "her"
        if form == "her":
            return self.her if self.her != "context" else "him" if stands_alone(right) else "his"
        return self._forms[form]


def stands_alone(right: str) -> bool:
    """Whether a possessive before `right` has no noun of its own: "it is his." yes, "his hat" no."""
    right = right.lstrip("*")  # *his* hat, and it was *his*
    if not right or _DASHED.match(right) or _CLOSED.match(right):
        return True
    word = _NEXT.match(right)
    return word is not None and word.group("word").lower() in ALONE_BEFORE
