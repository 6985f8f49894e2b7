"""What a summary of token curves says in words."""

from collections.abc import Iterator

import pandas as pd

from pythia_tools.analysis import Sentence
from pythia_tools.analysis import words as say
from pythia_tools.core.tables import at_last_step


def sentences(summary: pd.DataFrame) -> Iterator[Sentence]:
    """When tokens were acquired, how size and frequency matter, what n-grams and context explain, which fits hold."""
    main = summary[(summary["branch"] == "main") & summary["exposures_low"].isna()]
    ages = _ends(main, "aoa_crossing")
    if len(ages):
        yield from _acquired(main, ages)
    yield from _frequency(_ends(main, "aoa_frequency"))
    yield from _ngrams(main)
    yield from _context(_ends(main, "icl_score"))
    yield from _fits(main)


def _ends(main: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric at every model's last step that have a value, from small to large."""
    return say.by_size(at_last_step(main[main["metric"] == metric])).dropna(subset=["value"])


def _acquired(main: pd.DataFrame, ages: pd.DataFrame) -> Iterator[Sentence]:
    (age,) = say.records(ages[ages["model"] == say.largest(ages)])
    share = _ends(main[main["model"] == age["model"]], "acquired_share")
    (told,) = say.records(share)
    bounds = say.interval(age, lambda v: f"{10**v:,.0f}")
    yield Sentence.of(
        f"By step {told['step']:,}, {age['model']} has acquired {say.percent(told['value'])}"
        f"{say.interval(told, say.percent)} of the tokens measured, that is, come half-way from chance to their best; "
        f"their mean age of acquisition is step {10 ** age['value']:,.0f}{bounds}, the mean of log steps.",
        share, ages[ages["model"] == age["model"]],
    )
    if say.sized(ages):
        words = ("later", "earlier", "neither detectably earlier nor later", "not comparably")
        small, word = say.records(ages)[0]["model"], say.compare_ends(ages, words)
        yield Sentence.of(f"{age['model']} acquires them {word} than {small} on average.", ages)


def _frequency(found: pd.DataFrame) -> Iterator[Sentence]:
    for row in say.records(found[found["model"] == say.largest(found)] if len(found) else found):
        words = ("later", "earlier", "neither detectably earlier nor later", "neither earlier nor later (no interval)")
        told = say.direction(row["value"], row["low"], row["high"], words)
        yield Sentence.of(
            f"Tokens that were seen more often are acquired {told} in {row['model']}: rank correlation "
            f"{_signed(row['value'])}{say.interval(row, _signed)}.", found[found["model"] == row["model"]],
        )


def _ngrams(main: pd.DataFrame) -> Iterator[Sentence]:
    nearest = _ends(main, "ngram_kl_least_step")
    if nearest.empty:
        return
    nearest = nearest[nearest["model"] == say.largest(nearest)]
    divergence = main[(main["metric"] == "ngram_kl") & main["model"].isin(nearest["model"])]
    told, read = [], [nearest]
    for row in say.records(nearest):
        there = divergence[(divergence["task"] == row["task"]) & (divergence["step"] == int(row["value"]))]
        read.append(there)
        told.append(f"{row['task']}s at {_step(row)} ({say.number(there['value'].iloc[0], '.2f')} bits)")
    yield Sentence.of(f"{nearest['model'].iloc[0]}'s predictions come nearest to those of {say.listing(told)}.", *read)


def _step(row: say.Row) -> str:
    """`step 16`, with its interval where that is more than one checkpoint."""
    bounds = "" if row["low"] == row["high"] else say.interval(row, lambda v: f"{v:,.0f}")
    return f"step {row['value']:,.0f}{bounds}"


def _signed(value: float) -> str:
    return say.number(value, "+.2f")


def _context(found: pd.DataFrame) -> Iterator[Sentence]:
    for row in say.records(found[found["model"] == say.largest(found)] if len(found) else found):
        words = ("higher", "lower", "not detectably higher or lower", "higher or lower (no interval says which)")
        told = say.direction(row["value"], row["low"], row["high"], words)
        yield Sentence.of(
            f"At step {row['step']:,}, {row['model']}'s loss is {told}"
            f" late in a row than early in it: in-context-learning score {_signed(row['value'])}"
            f"{say.interval(row, _signed)} nats per token.",
            found[found["model"] == row["model"]],
        )


def _fits(main: pd.DataFrame) -> Iterator[Sentence]:
    failed, clipped = _ends(main, "fit_failed_share"), _ends(main, "age_clipped_share")
    for name in ("sigmoid", "gam"):
        own = [part[(part["task"] == name) & (part["model"] == say.largest(part))] for part in (failed, clipped)
               if len(part)]
        if len(own) == 2 and len(own[0]) and len(own[1]):
            (a,), (b,) = map(say.records, own)
            yield Sentence.of(
                f"Of {a['model']}'s ages by {name}, {say.percent(a['value'])} have no fit, and "
                f"{say.percent(b['value'])} are bounds only, at the first or last checkpoint.", *own,
            )
