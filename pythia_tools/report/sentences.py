"""Sentences computed from summary tables: every number, direction and claim is read off the table.

Nothing is written in advance but the grammar: a table reversed in value gives the reversed sentence, and a
difference within its interval is called undetected, never a trend.
"""

from __future__ import annotations

import pandas as pd

from pythia_tools.analysis.words import (
    at_last_step,
    by_size,
    compare_ends,
    direction,
    interval,
    largest,
    level,
    listing,
    percent,
    plural,
    records,
    seen,
    times,
)


def memorization(summary: pd.DataFrame) -> list[str]:
    """Metric `memorized_share` in groups `exposures=k` (k so far) and `all`; `spearman_exposures`; `dispersion`."""
    shares = summary[(summary["metric"] == "memorized_share") & (summary["branch"] == "main")]
    if shares.empty:
        return []
    lines = []
    final = at_last_step(shares).assign(exposures=lambda t: level(t["group"], "exposures"))
    big = final[(final["model"] == largest(final)) & final["exposures"].notna()].sort_values("exposures")
    if len(big) > 1:
        low, high = records(big.iloc[[0, -1]])
        word = compare_ends(big, ("rises", "falls", "does not change detectably"))
        once = [r for r in records(big) if r["exposures"] == 1]
        also = once and low["exposures"] != 1
        seen_once = f", {percent(once[0]['value'])}{interval(once[0], percent)} of {once[0]['n']:,} seen once" if also else ""
        lines.append(
            f"At step {low['step']:,} the share of sequences that {low['model']} has memorized {word} with exposures: "
            f"{percent(low['value'])}{interval(low, percent)} of {low['n']:,} {seen(low['exposures'])}{seen_once}, "
            f"{percent(high['value'])}{interval(high, percent)} of {high['n']:,} {seen(high['exposures'])} or more."
        )
    lines += size_sentence(summary, by_size(final[final["group"] == "all"]))
    rank = by_size(at_last_step(summary[(summary["metric"] == "spearman_exposures") & (summary["branch"] == "main")]))
    if len(rank):
        values = listing([f"{r['model']} {r['value']:+.2f}{interval(r)}" for r in records(rank)])
        lines.append(f"Rank correlation of reproduced tokens with exposures at the last step, over sequences: {values}.")
    lines += burst_sentence(summary)
    lines += order_sentence(summary)
    return lines


def size_sentence(summary: pd.DataFrame, sizes: pd.DataFrame) -> list[str]:
    """The largest model against the smallest on the same sequences: paired where the table holds it, else by intervals.
    """
    if len(sizes) < 2:
        return []
    words = ("more", "fewer", "not detectably more or fewer")
    paired = summary[(summary["metric"] == "memorized_share_difference") & (summary["model"] == sizes["model"].iloc[-1])]
    if len(paired):
        last = records(at_last_step(paired))[-1]
        word = direction(last["value"], last["low"], last["high"], words)
        told = f", a paired difference of {100 * last['value']:+.1f} points{interval(last, lambda v: f'{100 * v:+.1f}')}"
    else:
        word, told = compare_ends(sizes, words), ""
    values = listing([f"{r['model']} {percent(r['value'])}" for r in records(sizes)])
    return [f"The largest model has memorized {word} of the same sequences than the smallest: {values}{told}."]


def burst_sentence(summary: pd.DataFrame) -> list[str]:
    """What a burst of exposures right before a checkpoint adds in the largest model, by number of copies."""
    gains = summary[summary["metric"] == "burst_gain"]
    if gains.empty:
        return []
    big = gains[gains["model"] == largest(gains)].assign(copies=lambda t: level(t["group"], "burst"))
    parts = []
    for _, part in big.groupby("copies"):
        detected = (part["low"] > 0).any() or (part["high"] < 0).any()
        parts.append(f"{times(part['copies'].iloc[0])} {part['value'].mean():+.1f}{'' if detected else ' (not detected)'}")
    name = big["model"].iloc[0]
    return [f"Tokens of a continuation that {name} gains at the checkpoint right after a burst of exposures: {listing(parts)}."]


def order_sentence(summary: pd.DataFrame) -> list[str]:
    """Whether memorized rows clump along the training order more or less than shuffled rows do, in the largest model.

    The judge is the permutation null, not the Poisson law: memorized rows need not be rare.
    """
    main = summary[summary["branch"] == "main"]
    spread = by_size(at_last_step(main[main["metric"] == "dispersion"].dropna(subset=["value"])))
    null = main[main["metric"] == "dispersion_permuted"]
    if spread.empty or null.empty:
        return []
    last = records(spread)[-1]
    shuffled = records(null[(null["model"] == last["model"]) & (null["step"] == last["step"])])[0]
    outside = (shuffled["high"] - last["value"], shuffled["low"] - last["value"])
    words = ("less than", "more than", "no more and no less than")
    word = words[0] if min(outside) > 0 else words[1] if max(outside) < 0 else words[2]
    return [
        f"Along the training order, memorized rows per block of {last['model']} vary {word} those of shuffled rows: variance over "
        f"mean {last['value']:.2f}, shuffled{interval(shuffled)}; it is 1 for a Poisson process, and below where memorized rows are common."
    ]


def bias(summary: pd.DataFrame) -> list[str]:
    """Metrics `stereotype_share`, `feminine_share` by branch, and `paired_difference` of a branch against its control.
    """
    lines = []
    everything = summary[summary["group"] == "all"]
    shares = everything[(everything["metric"] == "stereotype_share") & (everything["branch"] == "main")]
    words = ("more often than not", "less often than not", "about as often as not")
    told = []
    for row in records(by_size(at_last_step(shares)).dropna(subset=["value"])):
        word = direction(row["value"] - 0.5, row["low"] - 0.5, row["high"] - 0.5, words)
        told.append(f"{row['model']} {word} ({percent(row['value'])} of {plural(row['n'], 'item')}{interval(row, percent)})")
    if told:
        lines.append(f"At the last step the stereotyped pronoun is preferred: {listing(told)}.")
    lines += branch_sentences(everything)
    return lines


def branch_sentences(everything: pd.DataFrame) -> list[str]:
    """One sentence per branch model: which way it moved, by how much, or that nothing was detected."""
    lines = []
    feminine = everything[everything["metric"] == "feminine_share"].set_index(["model", "step"])["value"]
    for row in records(by_size(at_last_step(everything[everything["metric"] == "paired_difference"]))):
        if not row["n"]:
            lines.append(f"The branch {row['model']} cannot be compared: no item has both pronouns hold most of the probability.")
            continue
        words = ("moved towards the feminine pronoun", "moved towards the masculine pronoun", "did not move detectably")
        word = direction(row["value"], row["low"], row["high"], words)
        control = str(row["model"]).removesuffix(f"-{row['branch']}")
        before, after = (feminine.get((m, row["step"]), float("nan")) for m in (control, row["model"]))
        preferred = f"; the feminine pronoun is preferred in {percent(after)} of items, {percent(before)} in the control"
        bounds = interval(row, lambda v: f"{v:+.2f}")
        lines.append(
            f"The branch {row['model']} {word}: {row['value']:+.2f}{bounds} in log-odds of she over he at step "
            f"{row['step']:,}, paired over {plural(row['n'], 'item')}{preferred if pd.notna(after) else ''}."
        )
    return lines
