"""Scaling laws as forms of fit: what is derived from a law first (allocation, optima, predictions, held-out errors),
its single constants last, with intervals that are as wide as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from pythia_tools.core import statistics, tables, words
from pythia_tools.core.errors import RequestError
from pythia_tools.core.options import option
from pythia_tools.core.statistics import Estimate
from pythia_tools.core.tables import Metric
from pythia_tools.core.words import Sentence
from pythia_tools.fitting import laws
from pythia_tools.fitting.columns import TableOptions, numbers
from pythia_tools.fitting.declaration import Fit, Form
from pythia_tools.fitting.errors_of_loss import fit_errors
from pythia_tools.fitting.estimation import RESAMPLES, Check, Fitted, fit_law, hold_out
from pythia_tools.fitting.laws import Law
from pythia_tools.fitting.points import read_points

METRICS = {
    "allocation_exponent": Metric("1", "a in N_opt ~ C^a: how the best size grows with compute"),
    "optimal_params": Metric("parameters", "best size for the compute that `budget_flops` of the same subset says"),
    "optimal_tokens": Metric("tokens", "best training tokens for it"),
    "budget_flops": Metric("FLOPs", "compute of a budget that was asked for"),
    "predicted_loss": Metric("unit of the loss", "what a run of so many params and tokens would reach; its interval"),
    "predicted_error": Metric("share", "downstream error of such a run, by error = ceiling - k exp(-gamma L)"),
    "heldout_error": Metric("share", "predicted / measured - 1 of the runs that reference names, held out: their mean"),
    "heldout_inside": Metric("share", "share of the held-out points inside their prediction interval"),
    "residual_rms": Metric("1", "root mean square of log loss minus the law's"),
    "residual_by_size": Metric("1", "Spearman's rho of residual and size; a law that bends wrongly has one"),
    "residual_by_tokens": Metric("1", "Spearman's rho of residual and tokens"),
    "residual_by_compute": Metric("1", "Spearman's rho of residual and training FLOPs"),
    "objective": Metric("1", "sum of Huber losses of the log residuals (delta .001) at the fit"),
    "A": Metric("1", "constant of the size term (of compute: of its term)"),
    "B": Metric("1", "constant of the tokens term"),
    "E": Metric("unit of the loss", "loss that neither size nor tokens remove"),
    "alpha": Metric("1", "exponent of the size term (of compute: of its term)"),
    "beta": Metric("1", "exponent of the tokens term"),
    "error_ceiling": Metric("share", "downstream error at high loss"),
    "error_k": Metric("share", "k of the law of the error"),
    "error_gamma": Metric("1 / unit of the loss", "gamma of the law of the error"),
}
TREND_OF = {"params": "residual_by_size", "tokens": "residual_by_tokens", "flops": "residual_by_compute"}
LARGEST = {"params": "largest size", "tokens": "most tokens", "flops": "most compute"}
METHODS = (
    "Constants minimize the sum of Huber losses (delta .001) of log loss from 64 random starts; intervals are of "
    "{resamples} resamples of whole runs, and a prediction's is that of one further run. "
    "The largest size and the most tokens were each left out once and predicted."
)


@dataclass(frozen=True)
class LawOptions(TableOptions):
    checkpoints: str = option("refuse", "checkpoints within a run beside finished runs: keep the last of each run, fit "
                              "all (of constant rates), or refuse", choices=("refuse", "last", "all"))
    drop: int = option(0, "how many of the largest losses are left out", minimum=0, metavar="N")
    at: tuple[str, ...] = option((), "sizes and tokens to predict", metavar="PARAMS:TOKENS")
    budgets: tuple[str, ...] = option((), "FLOPs whose best size and tokens are asked for", metavar="FLOPS")
    resamples: int = option(RESAMPLES, "resamples of the runs for the intervals", minimum=0, metavar="R")
    seed: int = option(0, "of the starts and resamples")


def fit_points(table: pd.DataFrame, options: LawOptions, law: Law) -> Fit:
    """A law fitted to a table, as Form.fit."""
    wanted, budgets = _places(options.at, law), [_amount(text, "budgets") for text in options.budgets]
    points = read_points(table, law, options, options.checkpoints, options.drop)
    fitted = fit_law(law, points, resamples=options.resamples, seed=options.seed)
    checks = [hold_out(law, points, what, resamples=options.resamples, seed=options.seed) for what in law.variables]
    done = [check for check in checks if check is not None]
    told = list(_errors(fitted, wanted, options)) if law is laws.GADRE and "error" in points.table else []
    rows = [*_derived(fitted, budgets), *_predictions(fitted, wanted, options.seed), *told[:-3], *_held_out(done),
            *_residuals(fitted), *_constants(fitted), *told[-3:]]
    what = options.task or options.metric or options.loss_column or "loss"
    summary = tables.summary(({"task": what, **row} for row in rows), analysis="fit", metrics=METRICS)
    return Fit(_items(fitted, done), summary, tuple(sentences(summary, fitted)))


def _places(texts: tuple[str, ...], law: Law) -> pd.DataFrame:
    """params, tokens and flops of what --at asks for."""
    rows = []
    for text in texts:
        size, colon, tokens = text.partition(":")
        if not colon:
            raise RequestError(f"--at {text!r}: write PARAMS:TOKENS, for example 12B:300B")
        rows.append((_amount(size, "at"), _amount(tokens, "at")))
    found = pd.DataFrame(rows, columns=["params", "tokens"], dtype=float)
    return found.assign(flops=laws.FLOPS * found["params"] * found["tokens"])


def _amount(text: str, flag: str) -> float:
    try:
        return float(numbers(pd.Series([text], name=flag))[0])
    except RequestError:
        raise RequestError(f"--{flag} {text!r} is no positive number; write 7B, 3e11 or 1e21") from None


def _derived(fitted: Fitted, budgets: list[float]) -> Iterator[dict[str, object]]:
    """The allocation exponent, and the optimum at each budget."""
    law, one, many = fitted.law, fitted.theta[None], fitted.draws
    if not law.sized:
        if budgets:
            raise RequestError(f"--budgets: {law.name} knows neither size nor tokens; fit hoffmann, kaplan or gadre")
        return
    exponent = fitted.estimate(laws.allocation(law, one), laws.allocation(law, many))
    yield {"metric": "allocation_exponent", **exponent.columns()}
    for flops in budgets:
        subset = f"{flops:.3g} FLOPs"
        yield {"metric": "budget_flops", "subset": subset, "value": flops, "interval": "none"}
        sizes = (laws.optimum(law, theta, fitted.centre, flops) for theta in (one, many))
        (size, tokens), (sizes_, tokens_) = sizes
        for metric, value, draws in (("optimal_params", size, sizes_), ("optimal_tokens", tokens, tokens_)):
            yield {"metric": metric, "subset": subset, **_exponential(fitted.estimate(value, draws)).columns()}


def _exponential(log: Estimate) -> Estimate:
    """An estimate of a logarithm, as that of the number."""
    with np.errstate(over="ignore"):
        return replace(log, value=float(np.exp(log.value)), low=float(np.exp(log.low)), high=float(np.exp(log.high)))


def _predictions(fitted: Fitted, wanted: pd.DataFrame, seed: int) -> Iterator[dict[str, object]]:
    logs = np.log(wanted[list(fitted.law.variables)].to_numpy(float))
    places = zip(wanted["params"].tolist(), wanted["tokens"].tolist(), strict=True)
    for (params, tokens), found in zip(places, fitted.predicted(logs, seed=seed), strict=True):
        yield {"metric": "predicted_loss", "params": round(params), "tokens": round(tokens), **found.columns()}


def _held_out(checks: list[Check]) -> Iterator[dict[str, object]]:
    for check in checks:
        error = statistics.mean(check.errors, unit="run", clusters=check.held.runs)
        reference = LARGEST[check.what]
        yield {"metric": "heldout_error", "reference": reference, **error.columns()}
        yield {"metric": "heldout_inside", "reference": reference, "value": float(check.inside.mean()),
               "n": len(check.inside), "unit": "point", "interval": "none"}


def _residuals(fitted: Fitted) -> Iterator[dict[str, object]]:
    rests, runs = fitted.rests, fitted.points.runs
    yield {"metric": "residual_rms", "value": float(np.sqrt((rests**2).mean())), "n": fitted.runs, "unit": "run",
           "interval": "none"}
    for name in fitted.law.variables:
        values = fitted.points.table[name].to_numpy(float)
        trend = statistics.rank_correlation(values, rests, unit="run", clusters=runs)
        yield {"metric": TREND_OF[name], **trend.columns()}
    yield {"metric": "objective", "value": fitted.loss, "n": fitted.runs, "unit": "run", "interval": "none"}


def _errors(fitted: Fitted, wanted: pd.DataFrame, options: LawOptions) -> Iterator[dict[str, object]]:
    """Error at what --at asks for, by the law of the loss and that of the error; then the latter's three constants."""
    table = fitted.points.table
    loss, error = table["loss"].to_numpy(float), table["error"].to_numpy(float)
    law = fit_errors(loss, error, fitted.points.runs, resamples=options.resamples, seed=options.seed)
    logs = np.log(wanted[list(fitted.law.variables)].to_numpy(float))
    value = law(np.exp(fitted.log_predicted(logs, fitted.theta[None])), law.constants[None])[0]
    rests = error - law(loss, law.constants)
    scatter = np.random.default_rng(options.seed).choice(rests, (len(law.draws), len(logs)))
    draws = law(np.exp(fitted.log_predicted(logs, fitted.draws)), law.draws[:, None]) + scatter
    places = zip(wanted["params"].tolist(), wanted["tokens"].tolist(), strict=True)
    for k, (params, tokens) in enumerate(places):
        found = fitted.estimate(value[k : k + 1], draws[:, k])
        yield {"metric": "predicted_error", "params": round(params), "tokens": round(tokens), **found.columns()}
    for k, name in enumerate(("error_ceiling", "error_k", "error_gamma")):
        yield {"metric": name, **fitted.estimate(law.constants[k : k + 1], law.draws[:, k]).columns()}


