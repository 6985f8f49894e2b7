"""Saturation: does a metric fall from its peak before training ends, by more than its errors allow (Godey et al. 2024)?

The highest of k checkpoints lies above the last one by chance alone. So the fall is judged against the highest of k
checkpoints of equal truth: z = (peak − last) / √(error² + error²) at the checkpoint where this is largest, and p is the
share of simulated flat curves whose z is as large. A rising curve has less to peak above, and a table of curves is
corrected by Holm, so p errs on the safe side.
Where items are at hand, errors of two checkpoints on the same items are paired, and flat curves have their correlation.
Cost: about 20 ms per curve of 27 checkpoints.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from pythia_tools.core import statistics
from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.tables import Column, Metric
from pythia_tools.core.words import Sentence, listing, records
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.series import Series, SeriesOptions, curves, summarized

FALLING = ("ppl", "perplexity", "loss", "nll", "nats", "bits_per_byte", "brier", "bpb", "error", "surprisal")
"""Metrics that are better when lower, by what their names hold."""
_DRAWS = 20_000
_FEW = 20
"""Hits below which a simulated p is replaced by Bonferroni's, which needs none."""


@dataclass(frozen=True)
class SaturationOptions(SeriesOptions):
    """Which way is better, and how sure a verdict is."""

    better: str = option("auto", "which way is better; auto: lower for losses and perplexities by their names",
                         choices=("auto", "higher", "lower"))
    alpha: float = option(0.05, "chance of naming any curve of the table that does not fall", minimum=0)
    seed: int = option(0, "of the simulation")


@dataclass(frozen=True)
class Peak:
    """Where a curve peaks and what it loses. place: the checkpoint's number; fall: in the metric's unit, positive for
    worse at the end; low, high: of the true fall; z, p: of the fall against flat curves, before Holm.
    """

    place: int
    fall: float
    low: float
    high: float
    z: float
    p: float


def lower_is_better(metric: object, better: str = "auto") -> bool:
    """Whether less of a metric is better.

    >>> lower_is_better("lambada_ppl"), lower_is_better("acc"), lower_is_better("acc", "lower")
    (True, False, True)
    """
    name = str(metric).lower()
    return better == "lower" or (better == "auto" and any(word in name for word in FALLING))


def peak(series: Series, *, lower: bool = False, seed: int = 0) -> Peak:
    """The peak of a curve and its fall from there. Errors must be known; raises RequestError otherwise.

    >>> steps, up = np.array([1, 2, 4, 8]), np.array([0.1, 0.3, 0.2, 0.1])
    >>> found = peak(Series({}, steps, up, np.full(4, 0.01)))
    >>> found.place, round(found.fall, 2), round(found.z, 1), found.p < 1e-6
    (1, 0.2, 14.1, True)
    """
    if series.items is None and not np.isfinite(series.errors).all():
        raise RequestError(f"{series.label}: no standard errors; name their column with --error-column, or give items")
    values = -series.values if lower else series.values
    noise = _noise(series, np.random.default_rng(seed))
    spread = noise[:, :-1] - noise[:, -1:]
    errors = np.maximum(spread.std(axis=0) if series.items is not None else
                        np.hypot(series.errors[:-1], series.errors[-1]), 1e-300)
    falls = values[:-1] - values[-1]
    highest = (spread / errors).max(axis=1)
    place = int(values.argmax())
    if place == len(values) - 1:
        fall, z, p = 0.0, 0.0, 1.0
    else:
        fall, z = float(falls[place]), float((falls / errors).max())
        hits = int((highest >= z).sum())
        p = hits / _DRAWS if hits >= _FEW else min(1.0, len(falls) * float(norm.sf(z)))
    reach = float(np.quantile(highest, 0.975))
    low = max(0.0, float((falls - reach * errors).max()))
    high = max(0.0, float((falls + norm.ppf(0.975) * errors).max()))
    return Peak(place, fall, low, high, z, p)


