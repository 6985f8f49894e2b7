"""Memorization part: are sequences reproduced, against exposures so far, by size and step; does their order matter?

With a truth manifest the sequences are the planted canaries (and controls planted nowhere). Without one they are rows
drawn from the whole order, so that at a checkpoint some were consumed once and the rest not yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools import counts, plots
from pythia_tools.analyses.memorization import MemorizationTask, Window, qq_points, summarize, summarize_order
from pythia_tools.analyses.memorization.order_effect import block_counts
from pythia_tools.core import tables
from pythia_tools.core.statistics import difference, mean, rank_correlation
from pythia_tools.plots import style
from pythia_tools.study.material import ROW_SAMPLE, Material, exposures_of
from pythia_tools.study.parts import Drawing
from pythia_tools.suites.checkpoint import Checkpoint

ORDER_TASK = "order-of-rows"
BLOCK = 128


class LastStepTask(MemorizationTask):
    """Memorization of rows along the training order, at the last checkpoint of each main run only."""

    def __init__(self, last: Mapping[str, int], *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.last = dict(last)

    def key(self, checkpoint: Checkpoint) -> Any:
        return "last" if self.last.get(checkpoint.model.name) == checkpoint.step else None


class MemorizationPart:
    """`sequences` to judge, and evenly spaced rows of the order for the Poisson check."""

    name = "memorization"

    def __init__(
        self, material: Material, steps: Iterable[int], *, context: int = 32, continuation: int = 32, sample: int = 1024, seed: int = 0
    ):
        self.window = Window(context, continuation, vocabulary=material.vocabulary)
        order, truth = material.order, material.truth
        length = context + continuation
        if truth is not None:
            tokens = np.array(truth.canaries["tokens"].tolist(), dtype=np.int64)
            self.ids, self.sequences, self.unit = truth.canaries["canary"].to_numpy(np.int64), tokens[:, :length], "canary"
            patterns = [counts.Ngram(tuple(t)) for t in tokens]
            seen = exposures_of(order, patterns, steps, material.tokenizer)
            self.exposures = seen.assign(row=self.ids[seen["item"]])[["row", "step", "exposures"]]
        else:
            consumed = material.consumed_rows
            self.ids = np.sort(np.random.default_rng(seed).choice(consumed, min(sample, consumed), replace=False))
            self.sequences, self.unit = order.take(self.ids)[:, :length], "row"
            own = order.step_of(self.ids)
            each = [pd.DataFrame({"row": self.ids, "step": s, "exposures": (own < s).astype(int)}) for s in sorted(set(steps))]
            self.exposures = pd.concat(each, ignore_index=True)
        self.planted = truth is not None
        self.bursts = None if truth is None else truth.canaries[["canary", "copies", "burst"]]
        consumed = material.consumed_rows
        spaced = np.linspace(0, consumed - 1, min(ROW_SAMPLE, consumed)).astype(np.int64)
        self.order_rows = order.take(spaced)[:, :length]
        main = [m for m, info in material.suite.models.items() if info.branch == "main"]
        self.last = {m: max(material.suite.steps(m)) for m in main}
        self.method = (
            f"A sequence is memorized when greedy decoding from its first {context} tokens gives exactly the next {continuation}. "
            f"Exposures are counted in the order: occurrences of the whole planted window in rows consumed before the checkpoint. "
            f"Intervals are Wilson's over distinct sequences. The order check looks at {len(self.order_rows):,} evenly spaced rows "
            f"of the training order at the last checkpoint, in blocks of {BLOCK}."
        )

    def tasks(self) -> list[Any]:
        everywhere = MemorizationTask(self.sequences, self.window, row_ids=self.ids, name=self.name)
        return [everywhere, LastStepTask(self.last, self.order_rows, self.window, name=ORDER_TASK)]

    def counted(self) -> pd.DataFrame | None:
        if not self.planted:
            return None
        final = self.exposures[self.exposures["step"] == self.exposures["step"].max()]
        return final.rename(columns={"row": "item"})[["item", "exposures"]].assign(table="canaries")

    def tables(self, result: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
        items = result[self.name].merge(self.exposures, on=["row", "step"], how="left", validate="many_to_one")
        items["exposure_bin"] = exposure_bin(items["exposures"])
        binned = summarize(items.rename(columns={"exposure_bin": "bin"}), by="bin")
        binned["group"] = binned["group"].str.replace("bin=", "exposures=")
        order = result[ORDER_TASK]
        parts = [summarize(items), binned, correlations(items, self.unit), size_differences(items, self.unit),
                 summarize_order(order, block=BLOCK)]
        if self.bursts is not None:
            parts.append(burst_gains(items, self.bursts))
        every = pd.concat([items.assign(part="sequences"), order.assign(part="order")], ignore_index=True)
        return tables.check_items(every), tables.check_summary(pd.concat(parts, ignore_index=True))

    def draw(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Drawing]:
        things = "canaries" if self.planted else "rows"
        share = f"share of {things} memorized"
        yield Drawing("memorization_by_exposures", plots.by_exposures(summary, "memorized_share", label=share),
                      f"Share of {things} memorized against exposures so far, at each model's last step; bars are 95 % intervals.")
        yield Drawing("memorization_over_training", plots.panels_over_training(summary, "memorized_share", label=share),
                      f"Share of {things} memorized over training, by exposures so far at each checkpoint.")
        order = items[items["part"] == "order"]
        if order.empty:
            return
        yield Drawing("memorization_order", self._order_figure(order),
                      "Memorized rows per block of the training order against a Poisson law of the same mean; "
                      "points on the line say that order does not matter.")

    @staticmethod
    def _order_figure(order: pd.DataFrame) -> Any:
        models = style.by_size(order)
        figure, grid = style.panels(len(models))
        for ax, model in zip(grid, models, strict=True):
            rows = order[order["model"] == model].sort_values("row")
            plots.poisson_qq(qq_points(block_counts(rows["memorized"], BLOCK)[0]), ax)
            ax.set(title=style.model_label(model, rows["params"].iloc[0]), xlabel="Poisson quantile", ylabel="")
            legend = ax.get_legend()
            if legend is not None:
                legend.remove()
        grid[0].set_ylabel("memorized rows per block")
        return figure


def exposure_bin(exposures: pd.Series) -> pd.Series:
    """The largest power of two not above each count; 0 stays 0."""
    counts = exposures.to_numpy(np.int64)
    return pd.Series(np.where(counts > 0, 2 ** np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64), 0), index=exposures.index)


def correlations(items: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Within each checkpoint: Spearman's rho of matched continuation tokens with exposures, over sequences."""
    lines = []
    for keys, part in items.groupby(tables.IDENTITY, sort=False, dropna=False):
        known = part[part["matched"].notna()]
        estimate = rank_correlation(known["exposures"], known["matched"].astype(float), unit=unit)
        identity = dict(zip(tables.IDENTITY, keys, strict=True))
        lines.append({**identity, "group": "all", "metric": "spearman_exposures", **estimate.columns()})
    return tables.summary(lines)