def _constants(fitted: Fitted) -> Iterator[dict[str, object]]:
    for name, found in fitted.constants().items():
        yield {"metric": name, **found.columns()}


def _items(fitted: Fitted, checks: list[Check]) -> pd.DataFrame:
    """The points, what the law says of each (`fitted`, `residual` in log), and what a fit without them predicted
    (`predicted`, `low`, `high`; `held_out` says as which part).
    """
    table = fitted.points.table
    whole = table.assign(fitted=np.exp(fitted.points.log_loss - fitted.rests), residual=fitted.rests,
                         held_out=pd.Series(pd.NA, index=table.index, dtype="string"))
    parts = [whole]
    for check in checks:
        bounds = {name: [getattr(e, of) for e in check.predicted]
                  for name, of in (("predicted", "value"), ("low", "low"), ("high", "high"))}
        parts.append(check.held.table.assign(held_out=LARGEST[check.what], **bounds).astype({"held_out": "string"}))
    return pd.concat(parts, ignore_index=True)


def sentences(summary: pd.DataFrame, fitted: Fitted) -> Iterator[Sentence]:
    """What a law says of a table, derived quantities first."""
    table = fitted.points.table
    several = len(table) > fitted.runs
    count = words.plural(fitted.runs, "run") + (f" with {len(table)} checkpoints" if several else "")
    rows = summary[summary["metric"] == "residual_rms"]
    scatter = 100 * float(rows["value"].iloc[0])
    yield Sentence.of(f"L = {fitted.law.formula} fits {count} to within {scatter:.2g} % (root mean square).", rows)
    for row in words.records(summary[summary["metric"] == "allocation_exponent"]):
        said = words.interval(row, lambda v: f"{v:.3f}")
        text = f"With compute C the best size grows as C^{row['value']:.3f}{said}, the best number of tokens as"
        yield Sentence.of(f"{text} C^{1 - row['value']:.3f}.", summary[summary["metric"] == "allocation_exponent"])
    predicted = summary[summary["metric"] == "predicted_loss"]
    for place, row in zip(predicted.index, words.records(predicted), strict=True):
        said = words.interval(row, lambda v: f"{v:.3f}")
        text = f"A run of {row['params']:.3g} parameters and {row['tokens']:.3g} tokens is predicted to reach"
        yield Sentence.of(f"{text} {row['value']:.3f}{said}.", summary.loc[[place]])
    yield from _said_of_checks(summary, fitted.law)
    wide = [row["metric"] for row in words.records(summary[summary["metric"].isin(["A", "B", "E"])])
            if row["high"] > 2 * max(row["low"], 0)]
    if wide:
        text = (f"The runs do not pin down {words.listing(wide)} alone: use the exponent and the predictions, in which "
                "errors of constants cancel.")
        yield Sentence.of(text, summary[summary["metric"].isin(wide)])


