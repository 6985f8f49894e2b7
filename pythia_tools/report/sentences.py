"""Sentences computed from summary tables: every number, direction and claim is read off the table.

Nothing is written in advance but the grammar: a table reversed in value gives the reversed sentence, and a
difference within its interval is called undetected, never a trend.
"""

from __future__ import annotations

import pandas as pd

from pythia_tools.analysis.words import (
    at_last_step,
    by_size,
    direction,
    interval,
    listing,
    percent,
    plural,
    records,
)


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
