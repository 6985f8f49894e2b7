"""Memorization, declared: rows judged at every checkpoint, then shares, exposures, order, sizes, prediction, kinds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools import counts, plots
from pythia_tools.analyses.memorization import declared, kinds, public_format, rows, sentences
from pythia_tools.analyses.memorization import summary as shares
from pythia_tools.analyses.memorization.extract import Window
from pythia_tools.analyses.memorization.measure import MemorizationTask, RowsOf
from pythia_tools.analyses.memorization.order_effect import BLOCK, FEWEST, block_counts, qq_points, summarize_order
from pythia_tools.analyses.memorization.overlap import texts, window_exposures
from pythia_tools.analyses.memorization.predictability import predictability, scaling
from pythia_tools.analysis import Analysis, Context, Export, Figure, Options, Sentence, Task, compare_with_truth, option
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.order import Rows

ORDER_ROWS = 4096
SPACED_BLOCK = 128
"""Rows per block of the order test on evenly spaced rows, which are fewer than those of a range."""
ROWS_TASK, ORDER_TASK = declared.NAME, f"{declared.NAME}/order"


@dataclass(frozen=True)
class MemorizationOptions(Options):
    """What is asked of which rows."""

    rows: str | None = option(
        None, "which rows: 0:512; any of steps=0:10, sample=1000, cohorts=0:1000:100 joined by commas; canaries; a "
        ".npy file (default: canaries where the suite has some, else sample=1000, or all where fewer were consumed)")
    context: int = option(32, "ids shown", minimum=1, metavar="K")
    continuation: int = option(32, "ids that must follow", minimum=1, metavar="L")
    offset: int = option(0, "where in the row the context begins", minimum=0)
    vocabulary: int | None = option(
        None, "only ids below N compete (default: the tokenizer's for canaries, else all of the model's)", minimum=2)
    score: bool = option(False, "the original memorization score too (decodes past the first miss; slow)")
    screen: str | None = option(
        None, "reject most rows in this format; all others are judged exactly, and rejections audited",
        choices=("bfloat16", "float16"))
    keep_from: int | None = option(
        None, "keep match masks from this position on (see extractable)", minimum=1, metavar="K")
    block: int | None = option(
        None, f"rows per block of the order test (default {BLOCK}; {SPACED_BLOCK} for evenly spaced rows)", minimum=1)
    order_rows: int | None = option(
        None, "evenly spaced rows of the order, judged at each main run's last step to test whether order matters "
        f"(default {ORDER_ROWS}; none where the order is remote, or the rows are consecutive or a file)", minimum=0)
    kinds: bool = option(False, "tell kinds of memorized rows apart, and what may explain them (scans rows consumed)")
    exchange: str | None = option(
        None, "also write memorized rows in the public dataset's format, as splits CORPUS.MODEL.STEP",
        choices=("duped", "deduped"), metavar="CORPUS")
    seed: int = option(0, "of samples")


class Memorization(Analysis[MemorizationOptions]):
    """Extractable and memorized rows over models × steps: shares, exposures, order, predictability, scaling.

    examples:
      pythia-tools memorization pythia-micro --rows canaries --out runs/canaries
      pythia-tools memorization pythia-deduped --models 70m 160m --steps log --rows sample=5000 --out runs/m1
      pythia-tools memorization pythia-deduped --models 12b --steps last --rows 0:131072 --screen bfloat16 --out runs/m2
      pythia-tools memorization FOLDER --rows my_rows.npy --context 16 --continuation 16 --score --out runs/own
      pythia-tools memorization pythia --models 70m 410m --rows 0:1048576 --screen bfloat16 --kinds --out runs/kinds

    Consecutive rows also get the test whether order matters, at every checkpoint; for other rows, evenly spaced ones
    (--order-rows) get it at each main run's last step. Branches that consumed their base's rows are compared with it.
    """

    name = declared.NAME
    version = 5
    Options = MemorizationOptions
    metrics = declared.METRICS
    columns = declared.COLUMNS
    shown = ("memorized_share", "mean_matched", "spearman_exposures", "memorized_share_difference", "dispersion")
    methods = (
        "A sequence is memorized when greedy decoding from its first {context} tokens gives exactly the next "
        "{continuation}. Exposures are occurrences of the whole planted text, or of a row's window, anywhere in the "
        "rows consumed before the checkpoint. Intervals are over distinct texts: rows of one document, or with one "
        "window, are resampled together. The order test counts memorized rows in blocks along the training order and "
        "compares their variance with that of shuffled rows."
    )

    def tasks(self, context: Context, options: MemorizationOptions) -> list[Task]:
        chosen = rows.select(context, options.rows, options.seed)
        window = _window(context, options, chosen)
        stop = window.offset + window.length
        asked = (
            RowsOf(context.order, chosen.rows, stop) if chosen.source == "order"
            else rows.tokens_of(context, chosen, options.rows, stop)
        )
        if options.kinds:
            kinds.last_checkpoint(context, {})
        found: list[Task] = [
            MemorizationTask(asked, window, score=options.score, screen=options.screen, row_ids=chosen.rows)
        ]
        spaced = self._spaced(context, options, chosen)
        if len(spaced):
            held, plain = RowsOf(context.order, spaced, stop), replace(window, keep_from=None)
            found.append(MemorizationTask(held, plain, name=ORDER_TASK, last=context.last_steps))
        return found

    def _spaced(self, context: Context, options: MemorizationOptions, chosen: rows.Selection) -> np.ndarray:
        """Evenly spaced rows over all that was consumed."""
        wanted = options.order_rows
        if wanted is None:
            there = chosen.source != "file" and not chosen.consecutive and context.names_order
            wanted = ORDER_ROWS if there and not context.order.remote else 0
        consumed = context.consumed_rows if wanted else 0
        return np.linspace(0, consumed - 1, min(wanted, consumed)).astype(np.int64)

    def items(self, result: Mapping[str, pd.DataFrame], context: Context, options: MemorizationOptions) -> pd.DataFrame:
        chosen = rows.select(context, options.rows, options.seed)
        table, spaced = result[ROWS_TASK], result.get(ORDER_TASK)
        if len(table):
            canaries = chosen.source == rows.CANARIES
            table = table.assign(task=rows.CANARIES if canaries else "rows")
            if chosen.cohorts is not None:
                table["cohort"] = table["row"].map(pd.Series(chosen.cohorts, index=chosen.rows)).astype("Int64")
            windows = _windows(context, options, chosen)
            if canaries:
                table = self._canary_exposures(table, context)
            else:
                known = context.order.documents(chosen.rows) if chosen.source == "order" else -1
                shared = texts(chosen.rows, windows, np.broadcast_to(known, len(windows)))
                table["text"] = shared.loc[table["row"]].to_numpy()
            if chosen.source == "order":
                table["consumed"] = context.order.step_of(table["row"]) < table["step"]
                table = self._row_exposures(table, context.order, chosen.rows, windows)
            if options.kinds:
                window = _window(context, options, chosen)
                table = kinds.with_kinds(table, windows, chosen.rows, context, window)
        if spaced is not None and len(spaced):
            table = pd.concat([t for t in (table, spaced.assign(task="order")) if len(t)], ignore_index=True)
        return tables.check_items(table.astype({"exposures": "Int64"} if "exposures" in table.columns else {}))

    def _row_exposures(
        self, table: pd.DataFrame, order: Rows, numbers: np.ndarray, windows: np.ndarray
    ) -> pd.DataFrame:
        """With `exposures`: occurrences of the row's window in the order, whichever rows hold it."""
        if order.remote:
            progress.note("exposures are not counted in a remote order; `consumed` says which rows had had their turn")
            return table
        counted = window_exposures(order, windows, table["step"])
        at = np.searchsorted(numbers, table["row"]), counted.columns.get_indexer(pd.Index(table["step"]))
        return table.assign(exposures=counted.to_numpy()[at])

    def _canary_exposures(self, table: pd.DataFrame, context: Context) -> pd.DataFrame:
        """With `exposures`: occurrences of the whole planted window in the order, counted there."""
        planted = context.need_truth("planted canaries").canaries
        patterns = [counts.Ngram(tuple(t)) for t in planted["tokens"]]
        counted = context.exposures(patterns, table["step"].unique())
        counted["row"] = planted["canary"].to_numpy()[counted["item"]]
        seen = counted[["row", "step", "exposures"]].astype("int64")
        return table.astype({"step": "int64"}).merge(seen, on=["row", "step"], how="left", validate="many_to_one")

    def summarize(self, items: pd.DataFrame, context: Context, options: MemorizationOptions) -> pd.DataFrame:
        chosen = rows.select(context, options.rows, options.seed)
        unit = "canary" if chosen.source == rows.CANARIES else shares.TEXT
        judged = items[items["task"] != "order"].assign(canary=lambda t: t["row"])
        main = judged[judged["branch"] == "main"]
        parts = [shares.summarize(judged, by=["task"], unit=unit)]
        if chosen.cohorts is not None:
            parts.append(shares.summarize(judged, by=["task", "cohort"], unit=unit))
        if "exposures" in judged.columns:
            by_exposures = shares.summarize(judged, by=["task", "exposure_bins"], unit=unit)
            parts += [by_exposures, shares.correlations(judged, unit)]
        if unit == "canary":
            canaries = context.need_truth("planted canaries").canaries
            parts.append(shares.burst_gains(main, canaries))
            if context.execution.shard is None:
                last = judged[judged["step"] == context.steps[-1]].drop_duplicates("row").set_index("row")
                counted = last["exposures"].loc[canaries["canary"]].to_numpy(dtype=np.int64)
                compared = declared.summary(compare_with_truth(context, rows.CANARIES, counted))
                parts.append(compared.assign(unit=unit))
        parts.append(shares.branch_differences(judged, self._bases(context), unit))
        if context.execution.shard is None:
            parts += [shares.size_differences(main, unit), *self._along(items, chosen, options)]
            if len(main[["model", "step"]].drop_duplicates()) > 1:
                parts += [predictability(main), scaling(main)]
        if "kind" in judged.columns:
            parts.append(kinds.kind_shares(judged))
        found = tables.concat(parts)
        return found.assign(unit=found["unit"].replace("row", "canary")) if unit == "canary" else found

    def _along(
        self, items: pd.DataFrame, chosen: rows.Selection, options: MemorizationOptions
    ) -> Iterator[pd.DataFrame]:
        """The order test, of consecutive rows at every checkpoint and of evenly spaced ones."""
        block = options.block or BLOCK
        if chosen.consecutive and len(chosen.rows) >= FEWEST * block:
            yield summarize_order(items[items["task"] != "order"], block=block)
        spaced = items[items["task"] == "order"]
        places = np.searchsorted(np.unique(spaced["row"]), spaced["row"])
        yield summarize_order(spaced.assign(row=places), block=options.block or SPACED_BLOCK)

    def _bases(self, context: Context) -> dict[str, str]:
        """Branch → the run it left, of branches that consumed the same rows; of others, numbers name other texts."""
        models = {c.model.name: c.model for c in context.checkpoints}
        pairs = {name: models.get(model.base or "") for name, model in models.items() if model.branch != "main"}
        return {name: base.name for name, base in pairs.items() if base and models[name].order == base.order}

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        things = "canaries" if (items["task"] == rows.CANARIES).any() else "rows"
        share = f"share of {things} memorized"
        upto = "at each model's last step; bars are 95 % intervals."
        wanted: declared.Drawings = {
            "memorization": (plots.memorization, f"Share of {things} memorized over training."),
            "memorization_by_exposures": (
                partial(plots.by_exposures, label=share),
                f"Share of {things} memorized against exposures so far, {upto}"),
            "memorization_over_training": (
                partial(plots.panels_over_training, metric="memorized_share", label=share),
                f"Share of {things} memorized over training, by exposures so far at each checkpoint."),
            "memorization_order": (
                lambda found: plots.poisson_panels(_block_points(items, found)),
                "Memorized rows per block of the training order against a Poisson law of the same mean; points on the "
                "line say that order does not matter."),
            "order_effect": (
                plots.order_effect,
                "Variance over mean of memorized rows per block, with the band that shuffled rows give."),
            "predictability": (
                plots.predictability,
                "Precision and recall of every other checkpoint as a prediction of the one that the title names."),
            "memorization_scaling": (
                plots.memorization_scaling, f"Share of {things} memorized against parameters, by step."),
        }
        if "kind" in items.columns:
            wanted["kinds"] = (plots.memorization_kinds, "Kinds of memorized rows at each model's last step.")
        return declared.figures(summary, wanted)

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        return list(sentences.memorization(summary))

    def exports(self, items: pd.DataFrame, context: Context, options: MemorizationOptions) -> Iterator[Export]:
        judged = items[items["task"] != "order"]
        if "kind" in judged.columns:
            yield Export(Path("kinds.parquet"), kinds.table_of_kinds(judged))
        if options.exchange:
            chosen = rows.select(context, options.rows, options.seed)
            ids = _windows(context, options, chosen)
            yield from public_format.exports(judged, chosen.rows, ids, options.exchange)