def _noise(series: Series, rng: np.random.Generator) -> np.ndarray:
    """(draws, k) errors of a flat curve, normal, as the items correlate between checkpoints where they are at hand."""
    if series.items is None:
        return rng.normal(size=(_DRAWS, len(series.steps))) * series.errors
    centred = (series.items - series.values) / np.sqrt(len(series.items) * (len(series.items) - 1))
    if len(centred) > len(series.steps):
        centred = np.linalg.qr(centred, mode="r")
    return rng.normal(size=(_DRAWS, len(centred))) @ centred


def fit(table: pd.DataFrame, options: SaturationOptions) -> Fit:
    """Peak, fall and verdict of every curve of a table."""
    series = curves(table, options)
    lower = [lower_is_better(one.keys.get("metric"), options.better) for one in series]
    peaks = [peak(one, lower=less, seed=options.seed) for one, less in zip(series, lower, strict=True)]
    adjusted = statistics.adjust_pvalues([found.p for found in peaks])
    rows, items = [], []
    for one, found, p in zip(series, peaks, adjusted, strict=True):
        shown = {"step": int(one.steps[found.place])}
        rows += [
            one.row("fall", found.fall, low=found.low, high=found.high, interval="simultaneous95", **shown),
            one.row("peak", float(one.values[found.place]), **shown),
            one.row("fall_z", found.z, **shown), one.row("fall_p", float(p), **shown),
            one.row("saturates", float(p < options.alpha), **shown),
        ]
        highest = one.values[found.place]
        items += [{**one.keys, "step": int(step), "value": value, "stderr": error, "peak": highest}
                  for step, value, error in zip(one.steps, one.values, one.errors, strict=True)]
    summary = summarized(rows, "saturation", METRICS)
    return Fit(pd.DataFrame(items), summary, _sentences(summary, series, options.alpha))


def _sentences(summary: pd.DataFrame, series: list[Series], alpha: float) -> tuple[Sentence, ...]:
    said = []
    metrics = ["fall", "peak", "fall_z", "fall_p", "saturates"]
    for place, one in enumerate(series):
        rows = summary.iloc[len(metrics) * place : len(metrics) * (place + 1)]
        got = dict(zip(metrics, records(rows), strict=True))
        if got["saturates"]["value"] > 0:
            fall = got["fall"]
            said.append(Sentence.of(
                f"{one.label} peaks at step {fall['step']:,} ({got['peak']['value']:.3g}) and ends {fall['value']:.3g} "
                f"worse (95 % interval {fall['low']:.3g} to {fall['high']:.3g}); z = {got['fall_z']['value']:.1f}, "
                f"p = {got['fall_p']['value']:.2g} for the highest of {len(one.steps)} checkpoints and "
                f"{len(series)} curves.", rows,
            ))
    verdicts = summary[summary["metric"] == "saturates"]
    names = [one.label for one, yes in zip(series, verdicts["value"], strict=True) if yes > 0]
    lead = f"{len(names)} of {len(series)} curves fall from their peak (at {alpha:g}, after Holm): {listing(names)}."
    return (Sentence.of(lead, verdicts), *said)


METRICS = {
    "fall": Metric("that of the fitted metric", "peak minus last, positive for worse at the end; `step` is the peak's"),
    "peak": Metric("that of the fitted metric", "the best value over training"),
    "fall_z": Metric("standard errors", "the largest fall to the last checkpoint, over the errors of both"),
    "fall_p": Metric("probability", "of so large a z for the best of as many checkpoints of equal truth; after Holm"),
    "saturates": Metric("0 or 1", "whether the fall is told apart from chance"),
}
COLUMNS = {
    "stderr": Column("float64", "standard error of the value"), "peak": Column("float64", "the curve's best value"),
}
FORM = Form(
    says="does a metric fall from its peak before training ends (small-model saturation)?",
    fit=fit, options=SaturationOptions,
    columns={"step": "training step", "value": "the metric", "stderr": "its standard error, or an interval, or items"},
    metrics=METRICS, items=COLUMNS,
    figures={"saturation": "Each curve with its peak; those that fall from it are drawn in colour."},
    methods="The best of k checkpoints was compared with the last by z, against the best of k checkpoints of equal "
            "truth (simulated); curves of a table were corrected by Holm at {alpha}.",
)
