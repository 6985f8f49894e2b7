"""Bias, declared: measures on live models over training, and branches against their controls."""

from collections.abc import Iterator, Mapping

import pandas as pd

from pythia_tools import counts, plots
from pythia_tools.analyses.bias import asked
from pythia_tools.analyses.bias.asked import BiasOptions
from pythia_tools.analyses.bias.association import associate
from pythia_tools.analyses.bias.columns import COLUMNS, METRICS, NAME, PRONOUNS, summary
from pythia_tools.analyses.bias.sentences import sentences
from pythia_tools.analyses.bias.summaries import summarize
from pythia_tools.analysis import Analysis, Context, Figure, Sentence, Task, compare_with_truth, joined, words
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.micro.words import PRONOUNS as FORMS
from pythia_tools.order import Rows
from pythia_tools.overlays import Overlay, PronounSwap

OVER_TRAINING = {
    "log_odds": (
        "pronoun_preference", "log-odds of she over he", 0.0,
        "Log-odds of the feminine pronoun over training, by size; dashed: the branch trained on swapped pronouns.",
    ),
    "stereotype_share": (
        "stereotype", "share preferring the stereotyped pronoun", 0.5,
        "Share of items whose stereotyped pronoun is preferred; one half is no preference.",
    ),
    "pct_stereotype": (
        "pct_stereotype_over_training", "CrowS-Pairs: share preferring the stereotyped sentence", 0.5,
        "Share of pairs whose stereotyped sentence is likelier; one half is no preference.",
    ),
    "winobias_stereotype_accuracy": (
        "winobias_stereotype_accuracy_over_training", "WinoBias: share choosing the stereotyped pronoun", 0.5,
        "Share of sentences whose stereotyped pronoun is likelier; one half is no preference.",
    ),
    "winobias_gap": (
        "winobias_gap_over_training", "WinoBias: accuracy, pro − anti", 0.0,
        "Accuracy on pro-stereotypical sentences minus that on their twins; zero is no bias.",
    ),
}
"""Metric → file name and label of its figure over training, where it says no bias, and the caption."""


class Bias(Analysis[BiasOptions]):
    """Gender bias over training, interventions against their control.

    examples:
      pythia-tools bias pythia-micro --models m m-swap --out runs/bias
      pythia-tools bias pythia-deduped --models 70m 160m --steps log --measures crows_pairs winobias --out runs/crows
      pythia-tools bias pythia-interventions --steps last --measures crows_pairs \\
          --data crows_pairs=crows_pairs_anonymized.csv --out runs/swap

    Pronouns are asked for after templates that no training row holds: the suite's own where it has a truth manifest.
    Branches and their controls are paired by item at each step that both have; --measures heldout_loss adds what an
    intervention costs elsewhere. --association needs the suite's order (or --order). Sets are downloaded by manifest,
    or read from --data.
    """

    name = NAME
    version = 3
    Options = BiasOptions
    metrics = METRICS
    columns = COLUMNS
    shown = (*OVER_TRAINING, "passing_share", "paired_difference", "outcome_paired_difference")
    methods = (
        "Templates are none of those that training sentences were made from. A pronoun item counts where "
        "P(he) + P(she) > 0.5; log-odds are log P(she) − log P(he). Branch and control are paired by item. Intervals, "
        "tests and minimal effects resample what is independent, not items: occupations for templates, WinoBias and "
        "Winogender, sentence pairs for CrowS-Pairs, targets for StereoSet, question templates for BBQ; p-values are "
        "sign-flip tests corrected over all comparisons ({correction})."
    )

    def tasks(self, context: Context, options: BiasOptions) -> list[Task]:
        return asked.tasks(context, options)

    def items(self, result: Mapping[str, pd.DataFrame], context: Context, options: BiasOptions) -> pd.DataFrame:
        found = joined(result)
        if not (options.association and len(found)):
            return found
        orders = _orders(context)
        known = found[found["branch"].isin(list(orders))]
        told = associate(known, orders, tokenizer=context.tokenizer, window=options.window)
        return joined({"items": found, "association": told})

    def summarize(self, items: pd.DataFrame, context: Context, options: BiasOptions) -> pd.DataFrame:
        pairs = {c.model.name: c.model.base for c in context.checkpoints if c.model.base and c.model.branch != "main"}
        return tables.concat([
            summarize(items, pairs=pairs or None, correction=options.correction), _against_truth(items, context),
        ])

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        known = summary[summary["value"].notna()]
        has = {str(metric): words.over(rows) for metric, rows in known.groupby("metric")}
        pronouns = known[(known["task"] == PRONOUNS) & (known["metric"] == "paired_difference")]
        if len(pronouns):
            yield Figure("paired_difference", plots.paired_differences(summary),
                         f"Branch minus control, paired by item: log-odds of she over he; {words.over(pronouns)}.")
        for metric, (name, label, none, caption) in OVER_TRAINING.items():
            if metric in has:
                drawn = plots.branches_over_training(summary, metric, label=label)
                yield Figure(name, drawn, f"{caption[:-1]}; {has[metric]}.")
            if metric in has and (summary["branch"] != "main").any():
                yield Figure(
                    f"{metric}_interventions", plots.interventions(summary, metric, label=label, reference=none),
                    f"{METRICS[metric].meaning.capitalize()}: control and branches; {has[metric]}.",
                )
        for metric in ("pct_stereotype", "winogender_acc", "stereoset_ss", "bbq_acc"):
            if metric in has:
                yield Figure(f"{metric}_by_subset", plots.by_subset(summary, metric, reference=0.5),
                             f"{METRICS[metric].meaning.capitalize()}; at each model's last step; {has[metric]}.")
        if "agreement" in has:
            yield Figure("agreement", plots.agreement(summary),
                         f"How alike the measures order the checkpoints: rank correlations; {has['agreement']}.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        return sentences(summary)


def _orders(context: Context) -> dict[str, Rows]:
    """Branch → its rows. One called `swap` was trained on the order with feminine pronouns from its branch step on."""
    if not context.names_order:
        raise RequestError(f"{context.name} names no data order, so --association has nothing to count; give --order")
    orders: dict[str, Rows] = {"main": context.order}
    for model in (c.model for c in context.checkpoints):
        if model.branch == "swap" and model.branch_step is not None:
            steps = range(model.branch_step, context.order.steps)
            orders.setdefault("swap", Overlay(context.order, PronounSwap(context.tokenizer), steps=steps))
    return orders


def _against_truth(items: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Planted sentences with each occupation, counted as text (an occupation alone also occurs in real prose), beside
    those that the truth manifest lists; where its occupations were asked about.
    """
    if context.truth is None or "occupation" not in items.columns:
        return summary([])
    planted = context.truth.pronouns["occupation"]
    if not set(planted) <= set(items["occupation"]):
        return summary([])
    sentences = [
        template.replace("{occupation}", occupation).format(**forms)
        for occupation in planted
        for template in context.truth.templates["training"]
        for forms in FORMS.values()
    ]
    patterns = [counts.Text(text, label=str(i)) for i, text in enumerate(sentences)]
    seen = context.exposures(patterns, [context.steps[-1]])["exposures"].to_numpy()
    totals = seen.reshape(len(planted), -1).sum(axis=1)
    return summary(compare_with_truth(context, "pronouns", totals))