def _window(context: Context, options: MemorizationOptions, chosen: rows.Selection) -> Window:
    """The window asked for; ids beyond the tokenizer's do not compete with a canary's."""
    own = context.vocabulary if options.vocabulary is None and chosen.source == rows.CANARIES else options.vocabulary
    return Window(options.context, options.continuation, options.offset, own, options.keep_from)


def _windows(context: Context, options: MemorizationOptions, chosen: rows.Selection) -> np.ndarray:
    """(n, context + continuation) ids of the rows' windows."""
    stop = options.offset + options.context + options.continuation
    return rows.tokens_of(context, chosen, options.rows, stop)[:, options.offset : stop]


def _block_points(items: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Q–Q points of each main model at its last step, for `plots.poisson_panels`. RequestError when there are none."""
    tested = tables.at_last_step(summary[(summary["metric"] == "block_rows") & (summary["branch"] == "main")])
    points = []
    for at in tested.drop_duplicates("model", keep="last").to_dict("records"):
        there = (items["model"] == at["model"]) & (items["step"] == at["step"]) & (items["task"] == at["task"])
        blocks, _ = block_counts(items[there].sort_values("row")["memorized"], int(at["value"]))
        points.append(qq_points(blocks).assign(model=at["model"], params=at["params"]))
    if not points:
        raise RequestError("no checkpoint had whole blocks of rows along the order")
    return pd.concat(points)
