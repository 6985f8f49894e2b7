"""Emergent or mirage: does a jump of accuracy survive in a continuous metric of the same items (Schaeffer et al. 2023)?

A jump is the window of steps, neighbouring checkpoints or at most a factor apart, in which accuracy rises most. Four
checks:
1. continuous: the share of its own improvement that a continuous metric makes in the same window. Its sharpness is 1
   where that is accuracy's share, 0 where it improves evenly in log step; the jump survives above ½, vanishes below.
2. product: exact match needs every token, so smooth probabilities p make p1·p2·… jump; how much of accuracy's rise the
   mean product of token probabilities makes in the window.
3. Brier score, for multiple choice: continuous, as 1.
4. resolution: one item is 1 / n; a rise within that, or within the noise of the highest of all windows, is none.

Intervals redraw the items (all metrics of an item together), or standard errors; where neither is known there are none.
Cost: milliseconds per curve and thousand items.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.statistics import percentiles
from pythia_tools.core.tables import IDENTITY, Column, Metric
from pythia_tools.core.words import Row, Sentence, interval, listing, percent
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.saturation import lower_is_better
from pythia_tools.fitting.series import Found, Series, SeriesOptions, by, curves, known, long_rows, summarized

EXACT = ("acc", "accuracy", "exact", "exact_match", "acc_norm", "em", "correct_share")
"""Names of metrics that are all or nothing, in order of preference."""
PRODUCT = "product_of_tokens"
VERDICTS = {
    "survives": "the jump survives in every continuous metric",
    "vanishes": "the jump vanishes in a continuous metric",
    "below resolution": "the rise is within one item, or within the noise of the highest window",
    "no jump": "accuracy rises gradually",
    "not told apart": "intervals do not tell whether the jump survives",
    "cannot be judged": "no continuous metric of the same items is there",
}


@dataclass(frozen=True)
class MirageOptions(SeriesOptions):
    """What is accuracy, what is continuous, and what a jump is."""

    metrics: tuple[str, ...] = option((), "columns that are metrics, where each has one", metavar="NAME")
    exact: str | None = option(None, "the metric that is all or nothing (default: the first known of the table)",
                               metavar="NAME")
    continuous: tuple[str, ...] = option((), "continuous metrics to judge it by (default: all others)", metavar="NAME")
    within: float = option(4.0, "a jump lies within so large a factor of steps, or between neighbours", minimum=1)
    share: float = option(0.5, "share of the whole rise that makes it a jump", minimum=0)
    items: int | None = option(None, "number of items behind a summary's accuracy, where it does not say", minimum=1)
    resamples: int = option(1000, "resamples of the items", minimum=20)
    seed: int = option(0, "of the resamples")


@dataclass(frozen=True)
class Jump:
    """A rise between two checkpoints: their numbers, its height, its share of the whole rise, and the window's share of
    all of log step.
    """

    first: int
    last: int
    height: float
    share: float
    width: float


def measures(items: pd.DataFrame) -> pd.DataFrame:
    """Metrics of every document of an item table, one row each: identity, task, item, metric, value.

    `evaluate`'s items (ll, gold, margin, is_greedy, n_tokens, bytes by doc_id and choice) give, for multiple choice,
    acc, gold_probability among the choices, brier and bits_per_byte of the right one; for continuations acc (all ids
    greedy), nats_per_token and the product of the tokens' probabilities. `term-frequency`'s (correct, logprob by item)
    give acc, nats and the product. Raises RequestError naming the columns that neither has.
    """
    if {"doc_id", "ll"} <= set(items.columns):
        many = items.groupby([*_present(items), "doc_id"], dropna=False)["ll"].transform("size") > 1
        return pd.concat([_choices(items[many]), _continuations(items[~many])], ignore_index=True)
    if {"item", "correct", "logprob"} <= set(items.columns):
        held = items[items["correct"].notna()]
        found = {"acc": held["correct"].astype(float), "nats": -held["logprob"].astype(float),
                 PRODUCT: held["logprob"].astype(float).map(np.exp)}
        return _long(held.rename(columns={"item": "doc_id"}), found)
    raise RequestError("cannot be judged from items: they need doc_id, choice, gold, ll, margin, is_greedy, n_tokens "
                       "(evaluate), or item, correct, logprob (term-frequency); this table lacks them")


def _present(items: pd.DataFrame) -> list[str]:
    return [c for c in (*IDENTITY, "task") if c in items.columns]


def _long(rows: pd.DataFrame, found: Mapping[str, pd.Series]) -> pd.DataFrame:
    keys = rows[[*_present(rows), "doc_id"]].rename(columns={"doc_id": "item"})
    parts = [keys.assign(metric=name, value=values.to_numpy(float)) for name, values in found.items()]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def _choices(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per document and metric of multiple choice; documents without a right choice are left out."""
    who = [*_present(rows), "doc_id"]
    ll = rows["ll"].astype(float)
    top = ll.groupby([rows[c] for c in who], dropna=False).transform("max")
    weight = (ll - top).map(np.exp)
    share = weight / weight.groupby([rows[c] for c in who], dropna=False).transform("sum")
    right = rows["gold"].fillna(False).astype(bool)
    square = (share - right.astype(float)) ** 2
    brier = square.groupby([rows[c] for c in who], dropna=False).transform("sum")
    held = rows.assign(_share=share, _brier=brier)[right]
    held = held.drop_duplicates(who)
    found = {"acc": (held["margin"].astype(float) >= 0).astype(float), "gold_probability": held["_share"],
             "brier": held["_brier"]}
    if "bytes" in held.columns:
        found["bits_per_byte"] = -held["ll"].astype(float) / np.log(2) / held["bytes"].astype(float)
    return _long(held, found)


