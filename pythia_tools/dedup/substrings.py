"""Exact substrings: runs of at least `length` tokens that two sequences share, a second measure beside Jaccard.

How: every window of `length` tokens gets a rolling 64-bit hash; equal hashes are sorted together and compared token by
token, so the answer is exact. Overlapping windows join into maximal runs. Windows never cross a sequence's end.
Why not an index: suffix-array engines from PyPI (tokengrams, infini-gram) answer one window at a time, 20 µs to 1 ms
each, and give no longest common prefixes; all windows at once are a sort.
Cost: about 0.1 µs per token and pass; memory `memory_bytes` and one byte per token; passes are as many as that needs.
Source: Lee et al. 2022 (arXiv:2107.06499), where length is 50.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.hashes import mix64
from pythia_tools.tokens import TokenStore

BYTES_PER_WINDOW = 40
_STEP = np.uint64(0xA0761D6478BD642F)


def repeated_runs(
    sequences: TokenStore | np.ndarray | Sequence[Any], length: int = 50, *, within: bool = False,
    memory_bytes: int = 1 << 30,
) -> pd.DataFrame:
    """Maximal runs of tokens whose every window of `length` also occurs in another sequence.

    Args:
        sequences: a token store, an array of rows (n, L), or a list of id sequences.
        length: least tokens a run has.
        within: count occurrences elsewhere in the same sequence too.
        memory_bytes: for hashes held at once.

    Returns:
        sequence, start, tokens, first_sequence, first_start (where the run's first window occurs first in the data).

    Raises: RequestError when length is not positive.
    """
    if length < 1:
        raise RequestError(f"length is {length}; it must be at least 1 token")
    tokens, begins = _flat(sequences)
    marks = np.zeros(len(tokens), np.uint8)
    repeated, earliest = [np.empty(0, np.int64)], [np.empty(0, np.int64)]  # places, and where their window occurs first
    windows = int(np.maximum(np.diff(begins) - length + 1, 0).sum())
    passes = max(1, -(-windows * BYTES_PER_WINDOW // memory_bytes))
    for share in range(passes):
        hashes, places = _windows(tokens, begins, length, share, passes)
        order = np.argsort(hashes, kind="stable")
        hashes, places = hashes[order], places[order]
        found = _mark(hashes, places, tokens, begins, length, within, marks)
        repeated.append(places[found >= 0])
        earliest.append(found[found >= 0])
    first, last = _runs(marks, begins)
    held = np.concatenate(repeated)
    order = np.argsort(held)
    source = np.concatenate(earliest)[order][np.searchsorted(held[order], first)]
    owner, source_owner = (np.searchsorted(begins, places, "right") - 1 for places in (first, source))
    return pd.DataFrame({
        "sequence": owner, "start": first - begins[owner], "tokens": last - first + length,
        "first_sequence": source_owner, "first_start": source - begins[source_owner],
    })


def run_shares(runs: pd.DataFrame, sequences: int, tokens: int) -> dict[str, float]:
    """Share of sequences with a run, share of tokens inside runs, and the longest run."""
    start, end = runs.start.to_numpy().copy(), (runs.start + runs.tokens).to_numpy()
    same = runs.sequence.to_numpy()[1:] == runs.sequence.to_numpy()[:-1]
    start[1:] = np.where(same, np.maximum(start[1:], end[:-1]), start[1:])  # runs may overlap by less than a window
    covered = int(np.maximum(end - start, 0).sum())
    holding = int(runs.sequence.nunique())
    return {
        "sequences": sequences, "sequences_with_a_run": holding, "tokens": tokens, "tokens_in_runs": covered,
        "share_of_sequences": holding / max(1, sequences), "share_of_tokens": covered / max(1, tokens),
        "longest_run": int(runs.tokens.max()) if len(runs) else 0,
    }


def _flat(sequences: Any) -> tuple[np.ndarray, np.ndarray]:
    """All tokens one after the other (uint32), and where each sequence begins, the end included."""
    if isinstance(sequences, TokenStore):
        sizes = np.asarray(sequences.sizes, np.int64)
        flat = sequences.tokens(0, int(sizes.sum()))
    else:
        rows = [np.asarray(row) if len(row) else np.empty(0, np.uint32) for row in sequences]
        sizes = np.array([len(row) for row in rows], np.int64)
        flat = np.concatenate(rows) if rows else np.empty(0, np.uint32)
    if flat.size and (flat.dtype.kind not in "iu" or int(flat.min()) < 0):
        raise RequestError("sequences hold token ids: whole numbers from 0 on")
    return flat.astype(np.uint32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _runs(marks: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last of each stretch of marked places within one sequence."""
    inside = np.concatenate([[False], marks.astype(bool), [False]])
    begin = np.zeros(len(inside), bool)
    begin[begins + 1] = True
    first = inside[1:-1] & (~inside[:-2] | begin[1:-1])
    last = inside[1:-1] & (~inside[2:] | begin[2:])
    return np.flatnonzero(first), np.flatnonzero(last)


@njit(nogil=True, cache=True)
def _windows(tokens, begins, length, share, passes):  # type: ignore[no-untyped-def]
    """Hashes of the share-th of `passes` shares of all windows (by hash), and their places."""
    top = np.uint64(1)
    for _ in range(length):
        top = np.uint64(top * _STEP)
    hashes, places, count = np.empty(0, np.uint64), np.empty(0, np.int64), 0
    for fill in range(2):  # count, then fill
        if fill == 1:
            hashes, places = np.empty(count, np.uint64), np.empty(count, np.int64)
        count = 0
        for s in range(len(begins) - 1):
            rolling = np.uint64(0)
            for i in range(begins[s], begins[s + 1]):
                rolling = np.uint64(rolling * _STEP + mix64(np.uint64(tokens[i]) + np.uint64(1)))
                if i - begins[s] >= length:
                    rolling = np.uint64(rolling - top * mix64(np.uint64(tokens[i - length]) + np.uint64(1)))
                if i - begins[s] + 1 >= length:
                    mixed = mix64(rolling)
                    if mixed % np.uint64(passes) == np.uint64(share):
                        if fill == 1:
                            hashes[count] = mixed
                            places[count] = i - length + 1
                        count += 1
    return hashes, places


@njit(nogil=True, cache=True)
def _mark(hashes, places, tokens, begins, length, within, marks):  # type: ignore[no-untyped-def]
    """Mark places whose window occurs elsewhere; returns for each the window's first place, -1 where it is alone."""
    firsts = np.full(len(places), -1, np.int64)
    begin = 0
    for end in range(1, len(hashes) + 1):
        if end < len(hashes) and hashes[end] == hashes[begin]:
            continue
        for i in range(begin, end):
            if firsts[i] >= 0:
                continue
            owner, window = np.searchsorted(begins, places[i], "right"), tokens[places[i] : places[i] + length]
            wanted = False  # windows equal to window i come by place; unequal ones of the same hash wait their turn
            for j in range(i + 1, end):
                if firsts[j] < 0 and np.array_equal(window, tokens[places[j] : places[j] + length]):
                    firsts[j] = places[i]
                    wanted = wanted or within or np.searchsorted(begins, places[j], "right") != owner
            if wanted:
                firsts[i] = places[i]
                for j in range(i, end):
                    if firsts[j] == places[i]:
                        marks[places[j]] = 1
        begin = end
    return np.where(marks[places] > 0, firsts, -1)
