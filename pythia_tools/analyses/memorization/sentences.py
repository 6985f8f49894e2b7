"""What the summaries of this room say in words: every number, direction and claim is read off the table."""

from collections.abc import Iterator

import pandas as pd

from pythia_tools.analysis import Sentence
from pythia_tools.analysis import words as say
from pythia_tools.core.tables import at_last_step

NO_INTERVAL = "(no interval says which)"


def memorization(summary: pd.DataFrame) -> Iterator[Sentence]:
    """Shares by exposures and by size, rank correlation, bursts, the order of rows, prediction: whatever is there."""
    main = summary[summary["branch"] == "main"]
    shares = main[(main["metric"] == "memorized_share") & main["value"].notna() & main["cohort"].isna()]
    if shares.empty:
        return
    final = at_last_step(shares)
    told_apart = final["exposures_low"].notna()
    yield from _by_exposures(final[told_apart & (final["model"] == say.largest(final))].sort_values("exposures_low"))
    whole = final[~told_apart & (final["subset"] == "all")]
    yield from _by_size(say.by_size(whole), main[main["metric"] == "memorized_share_difference"])
    rank = say.by_size(at_last_step(main[main["metric"] == "spearman_exposures"].dropna(subset=["value"])))
    if len(rank):
        told = [f"{r['model']} {say.number(r['value'], '+.2f')}{say.interval(r)}" for r in say.records(rank)]
        text = "Rank correlation of reproduced tokens with exposures at the last step, over sequences: "
        yield Sentence.of(f"{text}{say.listing(told)}.", rank)
    yield from _bursts(main[main["metric"].isin(("burst_gain", "mean_burst_gain"))])
    yield from _order(main)
    yield from _prediction(main)


def _by_exposures(rows: pd.DataFrame) -> Iterator[Sentence]:
    """One model's share at the fewest exposures, at one, and at the most."""
    if len(rows) < 2:
        return
    low, high = say.records(rows.iloc[[0, -1]])
    once = [r for r in say.records(rows.iloc[1:-1]) if r["exposures_low"] == 1]
    told = [
        f"{say.percent(r['value'])}{say.interval(r, say.percent)} of {r['n']:,} {say.seen(r['exposures_low'])}"
        for r in (low, *once, high)
    ]
    yield Sentence.of(
        f"At step {low['step']:,} the share of sequences that {low['model']} has memorized "
        f"{say.compare_ends(rows)} with exposures: {', '.join(told)} or more.", rows,
    )


def _by_size(sizes: pd.DataFrame, differences: pd.DataFrame) -> Iterator[Sentence]:
    """The largest model against the smallest on the same sequences: paired where the table holds it."""
    if not say.sized(sizes):
        return
    words = ("more", "fewer", "not detectably more or fewer", f"more or fewer {NO_INTERVAL}")
    paired = at_last_step(differences[differences["model"] == sizes["model"].iloc[-1]])
    if len(paired):
        last = say.records(paired)[-1]
        word = say.direction(last["value"], last["low"], last["high"], words)
        points = f"{100 * last['value']:+.1f} points{say.interval(last, lambda v: f'{100 * v:+.1f}')}"
        told = f", a paired difference of {points}"
    else:
        word, told = say.compare_ends(sizes, words), ""
    values = say.listing([f"{r['model']} {say.percent(r['value'])}" for r in say.records(sizes)])
    text = f"The largest model has memorized {word} of the same sequences than the smallest: {values}{told}."
    yield Sentence.of(text, sizes, paired)


def _bursts(gains: pd.DataFrame) -> Iterator[Sentence]:
    """What a burst of exposures right before a checkpoint adds in one model, by number of copies, over all bursts."""
    if gains.empty:
        return
    name = say.largest(gains)
    big = gains[gains["model"] == name]
    parts = []
    for copies, part in big.groupby("exposures_low"):
        whole = part[part["metric"] == "mean_burst_gain"]
        told = say.records(whole)[0] if len(whole) else say.average(part)
        sure = say.direction(told["value"], told["low"], told["high"], ("", "", " (not detected)", " (no interval)"))
        parts.append(f"{say.times(int(str(copies)))} {say.number(told['value'], '+.1f')}{sure}")
    text = f"Tokens of a continuation that {name} gains at the checkpoint right after a burst of exposures"
    yield Sentence.of(f"{text}: {say.listing(parts)}.", big)