def _said_of_checks(summary: pd.DataFrame, law: Law) -> Iterator[Sentence]:
    for what in law.variables:
        rows = summary[summary["reference"] == LARGEST[what]]
        if rows.empty:
            text = f"Without the {LARGEST[what]} too few budgets are left for a law: no prediction was checked on it."
            yield Sentence(text, ())
            continue
        error, inside = (words.records(rows[rows["metric"] == m])[0] for m in ("heldout_error", "heldout_inside"))
        yield Sentence.of(
            f"Fitted without the {LARGEST[what]}, the law misses it by {100 * error['value']:+.2f} % on average; "
            f"inside the prediction intervals: {words.percent(inside['value'])} of "
            f"{words.plural(int(inside['n']), 'point')}.", rows)


_SIZED = {"params": "parameters", "tokens": "training tokens", "loss": "the loss, or any other positive number",
          "run": "what is independent (optional: else each row)"}
_FIGURES = {
    "law_by_compute": "Loss against training FLOPs: points are runs, lines the law at each size.",
    "law_residuals": "What the law leaves over, by size and tokens; a pattern says that its form is wrong.",
    "law_held_out": "Predicted against measured, of parts that were held out, with prediction intervals.",
}
_of = partial(Form[LawOptions], options=LawOptions, metrics=METRICS, figures=_FIGURES, methods=METHODS)
HOFFMANN = _of("Hoffmann's law of size and tokens, as Besiroglu et al. estimate it",
               partial(fit_points, law=laws.HOFFMANN), columns=_SIZED)
KAPLAN = _of("Kaplan's law of size and tokens", partial(fit_points, law=laws.KAPLAN), columns=_SIZED)
GADRE = _of("Gadre's law: one exponent for size and tokens; with a column of errors also the error from the loss",
            partial(fit_points, law=laws.GADRE), columns=_SIZED)
COMPUTE = _of("a power of compute alone, with a floor", partial(fit_points, law=laws.COMPUTE),
              columns={"flops": "training FLOPs, or params and tokens", "loss": _SIZED["loss"], "run": _SIZED["run"]})
