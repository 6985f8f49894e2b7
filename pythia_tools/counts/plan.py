"""From patterns to machines: what a block of rows is run through, and in which column each count lands.

A plan is built once and shared by all workers. Distinct terms are compiled once, whoever asks for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.counts import pair_scan
from pythia_tools.counts.byte_scan import ByteMachine, compile_texts, count_texts
from pythia_tools.counts.ngram_scan import NgramMachine, as_kernel_rows, compile_ngrams, count_ngrams
from pythia_tools.counts.patterns import CoOccurrence, Leaf, Ngram, Number, Pair, Pattern, PythiaRule, Text
from pythia_tools.counts.pythia_rule import plan_keys
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes
from pythia_tools.tokens import Openable


class Pass(Protocol):
    """One walk over a block of rows, for patterns of one kind."""

    def count(self, rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        """counts[group[r], pattern] += occurrences in row r. rows (n, length), group (n,) ascending, counts int64."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Compiled patterns. `count(rows, group, groups)` is all that a scan needs."""

    patterns: tuple[Pattern, ...]
    ids: int
    digest: str
    """of the patterns, their versions and the tokenizer's bytes"""
    passes: tuple[Pass, ...]

    def count(self, rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
        """(groups, patterns) int64: occurrences in the rows of each group. rows (n, length), group (n,) ascending."""
        rows = as_kernel_rows(rows, self.ids)
        counts = np.zeros((groups, len(self.patterns)), dtype=np.int64)
        for one in self.passes:
            one.count(rows, group, counts)
        return counts


def make_plan(patterns: Sequence[Pattern], *, ids: int, tokenizer: TokenBytes | Openable | None = None) -> Plan:
    """Compile patterns for rows of token ids below `ids` (65536 for uint16 rows).

    Raises: RequestError when text is asked for without a tokenizer.
    """
    text = next((p for p in patterns if _reads_text(p)), None)
    if text is not None and tokenizer is None:
        raise RequestError(
            f"{text.name!r} is counted in text, which needs the order's tokenizer; "
            "give tokenizer=… (a tokenizer.json or its folder), or token ids"
        )
    vocabulary = TokenBytes.empty() if text is None or tokenizer is None else token_bytes(tokenizer)
    columns = list(enumerate(patterns))
    passes: list[Pass] = []
    ngrams, places = _distinct([(c, Ngram(p.ids)) for c, p in columns if isinstance(p, Ngram)])
    if ngrams:
        passes.append(_Terms(compile_ngrams([p.ids for p in ngrams], ids), count_ngrams, places))
    texts, places = _distinct([(c, _unlabelled(p)) for c, p in columns if isinstance(p, Text | Number)])
    if texts:
        passes.append(_Terms(compile_texts(texts, vocabulary, ids), count_texts, places))
    if any(isinstance(p, Pair | CoOccurrence) for p in patterns):
        passes.append(_plan_together(columns, vocabulary, ids))
    keys = [(c, p.key) for c, p in columns if isinstance(p, PythiaRule)]
    if keys:
        passes.append(plan_keys(keys, vocabulary, ids))
    asked = [[p.version, *(leaf.version for leaf in _leaves(p)), repr(p)] for p in patterns]
    return Plan(tuple(patterns), ids, digest([asked, None if text is None else vocabulary.fingerprint]), tuple(passes))


@dataclass(frozen=True, eq=False)
class _Terms:
    """Texts and numbers, or n-grams: every one by itself."""

    machine: ByteMachine | NgramMachine
    kernel: Callable[..., None]
    places: np.ndarray
    """(2, k): pattern numbers, and the machine's leaf of each"""

    def count(self, rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        columns, leaves = self.places
        found = np.zeros((len(counts), int(leaves.max()) + 1), dtype=np.int64)
        self.kernel(rows, group, self.machine, found)
        counts[:, columns] = found[:, leaves]


@dataclass(frozen=True, eq=False)
class _Together:
    """Pairs in a window and sets that share a row."""

    texts: ByteMachine
    ngrams: NgramMachine
    work: tuple[tuple[pair_scan.PairMachine, pair_scan.SetMachine], ...]
    """one walk each: the sets go with the first window"""

    def count(self, rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        for pairs, sets in self.work:
            pair_scan.count_together(rows, group, self.texts, self.ngrams, pairs, sets, counts)


def _plan_together(columns: Sequence[tuple[int, Pattern]], vocabulary: TokenBytes, ids: int) -> _Together:
    """Text leaves are numbered first, n-gram leaves after them."""
    joint = [(c, p) for c, p in columns if isinstance(p, Pair | CoOccurrence)]
    leaves = dict.fromkeys(_unlabelled(leaf) for _, p in joint for leaf in _leaves(p))
    texts = [leaf for leaf in leaves if not isinstance(leaf, Ngram)]
    ngrams = [leaf for leaf in leaves if isinstance(leaf, Ngram)]
    number = {leaf: n for n, leaf in enumerate([*texts, *ngrams])}
    by_window: dict[tuple[int, str], list[tuple[int, int, int]]] = defaultdict(list)
    sets: list[tuple[list[tuple[int, ...]], int]] = []
    for column, p in joint:
        if isinstance(p, Pair):
            first, second = (number[_unlabelled(leaf)] for leaf in p.leaves)
            by_window[p.window, p.unit].append((first, second, column))
        else:
            sets.append(([tuple(number[_unlabelled(leaf)] for leaf in member) for member in p.leaves], column))
    sizes = [len(leaf.text if isinstance(leaf, Text) else leaf.digits) for leaf in texts]
    sizes += [4 * len(leaf.ids) for leaf in ngrams]
    windows = [
        pair_scan.compile_pairs(pairs, len(number), window, unit)
        for (window, unit), pairs in by_window.items()
    ] or [pair_scan.compile_pairs([], len(number), 0, "tokens")]
    work = tuple((w, pair_scan.compile_sets([] if n else sets, len(number), sizes)) for n, w in enumerate(windows))
    return _Together(compile_texts(texts, vocabulary, ids), compile_ngrams([leaf.ids for leaf in ngrams], ids), work)


def _distinct(chosen: Sequence[tuple[int, Leaf]]) -> tuple[list, np.ndarray]:
    """The distinct terms, and (2, k): the pattern number of each chosen one and its place among the distinct."""
    place = {term: n for n, term in enumerate(dict.fromkeys(term for _, term in chosen))}
    return list(place), np.array([(c, place[term]) for c, term in chosen], dtype=np.int64).reshape(-1, 2).T


def _leaves(pattern: Pattern) -> list[Leaf]:
    """The terms that a pattern is made of."""
    if isinstance(pattern, Pair):
        return list(pattern.leaves)
    if isinstance(pattern, CoOccurrence):
        return [leaf for member in pattern.leaves for leaf in member]
    return [] if isinstance(pattern, PythiaRule) else [pattern]


def _reads_text(pattern: Pattern) -> bool:
    if isinstance(pattern, PythiaRule) or (isinstance(pattern, Pair) and pattern.unit == "words"):
        return True
    return any(not isinstance(leaf, Ngram) for leaf in _leaves(pattern))


def _unlabelled(leaf: Leaf) -> Leaf:
    return replace(leaf, label="")
