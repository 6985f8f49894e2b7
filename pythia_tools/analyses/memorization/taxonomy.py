"""What kind of memorization is it: recitation, reconstruction, or recollection? And what is merely nearly verbatim?

In this order: *recitation*, the window occurs at least `threshold` times in the corpus (6, "more than five");
*reconstruction*, its text follows a template, incrementing or repeating; *recollection*, all else. Duplicate counts
come from one scan of the rows consumed (`overlap.duplicate_counts`) or from an index of them.

A text is *incrementing* when its elements (words and numbers, the cut-off first and last left out) repeat with some
period up to half their number, words alike and numbers by constant differences, one of them not zero and one of them
met twice; *repeating* when its characters do, the first and last left out. Both decide as the original's code does
(EleutherAI/semantic-memorization, filters/pattern.py), its oddities included. Near-verbatim: edit distance and longest
common span between what greedy decoding gives and what truly followed. Cost: microseconds per row. Source: Prashanth et
al. 2024, "Recite, Reconstruct, Recollect", arXiv:2406.17746.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.core.errors import RequestError

THRESHOLD = 6
KINDS = ("recitation", "reconstruction", "recollection")


def kinds(duplicates: npt.ArrayLike, texts: Sequence[str], *, threshold: int = THRESHOLD) -> np.ndarray:
    """(n,) one of KINDS for each memorized row: its windows' counts in the corpus and its texts."""
    counts = np.asarray(duplicates)
    if len(counts) != len(texts):
        raise RequestError(f"{len(counts)} duplicate counts for {len(texts)} texts; give one for each row")
    template = [is_incrementing(t) or is_repeating(t) for t in texts]
    return np.where(counts >= threshold, KINDS[0], np.where(template, KINDS[1], KINDS[2]))


def is_incrementing(text: str) -> bool:
    """Whether numbers in the text step by constant amounts, at least twice, while the words around them repeat."""
    elements = _elements(text)
    if len(elements) == 3:
        if not all(isinstance(e, int) for e in elements):
            return False
        first, second, third = map(int, elements)
        return third - second <= second - first and third != second  # so the original: slower steps pass, faster do not
    if len(elements) > 4:
        elements = elements[1:-1]
    moved = False  # by any period tried so far: the original does not forget it
    for period in range(1, len(elements) // 2 + 1):
        fits, sure = True, False
        for start in range(period):
            steps = _steps(elements[start::period])
            if len(set(steps)) > 1 or None in steps:
                fits = False
                break
            sure |= len(steps) > 1 and steps[0] != ""
            moved |= bool(steps and steps[0])
        if fits and (sure or not moved):
            return moved
    return False


def is_repeating(text: str) -> bool:
    """Whether the text's characters, but the first and last of more than four, repeat within half their number."""
    characters = text[1:-1] if len(text) > 4 else text
    periods = range(1, len(characters) // 2 + 1) if len(text) > 3 else ()
    return any(characters.startswith(characters[period:]) for period in periods)


def _elements(text: str) -> list[int | str]:
    """Words and numbers; numbers with a base's prefix in decimals, what cannot be printed by its escape, no quotes."""
    shown = repr(" ".join(map(_decimal, re.split(r"\s+", text))).strip())
    for mark in ("\\n", "\\x", "\\", "'", '"'):
        shown = shown.replace(mark, "")
    return [_number(piece) for piece in re.findall("[0-9]+|[^0-9 ]+", shown)]


def _decimal(word: str) -> str:
    try:
        return str(int(word, 0))
    except ValueError:
        return word


def _number(piece: str) -> int | str:
    try:
        return int(piece)
    except ValueError:
        return piece


def _steps(chain: list[int | str]) -> list[int | str | None]:
    """From each element to the next: a number's difference, "" between equal words, None where nothing fits."""
    steps: list[int | str | None] = []
    for a, b in pairwise(chain):
        steps.append(b - a if isinstance(a, int) and isinstance(b, int) else "" if a == b else None)
    return steps


def features(
    rows: npt.ArrayLike, *, context: int, nll: np.ndarray, token_counts: npt.ArrayLike, duplicates: npt.ArrayLike
) -> pd.DataFrame:
    """Per row: what may explain its memorization, as columns.

    rows: (n, w) the windows, context first. nll: (n, w − 1) nats per predicted id (`models.score_rows`): perplexities
    of prompt, continuation and sequence, each over its own ids. token_counts: (vocabulary,) occurrences in the corpus:
    lowest, highest, mean, median and quartiles over the row's ids. duplicates: (n,) occurrences of the window.
    """
    windows = np.asarray(rows)
    counts = np.asarray(token_counts)[windows]
    quartiles = np.quantile(counts, [0.25, 0.5, 0.75], axis=1)
    return pd.DataFrame({
        "duplicates": np.asarray(duplicates),
        "prompt_perplexity": np.exp(nll[:, : context - 1].mean(axis=1)) if context > 1 else np.nan,
        "continuation_perplexity": np.exp(nll[:, context - 1 :].mean(axis=1)),
        "sequence_perplexity": np.exp(nll.mean(axis=1)),
        "token_count_min": counts.min(axis=1), "token_count_p25": quartiles[0], "token_count_median": quartiles[1],
        "token_count_p75": quartiles[2], "token_count_max": counts.max(axis=1), "token_count_mean": counts.mean(axis=1),
    })


def edit_distance(decoded: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """(n,) insertions, deletions and replacements of ids that turn decoded (n, a) into truth (n, b)."""
    x, y = np.asarray(decoded), np.asarray(truth)
    previous = np.broadcast_to(np.arange(y.shape[1] + 1), (len(x), y.shape[1] + 1)).copy()
    for i in range(x.shape[1]):
        current = np.empty_like(previous)
        current[:, 0] = i + 1
        replaced = previous[:, :-1] + (x[:, i, None] != y)
        for j in range(y.shape[1]):
            current[:, j + 1] = np.minimum(np.minimum(previous[:, j + 1], current[:, j]) + 1, replaced[:, j])
        previous = current
    return previous[:, -1]


def longest_common_span(decoded: npt.ArrayLike, truth: npt.ArrayLike) -> np.ndarray:
    """(n,) length of the longest run of ids that occurs in both, wherever it starts."""
    x, y = np.asarray(decoded), np.asarray(truth)
    run = np.zeros((len(x), y.shape[1] + 1), np.int64)
    best = np.zeros(len(x), np.int64)
    for i in range(x.shape[1]):
        run[:, 1:] = np.where(x[:, i, None] == y, run[:, :-1] + 1, 0)
        best = np.maximum(best, run.max(axis=1))
    return best


def near_verbatim(decoded: npt.ArrayLike, truth: npt.ArrayLike) -> pd.DataFrame:
    """Per row of equally long ones: agree (share of equal places), edit_distance (ids), span (ids)."""
    x, y = np.asarray(decoded), np.asarray(truth)
    return pd.DataFrame({
        "agree": (x == y).mean(axis=1), "edit_distance": edit_distance(x, y), "span": longest_common_span(x, y),
    })
