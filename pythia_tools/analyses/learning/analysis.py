"""The learning curve, declared: loss on held-out rows, and on the batches before and after each checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.learning import curves
from pythia_tools.analysis import Analysis, Context, Figure, Options, Sentence, Task, option
from pythia_tools.analysis import words as say
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import at_last_step


@dataclass(frozen=True)
class LearningOptions(Options):
    """What the learning curve looks at."""

    rows: int = option(96, "rows on either side of a checkpoint, and half as many as are held out", minimum=1)


class Learning(Analysis[LearningOptions]):
    """Loss on held-out rows and around each checkpoint.

    examples:
      pythia-tools learning pythia-micro --out runs/learning
      pythia-tools learning pythia-deduped --models 70m 160m --steps 1000,16000,143000 --rows 32 --out runs/loss

    Rows of the batches before and after a checkpoint differ only in having been trained on. Held-out rows are those of
    the order beyond the last step, or the suite's own; a suite without either is measured around its checkpoints only.
    Rows with planted items are left out on either side, because no held-out row holds any: the three are alike.
    """

    name = curves.NAME
    version = 3
    Options = LearningOptions
    metrics = curves.METRICS
    columns = curves.COLUMNS
    shown = ("nll",)
    methods = (
        "Loss is the mean negative log-likelihood in nats per token, over {rows} rows of the batches right before a "
        "checkpoint (just consumed), as many of those right after it (about to be consumed), and held-out rows where "
        "the suite has some. The first two differ only in having been trained on; rows that hold planted items are "
        "left out, so that the third differs from the second in nothing. Intervals are over rows, "
        "of which no two on a side begin in one document."
    )

    def tasks(self, context: Context, options: LearningOptions) -> list[Task]:
        order, rows = context.order, options.rows
        subsets: dict[str, npt.ArrayLike | curves.RowsByStep] = {}
        if context.heldout is not None:
            subsets["heldout"] = context.heldout[: 2 * rows]
        within = [c for c in context.checkpoints if c.step * order.batch_rows <= order.n_rows]
        if within:
            planted = _planted_rows(context)
            batches = max(1, round(rows / order.batch_rows / (1 - len(planted) / order.n_rows)))
            subsets |= curves.before_and_after(order, within, batches=batches, rows=rows, leave_out=planted)
        if not subsets:
            raise RequestError(f"no checkpoint of {context.name} lies within its order; choose earlier --steps")
        return [curves.LossTask(subset, chosen, vocabulary=context.vocabulary) for subset, chosen in subsets.items()]

    def summarize(self, items: pd.DataFrame, context: Context, options: LearningOptions) -> pd.DataFrame:
        return curves.summarize(items)

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        main = summary[summary["branch"] == "main"]
        if len(main):
            yield Figure("loss", plots.learning(main),
                         "Loss over training: held-out rows, rows just consumed, rows about to be consumed.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        main = summary[summary["branch"] == "main"]
        heldout = main[(main["metric"] == "nll") & (main["subset"] == "heldout")]
        return [*_heldout(heldout), *_gap(main[main["metric"] == "nll_gap"])]


def _planted_rows(context: Context) -> np.ndarray:
    """Numbers of the order's rows that hold what was planted there and in no held-out row."""
    known = context.truth is not None and context.truth.about["order_fingerprint"] == context.order.fingerprint
    return context.need_truth("planted rows").planted_rows if known else np.empty(0, np.int64)


def _heldout(heldout: pd.DataFrame) -> Iterator[Sentence]:
    if heldout.empty:
        return
    big = heldout[heldout["model"] == say.largest(heldout)].sort_values("step")
    first, last = say.records(big.iloc[[0, -1]])
    start = f"{say.number(first['value'], '.2f')} nats per token at step {first['step']:,}"
    told, unit = (f"{say.compare_ends(big)} from {start} to", "") if len(big) > 1 else ("is", " nats per token")
    yield Sentence.of(
        f"Held-out loss of {last['model']} {told} {say.number(last['value'], '.2f')}{unit} at step {last['step']:,}.",
        big.iloc[[0, -1]],
    )
    final = say.by_size(at_last_step(heldout))
    if len(final) > 1:
        values = say.listing([f"{r['model']} {say.number(r['value'], '.2f')}" for r in say.records(final)])
        ends = "in the largest model than in the smallest"
        words = (f"higher {ends}", f"lower {ends}", f"not detectably different {ends}", "not defined at both ends")
        told = f" {say.compare_ends(final, words)}:" if say.sized(final) else ""
        yield Sentence.of(f"At the last step it is{told} {values}.", final)


def _gap(gap: pd.DataFrame) -> Iterator[Sentence]:
    if gap.empty:
        return
    read = say.by_size(at_last_step(gap.dropna(subset=["value"]))).tail(1)
    if read.empty:
        return
    (last,) = say.records(read)
    words = ("lower", "higher", "not detectably lower or higher", "lower or higher (no interval says which)")
    word = say.direction(last["value"], last["low"], last["high"], words)
    bounds = say.interval(last, lambda v: f"{v:+.3f}")
    yield Sentence.of(
        f"After step {last['step']:,}, {last['model']}'s loss on the rows it has just consumed is {word} "
        f"than on the rows it is about to consume, by {last['value']:+.3f}{bounds} nats per token.", read,
    )
