"""What a bias summary says, in words: every number, direction and claim is read off the table."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pythia_tools.analyses.bias.columns import PRONOUNS, QUANTITIES
from pythia_tools.analyses.bias.statistics import ALPHA
from pythia_tools.analysis import Sentence, words
from pythia_tools.core.tables import at_last_step

PREFERS = ("more often than not", "less often than not", "about as often as not",
           "more or less often than not (no interval says which)")
MOVED = ("moved towards the feminine pronoun", "moved towards the masculine pronoun", "did not move detectably",
         "moved by an amount without an interval")


def sentences(summary: pd.DataFrame) -> list[Sentence]:
    """Which pronoun is preferred at the last step, how each branch moved it, and what else branches changed."""
    whole = summary[(summary["subset"] == "all") & summary["model"].notna()]
    moved = [s for s in verdicts(summary, last_only=True) if PRONOUNS not in set(summary.loc[[*s.rows], "task"])]
    return [*_preference(whole), *_branches(whole[whole["task"] == PRONOUNS]), *moved]


def _preference(whole: pd.DataFrame) -> Iterator[Sentence]:
    shares = whole[(whole["metric"] == "stereotype_share") & (whole["branch"] == "main")]
    read = words.by_size(at_last_step(shares)).dropna(subset=["value"])
    told = []
    for row in words.records(read):
        word = words.direction(row["value"] - 0.5, row["low"] - 0.5, row["high"] - 0.5, PREFERS)
        share = f"{words.percent(row['value'])}{words.interval(row, words.percent)} over {words.units(row)}"
        told.append(f"{row['model']} {word} ({share})")
    if told:
        yield Sentence.of(f"At the last step the stereotyped pronoun is preferred: {words.listing(told)}.", read)


def _branches(whole: pd.DataFrame) -> Iterator[Sentence]:
    """One sentence per branch model: which way it moved, by how much, or that nothing was detected."""
    feminine = whole[whole["metric"] == "feminine_share"]
    read = words.by_size(at_last_step(whole[whole["metric"] == "paired_difference"]))
    for index, row in zip(read.index, words.records(read), strict=True):
        here = read.loc[[index]]
        if not row["n"] or pd.isna(row["value"]):
            text = "cannot be compared: no item has both pronouns hold most of the probability"
            yield Sentence.of(f"The branch {row['model']} {text}.", here)
            continue
        at = feminine[feminine["step"] == row["step"]]
        before, after = (at[at["model"] == name] for name in (row["reference"], row["model"]))
        preferred = ""
        if len(before) and len(after):
            shares = [words.percent(share["value"].iloc[0]) for share in (after, before)]
            preferred = f"; the feminine pronoun is preferred in {shares[0]} of items, {shares[1]} in the control"
        word = words.direction(row["value"], row["low"], row["high"], MOVED)
        bounds = words.interval(row, lambda v: f"{v:+.2f}")
        yield Sentence.of(
            f"The branch {row['model']} {word}: {row['value']:+.2f}{bounds} in log-odds of she over he at step "
            f"{row['step']:,}, paired by item over {words.units(row)}{preferred}.", here, before, after,
        )


def verdicts(summary: pd.DataFrame, *, last_only: bool = False) -> Iterator[Sentence]:
    """One sentence per comparison over all items: what moved, by how much, or that it is within noise.

    summary: of `summarize` or `comparison_summary`.
    """
    whole = summary[(summary["subset"] == "all") & summary["reference"].notna() & summary["model"].notna()]
    whole = at_last_step(whole) if last_only else whole
    for quantity, prefix in QUANTITIES.items():
        looks = int((summary["metric"] == f"{prefix}paired_p_adjusted").sum())
        for (task, _, _), part in whole.groupby(["task", "model", "step"], sort=False):
            rows = {r["metric"]: r for r in words.records(part)}
            read = [rows[name] for metric in _READ if (name := f"{prefix}{metric}") in rows]
            if len(read) < len(_READ):
                continue
            what = _QUANTITY.get((str(task), quantity), f"{task} {quantity}")
            numbers = dict(zip(_READ, (row["value"] for row in read), strict=True))
            used = part[part["metric"].isin([row["metric"] for row in read])]
            yield Sentence.of(_verdict(read[0], what, numbers, looks), used)


_READ = ("paired_difference", "paired_p_adjusted", "minimal_detectable_effect", "items_control", "items_branch")
_QUANTITY = {
    (PRONOUNS, "score"): "the log-odds of she over he",
    (PRONOUNS, "outcome"): "the share of items with the stereotyped pronoun",
    ("crows_pairs", "score"): "the log-likelihood margin of the stereotyped sentence",
    ("crows_pairs", "outcome"): "the share of pairs with the stereotyped sentence preferred",
    ("winobias_pronoun", "outcome"): "the share of WinoBias sentences with the stereotyped pronoun",
    ("winobias_pronoun", "score"): "the log-odds of the stereotyped pronoun in WinoBias",
    ("winobias_referent", "outcome"): "the accuracy on WinoBias",
    ("winobias_referent", "score"): "the log-odds of the right answer on WinoBias",
    ("winobias_referent_gap", "outcome"): "the WinoBias gap, accuracy on pro − anti",
    ("winobias_referent_gap", "score"): "the WinoBias gap, log-odds on pro − anti",
    ("winobias_generate", "outcome"): "exact match on WinoBias",
    ("winobias_generate_gap", "outcome"): "the WinoBias gap, exact match on pro − anti",
    ("heldout_loss", "score"): "the held-out loss in nats per token",
}


def _verdict(row: words.Row, what: str, numbers: dict[str, float], looks: int) -> str:
    who = f"{row['model']} against {row['reference']} at step {row['step']:,}, {what}"
    n, value = int(row["n"]), float(row["value"])
    counted = f"paired by item over {words.units(row)}; {numbers['items_control']:,.0f} items count in the control"
    counted += f" and {numbers['items_branch']:,.0f} in the branch"
    if n < 2 or not np.isfinite(value):
        return f"{who}: no comparison, {counted}."
    told = f"{value:+.3g} ({row['low']:+.3g} to {row['high']:+.3g}; {counted})"
    p = numbers["paired_p_adjusted"]
    p_text = f"p = {p:.2g}" if p >= 0.001 else f"p = {p:.1g}"
    p_text += f" after correction over {words.plural(looks, 'comparison')}"
    word = words.direction(value, row["low"], row["high"], ("higher", "lower", "", "")) if p < ALPHA else ""
    if word:
        return f"{who}: {word} by {told}, {p_text}."
    floor = numbers["minimal_detectable_effect"]
    seen = f"; these {row['unit']}s would show a difference of {floor:.2g} four times in five" if floor > 0 else ""
    return f"{who}: within noise, {told}, {p_text}{seen}."
