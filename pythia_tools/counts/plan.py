"""From patterns to machines: what a block of rows is run through, and in which column each count lands.

A plan is built once and shared by all workers. Distinct terms are compiled once, whoever asks for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.counts.byte_scan import ByteMachine, compile_texts, count_texts
from pythia_tools.counts.ngram_scan import NgramMachine, as_kernel_rows, compile_ngrams, count_ngrams
from pythia_tools.counts.pair_scan import TOKENS, WORDS, PairMachine, SetMachine, compile_pairs, compile_sets, count_together
from pythia_tools.counts.patterns import Leaf, Ngram, Number, Pair, Paper, Pattern, Text, Together
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes


@dataclass(frozen=True, eq=False)
class Plan:
    """Compiled patterns. `count(rows, group, groups)` is all that a scan needs."""

    patterns: tuple[Pattern, ...]
    ids: int
    digest: str
    vocabulary: TokenBytes | None
    ngrams: NgramMachine | None
    ngram_leaves: np.ndarray
    """(2, k): pattern numbers, and the machine's leaf of each"""
    texts: ByteMachine | None
    text_leaves: np.ndarray
    together: _Together | None
    paper: Any

    def count(self, rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
        """(groups, patterns) int64: occurrences in the rows of each group. rows (n, length) ids, group (n,) ascending int64."""
        rows = as_kernel_rows(rows, self.ids)
        counts = np.zeros((groups, len(self.patterns)), dtype=np.int64)
        for machine, leaves, kernel in ((self.ngrams, self.ngram_leaves, count_ngrams), (self.texts, self.text_leaves, count_texts)):
            if machine is not None:
                found = np.zeros((groups, int(leaves[1].max()) + 1), dtype=np.int64)
                kernel(rows, group, machine, found)
                counts[:, leaves[0]] = found[:, leaves[1]]
        if self.together is not None:
            self.together.count(rows, group, counts)
        if self.paper is not None:
            self.paper.count(rows, group, counts)
        return counts


@dataclass(frozen=True, eq=False)
class _Together:
    texts: ByteMachine
    ngrams: NgramMachine
    work: tuple[tuple[PairMachine, SetMachine], ...]
    """one pass each: the sets go with the first window"""

    def count(self, rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        for pairs, sets in self.work:
            count_together(rows, group, self.texts, self.ngrams, pairs, sets, counts)


def make_plan(patterns: Sequence[Pattern], *, ids: int, tokenizer: Any = None) -> Plan:
    """Compile patterns for rows of token ids below `ids` (65536 for uint16 rows).

    Raises: RequestError when text is asked for without a tokenizer.
    """
    needs_text = [p for p in patterns if not _only_tokens(p)]
    if needs_text and tokenizer is None:
        raise RequestError(
            f"{needs_text[0].name!r} is counted in text, which needs the order's tokenizer; "
            "give tokenizer=… (a tokenizer.json or its folder), or token ids"
        )
    vocabulary = token_bytes(tokenizer) if needs_text else None
    ngrams, ngram_leaves = _distinct([(c, Ngram(p.ids)) for c, p in enumerate(patterns) if isinstance(p, Ngram)])
    texts, text_leaves = _distinct([(c, _unlabelled(p)) for c, p in enumerate(patterns) if isinstance(p, Text | Number)])
    papers = [(c, p) for c, p in enumerate(patterns) if isinstance(p, Paper)]
    return Plan(
        tuple(patterns), ids, digest([[repr(p) for p in patterns], vocabulary.fingerprint if vocabulary else None]), vocabulary,
        compile_ngrams([p.ids for p in ngrams], ids) if ngrams else None, ngram_leaves,
        compile_texts(texts, vocabulary, ids) if texts and vocabulary else None, text_leaves,
        _plan_together(patterns, vocabulary, ids), _plan_paper(papers, vocabulary, ids),
    )


def _distinct(chosen: Sequence[tuple[int, Any]]) -> tuple[list[Any], np.ndarray]:
    """The distinct terms, and (2, k): the pattern number of each chosen one and its place among the distinct."""
    place = {term: n for n, term in enumerate(dict.fromkeys(term for _, term in chosen))}
    return list(place), np.array([[c, place[term]] for c, term in chosen], dtype=np.int64).reshape(-1, 2).T


def _unlabelled(leaf: Leaf) -> Leaf:
    return replace(leaf, label="")


def _only_tokens(pattern: Pattern) -> bool:
    if isinstance(pattern, Pair):
        return pattern.unit == "tokens" and all(isinstance(leaf, Ngram) for leaf in (pattern.first, pattern.second))
    if isinstance(pattern, Together):
        return all(isinstance(leaf, Ngram) for member in pattern.members for leaf in member)
    return isinstance(pattern, Ngram)


def _plan_together(patterns: Sequence[Pattern], vocabulary: TokenBytes | None, ids: int) -> _Together | None:
    """Text leaves are numbered first, n-gram leaves after them."""
    leaves = {leaf: 0 for p in patterns for leaf in _members(p)}
    if not leaves:
        return None
    texts = [leaf for leaf in leaves if not isinstance(leaf, Ngram)]
    ngrams = [leaf for leaf in leaves if isinstance(leaf, Ngram)]
    number = {leaf: n for n, leaf in enumerate([*texts, *ngrams])}
    by_window: dict[tuple[int, str], list[tuple[int, int, int]]] = defaultdict(list)
    sets: list[tuple[list[tuple[int, ...]], int]] = []
    for column, p in enumerate(patterns):
        if isinstance(p, Pair):
            by_window[p.window, p.unit].append((number[_unlabelled(p.first)], number[_unlabelled(p.second)], column))
        elif isinstance(p, Together):
            sets.append(([tuple(number[_unlabelled(leaf)] for leaf in member) for member in p.members], column))
    sizes = [len(leaf.text if isinstance(leaf, Text) else leaf.digits) for leaf in texts] + [4 * len(leaf.ids) for leaf in ngrams]
    nothing = TokenBytes(np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int32))
    windows = [compile_pairs(ps, len(number), window, WORDS if unit == "words" else TOKENS) for (window, unit), ps in by_window.items()]
    windows = windows or [compile_pairs([], len(number), 0, TOKENS)]
    work = [(w, compile_sets(sets if n == 0 else [], len(number), sizes)) for n, w in enumerate(windows)]
    return _Together(compile_texts(texts, vocabulary or nothing, ids), compile_ngrams([leaf.ids for leaf in ngrams], ids), tuple(work))


def _members(pattern: Pattern) -> list[Leaf]:
    if isinstance(pattern, Pair):
        return [_unlabelled(pattern.first), _unlabelled(pattern.second)]
    if isinstance(pattern, Together):
        return [_unlabelled(leaf) for member in pattern.members for leaf in member]
    return []


def _plan_paper(papers: Sequence[tuple[int, Paper]], vocabulary: TokenBytes | None, ids: int) -> Any:
    if not papers or vocabulary is None:
        return None
    from pythia_tools.counts.paper_rule import plan_keys

    return plan_keys([(c, p.key) for c, p in papers], vocabulary, ids)