def _continuations(rows: pd.DataFrame) -> pd.DataFrame:
    held = rows[rows["is_greedy"].notna()]
    ll, count = held["ll"].astype(float), held["n_tokens"].astype(float)
    return _long(held, {"acc": held["is_greedy"].astype(float), "nats_per_token": -ll / count, PRODUCT: ll.map(np.exp)})


def improvement(series: Series) -> np.ndarray:
    """(k,) values, larger for better: negative where lower is better, the logarithm of perplexities."""
    return _better(series.keys.get("metric"), series.values)


def _better(metric: object, values: np.ndarray) -> np.ndarray:
    name = str(metric).lower()
    if "ppl" in name or "perplexity" in name:
        return -np.log(np.maximum(values, 1e-300))
    return -values if lower_is_better(name) else values


def find_jump(steps: np.ndarray, values: np.ndarray, within: float = 4.0) -> Jump:
    """The highest rise of (k,) values between neighbouring checkpoints, or steps at most so large a factor apart.

    >>> found = find_jump(np.array([1, 2, 4, 8, 16]), np.array([0, 0, 0, 0.9, 1.0]), within=2)
    >>> found.first, found.last, found.height, round(found.share, 2), round(found.width, 2)
    (2, 3, 0.9, 0.9, 0.25)
    """
    x = np.log(np.maximum(steps, 0.5))
    rises = values[None, :] - values[:, None]
    allowed = (x[None, :] - x[:, None] <= np.log(within) + 1e-9) & np.triu(np.ones(rises.shape, dtype=bool), 1)
    allowed |= np.eye(len(x), k=1, dtype=bool)
    first, last = np.unravel_index(np.where(allowed, rises, -np.inf).argmax(), rises.shape)
    whole = float(values.max() - values[0])
    height = float(rises[first, last])
    return Jump(int(first), int(last), height, height / whole if whole > 0 else np.nan,
                float((x[last] - x[first]) / (x[-1] - x[0])))


def _shares(values: np.ndarray, jump: Jump) -> np.ndarray:
    """(…,) share of the whole improvement of (…, k) values that lies in the window of a jump."""
    whole = np.maximum(values.max(axis=-1) - values[..., 0], 1e-300)
    return (values[..., jump.last] - values[..., jump.first]) / whole


