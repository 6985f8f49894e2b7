"""Token curves, declared: when each token was learned, and what that goes with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.curves import joins
from pythia_tools.analyses.curves.columns import COLUMNS, METRICS, NAME, ROW, TOKEN
from pythia_tools.analyses.curves.measures import AGES, describe
from pythia_tools.analyses.curves.ngrams import LONGEST
from pythia_tools.analyses.curves.sampling import HELDOUT, ORDER, Sample, sample
from pythia_tools.analyses.curves.sentences import sentences
from pythia_tools.analyses.curves.store import CurveStore, open_store
from pythia_tools.analyses.curves.summary import summarize
from pythia_tools.analyses.curves.task import CurveTask
from pythia_tools.analysis import Analysis, Context, Figure, Options, Sentence, Task, option
from pythia_tools.core import tables


@dataclass(frozen=True)
class CurvesOptions(Options):
    """Which curves, and what is made of them."""

    rows: int = option(64, "rows that are measured, drawn at random", minimum=1)
    positions: int = option(16, "positions of each row, drawn at random; 0 for all", minimum=0)
    rows_from: str | None = option(
        None, "rows held out from training, or rows of the order that were consumed; by default the former where there "
        "are some", choices=(HELDOUT, ORDER),
    )
    ages: tuple[str, ...] = option(AGES, "ages of acquisition; a sigmoid takes a millisecond a token", choices=AGES)
    ngrams: int | None = option(
        None, "longest n-gram that is counted in the rows consumed, 0 for none; by default 5 where those are on this "
        "disk and at most 10⁹ tokens", choices=tuple(range(LONGEST + 1)),
    )
    seed: int = option(0, "of the rows and positions drawn", minimum=0)


class Curves(Analysis[CurvesOptions]):
    """Per-token learning curves: ages of acquisition, forgetting, n-grams over training.

    examples:
      pythia-tools curves pythia-micro --out runs/curves
      pythia-tools curves pythia-deduped --models 70m --rows 1000 --positions 10 --ngrams 0 --out runs/curves-70m

    The curves themselves are in the run's folder token_curves: pythia_tools.curves.open_store reads them. A branch's
    curves begin where it left its base, so that what was acquired before shows as an age that is clipped.
    """

    name = NAME
    version = 1
    Options = CurvesOptions
    metrics = METRICS
    columns = COLUMNS
    shown = ("acquired_share", "aoa_crossing", "aoa_frequency", "forgetting", "icl_score", "ngram_kl_least_step")
    methods = (
        "Surprisal (bits) of {positions} positions in each of {rows} rows at every checkpoint. A token counts as "
        "acquired half-way from chance to the best it reaches: on a fitted sigmoid or penalized spline, as Chang and "
        "Bergen (2024) define them, and at the first crossing of the measured curve in log step. Intervals are over "
        "rows."
    )

    def tasks(self, context: Context, options: CurvesOptions) -> list[Task]:
        return [_parts(context, options)[1]]

    def items(
        self, result: Mapping[str, pd.DataFrame], context: Context, options: CurvesOptions
    ) -> pd.DataFrame:
        """A line per checkpoint and row, and, of the whole and not of a shard, one per run and token."""
        drawn, task = _parts(context, options)
        rows = result[task.name]
        rows.insert(len(tables.IDENTITY), "task", ROW)
        folder = task.store_folder(context)
        frames = [rows] if folder is None else [rows, *_tokens(open_store(folder), drawn, task, context, options)]
        whole = pd.concat([f.assign(subset=drawn.subset) for f in frames], ignore_index=True)
        known = [c for c in COLUMNS if c in whole.columns]
        types = {c: COLUMNS[c].dtype for c in known}
        return tables.check_items(whole[[*tables.IDENTITY, *known]].astype(types))  # type: ignore[arg-type]

    def summarize(self, items: pd.DataFrame, context: Context, options: CurvesOptions) -> pd.DataFrame:
        return summarize(items)

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        main = summary[summary["branch"] == "main"]
        has = set(main.loc[main["value"].notna(), "metric"])
        if "acquired_share" in has and main["step"].nunique() > 1:
            yield Figure("acquired", plots.acquired(main),
                         "Share of the tokens acquired by each checkpoint: surprisal half-way from chance to its best.")
        if (main["exposures_low"].notna() & (main["metric"] == "aoa_crossing") & main["value"].notna()).any():
            yield Figure("age_by_exposures", plots.by_exposures(main, "aoa_crossing", label="age (log10 steps)"),
                         "Mean age of acquisition (first crossing, log10 steps) by exposures of the token.")
        if "ngram_kl" in has and main["step"].nunique() > 1:
            yield Figure("ngram_divergence", plots.ngram_divergence(main),
                         "KL divergence from n-gram predictions to the model's over training, in bits.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        return list(sentences(summary))


def _parts(context: Context, options: CurvesOptions) -> tuple[Sample, CurveTask]:
    drawn = sample(context, options.rows, options.positions, options.rows_from, options.seed)
    longest = options.ngrams
    if longest is None:
        longest = LONGEST if joins.countable(context) else 0
    counted = joins.ConsumedNgrams.of(context, drawn.chosen, longest) if longest else None
    return drawn, CurveTask(drawn.chosen, vocabulary=context.vocabulary, counted=counted)


def _tokens(
    store: CurveStore, drawn: Sample, task: CurveTask, context: Context, options: CurvesOptions
) -> Iterator[pd.DataFrame]:
    """A table per run: a line per token, with what stands beside it."""
    chosen = drawn.chosen
    beside = [joins.place_columns(context, chosen)] if drawn.subset == ORDER else []
    if isinstance(task.counted, joins.ConsumedNgrams):
        own = (chosen.numbers < task.counted.stop)[chosen.line] & (drawn.subset == ORDER)
        beside.append(joins.ngram_columns(context, chosen, task.counted, own))
    for run in store.runs:
        told = [describe(store, run.model, ages=options.ages), *beside]
        if task.counted is not None:
            ages = told[0].get("aoa_crossing", pd.Series(np.nan, index=told[0].index))
            told.append(joins.exposure_columns(context, chosen, ages.to_numpy(float), run.steps[-1]))
        who = {column: pd.NA if value is None else value for column, value in run.identity.items()}
        yield pd.concat(told, axis=1).assign(task=TOKEN, **who)  # type: ignore[arg-type]
