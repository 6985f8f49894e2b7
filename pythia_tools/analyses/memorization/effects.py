"""What consuming a row did to its loss, declared: causal profiles, what is left over time, membership inference.

Rows are drawn from each interval between checkpoints, and rows never consumed are their controls; both pass one filter,
text that occurs hardly anywhere else: rows of often repeated text are learned without being consumed. Cost: a scan of
the rows consumed when the first model runs, and a pass over the rows followed per checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools import plots
from pythia_tools.analyses.memorization import declared, sentences
from pythia_tools.analyses.memorization.membership import signals, summarize_membership, zlib_bytes
from pythia_tools.analyses.memorization.overlap import CHUNK, Overlap
from pythia_tools.analyses.memorization.profiles import NEVER, cohort_of, forgetting_curve, summarize_profiles
from pythia_tools.analyses.memorization.row_scores import PART_ROWS, RowScoreTask
from pythia_tools.analyses.memorization.rows import rows_by
from pythia_tools.analyses.memorization.summary import with_exposures
from pythia_tools.analysis import Analysis, Context, Figure, Key, Options, Sentence, Task, option
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.order import Rows
from pythia_tools.suites import Checkpoint

NGRAM = 13
FEWEST_CONTROLS = 10
"""Controls without which nothing is compared with them."""


@dataclass(frozen=True)
class EffectOptions(Options):
    """Which rows are followed."""

    per_cohort: int = option(50, "rows followed from each interval between checkpoints", minimum=1)
    controls: int = option(500, "rows never consumed, at most", minimum=0)
    max_share: float = option(0.2, f"share of a row's {NGRAM}-grams that other consumed rows may hold")
    length: int | None = option(None, "ids of a row whose loss is averaged (default: the whole row)", minimum=2)
    reference: str | None = option(
        None, "membership also against this model's last step (default: the smallest)", metavar="MODEL")
    seed: int = option(0, "of the draw")


class MemorizationEffects(Analysis[EffectOptions]):
    """What consuming a row did to its loss: causal profiles, forgetting, membership inference.

    examples:
      pythia-tools memorization-effects pythia-micro --out runs/effects
      pythia-tools memorization-effects pythia --models 70m 410m --steps 23000:143000:20000 --out runs/effects

    Compares the steps given, at least two. Rows consumed in the first half of them are the members, rows never consumed
    the non-members, of membership inference by loss, zlib, min-k %, min-k++ % and against a reference model of the
    suite.
    """

    name = declared.EFFECTS
    version = 2
    Options = EffectOptions
    metrics = declared.EFFECT_METRICS
    columns = declared.EFFECT_COLUMNS
    shown = ("mean_instantaneous", "mean_residual", "mean_before", "auc")
    methods = (
        "Up to {per_cohort} rows of each interval between checkpoints and up to {controls} rows never consumed, all "
        "with at most {max_share:.0%} of their 13-grams in other consumed rows. Effects are differences in "
        "differences of the loss against the rows never consumed, from the checkpoint before a row was consumed; "
        "intervals resample rows, of which no two begin in one document, with all their checkpoints."
    )

    def tasks(self, context: Context, options: EffectOptions) -> list[Task]:
        return [EffectsTask(context, options)]

    def items(self, result: Mapping[str, pd.DataFrame], context: Context, options: EffectOptions) -> pd.DataFrame:
        table = result[declared.EFFECTS]
        if table.empty:
            return table
        order = context.order
        cohort = pd.array(cohort_of(order.step_of(table["row"]), _main_steps(context)), dtype="Int64")
        cohort[cohort == NEVER] = pd.NA
        rows = np.unique(table["row"].to_numpy(np.int64))
        held = order.take(rows)[:, : int(table["positions"].iloc[0]) + 1]
        try:
            sizes = zlib_bytes(held, context.tokenizer.decode)
        except RequestError as error:
            progress.note(f"compressed sizes are of ids, not of text: {error}")
            sizes = zlib_bytes(held)
        return tables.check_items(table.assign(cohort=cohort, zlib_bytes=sizes[np.searchsorted(rows, table["row"])]))

    def summarize(self, items: pd.DataFrame, context: Context, options: EffectOptions) -> pd.DataFrame:
        """All of it needs every checkpoint, so a shard has no numbers."""
        if context.execution.shard is not None or items["cohort"].isna().all():
            return declared.effects([])
        rows = items.drop_duplicates("row")
        controls, numbers = rows["cohort"].isna().to_numpy(), rows["row"].to_numpy(np.int64)
        batches = np.where(controls, NEVER, context.order.step_of(numbers))
        consumed: list[list[int]] = [[int(b)] if b >= 0 else [] for b in batches]
        aligned = with_exposures(items, consumed, row_ids=numbers)
        if controls.sum() < FEWEST_CONTROLS:
            progress.note(
                f"only {controls.sum()} rows followed were never consumed; without {FEWEST_CONTROLS} of them there are "
                "no causal profiles and no membership test"
            )
            return forgetting_curve(aligned, "nll")
        return tables.concat([
            forgetting_curve(_advantage(aligned), "advantage", controls=numbers[controls]),
            summarize_profiles(items, batches, controls=controls, row_ids=numbers),
            _membership(items, numbers, batches, options),
        ])

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        placebo = "Mean effect by steps since the rows were consumed; left of 0 placebo effects."
        return declared.figures(summary, {
            "profile": (plots.memorization_profile, "Effect of consuming a row on its loss, by cohort and checkpoint."),
            "persistence": (plots.memorization_persistence, placebo),
            "forgetting": (plots.forgetting, "What is left of an exposure, by steps since it."),
            "membership": (plots.membership, "Membership inference over training, by signal; 0.5 is chance."),
        })

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        return list(sentences.effects(summary))


class EffectsTask(Task):
    """Losses of the rows followed at every checkpoint of the main runs; rows are drawn when the first model runs."""

    name = declared.EFFECTS

    def __init__(self, context: Context, options: EffectOptions):
        main = [c for c in context.checkpoints if c.model.branch == "main"]
        names = list(dict.fromkeys(c.model.name for c in main))
        if options.reference is not None and options.reference not in names:
            has = ", ".join(names)
            raise RequestError(f"the reference {options.reference!r} is not one of the main models compared: {has}")
        self.steps, self.order, self.options = _main_steps(context), context.order, options
        if len(self.steps) < 2:
            raise RequestError(f"effects compare steps; {len(self.steps)} was given, choose at least two with --steps")
        last = rows_by(self.order, self.steps[-1])
        self.vocabulary: int | None = None
        with suppress(RequestError):
            self.vocabulary = context.vocabulary
        most = (len(self.steps) - 1) * options.per_cohort + min(options.controls, self.order.n_rows - last)
        self.parts = -(-most // PART_ROWS)
        self.ids = most * (options.length or self.order.row_tokens)
        draw = {k: v for k, v in asdict(options).items() if k != "reference"}
        self.digest = files.digest([self.order.fingerprint, self.steps, draw, self.vocabulary])

    def key(self, checkpoint: Checkpoint) -> Key | None:
        return "" if checkpoint.model.branch == "main" else None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        if self._scores is None or part >= self._scores.parts:
            return pd.DataFrame({"row": np.zeros(0, np.int64)})
        return self._scores.run(context, model, part)

    @cached_property
    def _scores(self) -> RowScoreTask | None:
        rows = followed(self.order, self.steps, self.options)
        if not len(rows):
            return None
        return RowScoreTask(self.order.take(rows), row_ids=rows, length=self.options.length, vocabulary=self.vocabulary)


def _main_steps(context: Context) -> list[int]:
    return sorted({c.step for c in context.checkpoints if c.model.branch == "main"})


def followed(order: Rows, steps: Sequence[int], options: EffectOptions) -> np.ndarray:
    """Rows of each cohort, then rows never consumed, all with hardly any text that other consumed rows hold, and no two
    of one document.
    """
    rng = np.random.default_rng(options.seed)
    size, last = order.batch_rows, steps[-1] * order.batch_rows
    spans = [(a * size, b * size) for a, b in pairwise(steps)]
    drawn = [a + rng.permutation(b - a)[: 4 * options.per_cohort] for a, b in spans]
    drawn.append(last + rng.permutation(order.n_rows - last)[: 4 * options.controls])
    rows = np.concatenate(drawn).astype(np.int64)
    apart = order.apart(rows)
    cohort = np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])[apart]
    rows = rows[apart]
    overlap = Overlap(order.take(rows), min(NGRAM, order.row_tokens))
    for _, chunk in order.chunks(0, last, CHUNK):
        overlap.scan(chunk)
    share = np.where(cohort < len(spans), overlap.share_elsewhere(), overlap.share())
    clean = share <= options.max_share
    most = [options.per_cohort] * len(spans) + [options.controls]
    picked = [np.sort(rows[(cohort == c) & clean][:limit]) for c, limit in enumerate(most)]
    progress.note(
        f"{int(clean.sum())} of {len(rows)} rows drawn share at most {options.max_share:.0%} of their {NGRAM}-grams "
        f"with other consumed rows; of these {sum(map(len, picked[:-1]))} are followed, and {len(picked[-1])} that "
        "were never consumed are their controls"
    )
    short = [c for c, limit in enumerate(most) if len(picked[c]) < min(limit, len(drawn[c])) / 2]
    if short:
        progress.warn(
            f"few rows pass the filter: {len(short)} of {len(most)} groups have less than half of the rows asked for, "
            f"the smallest {min(map(len, picked))}; those that pass may be unlike the rest (see --max-share)"
        )
    return np.concatenate(picked)


def _advantage(items: pd.DataFrame) -> pd.DataFrame:
    """With a column `advantage`: by how much a row's loss lies below the controls' mean at the same checkpoint.

    A loss falls over training for all rows alike; this is what is left of having consumed the row.
    """
    usual = items[items["cohort"].isna()].groupby(["model", "step"])["nll"].mean()
    place = pd.MultiIndex.from_frame(items[["model", "step"]])
    return items.assign(advantage=usual.loc[place].to_numpy() - items["nll"].to_numpy())


def _membership(items: pd.DataFrame, rows: np.ndarray, batches: np.ndarray, options: EffectOptions) -> pd.DataFrame:
    """Members are rows consumed in the first half of the steps; compared from then on, against rows never consumed."""
    steps = sorted(items["step"].unique())
    first = int(steps[len(steps) // 2])
    members, never = rows[(batches >= 0) & (batches < first)], rows[batches < 0]
    if len(members) < FEWEST_CONTROLS:
        progress.warn(
            f"only {len(members)} rows followed were consumed before step {first}; without {FEWEST_CONTROLS} of them "
            "there is no membership test")
        return declared.effects([])
    late = items[(items["step"] >= first) & items["row"].isin([*members, *never])]
    progress.note(f"membership: {len(members)} rows consumed before step {first} against {len(never)} never consumed")
    sized = items.drop_duplicates("model").sort_values("params", kind="stable")["model"]
    name = options.reference or str(sized.iloc[0])
    reference = tables.at_last_step(items[items["model"] == name]) if len(sized) > 1 else None
    table = signals(late.assign(member=late["row"].isin(members)), reference=reference)
    if reference is not None:
        at = int(reference["step"].iloc[0])
        progress.note(f"membership against a reference: {name} at step {at}, which consumed the same rows")
        table.loc[table["model"] == name, "reference"] = np.nan  # a model says nothing against itself, or a later self
    return summarize_membership(table, reference=name)
