"""Term frequency, declared: accuracy per term against its exposures, within each checkpoint."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.term_frequency import counted_tasks as asked
from pythia_tools.analyses.term_frequency import statistics
from pythia_tools.analyses.term_frequency.columns import COLUMNS, METRICS, NAME, summary
from pythia_tools.analyses.term_frequency.counted_tasks import TermFrequencyOptions, counted_tasks, exposures
from pythia_tools.analyses.term_frequency.definitions import compare_definitions, trajectory
from pythia_tools.analyses.term_frequency.emergence import emergence
from pythia_tools.analyses.term_frequency.sentences import sentences
from pythia_tools.analysis import Analysis, Context, Figure, Sentence, Task, compare_with_truth, words
from pythia_tools.core import tables
from pythia_tools.core.errors import unknown


class TermFrequency(Analysis[TermFrequencyOptions]):
    """Accuracy per term against its exposures.

    examples:
      pythia-tools term-frequency pythia-micro --out runs/terms                      # the planted facts and sums
      pythia-tools term-frequency pythia-deduped --models 1b --steps 13000:143000:26000 --task multiplication \\
          --shots 0 4 16 --out runs/mul
      pythia-tools term-frequency pythia-deduped --models 160m --task questions --file trivia.jsonl --shots 4 \\
          --out runs/qa
      pythia-tools term-frequency ./my-suite --order my.yaml --task template --file capitals.csv \\
          --template "The capital of {country} is" --answer " {capital}" --term " {country}" --out runs/capitals

    Exposures are counted in the suite's order (or --order), or read from --exposures, a table of term, step, exposures
    such as `pythia-tools count` writes (a file, or the folder of its run). Everything is computed within a checkpoint,
    over terms.
    """

    name = NAME
    version = 3
    Options = TermFrequencyOptions
    metrics = METRICS
    columns = COLUMNS
    shown = ("accuracy", "spearman", "gap")
    methods = (
        "Exposures are occurrences of the term in the rows consumed before the checkpoint. Operands count by the "
        "Pythia paper's rule in the rows' text; its script of 2023 cleaned up spaces first, which changes some counts "
        "(of 0.4 % of the keys on prose, 6 % on code; --count-as cleaned does the same). Accuracy is averaged over the "
        "questions of a term; correlations and gaps are computed within each checkpoint, over terms, with intervals "
        "over terms, or over relations where facts are of several (none for correlations and gaps where they are fewer "
        "than six). Checkpoints are never pooled, because exposures and skill both grow with training."
    )

    def tasks(self, context: Context, options: TermFrequencyOptions) -> list[Task]:
        found = counted_tasks(context, options)
        known = {t for a in found for t in a.patterns} or {e.item.term for a in found for e in a.task.items}
        strange = [t for t in options.trajectory if t not in known]
        if strange:
            raise unknown("term", strange[0], sorted(known))
        return [a.task for a in found]

    def items(
        self, result: Mapping[str, pd.DataFrame], context: Context, options: TermFrequencyOptions
    ) -> pd.DataFrame:
        answers, seen = super().items(result, context, options), exposures(context, options)
        return answers.merge(seen, on=["term", "step"], how="left", validate="many_to_one")

    def summarize(self, items: pd.DataFrame, context: Context, options: TermFrequencyOptions) -> pd.DataFrame:
        found, seen = counted_tasks(context, options), exposures(context, options)
        base = options.bin_base or (2 if asked.planted_pairs(context, options) else 10)
        bins = statistics.power_bins(seen["exposures"], base)
        return tables.concat([
            statistics.summarize(items, seen, controls=_controls(found, context), bins=bins.tolist()),
            compare_definitions(items, seen, last=options.last), emergence(items, seen),
            *(trajectory(items, seen, term) for term in options.trajectory), _against_truth(context, options, seen),
        ])

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        terms = statistics.by_term(items)
        for task in dict.fromkeys(terms["task"]):
            own = summary[summary["task"] == task]
            what, over = f"accuracy on {task}", words.over(own[own["metric"] == "accuracy"])
            if own["exposures_low"].notna().any():
                yield Figure(
                    f"accuracy_by_exposures_{task}", plots.by_exposures(own, "accuracy", label=what),
                    f"{what.capitalize()} against exposures of their term, at each model's last step; {over}."
                )
                yield Figure(f"accuracy_over_training_{task}", plots.panels_over_training(own, "accuracy", label=what),
                             f"{what.capitalize()} over training, by exposures so far at each checkpoint; {over}.")
            yield from paper_figures(terms[terms["task"] == task], own, task)
            for term in own.loc[own["metric"] == "term_exposures", "subset"].unique():
                path = own[(own["subset"] == term) & own["metric"].isin(("term_exposures", "term_accuracy"))]
                safe = "".join(c if c.isalnum() else "_" for c in term)
                yield Figure(f"trajectory_{task}_{safe}", plots.term_trajectory(path),
                             f"Accuracy on {term!r} over training, and its exposures so far.")
        yield Figure(
            "correlation_over_training", plots.correlation_over_training(summary, "spearman"),
            "Rank correlation of accuracy with exposures within each checkpoint; "
            f"{words.over(summary[summary['metric'] == 'spearman'])}."
        )
        yield Figure(
            "accuracy_over_training", plots.accuracy_over_training(terms), "Mean accuracy over terms, by task and size."
        )

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        return sentences(summary)


def paper_figures(terms: pd.DataFrame, summary: pd.DataFrame, task: str) -> Iterator[Figure]:
    """The paper's panels of accuracy against exposures, and the gap over training."""
    edges = statistics.PAPER_EDGES if terms["exposures"].max() > 1e6 else [0.5 * 2**k for k in range(24)]
    bins = statistics.binned_accuracy(terms, edges=edges)
    if len(bins):
        yield Figure(
            f"accuracy_by_frequency_{task}", plots.accuracy_by_frequency(bins),
            f"Mean accuracy on {task} by exposures of the term up to the step; a line per checkpoint, darker is later."
        )
    yield Figure(f"gap_over_training_{task}", plots.gap_over_training(summary),
                 f"Accuracy on {task}: most seen terms minus least seen ones; "
                 f"{words.over(summary[summary['metric'] == 'gap'])}.")


def _controls(found: Sequence[asked.CountedTask], context: Context) -> dict[str, Mapping[str, float]]:
    """Token length and magnitude, when every term is a number."""
    if not all(a.numeric for a in found):
        return {}
    return statistics.number_controls(list(dict.fromkeys(t for a in found for t in a.patterns)), context.tokenizer)


def _against_truth(context: Context, options: TermFrequencyOptions, seen: pd.DataFrame) -> pd.DataFrame:
    """Facts by entity and sums by pair: counted beside planted, where they were asked about."""
    pairs = asked.planted_pairs(context, options)
    if not pairs or context.truth is None:
        return summary([])
    counted = seen[seen["step"] == context.steps[-1]].set_index("term")["exposures"]
    planted = {"facts": list(context.truth.facts["term"]), "sums": pairs}
    return summary(row for name, terms in planted.items() for row in compare_with_truth(context, name, counted[terms]))
