"""Does the model's pronoun follow the corpus? Its log-odds per occupation against co-occurrence counts up to that step.

Corpus side: pairs of the occupation and a pronoun at most `window` words apart in rows consumed before the checkpoint,
log((feminine + 1) / (masculine + 1)). Model side: the mean log-odds of she over he over the
occupation's kept items (`PronounTask`). Their rank correlation over occupations says whether the model orders
occupations as its data did; the mean gap whether it leans further to one side.
Cost: one pass over the consumed rows for all steps together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from pythia_tools.analyses.bias.columns import PRONOUNS
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.counts import Pair, Text, count_terms
from pythia_tools.order import Rows
from pythia_tools.tokens import Openable

MASCULINE = ("he", "him", "his", "himself")
FEMININE = ("she", "her", "hers", "herself")
MEASURE = "association"


def associate(
    items: pd.DataFrame, orders: Mapping[str, Rows], *, tokenizer: Openable | None = None, window: int = 8
) -> pd.DataFrame:
    """One row per checkpoint × occupation: task, item (the occupation), score (the model's), corpus_log_odds, counts.

    Args:
        items: pronoun-preference items (`measure` with a `PronounTask`).
        orders: branch → the order that its rows came from (an Overlay for a swap).
        tokenizer: of the orders, where they name none.
        window: words apart, at most.
    Raises: RequestError when the items are of another measure, or a branch has no order.
    """
    asked = items[items["task"] == PRONOUNS]
    if asked.empty:
        raise RequestError(f"association needs items of {PRONOUNS}")
    frames = []
    for branch, here in asked.groupby("branch", sort=False):
        if branch not in orders:
            raise RequestError(f"no order for branch {branch!r}; orders were given for {', '.join(orders)}")
        names, steps = sorted(here["occupation"].unique()), sorted(here["step"].unique())
        frames.append(_join(here, _counts(orders[str(branch)], names, steps, tokenizer, window)))
    return tables.check_items(pd.concat(frames, ignore_index=True))


def _counts(
    order: Rows, names: Sequence[str], steps: Sequence[int], tokenizer: Openable | None, window: int
) -> pd.DataFrame:
    """Columns occupation, step, masculine, feminine."""
    keys: list[tuple[str, str]] = []
    patterns: list[Pair] = []
    for name, (side, forms) in product(names, {"masculine": MASCULINE, "feminine": FEMININE}.items()):
        for spelled, word in product(_cases(name), forms):
            for form in _cases(word):
                label = str(len(keys))
                keys.append((name, side))
                patterns.append(Pair(Text(spelled, whole_word=True), Text(form, whole_word=True), window, label=label))
    found = count_terms(order, patterns, steps, tokenizer=tokenizer)
    asked = pd.DataFrame(keys, columns=["occupation", "side"]).iloc[found["term"].astype(int)]
    frame = found.assign(occupation=asked["occupation"].to_numpy(), side=asked["side"].to_numpy())
    return frame.groupby(["occupation", "step", "side"])["exposures"].sum().unstack("side").reset_index()


def _cases(word: str) -> tuple[str, ...]:
    """A word as it stands within and at the beginning of a sentence."""
    return tuple(dict.fromkeys([word, word[:1].upper() + word[1:]]))


def _join(here: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    kept = here.assign(score=here["score"].where(here["kept"].astype(bool)))
    means = kept.groupby([*tables.IDENTITY, "occupation"], dropna=False, sort=False)["score"].mean().reset_index()
    both = means.merge(counts, on=["occupation", "step"], validate="many_to_one")
    both["corpus_log_odds"] = np.log((both["feminine"] + 1) / (both["masculine"] + 1))
    return both.assign(item=both["occupation"], task=MEASURE, subset="all", outcome=np.nan, kept=both["score"].notna())