def size_differences(items: pd.DataFrame, unit: str) -> pd.DataFrame:
    """At each step, each main model's memorized share minus that of the smallest one, paired by sequence."""
    main = items[(items["branch"] == "main") & items["memorized"].notna()]
    lines = []
    models = style.by_size(main)
    for _, here in main.groupby("step"):
        flags = here.pivot(index="row", columns="model", values="memorized").astype(float)
        identities = here.drop_duplicates("model").set_index("model", drop=False)
        for model in models[1:]:
            if model not in flags or models[0] not in flags:
                continue
            pair = flags[[model, models[0]]].dropna()
            estimate = difference(pair[model], pair[models[0]], unit=unit)
            identity: dict[str, Any] = {c: identities.loc[model, c] for c in tables.IDENTITY}
            lines.append({**identity, "group": f"minus {models[0]}", "metric": "memorized_share_difference", **estimate.columns()})
    return tables.summary(lines)


def burst_gains(items: pd.DataFrame, bursts: pd.DataFrame) -> pd.DataFrame:
    """What a burst of exposures right before a checkpoint leaves: continuation tokens reproduced after it minus before
    it.

    `bursts`: canary, copies, burst (the checkpoint right after its burst, or <NA>). One row per main model, burst
    checkpoint and number of copies; group `burst=COPIES`, bootstrapped over canaries.
    """
    planted = bursts.dropna(subset=["burst"])
    main = items[items["branch"] == "main"]
    lines = []
    for _, here in main.groupby("model", sort=False):
        steps = sorted(int(s) for s in here["step"].unique())
        matched = {s: part.set_index("row")["matched"].astype(float) for s, part in here.groupby("step")}
        for _, chosen in planted.groupby(["burst", "copies"]):
            step, copies = int(chosen["burst"].iloc[0]), int(chosen["copies"].iloc[0])
            earlier = [s for s in steps if s < step]
            if step not in steps or not earlier:
                continue
            rows = chosen["canary"].to_numpy()
            gain = (matched[step].loc[rows] - matched[earlier[-1]].loc[rows]).dropna()
            at = here[here["step"] == step].iloc[0]
            identity: dict[str, Any] = {c: at[c] for c in tables.IDENTITY}
            estimate = mean(gain, unit="canary")
            lines.append({**identity, "group": f"burst={copies}", "metric": "burst_gain", **estimate.columns()})
    return tables.summary(lines)