def fit(table: pd.DataFrame, options: MirageOptions) -> Fit:
    """The four checks of every accuracy curve of a table of items, of a summary, or of a plain table with --metrics."""
    named = [options.value_column, *options.metrics]
    if {"ll", "logprob"} & set(table.columns) and not any(named):
        series = curves(measures(table), replace(options, item_column="item"))
    else:
        series = curves(long_rows(table, options, options.metrics), SeriesOptions())  # columns have their names now
    found = Found()
    for _, members in by(series, "metric", "n", "unit"):
        exact = _exact(members, options.exact)
        if exact is not None:
            _judge(found, exact, [one for one in members if one is not exact], options)
    if not found.rows:
        raise RequestError(f"no accuracy is in this table; metrics that are known: {', '.join(EXACT)}; name another "
                           "one with --exact")
    summary = summarized(found.rows, "mirage", METRICS)
    return Fit(pd.DataFrame(found.items), summary,
               tuple(Sentence.of(text, summary.iloc[rows]) for text, rows in found.said))


def _exact(members: list[Series], asked: str | None) -> Series | None:
    named = {str(one.keys.get("metric")): one for one in members}
    return next((named[name] for name in ((asked,) if asked else EXACT) if name in named), None)


def _resample(members: list[Series], options: MirageOptions) -> dict[str, np.ndarray]:
    """Metric → (resamples, k) curves with the items drawn again, the same for all metrics; nothing where unknown."""
    found = {}
    for one in members:
        noise = one.noise(options.resamples, np.random.default_rng(options.seed))
        if noise is not None:
            metric = one.keys.get("metric")
            found[str(metric)] = _better(metric, one.values + noise)
    return found


def _judge(found: Found, exact: Series, others: list[Series], options: MirageOptions) -> None:
    """Rows, items and a sentence of one accuracy curve."""
    same = [one for one in others if np.array_equal(one.steps, exact.steps)
            and (not options.continuous or one.keys.get("metric") in options.continuous)]
    smooth = [one for one in same if one.keys.get("metric") not in (*EXACT, PRODUCT)]
    jump = find_jump(exact.steps, exact.values, options.within)
    drawn = _resample([exact, *same], options)
    name, n = str(exact.keys.get("metric")), options.items or exact.n
    heights = drawn[name][:, jump.last] - drawn[name][:, jump.first] if name in drawn else np.array([])
    low, high = percentiles(heights)
    marks = {"step": int(exact.steps[jump.first])}
    rows = [exact.row("jump", jump.height, low=low, high=high, interval="bootstrap95" if np.isfinite(low) else "none",
                      **marks),
            exact.row("jump_until", float(exact.steps[jump.last]), **marks),
            exact.row("jump_share", jump.share, **marks)]
    if n:
        rows.append(exact.row("resolution", 1 / n))
    rows += list(_product(exact, same, jump))
    sharp = {str(one.keys.get("metric")): _sharpness(one, exact, jump, drawn) for one in smooth}
    rows += [exact.row("sharpness", value, reference=metric, low=a, high=b,
                       interval="bootstrap95" if np.isfinite(a) else "none", **marks)
             for metric, (value, a, b) in sharp.items()]
    noise = float(heights.std() * norm.isf(0.05 / len(exact.steps))) if heights.size else 0.0  # the highest of so many
    verdict, why = _verdict(jump, max(1 / n if n else 0.0, noise), sharp, options.share)
    rows.append(exact.row("survives", {"survives": 1.0, "vanishes": 0.0}.get(verdict, np.nan), **marks))
    found.add(rows, f"{exact.label}: rises by {jump.height:.3g}{interval(rows[0], lambda v: f'{v:.3g}')} between steps "
                    f"{exact.steps[jump.first]:,} and {exact.steps[jump.last]:,}, {percent(jump.share)} of its whole "
                    f"rise; {why}.")
    for one in (exact, *same):
        better = improvement(one)
        part = (better - better[0]) / max(better.max() - better[0], 1e-300)
        found.items += [{**one.keys, "step": int(s), "value": v, "progress": p, "exact": one is exact,
                         "jump_from": int(exact.steps[jump.first]), "jump_until": int(exact.steps[jump.last]),
                         "verdict": verdict}
                        for s, v, p in zip(one.steps, one.values, part, strict=True)]


