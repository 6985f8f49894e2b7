"""Evaluations, declared: tasks of lm-evaluation-harness over sizes and steps."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.evaluate import harness, harness_json, scores
from pythia_tools.analyses.evaluate.columns import METRICS, NAME, REQUEST
from pythia_tools.analyses.evaluate.requests import tasks_of
from pythia_tools.analysis import Analysis, Context, Export, Figure, Options, Sentence, Task, joined, option
from pythia_tools.analysis import words as say
from pythia_tools.core.tables import at_last_step


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Which tasks of lm-eval are asked, and how."""

    tasks: tuple[str, ...] = option((), "lm-eval's tasks, groups or tags, or paths of YAML files", metavar="TASK")
    num_fewshot: int | None = option(None, "examples in the prompt (default: the task's own)", minimum=0)
    include_path: str | None = option(None, "a folder of own definitions, which win over lm-eval's", metavar="DIR")
    limit: int | None = option(None, "only the first N documents of each task", minimum=1)
    lm_eval_json: bool = option(False, "also write lm-eval's own results file of every checkpoint, below lm-eval/")
    lm_eval_samples: bool = option(False, "also write its samples_TASK.jsonl")

    @property
    def wanted(self) -> harness.Wanted:
        return harness.Wanted(self.tasks, self.num_fewshot, self.include_path, self.limit)


_asked: weakref.WeakKeyDictionary[Context, dict[harness.Wanted, harness.Asked]] = weakref.WeakKeyDictionary()
"""The tasks that were built for a context, which need them before the sweep and after it."""


def asked_for(context: Context, options: EvaluateOptions) -> harness.Asked:
    """The harness' tasks that the options name, built once for a context. Raises what `harness.ask` raises."""
    built = _asked.setdefault(context, {})
    if options.wanted not in built:
        built[options.wanted] = harness.ask(options.wanted)
    return built[options.wanted]


class Evaluate(Analysis[EvaluateOptions]):
    """Benchmark tasks over training.

    examples:
      pythia-tools evaluate pythia-deduped --models 70m 160m --steps log --tasks lambada_openai piqa --out runs/zero
      pythia-tools evaluate pythia --steps last --tasks arc_easy --num-fewshot 5 --out runs/five
      pythia-tools evaluate pythia-micro --tasks mine --include-path tasks --out runs/mine

    Tasks, prompts and metrics are lm-eval's own (pip install 'pythia-tools[lm-eval]'); they are built and tokenized
    once for all checkpoints. Answers are kept per document and choice, so metrics are derived and never run again.
    """

    name = NAME
    version = 1
    Options = EvaluateOptions
    metrics = METRICS
    columns = REQUEST
    shown = ("acc", "acc_norm", "exact_match", "perplexity", "word_perplexity", "pct_stereotype", "bits_per_byte")
    methods = (
        "Tasks {tasks} of lm-evaluation-harness, with its prompts, its few-shot examples (seed 1234) and its metrics; "
        "log-likelihoods are sums in float64 of float32 log-softmax values over the whole vocabulary. Intervals are "
        "over documents, or over what documents share where a task says so. Self-consistency is Cohen's kappa of a "
        "checkpoint's predictions with those of its run's last step."
    )

    def tasks(self, context: Context, options: EvaluateOptions) -> list[Task]:
        asked = asked_for(context, options)
        return tasks_of(asked.tasks, context.tokenizer)

    def items(
        self, result: Mapping[str, pd.DataFrame], context: Context, options: EvaluateOptions
    ) -> pd.DataFrame:
        found = joined(result)
        return found.astype({name: column.dtype for name, column in REQUEST.items()}) if len(found) else found

    def summarize(self, items: pd.DataFrame, context: Context, options: EvaluateOptions) -> pd.DataFrame:
        return scores.summarize(items, asked_for(context, options))

    def exports(self, items: pd.DataFrame, context: Context, options: EvaluateOptions) -> Iterator[Export]:
        asked = asked_for(context, options)
        yield Export(Path("tasks.json"), {name: task.receipt for name, task in asked.tasks.items()})
        if options.lm_eval_json or options.lm_eval_samples:
            yield from harness_json.exports(items, context, asked, samples=options.lm_eval_samples)

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        for metric in ("acc", "acc_norm", "exact_match", "perplexity", "word_perplexity", "self_consistency"):
            rows = summary[(summary["metric"] == metric) & summary["value"].notna() & (summary["branch"] == "main")]
            if len(rows):
                drawn = plots.tasks_over_training(rows, metric)
                yield Figure(metric, drawn, f"{METRICS[metric].meaning.capitalize()}; {say.over(rows)}.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        """One for each task: where its first metric ends in every model."""
        known = summary[summary["metric"].isin(self.shown) & summary["value"].notna() & summary["reference"].isna()]
        return [_ends(rows) for _, rows in known.groupby(["task", "subset", "branch"], sort=False, dropna=False)]


def _ends(rows: pd.DataFrame) -> Sentence:
    first = rows[rows["metric"] == rows["metric"].iloc[0]]
    last = say.by_size(at_last_step(first))
    told = [f"{r['model']} {say.number(r['value'], '.3f' if r['value'] < 100 else ',.0f')}" for r in say.records(last)]
    (some, *_) = say.records(last)
    subset = "" if some["subset"] == "all" else f" ({some['subset']})"
    return Sentence.of(f"{some['task']}{subset}: {some['metric']} at the last step is {say.listing(told)}.", last)
