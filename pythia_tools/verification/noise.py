"""How far apart two honest runs over the same documents may lie, from what two number formats were measured to differ.

A share changes only by documents that flip, and a document flips only where the formats differ by more than its margin.
With p_i the share of measured differences that exceed margin i, flips of each direction are a sum of independent events
of mean Σ p_i, which a Poisson variable of that mean exceeds more often than they do; its quantile bounds them. A mean
changes by no more than the mean of the absolute differences, plus what a sample of them leaves open.

    apart = differences(items, items_in_float16)
    band(x, apart, value=.31, metric="acc", level=1e-5)     # Band(low, high, may_flip)

The sampling error of a share is another thing and far wider: it says how other documents would come out.
Cost: a sort of the measured differences per number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from pythia_tools.models.devices import named_dtype
from pythia_tools.verification.columns import FORMAT
from pythia_tools.verification.outcomes import LOGARITHMIC, SHARE, outcomes

FLOAT32 = 1e-5, 1e-6
"""Nats, and share of itself, by which a mean of log-likelihoods in float32 depends on the order of its sums (batch
sizes, kernels).
"""

FARTHER = 2.0
"""Times the largest difference measured that another one may be; from there on chances fall with the fourth power, as
heavy tails do.
"""


class Band(NamedTuple):
    """What another number format may make of a value, and how many documents could flip at all (None for means)."""

    low: float
    high: float
    may_flip: int | None


def differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """How far the documents of two item tables lie apart, the same checkpoints in two number formats: FORMAT.

    Documents that only one table has are left out; those that only one has numbers for are infinitely far apart.
    """
    key = ["suite", "model", "step", "task", "metric", "doc_id"]
    both = outcomes(first).merge(outcomes(second)[[*key, "x"]], on=key, suffixes=("", "_other"))
    apart = (both["x"] - both["x_other"]).abs()
    lost = both["x"].isna() ^ both["x_other"].isna()
    found = both.assign(apart=apart.mask(lost, np.inf))
    found = found[found["apart"].notna()]
    return found[list(FORMAT)].astype({name: column.dtype for name, column in FORMAT.items()}).reset_index(drop=True)


def kept_in(items: pd.DataFrame, dtype: str) -> pd.DataFrame:
    """The item table with log-likelihoods rounded to a number format, as a harness keeps them that takes logarithms and
    sums in the model's own (lm-eval does unless told otherwise: 8 bits of each sum in bfloat16, 11 in float16).
    """
    rounded = torch.tensor(items["ll"].to_numpy(float)).to(named_dtype(dtype)).double().numpy()
    return items.assign(ll=rounded)


def band(x: np.ndarray, apart: np.ndarray, *, value: float, metric: str, level: float) -> Band:
    """The band of a metric's value.

    x: (n,) margins or values of its documents, see `outcomes`; apart: (m,) measured differences, inf where a format
    overflowed; level: how often at most an honest value may lie outside.

    >>> band(np.array([-3.0, -0.1, 0.2, 5.0]), np.array([0.0, 0.15]), value=0.5, metric="acc", level=0.001)
    Band(low=0.25, high=0.75, may_flip=1)
    """
    x, apart = x[np.isfinite(x)], np.sort(apart[np.isfinite(apart)])
    if metric in SHARE:
        return _flips(x, apart, value, level)
    if not len(x) or not len(apart):
        return Band(value, value, None)
    far = float(apart.mean())
    if len(apart) > 1:
        far += float(stats.norm.isf(level / 2)) * float(apart.std(ddof=1)) / math.sqrt(min(len(apart), len(x)))
    return _moved(value, far, x, metric)


def _flips(x: np.ndarray, apart: np.ndarray, value: float, level: float) -> Band:
    if not len(apart) or not len(x):
        return Band(value, value, None)
    size, most = np.abs(x), float(apart[-1])
    chance = 1 - np.searchsorted(apart, size, side="left") / len(apart)
    tail = (size > most) & (size <= FARTHER * most)
    chance[tail] = (most / size[tail]) ** 4 / len(apart)
    could = chance > 0
    down, up = could & (x > 0), could & (x <= 0)
    fewer, more = (_most(chance[side], level / 2) / len(x) for side in (down, up))
    return Band(max(0.0, value - fewer), min(1.0, value + more), int((size <= most).sum()))


def _most(chances: np.ndarray, level: float) -> int:
    """How many of these events may happen; more do with a probability below `level`."""
    return int(min(len(chances), stats.poisson.isf(level, chances.sum()))) if len(chances) else 0


def _moved(value: float, far: float, x: np.ndarray, metric: str) -> Band:
    """A value whose documents' contributions are off by `far` on average."""
    if metric in LOGARITHMIC:
        relative = far / abs(float(x.mean())) * abs(math.log(value)) if x.mean() else 0.0
        return Band(value * math.exp(-relative), value * math.exp(relative), None)
    if metric == "bits_per_byte":
        relative = far / abs(float(x.mean())) if x.mean() else 0.0
        return Band(value * (1 - relative), value * (1 + relative), None)
    return Band(value - far, value + far, None)


def rounding(value: float, digits: int, metric: str, x: np.ndarray | None) -> float:
    """How far a published value may lie from an equal one: half a unit of its last digit, and float32's share.

    digits: after the point, as the table was printed.
    """
    printed = 0.5 * 10.0**-digits if digits < 15 else 0.0
    finite = np.empty(0) if x is None or metric in SHARE else x[np.isfinite(x)]
    if not len(finite):
        return printed + 1e-9
    nats, share = FLOAT32
    return printed + _moved(value, nats + share * abs(float(finite.mean())), finite, metric).high - value

