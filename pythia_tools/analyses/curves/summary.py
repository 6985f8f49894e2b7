"""From lines per token and per row to a summary: over training, at the last checkpoint, and by exposures.

Rows are what is independent: intervals resample whole rows with all their tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pythia_tools.analyses.curves.columns import METRICS, NAME, ROW, TOKEN
from pythia_tools.core import statistics, tables
from pythia_tools.core.statistics import RESAMPLES

UNIT = "row"
PLAIN = ("best", "final", "forgetting", "forgettability", "variability")
RANKED = 20_000
"""Tokens, evenly spread, that the rank correlation is taken of at most."""
BIN = 4
"""Exposures are binned by powers of it."""


def summarize(items: pd.DataFrame) -> pd.DataFrame:
    """The summary table of an item table of `curves`."""
    lines: list[dict[str, object]] = []
    rows, tokens = items[items["task"] == ROW], items[items["task"] == TOKEN]
    for who, (subset,), part in tables.by_identity(rows, "subset"):
        lines += ({**who, "subset": subset, **line} for line in _of_checkpoint(part))
    for model, part in rows.groupby("model", sort=False):
        lines += _nearest(part, str(model))
    for who, (subset,), part in tables.by_identity(tokens, "subset"):
        steps = rows.loc[rows["model"] == who["model"], ["step", "tokens"]].drop_duplicates()
        lines += ({**who, "subset": subset, **line} for line in _of_run(part))
        lines += ({**who, "subset": subset, **line} for line in _acquired(part, steps))
    return tables.summary(lines, analysis=NAME, metrics=METRICS)


def _of_checkpoint(part: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A checkpoint's rows: surprisal, what context is worth, and how far n-grams are."""
    yield {"metric": "surprisal", **_mean(part, "bits")}
    yield {"metric": "icl_score", **_mean(part.assign(gain=part["late"] - part["early"]), "gain")}
    for column in _divergences(part):
        yield {"metric": "ngram_kl", "task": _grams(column), **_mean(part, column)}


def _nearest(part: pd.DataFrame, model: str) -> Iterator[dict[str, object]]:
    """Of a run's rows: the checkpoint at which n-grams are nearest, with an interval over rows."""
    last = part[part["step"] == part["step"].max()].iloc[0]
    who = {column: last[column] for column in tables.IDENTITY}
    for column in _divergences(part):
        wide = part.pivot(index="row", columns="step", values=column).dropna()
        if wide.empty or wide.shape[1] < 2:
            continue
        steps, values = wide.columns.to_numpy(np.int64), wide.to_numpy(float)
        least = int(steps[np.argmin(values.mean(axis=0))])
        draws = steps[np.argmin(statistics.units(len(values)).weights(RESAMPLES, 0) @ values, axis=1)]
        enough = len(values) >= statistics.FEWEST
        told = statistics.from_draws(least, draws if enough else np.full(1, np.nan), n=len(values), unit=UNIT)
        yield {**who, "subset": last["subset"], "task": _grams(column), "metric": "ngram_kl_least_step",
               **told.columns()}


def _of_run(part: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A run's tokens: means, ages and how many of them hold, all of them and by exposures."""
    for metric in PLAIN:
        yield {"metric": metric, **_mean(part, metric)}
    for name in _ages(part):
        yield {"metric": f"aoa_{name}", **_mean(part, f"aoa_{name}")}
    for name in (str(c).removeprefix("failed_") for c in part.columns if str(c).startswith("failed_")):
        yield {"metric": "fit_failed_share", "task": name, **_share(part, f"failed_{name}")}
        yield {"metric": "age_clipped_share", "task": name, **_share(part, f"clipped_{name}")}
    if "aoa_crossing" in part:
        never = part["aoa_crossing"].isna() & ~part["failed_crossing"].astype(bool)
        yield {"metric": "never_acquired_share", **_share(part.assign(never=never), "never")}
    if "exposures" in part and part["exposures"].notna().all():
        yield from _by_exposures(part)


def _by_exposures(part: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Ages and final surprisal by bins of exposures, and the rank correlation with them."""
    seen = part["exposures"].to_numpy(np.int64)
    power = np.floor(np.log(np.maximum(seen, 1)) / np.log(BIN) + 1e-9).astype(int)
    for level in np.unique(np.where(seen > 0, power, -1)).tolist():
        own = part[np.where(seen > 0, power, -1) == level]
        ends = (0, 0) if level < 0 else (BIN**level, BIN ** (level + 1) - 1)
        for metric in ("final", *(f"aoa_{name}" for name in _ages(own))):
            yield {"metric": metric, "exposures_low": ends[0], "exposures_high": ends[1], **_mean(own, metric)}
    if "aoa_crossing" in part:
        held = part[part["aoa_crossing"].notna()]
        held = held.iloc[np.unique(np.linspace(0, len(held) - 1, min(len(held), RANKED)).astype(int))]
        if held["exposures"].nunique() > 1 and held["row"].nunique() > 1:
            told = statistics.rank_correlation(
                held["aoa_crossing"].to_numpy(float), held["exposures"].to_numpy(float), unit=UNIT,
                clusters=held["row"].to_numpy(), resamples=400,
            )
            yield {"metric": "aoa_frequency", **told.columns()}


def _acquired(part: pd.DataFrame, steps: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The share of a run's tokens that have crossed by each of its checkpoints above 0."""
    if "aoa_crossing" in part:
        ages, own = part["aoa_crossing"].fillna(np.inf).to_numpy(), part[["row"]]
        for step, tokens in steps.itertuples(index=False):
            if step == 0:  # nothing can have crossed there, by definition
                continue
            reached = ages <= np.log10(step) + 1e-9
            yield {"step": step, "tokens": tokens, "metric": "acquired_share",
                   **_share(own.assign(reached=reached), "reached")}


def _mean(part: pd.DataFrame, column: str) -> dict[str, object]:
    known = part[part[column].notna()]
    return statistics.mean(known[column].to_numpy(float), unit=UNIT, clusters=known["row"].to_numpy()).columns()


def _share(part: pd.DataFrame, column: str) -> dict[str, object]:
    flags = part[column].to_numpy(float)
    return statistics.mean(flags, unit=UNIT, clusters=part["row"].to_numpy(), share=True).columns()


def _ages(part: pd.DataFrame) -> list[str]:
    return [str(c).removeprefix("aoa_") for c in part.columns if str(c).startswith("aoa_") and part[c].notna().any()]


def _divergences(part: pd.DataFrame) -> list[str]:
    return [str(c) for c in part.columns if str(c).startswith("kl_") and part[c].notna().any()]


def _grams(column: str) -> str:
    return f"{column.removeprefix('kl_')}-gram"