def _product(exact: Series, same: list[Series], jump: Jump) -> Iterator[Row]:
    for one in same:
        if one.keys.get("metric") == PRODUCT and jump.height > 0:
            rise = float(one.values[jump.last] - one.values[jump.first])
            yield exact.row("product_rise", rise / jump.height, step=int(exact.steps[jump.first]))


def _sharpness(
    one: Series, exact: Series, jump: Jump, drawn: Mapping[str, np.ndarray]
) -> tuple[float, float, float]:
    """1 for as much of its improvement in the window as accuracy makes there, 0 for even improvement; with bounds."""
    def sharp(smooth: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
        base = _shares(accuracy, jump) - jump.width
        return (_shares(smooth, jump) - jump.width) / np.where(np.abs(base) > 1e-9, base, np.nan)

    names = str(one.keys.get("metric")), str(exact.keys.get("metric"))
    value = float(sharp(improvement(one), improvement(exact)))
    if any(name not in drawn for name in names):
        return value, np.nan, np.nan
    return (value, *percentiles(sharp(drawn[names[0]], drawn[names[1]])))


def _verdict(
    jump: Jump, least: float, sharp: Mapping[str, tuple[float, float, float]], share: float
) -> tuple[str, str]:
    """A key of VERDICTS, and the reason in words; least: the height that items resolve."""
    if not jump.height > least:
        return "below resolution", f"the rise is below the resolution of {least:.2g} that its items have"
    if not jump.share >= share:
        return "no jump", "that is no jump, it rises gradually"
    if not sharp:
        return "cannot be judged", ("whether it is a mirage cannot be judged: no continuous metric of the same items "
                                    "is there (bits_per_byte, brier, gold_probability, or items with ll)")
    gone = [name for name, (value, _, high) in sharp.items() if (high if known(high) else value) < 0.5]
    kept = [name for name, (value, low, _) in sharp.items() if (low if known(low) else value) > 0.5]
    if gone:
        return "vanishes", f"the jump vanishes in {listing(gone)}" + (f", not in {listing(kept)}" if kept else "")
    if len(kept) == len(sharp):
        return "survives", f"the jump survives in {listing(kept)}"
    unsure = [name for name in sharp if name not in kept]
    return "not told apart", f"intervals do not tell whether it survives in {listing(unsure)}"


METRICS = {
    "jump": Metric("that of accuracy", "highest rise within a factor of steps, from `step` on"),
    "jump_until": Metric("step", "the checkpoint at which the jump is done"),
    "jump_share": Metric("share", "the jump over accuracy's whole rise"),
    "resolution": Metric("that of accuracy", "one item: 1 / n"),
    "product_rise": Metric("1", "rise of the mean product of token probabilities in the window, over accuracy's"),
    "sharpness": Metric("1", "share of the improvement of `reference` in the window: 1 for accuracy's, 0 for evenly"),
    "survives": Metric("0 or 1", "whether the jump survives in continuous metrics; NaN where that cannot be told"),
}
COLUMNS = {
    "progress": Column("float64", "improvement since the first checkpoint, over the whole one"),
    "exact": Column("boolean", "whether the metric is the accuracy that is judged"),
    "jump_from": Column("Int64", "the checkpoint at which the jump begins"),
    "jump_until": Column("Int64", "the checkpoint at which it is done"),
    "verdict": Column("string", "; ".join(f"{name}: {meaning}" for name, meaning in VERDICTS.items())),
}
FORM = Form(
    says="is a jump of accuracy emergent, or a mirage of an all-or-nothing metric?",
    fit=fit, options=MirageOptions,
    columns={"step": "training step", "value": "accuracy and continuous metrics (or --metrics), or items with ll"},
    metrics=METRICS, items=COLUMNS,
    figures={"mirage": "Progress of accuracy and of continuous metrics of the same items; the jump is shaded."},
    methods="A jump is the highest rise of accuracy within a factor {within} of steps; it survives where continuous "
            "metrics of the same items make more than half as much of their improvement there, against an even one.",
)
