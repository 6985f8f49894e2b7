"""From patterns to machines: what a block of rows is run through, and in which column each count lands.

A plan is built once and shared by all workers. Distinct terms are compiled once, whoever asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeAlias, TypeVar

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.counts.byte_scan import compile_texts, count_texts, leading_space
from pythia_tools.counts.ngram_scan import as_kernel_rows, compile_ngrams, count_ngrams
from pythia_tools.counts.pair_scan import compile_pairs, compile_sets, count_together
from pythia_tools.counts.patterns import CoOccurrence, Leaf, Ngram, Number, Pair, Pattern, PythiaRule, Text
from pythia_tools.counts.pythia_rule import compile_keys, count_keys
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes
from pythia_tools.tokens import Openable

Machine = TypeVar("Machine")
Term = TypeVar("Term", bound=Pattern)
NO_BYTES = TokenBytes(np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int32))
"""A vocabulary that spells nothing."""
Pass: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""One walk over a block of rows (rows, group, counts): counts[group[r], pattern] += occurrences in row r.

rows (n, length), group (n,) ascending, counts int64.
"""


@dataclass(frozen=True, eq=False)
class Plan:
    """Compiled patterns. `count(rows, group, groups)` is all that a scan needs."""

    ids: int
    digest: str
    """of the patterns, their versions and the tokenizer's bytes"""
    passes: tuple[Pass, ...]
    place: np.ndarray
    """of each pattern among the distinct ones"""

    def count(self, rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
        """(groups, patterns) int64: occurrences in the rows of each group. rows (n, length), group (n,) ascending."""
        rows = as_kernel_rows(rows, self.ids)
        counts = np.zeros((groups, self.place.max() + 1), dtype=np.int64)
        for one in self.passes:
            one(rows, group, counts)
        return counts[:, self.place]


def make_plan(patterns: Sequence[Pattern], *, ids: int, tokenizer: TokenBytes | Openable | None = None) -> Plan:
    """Compile patterns for rows of token ids below `ids` (65536 for uint16 rows).

    Raises: RequestError when text is asked for without a tokenizer.
    """
    text = next((p for p in patterns if reads_text(p)), None)
    if text is not None and tokenizer is None:
        raise RequestError(
            f"{text.name!r} is counted in text, which needs the order's tokenizer; "
            "give tokenizer=… (a tokenizer.json or its folder), or token ids"
        )
    table = NO_BYTES if text is None or tokenizer is None else token_bytes(tokenizer)
    plain = [_plain(p) for p in patterns]
    place = {p: n for n, p in enumerate(dict.fromkeys(plain))}
    ngrams = [p for p in place if isinstance(p, Ngram)]
    texts = [p for p in place if isinstance(p, Text | Number)]
    rules = [[p for p in place if isinstance(p, PythiaRule) and p.clean_up is cleaned] for cleaned in (False, True)]
    passes = (
        *_alone(place, ngrams, lambda some: compile_ngrams([p.ids for p in some], ids), count_ngrams),
        *_alone(place, texts, lambda some: compile_texts(some, table, ids), count_texts),
        *_together(place, table, ids),
        *_alone(place, rules[0], lambda some: compile_keys(some, table, ids), count_keys),
        *_alone(place, rules[1], lambda some: compile_keys(some, table, ids), count_keys),
    )
    asked = [[p.version, *(leaf.version for leaf in leaves_of(p)), repr(p)] for p in plain]
    key = digest([asked, None if text is None else table.fingerprint])
    return Plan(ids, key, passes, np.array([place[p] for p in plain]))


def _plain(pattern: Pattern) -> Pattern:
    """Without labels, which change no count, and with the two of a pair in one order."""
    if isinstance(pattern, Pair):
        first, second = sorted(map(_unlabelled, pattern.leaves), key=_written)
        return Pair(first, second, pattern.window, pattern.unit)
    if isinstance(pattern, CoOccurrence):
        return replace(pattern, members=tuple(tuple(map(_unlabelled, m)) for m in pattern.leaves), label="")
    return replace(pattern, label="")


@lru_cache(maxsize=1 << 16)
def _unlabelled(leaf: Leaf) -> Leaf:
    return replace(leaf, label="")


_written = lru_cache(maxsize=1 << 16)(repr)


def _alone(
    place: dict[Pattern, int], chosen: Sequence[Term], compiled: Callable[[Sequence[Term]], Machine],
    kernel: Callable[[np.ndarray, np.ndarray, Machine, np.ndarray], None],
) -> Iterator[Pass]:
    """The pass of patterns that are counted each by itself; none when there is no such pattern."""
    if not chosen:
        return
    machine, columns = compiled(chosen), [place[p] for p in chosen]

    def count(rows: np.ndarray, group: np.ndarray, counts: np.ndarray) -> None:
        found = np.zeros((len(counts), len(columns)), dtype=np.int64)
        kernel(rows, group, machine, found)
        counts[:, columns] = found

    yield count


def _together(place: dict[Pattern, int], vocabulary: TokenBytes, ids: int) -> Iterator[Pass]:
    """One pass for each window of pairs; the sets go with the first. Text leaves are numbered before n-gram leaves."""
    joint = [p for p in place if isinstance(p, Pair | CoOccurrence)]
    if not joint:
        return
    leaves = dict.fromkeys(leaf for p in joint for leaf in leaves_of(p))
    texts = [leaf for leaf in leaves if not isinstance(leaf, Ngram)]
    ngrams = [leaf for leaf in leaves if isinstance(leaf, Ngram)]
    number = {leaf: n for n, leaf in enumerate([*texts, *ngrams])}
    sets = [([tuple(number[leaf] for leaf in m) for m in p.leaves], place[p]) for p in joint if not isinstance(p, Pair)]
    windows: dict[tuple[int, str], list[tuple[int, int, int]]] = {}
    for p in joint:
        if isinstance(p, Pair):
            first, second = (number[leaf] for leaf in p.leaves)
            windows.setdefault((p.window, p.unit), []).append((first, second, place[p]))
    sizes = [len(leaf.text if isinstance(leaf, Text) else leaf.digits) for leaf in texts]
    sizes += [4 * len(leaf.ids) for leaf in ngrams]
    lead = [leading_space(vocabulary.decode(leaf.ids)) for leaf in ngrams]
    machines = compile_texts(texts, vocabulary, ids), compile_ngrams([leaf.ids for leaf in ngrams], ids)
    for (window, unit), pairs in windows.items() or [((0, "tokens"), [])]:
        near, whole = compile_pairs(pairs, len(number), lead, window, unit), compile_sets(sets, len(number), sizes)
        yield partial(count_together, texts=machines[0], ngrams=machines[1], pairs=near, sets=whole)
        sets = []


def leaves_of(pattern: Pattern) -> list[Leaf]:
    """The terms that a pattern is made of."""
    if isinstance(pattern, Pair):
        return list(pattern.leaves)
    if isinstance(pattern, CoOccurrence):
        return [leaf for member in pattern.leaves for leaf in member]
    return [] if isinstance(pattern, PythiaRule) else [pattern]


def reads_text(pattern: Pattern) -> bool:
    """Whether a pattern is counted in text, and needs a tokenizer."""
    if isinstance(pattern, PythiaRule) or (isinstance(pattern, Pair) and pattern.unit == "words"):
        return True
    return any(not isinstance(leaf, Ngram) for leaf in leaves_of(pattern))