def _order(main: pd.DataFrame) -> Iterator[Sentence]:
    """Whether memorized rows clump along the training order more or less than shuffled rows do, in one model.

    The judge is the permutation null, not the Poisson law: memorized rows need not be rare.
    """
    spread = say.by_size(at_last_step(main[main["metric"] == "dispersion"].dropna(subset=["value"]))).iloc[-1:]
    null = main[main["metric"] == "dispersion_permuted"].merge(
        spread[["model", "step", "task"]], on=["model", "step", "task"]).head(1)
    if spread.empty or null.empty:
        return
    last, shuffled = say.records(spread)[0], say.records(null)[0]
    words = ("more than", "less than", "no more and no less than", f"more or less than {NO_INTERVAL}")
    apart, low, high = (last["value"] - shuffled[bound] for bound in ("value", "high", "low"))
    word = say.direction(apart, low, high, words)
    yield Sentence.of(
        f"Along the training order, memorized rows per block of {last['model']} vary {word} those of shuffled rows: "
        f"variance over mean {last['value']:.2f}, shuffled{say.interval(shuffled)}; it is 1 for a Poisson process, and "
        "below where memorized rows are common.", spread,
    )


def _prediction(main: pd.DataFrame) -> Iterator[Sentence]:
    """How much of what the reference memorized another model's last checkpoint shows."""
    recall = say.by_size(at_last_step(main[main["metric"] == "recall"].dropna(subset=["value"])))
    if recall["model"].nunique() < 2:
        return
    small = recall.iloc[:1]
    row = say.records(small)[0]
    precision = main[(main["metric"] == "precision") & (main["model"] == row["model"]) & (main["step"] == row["step"])]
    right = f"; {say.percent(precision['value'].iloc[0])} of what it predicts is right" if len(precision) else ""
    share = f"{say.percent(row['value'])}{say.interval(row, say.percent)}"
    text = f"{row['model']} at step {row['step']:,} predicts {share} of what {row['reference']} memorized{right}."
    yield Sentence.of(text, small, precision)


def effects(summary: pd.DataFrame) -> Iterator[Sentence]:
    """What consuming a row did to one model's loss, what is left of it, and whether membership shows."""
    main = summary[summary["branch"] == "main"]
    words = ("better", "worse", "not detectably better or worse", f"better or worse {NO_INTERVAL}")
    moments = {"mean_instantaneous": "at the first checkpoint after", "mean_residual": "at the last checkpoint"}
    for metric, when in moments.items():
        found = say.by_size(main[main["metric"] == metric].dropna(subset=["value"])).iloc[-1:]
        for row in say.records(found):
            word = say.direction(row["value"], row["low"], row["high"], words)
            by = f"{row['value']:+.3f}{say.interval(row, lambda v: f'{v:+.3f}')} nats per token"
            yield Sentence.of(f"Having consumed a row, {row['model']} knows it {word} {when}: by {by}.", found)
    found = say.by_size(at_last_step(main[(main["metric"] == "auc") & (main["task"] == "loss")])).iloc[-1:]
    for row in say.records(found.dropna(subset=["value"])):
        value, low, high = (row[c] - 0.5 for c in ("value", "low", "high"))
        words = ("above", "below", "not detectably off", f"above or below {NO_INTERVAL}")
        word = say.direction(value, low, high, words)
        shown = f"{row['value']:.2f}{say.interval(row)}"
        text = f"At step {row['step']:,} the AUC of membership by the loss of {row['model']} is {shown}, {word} chance."
        yield Sentence.of(text, found)
